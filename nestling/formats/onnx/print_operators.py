"""Which ONNX operators a node of the Graph becomes: one printer an op, in the table PRINTERS at the end.

The operator that does a node's work is called as the node is; names and order of everything else: onnx_pieces.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import numpy as np

from nestling.errors import UnsupportedOp
from nestling.formats import affine_table
from nestling.formats.onnx.pieces import (
    AS,
    NCHW,
    Order,
    Page,
    Piece,
    Pieces,
    along,
    clipped,
    dequantized,
    finished,
    initialiser,
    number_or_row,
    operator,
    order_of,
    quantized,
    reshaped,
    transposed,
    unsigned,
)
from nestling.graph import ir
from nestling.graph.ir import Array, Node, Tensor
from nestling.graph.windows import nearest_places

Printer = Callable[[Page, Node], Pieces]
A = TypeVar("A", bound=ir.Attrs)

# weights with the output channels first: from OHWI, 1HWO and OI
OUTPUT_FIRST: Mapping[str, Order] = {"conv2d": NCHW, "depthwise_conv2d": (3, 0, 1, 2), "fully_connected": (0, 1)}
TYPES = {"float32": 1, "int32": 6}  # onnx.TensorProto.DataType, for Cast


# ---- layers with weights --------------------------------------------------------------------------------------------------------


def _conv(page: Page, node: Node) -> Pieces:
    a = node.attrs
    assert isinstance(a, ir.Conv2d | ir.DepthwiseConv2d)
    x, weight = (page.graph.tensors[name] for name in node.inputs[:2])
    _, depth, *kernel = (weight.shape[axis] for axis in OUTPUT_FIRST[node.op])
    windows = {"kernel_shape": kernel, "strides": a.stride, "dilations": a.dilation, "pads": _pads(a.padding)}
    yield from _layer(page, node, "Conv", a.clamp, group=x.shape[3] // depth, **windows)


def _fully_connected(page: Page, node: Node) -> Pieces:
    yield from _layer(page, node, "Gemm", _attrs(node, ir.FullyConnected).clamp, transB=1)


def _layer(page: Page, node: Node, kind: str, clamp: ir.Clamp, **attributes: Any) -> Pieces:
    """x, weight and bias, where there is one."""
    constants = [page.graph.tensors[name] for name in node.inputs[1:]]
    names = [page.part(node.name, part) for part in ("weight", "bias")[: len(constants)]]
    for tensor, name, write in zip(constants, names, (_weight, _bias), strict=False):
        yield from write(page, node, tensor, name)
    yield operator(kind, (page.real(node.inputs[0]), *names), page.result(node, clamp), node.name, **attributes)
    yield from finished(page, node, clamp)


def _weight(page: Page, node: Node, weight: Tensor, name: str) -> Pieces:
    values = _data(weight).transpose(OUTPUT_FIRST[node.op])
    if weight.quant is None:
        yield initialiser(name, values)
        return
    integers = page.part(name, "integers")
    yield initialiser(integers, AS[page.weights](values))
    yield from dequantized(page, integers, name, weight.quant, page.part(name, "dequantize"), page.weights)


def _bias(page: Page, node: Node, bias: Tensor, name: str) -> Pieces:
    """int32 needs no zero point."""
    if bias.quant is None:
        yield initialiser(name, _data(bias))
        return
    integers, scale = page.part(name, "integers"), page.part(name, "scale")
    yield initialiser(integers, _data(bias))
    yield initialiser(scale, number_or_row(bias.quant.scale, bias.quant))
    yield operator("DequantizeLinear", (integers, scale), name, page.part(name, "dequantize"), **along(bias.quant))


# ---- several inputs -------------------------------------------------------------------------------------------------------------


def _elementwise(kind: str) -> Printer:
    def print_it(page: Page, node: Node) -> Pieces:
        a = node.attrs
        assert isinstance(a, ir.Add | ir.Mul)
        names = yield from _operands(page, node)
        yield operator(kind, names, page.result(node, a.clamp), node.name)
        yield from finished(page, node, a.clamp)

    return print_it


def _concat(page: Page, node: Node) -> Pieces:
    place = order_of(len(page.graph.tensors[node.name].shape)).index(_attrs(node, ir.Concat).axis)
    names = yield from _operands(page, node)
    yield operator("Concat", names, page.result(node), node.name, axis=place)
    yield from finished(page, node)


def _operands(page: Page, node: Node) -> Generator[Piece, None, list[str]]:
    """The inputs, constants among them, with as many dimensions as the output. Returns the names of their real numbers."""
    rank, names = len(page.graph.tensors[node.name].shape), []
    for place, name in enumerate(node.inputs):
        tensor, own = page.graph.tensors[name], page.part(node.name, f"input{place}")
        shape = (1,) * (rank - len(tensor.shape)) + tensor.shape
        if tensor.data is not None:
            yield from _constant(page, tensor, tensor.data.reshape(shape).transpose(order_of(rank)), own)
        elif shape != tensor.shape:
            yield from reshaped(page, page.real(name), own, tensor.shape, shape)
        else:
            own = page.real(name)
        names.append(own)
    return names


def _constant(page: Page, tensor: Tensor, values: Array, name: str) -> Pieces:
    if tensor.quant is None:
        yield initialiser(name, values)
        return
    integers = page.part(name, "integers")
    yield initialiser(integers, unsigned(values))
    yield from dequantized(page, integers, name, tensor.quant, page.part(name, "dequantize"))


# ---- one input ------------------------------------------------------------------------------------------------------------------


def _unary(kind: str) -> Printer:
    def print_it(page: Page, node: Node) -> Pieces:
        yield operator(kind, (page.real(node.inputs[0]),), page.result(node), node.name)
        yield from finished(page, node)

    return print_it


def _leaky_relu(page: Page, node: Node) -> Pieces:
    alpha = _attrs(node, ir.LeakyRelu).alpha
    yield operator("LeakyRelu", (page.real(node.inputs[0]),), page.result(node), node.name, alpha=alpha)
    yield from finished(page, node)


def _pool(kind: str, **attributes: int) -> Printer:
    def print_it(page: Page, node: Node) -> Pieces:
        a = node.attrs
        assert isinstance(a, ir.AveragePool | ir.MaxPool)
        windows = {"kernel_shape": a.size, "strides": a.stride, "pads": _pads(a.padding), **attributes}
        yield operator(kind, (page.real(node.inputs[0]),), page.result(node, a.clamp), node.name, **windows)
        yield from _same_integers(page, node, a.clamp)

    return print_it


def _pad(page: Page, node: Node) -> Pieces:
    top, left, bottom, right = _pads(_attrs(node, ir.Pad).padding)
    yield from _padded(page, node, (0, 0, top, left, 0, 0, bottom, right))


def _pad_channels(page: Page, node: Node) -> Pieces:
    a = _attrs(node, ir.PadChannels)
    yield from _padded(page, node, (0, a.before, 0, 0, 0, a.after, 0, 0))


def _padded(page: Page, node: Node, pads: tuple[int, ...]) -> Pieces:
    """pads: before each of the file's axes, then after each.

    All axes are named: without, ONNX Runtime 1.31 moves a Pad into a pool that follows, where its zeros are no longer counted.
    With some of them it fails, as it moves transposes past the Pad and takes the axes for all.
    """
    constants: dict[str, Array] = {
        page.part(node.name, "pads"): np.array(pads, np.int64),
        page.part(node.name, "zero"): np.zeros((), np.float32),
        page.part(node.name, "axes"): np.arange(4, dtype=np.int64),
    }
    for name, values in constants.items():
        yield initialiser(name, values)
    yield operator("Pad", (page.real(node.inputs[0]), *constants), page.result(node), node.name)
    yield from _same_integers(page, node)


def _resize_nearest(page: Page, node: Node) -> Pieces:
    """Resize where the map grows a whole number of times, which every runtime does alike; else each place is named."""
    a, x = _attrs(node, ir.ResizeNearest), page.graph.tensors[node.inputs[0]]
    places = [nearest_places(x.shape[1 + i], a.size[i], a.align_corners, a.half_pixel_centers) for i in (0, 1)]
    times = [-(-size // length) for size, length in zip(a.size, x.shape[1:3], strict=True)]
    source, result = page.real(x.name), page.result(node)
    if all(np.array_equal(own, np.arange(x.shape[1 + i] * times[i]) // times[i]) for i, own in enumerate(places)):
        scales = page.part(node.name, "scales")
        yield initialiser(scales, np.array([1, 1, *times], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        yield operator("Resize", (source, "", scales), result, node.name, **how)
    else:
        rows, columns, tall = (page.part(node.name, part) for part in ("rows", "columns", "tall"))
        yield initialiser(rows, places[0])
        yield operator("Gather", (source, rows), tall, page.part(node.name, "gather"), axis=2)
        yield initialiser(columns, places[1])
        yield operator("Gather", (tall, columns), result, node.name, axis=3)
    yield from _same_integers(page, node)


def _slice(page: Page, node: Node) -> Pieces:
    a, rank = _attrs(node, ir.Slice), len(page.graph.tensors[node.name].shape)
    axis = order_of(rank).index(a.axis)
    names = [page.part(node.name, part) for part in ("begin", "end", "axis")]
    for name, value in zip(names, (a.begin, a.end, axis), strict=True):
        yield initialiser(name, np.array([value], np.int64))
    yield operator("Slice", (page.real(node.inputs[0]), *names), page.result(node), node.name)
    yield from _same_integers(page, node)


def _gelu(page: Page, node: Node) -> Pieces:
    how = "tanh" if _attrs(node, ir.Gelu).approximate else "none"
    yield operator("Gelu", (page.real(node.inputs[0]),), page.result(node), node.name, approximate=how)
    yield from finished(page, node)


def _reshape(page: Page, node: Node) -> Pieces:
    old, new = (page.graph.tensors[name].shape for name in (node.inputs[0], node.name))
    yield from reshaped(page, page.real(node.inputs[0]), page.result(node), old, new, node.name)
    yield from _same_integers(page, node)


def _same_integers(page: Page, node: Node, clamp: ir.Clamp = "none") -> Pieces:
    """Rounded to the input's grid, so that what only moves integers keeps them; the Graph's two scales may differ by a hair."""
    yield from finished(page, node, clamp, page.graph.tensors[node.inputs[0]].quant)


def _mean(page: Page, node: Node) -> Pieces:
    """Over height and width: GlobalAveragePool, which has an integer kernel in ONNX Runtime; ReduceMean, for the rest, has none."""
    a = _attrs(node, ir.Mean)
    x, out = page.graph.tensors[node.inputs[0]], page.graph.tensors[node.name]
    if len(x.shape) != 4 or a.axes != (1, 2) or not _poolable(x, out):
        yield from _reduced(page, node, a, x)
    elif a.keep_dims:
        yield operator("GlobalAveragePool", (page.real(x.name),), page.result(node), node.name)
        yield from finished(page, node)
    else:  # in integers before it is flat, or the integer kernel is not found
        kept, shape = page.part(out.name, "kept"), (1, 1, 1, x.shape[3])
        yield operator("GlobalAveragePool", (page.real(x.name),), kept, node.name)
        if out.quant is not None:
            integers, real = page.part(kept, "integers"), page.part(kept, "real")
            yield from quantized(page, kept, integers, out.quant, page.part(kept, "quantize"))
            yield from dequantized(page, integers, real, out.quant, page.part(kept, "dequantize"))
            kept = real
        yield from reshaped(page, kept, page.result(node), shape, out.shape)
        yield from finished(page, node)


def _poolable(x: Tensor, out: Tensor) -> bool:
    """Whether ONNX Runtime's integer GlobalAveragePool takes the scales; it stops with an error at others."""
    if x.quant is None or out.quant is None:
        return True
    factor = float(x.quant.scale[0]) / (float(out.quant.scale[0]) * x.shape[1] * x.shape[2])
    return 2**-31 < factor < 255  # its own bounds are 2**-32 and 256


def _reduced(page: Page, node: Node, a: ir.Mean, x: Tensor) -> Pieces:
    order = order_of(len(x.shape))
    axes, result = page.part(node.name, "axes"), page.result(node)
    left = [axis for axis in order if axis not in a.axes]  # the Graph's dimensions as they now follow one another
    wanted = [sorted(left)[place] for place in order_of(len(left))]
    moved = not a.keep_dims and left != wanted
    yield initialiser(axes, np.array(sorted(order.index(axis) for axis in a.axes), np.int64))
    source = page.part(node.name, "reduced") if moved else result
    yield operator("ReduceMean", (page.real(x.name), axes), source, node.name, keepdims=int(a.keep_dims))
    if moved:
        yield transposed(source, result, tuple(left.index(axis) for axis in wanted), page.part(node.name, "transpose"))
    yield from finished(page, node)


def _softmax(page: Page, node: Node) -> Pieces:
    """beta times the input: a scale of integers takes it in."""
    beta, x = np.float32(_attrs(node, ir.Softmax).beta), page.graph.tensors[node.inputs[0]]
    source, scaled = page.real(x.name), page.part(node.name, "scaled")
    if beta != 1 and x.quant is not None:
        quant = ir.Quant(x.quant.scale * beta, x.quant.zero_point)
        yield from dequantized(page, page.inside(x.name), scaled, quant, page.part(node.name, "scale"))
    elif beta != 1:
        yield initialiser(page.part(node.name, "beta"), np.asarray(beta))
        yield operator("Mul", (source, page.part(node.name, "beta")), scaled, page.part(node.name, "scale"))
    source = source if beta == 1 else scaled
    if x.shape[-1] > 1:
        axis = order_of(len(x.shape)).index(len(x.shape) - 1)
        yield operator("Softmax", (source,), page.result(node), node.name, axis=axis)
    else:  # always 1, to which ONNX Runtime's integer kernel answers 0
        yield from clipped(page, source, page.result(node), np.ones(2, np.float32), node.name)
    yield from finished(page, node)


def _quantize(page: Page, node: Node) -> Pieces:
    out = page.graph.tensors[node.name]
    assert out.quant is not None  # spec.py: quantize gives integers
    yield from quantized(page, page.real(node.inputs[0]), out.name, out.quant, node.name)
    yield from dequantized(page, out.name, page.real(out.name), out.quant, page.part(out.name, "dequantize"))


def _dequantize(page: Page, node: Node) -> Pieces:
    x = page.graph.tensors[node.inputs[0]]
    assert x.quant is not None  # spec.py: dequantize takes integers
    yield from dequantized(page, page.inside(x.name), node.name, x.quant, node.name)


# ---- the normalisation ----------------------------------------------------------------------------------------------------------


def _table(page: Page, node: Node) -> Pieces:
    """Cast, Mul, Add(, QuantizeLinear) where a line gives every entry, else a Gather.

    Constants are repeated along the width, [1, C, 1, W]: ONNX Runtime turns integer networks to NHWC, and there a broadcast of
    C = 3 is slow. On an int8 EfficientNet-Lite0 it took 20% of the time, this takes 3%, a Gather 12%.
    """
    table, out = page.graph.tensors[node.inputs[1]], page.graph.tensors[node.name]
    line = affine_table.affine(_data(table), out.quant)
    yield from _on_line(page, node, *line) if line else _looked_up(page, node, _data(table))


def _on_line(page: Page, node: Node, mul: Array, add: Array) -> Pieces:
    x = page.graph.tensors[node.inputs[0]]
    number, factor, product, summand = (page.part(node.name, part) for part in ("number", "mul", "product", "add"))
    yield operator("Cast", (page.inside(x.name),), number, page.part(node.name, "cast"), to=TYPES["float32"])
    yield initialiser(factor, _by_channel(mul, x))
    yield operator("Mul", (number, factor), product, page.part(node.name, "multiply"))
    yield initialiser(summand, _by_channel(add, x))
    yield operator("Add", (product, summand), page.result(node), node.name)
    yield from finished(page, node)


def _looked_up(page: Page, node: Node, table: Array) -> Pieces:
    x, out = page.graph.tensors[node.inputs[0]], page.graph.tensors[node.name]
    number, offsets, place, flat = (page.part(node.name, part) for part in ("number", "offsets", "place", "table"))
    yield operator("Cast", (page.inside(x.name),), number, page.part(node.name, "cast"), to=TYPES["int32"])
    yield initialiser(offsets, _by_channel(np.arange(len(table), dtype=np.int32) * 256, x))
    yield operator("Add", (number, offsets), place, page.part(node.name, "find"))
    yield initialiser(flat, (table if out.quant is None else unsigned(table)).reshape(-1))
    yield operator("Gather", (flat, place), out.name, node.name)
    if out.quant is not None:
        yield from dequantized(page, out.name, page.real(out.name), out.quant, page.part(out.name, "dequantize"))


def _by_channel(values: Array, x: Tensor) -> Array:
    """[C] -> [1, C, 1, W]."""
    return np.tile(values.reshape(1, -1, 1, 1), (1, 1, 1, x.shape[2]))


def _batch_norm(page: Page, node: Node) -> Pieces:
    raise UnsupportedOp(
        f"batch_norm {node.source or node.name} is still in the graph; ONNX is printed without", "fold it: passes.py"
    )


PRINTERS: Mapping[str, Printer] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "fully_connected": _fully_connected,
    "add": _elementwise("Add"),
    "mul": _elementwise("Mul"),
    "average_pool": _pool("AveragePool", count_include_pad=0),
    "max_pool": _pool("MaxPool"),
    "mean": _mean,
    "pad": _pad,
    "pad_channels": _pad_channels,
    "resize_nearest": _resize_nearest,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
    "softmax": _softmax,
    "hard_swish": _unary("HardSwish"),
    "leaky_relu": _leaky_relu,
    "logistic": _unary("Sigmoid"),
    "gelu": _gelu,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "table": _table,
    "batch_norm": _batch_norm,
}


def _pads(padding: ir.Sides) -> tuple[int, int, int, int]:
    """All beginnings, then all ends."""
    top, bottom, left, right = padding
    return top, left, bottom, right


def _data(constant: Tensor) -> Array:
    assert constant.data is not None  # spec.py: weights, biases and tables are constants
    return constant.data


def _attrs(node: Node, kind: type[A]) -> A:
    assert isinstance(node.attrs, kind)  # spec.py: an op has its own attributes
    return node.attrs
