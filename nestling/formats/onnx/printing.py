"""A Graph as an .onnx file.

An int8 Graph is printed as QDQ: QuantizeLinear and DequantizeLinear around float operators, with the Graph's integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import onnx
from onnx import TensorProto, helper

from nestling.formats.about import About, to_json
from nestling.formats.onnx.file import ABOUT
from nestling.formats.onnx.pieces import NCHW, NHWC, Page, Piece, Pieces, dequantized, stored, transposed
from nestling.formats.onnx.print_operators import PRINTERS
from nestling.graph.ir import Graph, Tensor
from nestling.printable import json_text
from nestling.words import OnnxWeights

OPSET, IR_VERSION = 21, 10  # ONNX Runtime and OpenVINO fuse the same with opsets 17 to 23; 21 is the first made for IR version 10
TYPES = {"float32": TensorProto.FLOAT, "int8": TensorProto.UINT8, "uint8": TensorProto.UINT8}  # of activations, as they are printed


# ---- printing -------------------------------------------------------------------------------------------------------------------


def print_graph(graph: Graph, what: About, weights: OnnxWeights = "uint8") -> bytes:
    """A Graph as the bytes of an .onnx file; the same Graph gives the same bytes.

    graph: valid, as spec.py has it, float or int8. The file takes the Graph's inputs (uint8 [1, H, W, C]; an int8 input as uint8,
    128 higher) and gives its outputs as float32 in the Graph's order; an int8 output T is called T:real, a four-dimensional one
    T:nhwc.
    what: goes into metadata_props, "nestling" as JSON and "labels" as a JSON list for other tools.
    weights: how int8 weights are stored. "uint8", 128 higher with zero point 128, is exact everywhere. "int8" is quicker where the
    processor sums products of bytes in 32 bits (VNNI, AMX); other x86 processors add pairs in saturating int16, and answer wrongly.
    Raises UnsupportedOp for batch_norm.
    """
    page = Page(graph, weights, _mark(graph))
    pieces = _alive([*_inputs(page), *_nodes(page), *_outputs(page)], [_given(page, name) for name in graph.outputs])
    tensors = graph.tensors
    body = helper.make_graph(
        [piece for piece in pieces if isinstance(piece, onnx.NodeProto)],
        "nestling",
        [_value(name, TYPES[tensors[name].dtype], tensors[name].shape) for name in graph.inputs],
        [_value(_given(page, name), TensorProto.FLOAT, tensors[name].shape) for name in dict.fromkeys(graph.outputs)],
        [piece for piece in pieces if isinstance(piece, onnx.TensorProto)],
        value_info=[_value(tensor.name, TensorProto.UINT8, stored(tensor.shape)) for tensor in _integers(graph)],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(body, opset_imports=[opset], ir_version=IR_VERSION, producer_name="nestling")
    helper.set_model_props(model, {ABOUT: to_json(what), "labels": json_text(what.labels)})
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _mark(graph: Graph) -> str:
    """The fewest colons that no name of the Graph's holds."""
    marks = (":" * length for length in count(1))
    return next(mark for mark in marks if not any(mark in name for name in graph.tensors))


def _inputs(page: Page) -> Pieces:
    """Images are transposed as bytes, which is cheaper than as numbers."""
    for name in page.graph.inputs:
        inside, quant = page.inside(name), page.graph.tensors[name].quant
        if inside != name:
            yield transposed(name, inside, NCHW, page.part(name, "order"))
        if quant is not None:
            yield from dequantized(page, inside, page.real(name), quant, page.part(name, "dequantize"))


def _nodes(page: Page) -> Pieces:
    for node in page.graph.nodes:
        yield from PRINTERS[node.op](page, node)


def _outputs(page: Page) -> Pieces:
    for name in dict.fromkeys(page.graph.outputs):
        if _given(page, name) != page.real(name):
            yield transposed(page.real(name), _given(page, name), NHWC, page.part(name, "give"))


def _given(page: Page, name: str) -> str:
    """What the file calls an output: its real numbers in the Graph's order."""
    return page.part(name, "nhwc") if len(page.graph.tensors[name].shape) == 4 else page.real(name)


def _alive(pieces: list[Piece], outputs: list[str]) -> list[Piece]:
    """Without the real numbers that nobody reads: integers that only `dequantize` reads, or nothing at all."""
    read = {*outputs, *(name for piece in pieces if isinstance(piece, onnx.NodeProto) for name in piece.input)}
    kept = [piece for piece in pieces if not (isinstance(piece, onnx.NodeProto) and _is_idle(piece, read))]
    read = {name for piece in kept if isinstance(piece, onnx.NodeProto) for name in piece.input}
    return [piece for piece in kept if isinstance(piece, onnx.NodeProto) or piece.name in read]


def _is_idle(node: onnx.NodeProto, read: set[str]) -> bool:
    return node.op_type == "DequantizeLinear" and node.output[0] not in read


def _integers(graph: Graph) -> Iterator[Tensor]:
    """What nodes write in int8: listed in the file as value_info, where `activations` finds it."""
    return (graph.tensors[node.name] for node in graph.nodes if graph.tensors[node.name].dtype == "int8")


def _value(name: str, kind: int, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


# ---- running --------------------------------------------------------------------------------------------------------------------


# ---- the inside -----------------------------------------------------------------------------------------------------------------
