"""Networks as .tflite that do something to their image before the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestling.graph.ir import Quant
from tests.helpers.tflite_files import CODE, activation, constant, file, ints, op, quant

SIDE = 9
OPTIONS = {
    CODE.MUL: schema.MulOptionsT, CODE.ADD: schema.AddOptionsT, CODE.SUB: schema.SubOptionsT, CODE.DIV: schema.DivOptionsT,
    CODE.PAD: schema.PadOptionsT, CODE.CAST: schema.CastOptionsT, CODE.RESIZE_BILINEAR: schema.ResizeBilinearOptionsT,
    CODE.QUANTIZE: schema.QuantizeOptionsT, CODE.DEQUANTIZE: schema.DequantizeOptionsT,
}  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """One operator before the first layer. value: its constant, a number or one a channel, of so many axes; of -1: one a place.
    left: the constant is the first operand. scale: of a QUANTIZE, (scale, zero point)."""

    code: int
    value: tuple[float, ...] = ()
    axes: int = 0
    left: bool = False
    scale: tuple[float, int] = (1.0, 0)


def network(pieces: Sequence[Piece], channels: int = 3, start: str = "float32", q: Quant | None = None) -> bytes:
    """x [1, 9, 9, C] -> the pieces -> conv 3x3 (SAME) -> MEAN -> FULLY_CONNECTED, 4 classes."""
    rng = np.random.default_rng(5)
    tensors, operators = [activation("x", (1, SIDE, SIDE, channels), q, start)], []
    name, side, dtype = "x", SIDE, start
    for i, piece in enumerate(pieces):
        out, inputs, options = f"p{i}", name, OPTIONS[piece.code]()
        out_quant = None
        match piece.code:
            case CODE.PAD:
                tensors.append(constant(f"k{i}", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32)))
                inputs, side = f"{name} k{i}", side + 2
            case CODE.RESIZE_BILINEAR:
                tensors.append(ints(f"k{i}", side, side))
                inputs = f"{name} k{i}"
            case CODE.CAST:
                dtype = "float32"
            case CODE.QUANTIZE:
                dtype, out_quant = "int8", quant(*piece.scale)
            case CODE.DEQUANTIZE:
                dtype = "float32"
            case _:
                shape = () if piece.axes == 0 else (*(1,) * (piece.axes - 1), len(piece.value))
                shape = (1, SIDE, SIDE, channels) if piece.axes < 0 else shape
                tensors.append(constant(f"k{i}", np.array(piece.value, np.float32).reshape(shape)))
                inputs = f"k{i} {name}" if piece.left else f"{name} k{i}"
        tensors.append(activation(out, (1, side, side, channels), out_quant, dtype))
        operators.append(op(piece.code, inputs, out, options))
        name = out
    assert dtype == "float32"
    conv = schema.Conv2DOptionsT(padding=0, strideH=2, strideW=2, dilationHFactor=1, dilationWFactor=1)
    small = -(-side // 2)
    tensors += [
        constant("w", rng.normal(0, 0.4, (8, 3, 3, channels)).astype(np.float32)), constant("b", np.ones(8, np.float32)),
        activation("c", (1, small, small, 8)), ints("axes", 1, 2), activation("m", (1, 8)),
        constant("v", rng.normal(0, 1, (4, 8)).astype(np.float32)), constant("d", np.zeros(4, np.float32)), activation("y", (1, 4)),
    ]  # fmt: skip
    conv.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    operators += [
        op(CODE.CONV_2D, f"{name} w b", "c", conv), op(CODE.MEAN, "c axes", "m", schema.ReducerOptionsT()),
        op(CODE.FULLY_CONNECTED, "m v d", "y", schema.FullyConnectedOptionsT()),
    ]  # fmt: skip
    return file(tensors, operators)
