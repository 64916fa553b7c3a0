"""Which TFLite operators a node of the Graph becomes: one printer an op, in the table PRINTERS at the end.

Every Graph tensor keeps its name. A tensor that exists in the file only is called by the Graph tensor it serves and a part:

    <output>:padded            a PAD (PADV2 for max_pool) whose explicit padding belongs to the operator that reads it
    <output>:cast :mul :add    the steps of a `table` as arithmetic; its constants are <table>:mul and <table>:add, [1, 1, W, C]
    <output>:index :at         the steps of a `table` as a gather; its constant is <table>:offsets, the flat table keeps its name
    <output>:axes :paddings :lowest :shape :begin :size    small constants that hold an attribute
    <output>:bias              zeros, where a convolution has no bias

so a reader gets the same Graph back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from nestling.errors import UnsupportedOp
from nestling.formats import affine_table
from nestling.formats.tflite.flatbuffer import TYPES, FileTensor, Operator
from nestling.graph import ir
from nestling.graph.ir import Array, Graph, Node, Quant, Sides, Tensor

Printed = tuple[list[Operator], list[FileTensor]]  # what one node becomes: operators, and the tensors only they need
Padded = tuple[str, int, list[Operator], list[FileTensor]]  # what to read, SAME or VALID, and as above
A = TypeVar("A", bound=ir.Attrs)

CODE = schema.BuiltinOperator
CLAMPS: Mapping[ir.Clamp, int] = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


# ---- padding --------------------------------------------------------------------------------------------------------------


def same_padding(size: ir.Pair, window: ir.Pair, stride: ir.Pair, dilation: ir.Pair = (1, 1)) -> Sides:
    """TFLite's SAME: as much padding as makes the output ceil(size / stride), the odd one at the bottom and right."""
    sides: list[int] = []
    for length, k, step, spread in zip(size, window, stride, dilation, strict=True):
        total = max((-(-length // step) - 1) * step + (k - 1) * spread + 1 - length, 0)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def _padded(node: Node, graph: Graph, padding: Sides, same: Sides, *, lowest: bool = False) -> Padded:
    """What the operator reads, SAME or VALID, and the PAD before it where the Graph's padding is neither.

    lowest: pad with the least value rather than with zero (max_pool, where padding never wins).
    """
    x = graph.tensors[node.inputs[0]]
    if padding == (0, 0, 0, 0) or padding == same:
        return x.name, SAME if any(padding) else VALID, [], []
    top, bottom, left, right = padding
    n, height, width, channels = x.shape
    out = FileTensor(f"{node.name}:padded", (n, height + top + bottom, width + left + right, channels), x.dtype, None, x.quant)
    amounts = FileTensor(f"{node.name}:paddings", (4, 2), "int32", _paddings(padding))
    if not lowest:
        return out.name, VALID, [Operator(CODE.PAD, (x.name, amounts.name), (out.name,), schema.PadOptionsT(), 2)], [out, amounts]
    value = np.array([-128], np.int8) if x.dtype == "int8" else np.array([np.finfo(np.float32).min], np.float32)
    fill = FileTensor(f"{node.name}:lowest", (1,), x.dtype, value, x.quant)
    operator = Operator(CODE.PADV2, (x.name, amounts.name, fill.name), (out.name,), schema.PadV2OptionsT(), 2)
    return out.name, VALID, [operator], [out, amounts, fill]


def _paddings(padding: Sides) -> Array:
    top, bottom, left, right = padding
    return np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)


# ---- one printer an op: (node, graph) -> operators and the tensors that only they need ------------------------------------


def _conv2d(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.Conv2d)
    x, weight = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]]
    same = same_padding(_plane(x), (weight.shape[1], weight.shape[2]), a.stride, a.dilation)
    source, padding, operators, tensors = _padded(node, graph, a.padding, same)
    options = schema.Conv2DOptionsT(
        padding=padding,
        strideH=a.stride[0],
        strideW=a.stride[1],
        dilationHFactor=a.dilation[0],
        dilationWFactor=a.dilation[1],
        fusedActivationFunction=CLAMPS[a.clamp],
    )
    grouped = weight.shape[3] != x.shape[3]
    version = 6 if grouped else 3 if x.dtype == "int8" else 1
    zeros = _zero_bias(node, graph)
    inputs = source, *node.inputs[1:], *(bias.name for bias in zeros)
    return [*operators, Operator(CODE.CONV_2D, inputs, node.outputs, options, version)], [*tensors, *zeros]


def _zero_bias(node: Node, graph: Graph) -> list[FileTensor]:
    """Where a convolution has no bias: CONV_2D insists on one, of DEPTHWISE_CONV_2D all but the reference kernels crash without."""
    if len(node.inputs) > 2:
        return []
    x, weight = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]]
    name, shape = f"{node.name}:bias", (weight.shape[ir.OUT_AXIS[node.op]],)
    if not x.quant or not weight.quant:
        return [FileTensor(name, shape, "float32", np.zeros(shape, np.float32))]
    scale, per_channel = (x.quant.scale * weight.quant.scale).astype(np.float32), weight.quant.axis is not None
    quant = Quant(scale, np.zeros_like(weight.quant.zero_point), 0 if per_channel else None)
    return [FileTensor(name, shape, "int32", np.zeros(shape, np.int32), quant)]


def _depthwise_conv2d(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.DepthwiseConv2d)
    x, weight = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]]
    same = same_padding(_plane(x), (weight.shape[1], weight.shape[2]), a.stride, a.dilation)
    source, padding, operators, tensors = _padded(node, graph, a.padding, same)
    options = schema.DepthwiseConv2DOptionsT(
        padding=padding,
        strideH=a.stride[0],
        strideW=a.stride[1],
        depthMultiplier=weight.shape[3] // x.shape[3],
        dilationHFactor=a.dilation[0],
        dilationWFactor=a.dilation[1],
        fusedActivationFunction=CLAMPS[a.clamp],
    )
    version = 3 if x.dtype == "int8" else 2 if a.dilation != (1, 1) else 1
    zeros = _zero_bias(node, graph)
    inputs = source, *node.inputs[1:], *(bias.name for bias in zeros)
    return [*operators, Operator(CODE.DEPTHWISE_CONV_2D, inputs, node.outputs, options, version)], [*tensors, *zeros]


def _fully_connected(node: Node, graph: Graph) -> Printed:
    options = schema.FullyConnectedOptionsT(fusedActivationFunction=CLAMPS[_attrs(node, ir.FullyConnected).clamp])
    weight = graph.tensors[node.inputs[1]]
    per_channel = weight.quant is not None and len(weight.quant.scale) > 1
    version = 12 if per_channel else 6 if len(node.inputs) == 2 else 4 if weight.dtype == "int8" else 1
    return [Operator(CODE.FULLY_CONNECTED, node.inputs, node.outputs, options, version)], []


def _average_pool(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.AveragePool)
    same = same_padding(_plane(graph.tensors[node.inputs[0]]), a.size, a.stride)
    if a.padding not in ((0, 0, 0, 0), same):
        # a PAD would be counted in the mean, and no other operator leaves it out
        raise UnsupportedOp(
            f"average_pool {node.source or node.name}: .tflite has no padding {a.padding} that is not counted, only none or {same}",
            "print another target, or pad before the pool",
        )
    return [_pool(CODE.AVERAGE_POOL_2D, node.inputs[0], node, a, SAME if any(a.padding) else VALID)], []


def _max_pool(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.MaxPool)
    same = same_padding(_plane(graph.tensors[node.inputs[0]]), a.size, a.stride)
    source, padding, operators, tensors = _padded(node, graph, a.padding, same, lowest=True)
    return [*operators, _pool(CODE.MAX_POOL_2D, source, node, a, padding)], tensors


def _pool(code: int, source: str, node: Node, a: ir.AveragePool | ir.MaxPool, padding: int) -> Operator:
    options = schema.Pool2DOptionsT(
        padding=padding,
        strideH=a.stride[0],
        strideW=a.stride[1],
        filterHeight=a.size[0],
        filterWidth=a.size[1],
        fusedActivationFunction=CLAMPS[a.clamp],
    )
    return Operator(code, (source,), node.outputs, options, 2)


def _mean(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.Mean)
    axes = FileTensor(f"{node.name}:axes", (len(a.axes),), "int32", np.array(a.axes, np.int32))
    return [Operator(CODE.MEAN, (*node.inputs, axes.name), node.outputs, schema.ReducerOptionsT(keepDims=a.keep_dims), 2)], [axes]


def _pad(node: Node, graph: Graph) -> Printed:
    amounts = FileTensor(f"{node.name}:paddings", (4, 2), "int32", _paddings(_attrs(node, ir.Pad).padding))
    return [Operator(CODE.PAD, (*node.inputs, amounts.name), node.outputs, schema.PadOptionsT(), 2)], [amounts]


def _pad_channels(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.PadChannels)
    amounts = FileTensor(f"{node.name}:paddings", (4, 2), "int32", np.array([[0, 0]] * 3 + [[a.before, a.after]], np.int32))
    return [Operator(CODE.PAD, (*node.inputs, amounts.name), node.outputs, schema.PadOptionsT(), 2)], [amounts]


def _resize_nearest(node: Node, graph: Graph) -> Printed:
    a = _attrs(node, ir.ResizeNearest)
    size = FileTensor(f"{node.name}:size", (2,), "int32", np.array(a.size, np.int32))
    options = schema.ResizeNearestNeighborOptionsT(alignCorners=a.align_corners, halfPixelCenters=a.half_pixel_centers)
    return [Operator(CODE.RESIZE_NEAREST_NEIGHBOR, (*node.inputs, size.name), node.outputs, options, 3)], [size]


def _slice(node: Node, graph: Graph) -> Printed:
    a, shape = _attrs(node, ir.Slice), graph.tensors[node.name].shape
    begin = np.array([a.begin if axis == a.axis else 0 for axis in range(len(shape))], np.int32)
    first, size = (
        FileTensor(f"{node.name}:{word}", (len(shape),), "int32", data)
        for word, data in (("begin", begin), ("size", np.array(shape, np.int32)))
    )
    return [Operator(CODE.SLICE, (*node.inputs, first.name, size.name), node.outputs, schema.SliceOptionsT(), 2)], [first, size]


def _reshape(node: Node, graph: Graph) -> Printed:
    shape = graph.tensors[node.name].shape
    constant = FileTensor(f"{node.name}:shape", (len(shape),), "int32", np.array(shape, np.int32))
    options = schema.ReshapeOptionsT(newShape=list(shape))
    return [Operator(CODE.RESHAPE, (*node.inputs, constant.name), node.outputs, options)], [constant]


def _table(node: Node, graph: Graph) -> Printed:
    x, table, out = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]], graph.tensors[node.name]
    assert table.data is not None  # spec.py: a table is a constant
    constants = affine_table.affine(table.data, out.quant)
    width, channels = x.shape[2], x.shape[3]
    wide = (1, 1, width, channels)
    if constants is None:
        offsets = np.tile(np.arange(channels, dtype=np.int32) * 256, width).reshape(wide)
        flat = FileTensor(table.name, (channels * 256,), table.dtype, table.data.reshape(-1), out.quant)
        return [
            Operator(CODE.CAST, (x.name,), (f"{out.name}:index",), _cast("int32")),
            Operator(CODE.ADD, (f"{out.name}:index", f"{table.name}:offsets"), (f"{out.name}:at",), schema.AddOptionsT()),
            Operator(CODE.GATHER, (flat.name, f"{out.name}:at"), (out.name,), schema.GatherOptionsT(axis=0), 2),
        ], [
            FileTensor(f"{out.name}:index", x.shape, "int32"),
            FileTensor(f"{table.name}:offsets", wide, "int32", offsets),
            FileTensor(f"{out.name}:at", x.shape, "int32"),
            flat,
        ]
    mul, add = (np.tile(constant, width).reshape(wide) for constant in constants)
    integer = out.quant is not None
    last = f"{out.name}:add" if integer else out.name
    operators = [
        Operator(CODE.CAST, (x.name,), (f"{out.name}:cast",), _cast("float32")),
        Operator(CODE.MUL, (f"{out.name}:cast", f"{table.name}:mul"), (f"{out.name}:mul",), schema.MulOptionsT()),
        Operator(CODE.ADD, (f"{out.name}:mul", f"{table.name}:add"), (last,), schema.AddOptionsT()),
    ]
    tensors = [
        FileTensor(f"{out.name}:cast", x.shape, "float32"),
        FileTensor(f"{table.name}:mul", wide, "float32", mul),
        FileTensor(f"{out.name}:mul", x.shape, "float32"),
        FileTensor(f"{table.name}:add", wide, "float32", add),
    ]
    if not integer:
        return operators, tensors
    operators.append(Operator(CODE.QUANTIZE, (last,), (out.name,), schema.QuantizeOptionsT()))
    return operators, [*tensors, FileTensor(last, x.shape, "float32")]


def _cast(to: str) -> object:
    return schema.CastOptionsT(inDataType=TYPES["uint8"], outDataType=TYPES[to])


def _batch_norm(node: Node, graph: Graph) -> Printed:
    raise UnsupportedOp(f"batch_norm {node.source or node.name} is still in the graph; .tflite has none", "fold it: passes.py")


def _plain(code: int, version: int, options: Callable[[Node], object]) -> Callable[[Node, Graph], Printed]:
    """The printer of an op that is one operator over the same tensors."""
    return lambda node, graph: ([Operator(code, node.inputs, node.outputs, options(node), version)], [])


PRINTERS: Mapping[str, Callable[[Node, Graph], Printed]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "fully_connected": _fully_connected,
    "add": _plain(CODE.ADD, 2, lambda n: schema.AddOptionsT(fusedActivationFunction=CLAMPS[_attrs(n, ir.Add).clamp])),
    "mul": _plain(CODE.MUL, 2, lambda n: schema.MulOptionsT(fusedActivationFunction=CLAMPS[_attrs(n, ir.Mul).clamp])),
    "average_pool": _average_pool,
    "max_pool": _max_pool,
    "mean": _mean,
    "pad": _pad,
    "pad_channels": _pad_channels,
    "resize_nearest": _resize_nearest,
    "concat": _plain(CODE.CONCATENATION, 2, lambda n: schema.ConcatenationOptionsT(axis=_attrs(n, ir.Concat).axis)),
    "slice": _slice,
    "reshape": _reshape,
    "softmax": _plain(CODE.SOFTMAX, 2, lambda n: schema.SoftmaxOptionsT(beta=_attrs(n, ir.Softmax).beta)),
    "hard_swish": _plain(CODE.HARD_SWISH, 1, lambda n: schema.HardSwishOptionsT()),
    "leaky_relu": _plain(CODE.LEAKY_RELU, 2, lambda n: schema.LeakyReluOptionsT(alpha=_attrs(n, ir.LeakyRelu).alpha)),
    "logistic": _plain(CODE.LOGISTIC, 2, lambda n: None),
    "gelu": _plain(CODE.GELU, 2, lambda n: schema.GeluOptionsT(approximate=_attrs(n, ir.Gelu).approximate)),
    "quantize": _plain(CODE.QUANTIZE, 2, lambda n: schema.QuantizeOptionsT()),
    "dequantize": _plain(CODE.DEQUANTIZE, 2, lambda n: schema.DequantizeOptionsT()),
    "table": _table,
    "batch_norm": _batch_norm,
}


def _attrs(node: Node, kind: type[A]) -> A:
    assert isinstance(node.attrs, kind)  # spec.py: an op has its own attributes
    return node.attrs


def _plane(x: Tensor) -> ir.Pair:
    return x.shape[1], x.shape[2]
