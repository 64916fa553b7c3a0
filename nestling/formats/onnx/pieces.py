"""What ONNX files are put together from: operators and initialisers, and how they are named.

Inside a file images are NCHW, since Conv wants them so; what has no four dimensions keeps the Graph's order. Every int8 activation
stands there as uint8, value and zero point 128 higher (the same real numbers): ONNX Runtime on x86 and OpenVINO make integer
convolutions of uint8 activations, of int8 ones they leave part in float. Such a tensor T is

    T:float -> QuantizeLinear -> T -> DequantizeLinear -> T:real

around float operators, which the runtimes fuse into integer ones. What the file needs besides the Graph's own is called by the
Graph tensor it serves, a mark (":") and a part. No initialiser is read twice, as ONNX Runtime's session.x64quantprecision wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nestling.graph import ir
from nestling.graph.fixed_point import clamp_range
from nestling.graph.ir import Array, Graph, Node, Quant
from nestling.words import OnnxWeights

Piece: TypeAlias = onnx.NodeProto | onnx.TensorProto
Pieces = Iterator[Piece]  # operators in running order, with their initialisers
Order = tuple[int, ...]

NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)  # from the Graph's order to the file's, and back


@dataclass(frozen=True, eq=False)
class Page:
    """What every printer needs. mark: stands between a Graph name and a part; no Graph name holds it."""

    graph: Graph
    weights: OnnxWeights
    mark: str

    def part(self, name: str, part: str) -> str:
        """The name of what serves `name`."""
        return f"{name}{self.mark}{part}"

    def inside(self, name: str) -> str:
        """The activation in the file's order; an image that comes in is transposed first."""
        image = name in self.graph.inputs and len(self.graph.tensors[name].shape) == 4
        return self.part(name, "nchw") if image else name

    def real(self, name: str) -> str:
        """The activation's real numbers in the file's order."""
        return self.part(name, "real") if self.graph.tensors[name].quant is not None else self.inside(name)

    def result(self, node: Node, clamp: ir.Clamp = "none") -> str:
        """What the node's float operator writes, for `finished` to go on from."""
        if self.graph.tensors[node.name].quant is not None:
            return self.part(node.name, "float")
        return node.name if clamp == "none" else self.part(node.name, "unclamped")


def operator(kind: str, inputs: Sequence[str], output: str, name: str, **attributes: Any) -> onnx.NodeProto:
    """One ONNX operator with one output."""
    return helper.make_node(kind, inputs, [output], name=name, **attributes)


def initialiser(name: str, values: Array) -> onnx.TensorProto:
    """A constant; a number alone has no dimensions."""
    return numpy_helper.from_array(np.array(values, order="C"), name)


# ---- order ----------------------------------------------------------------------------------------------------------------------


def order_of(rank: int) -> Order:
    """Which dimension of the Graph's stands at each place in the file."""
    return NCHW if rank == 4 else tuple(range(rank))


def stored(shape: Sequence[int]) -> tuple[int, ...]:
    """A Graph shape as it is in the file."""
    return tuple(shape[axis] for axis in order_of(len(shape)))


def transposed(source: str, target: str, order: Order, name: str) -> onnx.NodeProto:
    """Dimension order[i] of the source at place i."""
    return operator("Transpose", (source,), target, name, perm=order)


def reshaped(page: Page, source: str, target: str, old: Sequence[int], new: Sequence[int], name: str = "") -> Pieces:
    """The same numbers in the Graph's order, in another shape. old, new: Graph shapes. name: of the Reshape itself."""
    if not _one_order(old):
        yield transposed(source, page.part(target, "flat"), NHWC, page.part(target, "flatten"))
        source = page.part(target, "flat")
    shape, direct = page.part(target, "shape"), _one_order(new)
    result = target if direct else page.part(target, "shaped")
    yield initialiser(shape, np.array(stored(new) if direct else new, np.int64))
    yield operator("Reshape", (source, shape), result, name or page.part(target, "reshape"))
    if not direct:
        yield transposed(result, target, NCHW, page.part(target, "order"))


def _one_order(shape: Sequence[int]) -> bool:
    """Whether the Graph's order and the file's are the same row of numbers."""
    return len(shape) != 4 or shape[3] == 1 or shape[1] * shape[2] == 1


# ---- integers -------------------------------------------------------------------------------------------------------------------


def unsigned(values: Array) -> Array:
    """int8 -> uint8, 128 higher."""
    return (values.astype(np.int16) + 128).astype(np.uint8)


def signed(values: Array) -> Array:
    """uint8 -> int8, 128 lower."""
    return (values.astype(np.int16) - 128).astype(np.int8)


def quantized(page: Page, source: str, target: str, quant: Quant, name: str) -> Pieces:
    """Real numbers -> uint8: the nearest step, halves to even."""
    yield from _grid(page, quant, "uint8", name)
    yield operator("QuantizeLinear", _with_grid(page, source, name), target, name)


def dequantized(page: Page, source: str, target: str, quant: Quant, name: str, kind: OnnxWeights = "uint8") -> Pieces:
    """uint8 or int8 -> real numbers; a quant per channel is along axis 0."""
    yield from _grid(page, quant, kind, name)
    yield operator("DequantizeLinear", _with_grid(page, source, name), target, name, **along(quant))


def along(quant: Quant) -> Mapping[str, int]:
    """DequantizeLinear's attributes."""
    return {} if quant.axis is None else {"axis": 0}


def number_or_row(values: Array, quant: Quant) -> Array:
    """A scale or zero point as QuantizeLinear wants it: without dimensions per tensor, [C] per channel."""
    return values.reshape(()) if quant.axis is None else values


def _grid(page: Page, quant: Quant, kind: OnnxWeights, name: str) -> Pieces:
    zero_point = quant.zero_point.astype(np.int8)
    yield initialiser(page.part(name, "scale"), number_or_row(quant.scale, quant))
    yield initialiser(page.part(name, "zero_point"), number_or_row(AS[kind](zero_point), quant))


def _with_grid(page: Page, source: str, name: str) -> tuple[str, str, str]:
    return source, page.part(name, "scale"), page.part(name, "zero_point")


AS: Mapping[OnnxWeights, Callable[[Array], Array]] = {
    "uint8": unsigned,
    "int8": lambda values: values,
}  # how the Graph's int8 constants are stored


# ---- how a node ends ------------------------------------------------------------------------------------------------------------


def finished(page: Page, node: Node, clamp: ir.Clamp = "none", grid: Quant | None = None) -> Pieces:
    """From page.result(node, clamp) to the node's tensor: clamp, integers, and their real numbers again.

    grid: what is rounded to, where that is not the tensor's own quant.
    Most clamps of integers are what uint8 can't hold anyway, and cost nothing. The others are a Clip of the integers, which is
    exact; a Clip or Relu of real numbers would keep ONNX Runtime from fusing the operator with its QuantizeLinear.
    """
    out = page.graph.tensors[node.name]
    source = page.result(node, clamp)
    if out.quant is None:
        yield from CLAMPS[clamp](page, source, out.name)
        return
    limits = unsigned(np.array(clamp_range(clamp, out.quant)))
    cut = bool(limits[0] > 0 or limits[1] < 255)
    target = page.part(out.name, "unclamped") if cut else out.name
    yield from quantized(page, source, target, grid or out.quant, page.part(out.name, "quantize"))
    if cut:
        yield from clipped(page, target, out.name, limits)
    yield from dequantized(page, out.name, page.real(out.name), out.quant, page.part(out.name, "dequantize"))


def _relu(page: Page, source: str, target: str) -> Pieces:
    yield operator("Relu", (source,), target, page.part(target, "clamp"))


def clipped(page: Page, source: str, target: str, limits: Array, name: str = "") -> Pieces:
    """Held between the two limits, which have the values' type. name: of the Clip itself."""
    low, high = page.part(target, "low"), page.part(target, "high")
    yield initialiser(low, limits[0])
    yield initialiser(high, limits[1])
    yield operator("Clip", (source, low, high), target, name or page.part(target, "clamp"))


CLAMPS: Mapping[ir.Clamp, Callable[[Page, str, str], Pieces]] = {  # of real numbers: (page, source, target)
    "none": lambda page, source, target: iter(()),
    "relu": _relu,
    "relu6": lambda page, source, target: clipped(page, source, target, np.array([0, 6], np.float32)),
}
