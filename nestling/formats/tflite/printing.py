"""A Graph as the bytes of a .tflite file, straight from the flatbuffer schema; in half precision and dynamic range, too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestling.errors import NestlingError
from nestling.formats.tflite import metadata
from nestling.formats.tflite.flatbuffer import FileTensor, Listing, Operator, write
from nestling.formats.tflite.print_operators import CODE, PRINTERS
from nestling.graph.ir import Graph, Node, Quant, Tensor

Precision = Literal["as-is", "fp16", "dynamic"]

LAYERS = ("conv2d", "depthwise_conv2d", "fully_connected")
WEIGHTED = (CODE.CONV_2D, CODE.DEPTHWISE_CONV_2D, CODE.FULLY_CONNECTED)  # the same, as operators
SMALLEST_DYNAMIC = 1024  # elements; smaller weights stay float: quantising the input would cost more than they save
LARGEST_HALF = float(np.finfo(np.float16).max)


def print_graph(
    graph: Graph,
    precision: Precision = "as-is",
    *,
    labels: Sequence[str] = (),
    preprocess: Mapping[str, object] | None = None,
    learned_from: Mapping[str, object] | None = None,
    name: str = "nestling",
) -> bytes:
    """A Graph as the bytes of a .tflite file.

    graph: valid, as spec.py has it.
    precision: "as-is" prints the Graph's own types. A float32 Graph may also be printed as "fp16" (weights and biases in half
    precision behind DEQUANTIZE) or "dynamic" (int8 weights, symmetric per output channel; activations stay float, the kernels
    quantise them as they come).
    A Graph that was read from an old uint8 network is printed as uint8 again: only those kernels read a weight's zero point.
    labels, preprocess and learned_from (plain JSON values), name: written into the file as metadata, see metadata.py.
    Raises UnsupportedOp for batch_norm and for average_pool with padding that is neither SAME nor VALID; NestlingError where a
    Graph that is already int8 is asked for in another precision.
    """
    if precision != "as-is" and any(tensor.dtype == "int8" for tensor in graph.tensors.values()):
        raise NestlingError(f"an int8 graph cannot be printed as {precision}", f"print {precision} from the float bundle")
    printed = [PRINTERS[node.op](node, graph) for node in graph.nodes]
    operators = tuple(operator for some, _ in printed for operator in some)
    tensors = {tensor.name: _file_tensor(tensor) for tensor in graph.tensors.values()}
    tensors |= {tensor.name: tensor for _, some in printed for tensor in some}
    listing = REWRITES[precision](Listing(tensors, operators, graph.inputs, graph.outputs))
    if any(_unsigned(node, graph) for node in graph.nodes):
        listing = as_uint8(listing)
    entries = metadata.entries(graph, labels, preprocess, learned_from or {}, name)
    return metadata.with_labels_file(write(_only_used(listing), entries), labels)


def _file_tensor(tensor: Tensor) -> FileTensor:
    return FileTensor(tensor.name, tensor.shape, tensor.dtype, tensor.data, tensor.quant)


def _only_used(listing: Listing) -> Listing:
    """Without the tensors that nothing touches: a table that became arithmetic is no longer there."""
    used = {name for operator in listing.operators for name in operator.inputs + operator.outputs}
    used |= {*listing.inputs, *listing.outputs}
    return replace(listing, tensors={name: tensor for name, tensor in listing.tensors.items() if name in used})


# ---- precisions: Listing -> Listing ---------------------------------------------------------------------------------------


def as_fp16(listing: Listing) -> Listing:
    """Weights and biases of layers in half precision, each behind a DEQUANTIZE that gives the float tensor its name back.

    A constant with values beyond 65,504 stays as it is.
    """
    halves: dict[str, FileTensor] = {}
    for name in _float_constants(listing, slice(1, 3)):
        data = listing.tensors[name].data
        assert data is not None
        if np.abs(data).max(initial=0) <= LARGEST_HALF:
            halves[name] = replace(listing.tensors[name], name=f"{name}:fp16", dtype="float16", data=data.astype(np.float16))
    unpack = [Operator(CODE.DEQUANTIZE, (half.name,), (name,), schema.DequantizeOptionsT(), 3) for name, half in halves.items()]
    tensors = {name: replace(tensor, data=None) if name in halves else tensor for name, tensor in listing.tensors.items()}
    tensors |= {half.name: half for half in halves.values()}
    return replace(listing, tensors=tensors, operators=(*unpack, *listing.operators))


def as_dynamic(listing: Listing) -> Listing:
    """Weights of 1,024 elements and more in int8, symmetric per output channel; LiteRT's hybrid kernels do the rest.

    Grouped convolutions stay float: their hybrid kernels do not know groups.
    """
    tensors = dict(listing.tensors)
    for operator in listing.operators:
        for name in _float_constants(replace(listing, operators=(operator,)), slice(1, 2)):
            grouped = operator.code == CODE.CONV_2D and tensors[name].shape[3] != tensors[operator.inputs[0]].shape[3]
            if np.prod(tensors[name].shape) >= SMALLEST_DYNAMIC and not grouped:
                tensors[name] = _int8_weight(tensors[name], axis=3 if operator.code == CODE.DEPTHWISE_CONV_2D else 0)
    hybrid = {CODE.CONV_2D: 5, CODE.DEPTHWISE_CONV_2D: 6, CODE.FULLY_CONNECTED: 12}
    operators = tuple(
        replace(operator, version=hybrid[operator.code])
        if operator.code in hybrid and tensors[operator.inputs[1]].dtype == "int8"
        else operator
        for operator in listing.operators
    )
    return replace(listing, tensors=tensors, operators=operators)


REWRITES: Mapping[Precision, Callable[[Listing], Listing]] = {
    "as-is": lambda listing: listing,
    "fp16": as_fp16,
    "dynamic": as_dynamic,
}


def _float_constants(listing: Listing, places: slice) -> list[str]:
    """Names of float32 constants that layers read as weight (place 1) or bias (place 2); each once, in order."""
    names = [name for operator in listing.operators if operator.code in WEIGHTED for name in operator.inputs[places]]
    return [name for name in dict.fromkeys(names) if (t := listing.tensors[name]).data is not None and t.dtype == "float32"]


def _int8_weight(weight: FileTensor, axis: int) -> FileTensor:
    data = np.asarray(weight.data, np.float32)
    others = tuple(i for i in range(data.ndim) if i != axis)
    largest = np.maximum(np.abs(data).max(axis=others), np.float32(1e-10))  # a channel may be all zero
    scale = (largest / np.float32(127)).astype(np.float32)
    per_channel = scale.reshape([-1 if i == axis else 1 for i in range(data.ndim)])
    quantized = np.clip(np.rint(data / per_channel), -127, 127).astype(np.int8)
    return replace(weight, dtype="int8", data=quantized, quant=Quant(scale, np.zeros(len(scale), np.int32), axis))


# ---- networks of the uint8 age --------------------------------------------------------------------------------------------


def _unsigned(node: Node, graph: Graph) -> bool:
    """Whether only uint8 kernels compute what the node says: it is marked, or its weight has a zero point."""
    if getattr(node.attrs, "unsigned", False):
        return True
    quant = graph.tensors[node.inputs[1]].quant if node.op in LAYERS else None
    return quant is not None and bool(quant.zero_point.any())


def as_uint8(listing: Listing) -> Listing:
    """Every int8 tensor as uint8, values and zero points 128 higher: the same real numbers."""
    return replace(listing, tensors={name: _shifted(tensor) for name, tensor in listing.tensors.items()})


def _shifted(tensor: FileTensor) -> FileTensor:
    if tensor.dtype != "int8":
        return tensor
    data = None if tensor.data is None else (tensor.data.astype(np.int16) + 128).astype(np.uint8)
    quant = None if tensor.quant is None else replace(tensor.quant, zero_point=tensor.quant.zero_point + np.int32(128))
    return replace(tensor, dtype="uint8", data=data, quant=quant)


# ---- running --------------------------------------------------------------------------------------------------------------
