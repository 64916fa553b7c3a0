"""ATen operations as nodes of the Graph: one function an operation, with the parameters of its ATen schema, and the table of them.

Each returns what the operation's result is in the Graph. Activations arrive as `Value`, parameters as `Constant`.
Source of names, parameters and defaults: PyTorch, aten/src/ATen/native/native_functions.yaml.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from nestling.graph.builder import NHWC, NO_SIDES, Builder, Constant, Operand, Pieces, Value
from nestling.graph.ir import (
    Add,
    Array,
    AveragePool,
    BatchNorm,
    Clamp,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    Gelu,
    HardSwish,
    LeakyRelu,
    Logistic,
    MaxPool,
    Mean,
    Mul,
    Pad,
    Pair,
    ResizeNearest,
    Sides,
    Slice,
    Softmax,
    Table,
)
from nestling.graph.layout import dropout, permute, reshape, same, transpose

Ints = Sequence[int]

# ---- layers with weights ---------------------------------------------------------------------------------------------------------


def conv2d(
    b: Builder,
    input: Operand,
    weight: Operand,
    bias: Constant | None,
    stride: Ints,
    padding: Ints | str,
    dilation: Ints,
    groups: int,
) -> Value:
    """Weights [O, I / groups, KH, KW] become [O, KH, KW, I / groups], or [1, KH, KW, O] where every channel is its own group."""
    x, kernel = b.map(input), b.weight(weight)
    data = kernel.data
    taps = _pair(dilation)[0] * (data.shape[2] - 1), _pair(dilation)[1] * (data.shape[3] - 1)
    sides = _same_sides(taps, padding) if isinstance(padding, str) else _sides(padding)
    depthwise = groups > 1 and groups == b.graph_shape(x)[3]
    kind = DepthwiseConv2d if depthwise else Conv2d
    inputs = [x.tensor, b.constant(kernel.name, data.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))), *_bias(b, bias)]
    return b.result(kind(_pair(stride), _pair(dilation), sides), inputs, NHWC)


def linear(b: Builder, input: Operand, weight: Operand, bias: Constant | None) -> Value:
    """Weights [O, I]; after the flattening of a map their columns go to where the Graph has torch's places."""
    x, kernel = b.activation(input), b.weight(weight)
    if len(x.axes) != 2:
        b.refuse(f"a linear layer takes [1, I] here, found {list(b.source_shape(x))}")
    data = kernel.data
    data = data if x.order is None else data[:, np.argsort(x.order)]
    return b.result(FullyConnected(), [x.tensor, b.constant(kernel.name, data), *_bias(b, bias)], (0, 1))


def batch_norm(
    b: Builder,
    input: Operand,
    weight: Constant | None,
    bias: Constant | None,
    running_mean: Constant,
    running_var: Constant,
    momentum: float,
    eps: float,
) -> Value:
    """Evaluation mode. A norm without affine parameters gets ones and zeros."""
    x = b.plain(input)
    if x.axes[1] != len(x.axes) - 1:
        b.refuse("normalises along an axis that is not the channels'")
    mean = running_mean.data
    gamma = weight or Constant(f"{b.source}.gamma", np.ones_like(mean))
    beta = bias or Constant(f"{b.source}.beta", np.zeros_like(mean))
    parts = [b.constant(part.name, part.data) for part in (gamma, beta, running_mean, running_var)]
    return b.like(BatchNorm(eps), [x.tensor, *parts], x)


def _bias(b: Builder, bias: Constant | None) -> list[str]:
    return [] if bias is None else [b.constant(bias.name, bias.data)]


# ---- activations -----------------------------------------------------------------------------------------------------------------

CLAMPS: Final[Mapping[tuple[float, float], Clamp]] = {(0.0, math.inf): "relu", (0.0, 6.0): "relu6"}


def relu(b: Builder, self: Operand) -> Value:
    """A clamp from 0 up."""
    return clamp(b, self, 0.0)


def relu6(b: Builder, self: Operand) -> Value:
    """A clamp from 0 to 6."""
    return clamp(b, self, 0.0, 6.0)


def hardtanh(b: Builder, self: Operand, min_val: float, max_val: float) -> Value:
    """What torch's ReLU6 module is made of."""
    return clamp(b, self, min_val, max_val)


def clamp(b: Builder, self: Operand, min: float | None = None, max: float | None = None) -> Value:
    """Two ranges have a name in the Graph: 0 to infinity and 0 to 6."""
    x = b.activation(self)
    low, high = (-math.inf if min is None else float(min)), (math.inf if max is None else float(max))
    if (low, high) not in CLAMPS:
        b.refuse(f"clamps to {low:g} .. {high:g}; the Graph has 0 .. inf (relu) and 0 .. 6 (relu6)")
    return replace(x, tensor=b.clamp(x.tensor, CLAMPS[low, high]))


def hardswish(b: Builder, self: Operand) -> Value:
    """x * relu6(x + 3) / 6."""
    x = b.activation(self)
    return b.like(HardSwish(), [x.tensor], x)


def hardsigmoid(b: Builder, self: Operand) -> Value:
    """relu6(x + 3) / 6."""
    x = b.activation(self)
    moved = b.emit(Add(), [x.tensor, b.scalar(3.0)], b.graph_shape(x))
    return b.like(Mul(), [b.clamp(moved, "relu6"), b.scalar(1 / 6)], x)


def leaky_relu(b: Builder, self: Operand, negative_slope: float = 0.01) -> Value:
    """x, or negative_slope * x where that is negative."""
    x = b.activation(self)
    if negative_slope < 0:
        b.refuse(f"a negative slope of {negative_slope}; expected one from 0 up")
    return b.like(LeakyRelu(float(np.float32(negative_slope))), [x.tensor], x)


def sigmoid(b: Builder, self: Operand) -> Value:
    """1 / (1 + exp(-x))."""
    x = b.activation(self)
    return b.like(Logistic(), [x.tensor], x)


def silu(b: Builder, self: Operand) -> Value:
    """x * sigmoid(x)."""
    x = b.activation(self)
    return b.like(Mul(), [x.tensor, sigmoid(b, x).tensor], x)


def gelu(b: Builder, self: Operand, approximate: str = "none") -> Value:
    """x * P(X <= x)."""
    x = b.activation(self)
    return b.like(Gelu(approximate == "tanh"), [x.tensor], x)


def softmax(b: Builder, self: Operand, dim: int, dtype: object = None) -> Value:
    """Along the last axis of [1, N]."""
    x = b.plain(self)
    if len(x.axes) != 2 or dim % 2 != 1:
        b.refuse(f"softmax takes [1, N] along its last axis here, found {list(b.source_shape(x))} along {dim}")
    return b.like(Softmax(), [x.tensor], x)


# ---- two operands ----------------------------------------------------------------------------------------------------------------


def add(b: Builder, self: Operand, other: Operand, alpha: float = 1) -> Value:
    """A sum; either operand may be a constant."""
    if alpha != 1:
        b.refuse(f"alpha is {alpha}, expected 1")
    return _binary(b, Add(), self, other)


def sub(b: Builder, self: Operand, other: Operand, alpha: float = 1) -> Value:
    """The sum with the other's negative: a constant, or an activation times -1."""
    if isinstance(other, Value):
        x = b.plain(other)
        return add(b, self, b.like(Mul(), [x.tensor, b.scalar(-1.0)], x), alpha)
    return add(b, self, _changed(b, other, np.negative, "minus"), alpha)


def mul(b: Builder, self: Operand, other: Operand) -> Value:
    """A product; either operand may be a constant."""
    return _binary(b, Mul(), self, other)


def div(b: Builder, self: Operand, other: Operand) -> Value:
    """By a constant: the product with its inverse."""
    return _binary(b, Mul(), self, _changed(b, other, _inverse, "inverse"))


def _inverse(data: Array) -> Array:
    kind = np.float64 if data.dtype == np.float64 else np.float32
    with np.errstate(divide="ignore"):
        inverse: Array = np.reciprocal(data.astype(kind))
    return inverse


def _changed(b: Builder, operand: Operand, change: Callable[[Array], Array], word: str) -> Operand:
    if isinstance(operand, Value):
        b.refuse("the second operand has to be a constant")
    if isinstance(operand, Constant):
        return Constant(f"{operand.name}.{word}", change(operand.data))
    return float(change(np.array(float(operand))))


def _binary(b: Builder, attrs: Add | Mul, left: Operand, right: Operand) -> Value:
    values = [b.plain(operand) for operand in (left, right) if isinstance(operand, Value)]
    axes = max((value.axes for value in values), key=len)
    if any(value.axes != axes for value in values):
        b.refuse("the operands have different layouts")
    if len(b.shape) != len(axes):
        b.refuse(f"a constant of more axes than the activation's {len(axes)}")
    return b.result(attrs, [_operand(b, operand, axes) for operand in (left, right)], axes)


def _operand(b: Builder, operand: Operand, axes: tuple[int, ...]) -> str:
    """The tensor's name; a constant in the Graph's order of axes without the ones that it begins with: [C], not [1, 1, 1, C]."""
    if isinstance(operand, Value):
        return operand.tensor
    if not isinstance(operand, Constant):
        return b.scalar(float(operand))
    data = operand.data
    data = data.reshape((1,) * (len(axes) - data.ndim) + data.shape).transpose(np.argsort(axes))
    first = next((axis for axis, size in enumerate(data.shape) if size != 1), len(axes) - 1)
    return b.constant(operand.name, data.reshape(data.shape[first:]))


def cat(b: Builder, tensors: Sequence[Operand], dim: int = 0) -> Value:
    """Along the Graph's axis that holds torch's `dim`."""
    parts = [b.plain(part) for part in tensors]
    axes = parts[0].axes
    if len(parts) == 1:
        return parts[0]
    if any(part.axes != axes for part in parts):
        b.refuse("the parts have different layouts")
    return b.result(Concat(axes[dim % len(axes)]), [part.tensor for part in parts], axes)


# ---- pools and padding -----------------------------------------------------------------------------------------------------------


def mean(b: Builder, self: Operand, dim: Ints | None = None, keepdim: bool = False, dtype: object = None) -> Value:
    """The axes go to the Graph's; what stays keeps its order there."""
    x = b.plain(self)
    rank = len(x.axes)
    gone = {x.axes[d % rank] for d in (dim or range(rank))}
    kept = list(range(rank)) if keepdim else [axis for axis in range(rank) if axis not in gone]
    axes = tuple(kept.index(axis) for axis in x.axes if axis in kept)
    return b.result(Mean(tuple(sorted(gone)), keepdim), [x.tensor], axes)


def adaptive_avg_pool2d(b: Builder, self: Operand, output_size: Ints) -> Value:
    """To one place: a mean. To a divisor of the size: an average_pool."""
    x = b.map(self)
    _, height, width, _ = b.graph_shape(x)
    rows, columns = b.shape[2:]
    if (rows, columns) == (1, 1):
        return b.result(Mean((1, 2), keep_dims=True), [x.tensor], NHWC)
    if height % rows or width % columns:
        b.refuse(f"{height}x{width} to {rows}x{columns} has windows of different sizes")
    size = (height // rows, width // columns)
    return b.result(AveragePool(size, size), [x.tensor], NHWC)


def avg_pool2d(
    b: Builder,
    self: Operand,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Value:
    """Places that are padded and counted become a pad of their own, for average_pool counts none."""
    x = b.map(self)
    size, step, sides = _pair(kernel_size), _pair(stride or kernel_size), _sides(padding)
    if divisor_override not in (None, size[0] * size[1]):
        b.refuse(f"divides by {divisor_override} instead of the window's size")
    counted = count_include_pad and sides != NO_SIDES
    if counted and ceil_mode:
        b.refuse("ceil_mode with counted padding")
    if counted:
        _, height, width, channels = b.graph_shape(x)
        shape = (1, height + sides[0] + sides[1], width + sides[2] + sides[3], channels)
        return b.result(AveragePool(size, step), [b.emit(Pad(sides), [x.tensor], shape)], NHWC)
    return b.result(AveragePool(size, step, _ceiled(b, x, size, step, sides)), [x.tensor], NHWC)


def max_pool2d(b: Builder, self: Operand, kernel_size: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool) -> Value:
    """Padding of minus infinity before it (as TensorFlow's "same") joins its own."""
    edge = self.edge if isinstance(self, Value) else NO_SIDES
    x = b.map(replace(self, edge=NO_SIDES) if isinstance(self, Value) else self)
    if _pair(dilation) != (1, 1):
        b.refuse(f"a max_pool with dilation {list(dilation)}")
    size, step, own = _pair(kernel_size), _pair(stride or kernel_size), _sides(padding)
    sides = (own[0] + edge[0], own[1] + edge[1], own[2] + edge[2], own[3] + edge[3])
    return b.result(MaxPool(size, step, _ceiled(b, x, size, step, sides)), [x.tensor], NHWC)


def upsample_nearest2d(
    b: Builder, input: Operand, output_size: Ints | None = None, scale_factors: Sequence[float] | None = None
) -> Value:
    """To a size, as TFLite without its two options; by a factor where that is a whole number, else torch has other places."""
    x = b.map(input)
    if scale_factors is not None and any(factor != int(factor) for factor in scale_factors):
        b.refuse(f"resizes by {list(scale_factors)}; expected whole numbers, or a size")
    return b.result(ResizeNearest((b.shape[2], b.shape[3])), [x.tensor], NHWC)


def constant_pad(b: Builder, self: Operand, pad: Ints, mode: str = "constant", value: float | None = None) -> Value:
    """Zeros become a pad node, minus infinity waits for its max_pool. torch lists left, right, top, bottom."""
    x = b.activation(self)
    if not any(pad):
        return x
    x = b.map(x)
    if mode != "constant" or len(pad) > 4 or min(pad) < 0 or value not in (None, 0, -math.inf):
        b.refuse(f"pads by {list(pad)}, mode {mode}, value {value}; expected zeros or minus infinity around height and width")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    if value == -math.inf:
        return replace(x, edge=(top, bottom, left, right))
    return b.result(Pad((top, bottom, left, right)), [x.tensor], NHWC)


def _ceiled(b: Builder, x: Value, size: Pair, step: Pair, sides: Sides) -> Sides:
    """`sides` with as many uncounted places at the bottom and right as torch's result is larger (ceil_mode)."""
    _, height, width, _ = b.graph_shape(x)
    rows, columns = b.shape[2:]
    top, bottom, left, right = sides
    bottom += max(0, (rows - 1) * step[0] + size[0] - (height + top + bottom))
    right += max(0, (columns - 1) * step[1] + size[1] - (width + left + right))
    return (top, bottom, left, right)


def _pair(values: Ints) -> Pair:
    return (values[0], values[-1])


def _sides(padding: Ints) -> Sides:
    return (padding[0], padding[0], padding[-1], padding[-1])


def _same_sides(taps: Pair, padding: str) -> Sides:
    """torch's "same" puts the odd place at the bottom and right; "valid" has none."""
    if padding == "valid":
        return NO_SIDES
    return (taps[0] // 2, taps[0] - taps[0] // 2, taps[1] // 2, taps[1] - taps[1] // 2)


# ---- tables and tuples -----------------------------------------------------------------------------------------------------------


def index(b: Builder, self: Operand, indices: Sequence[Operand | None]) -> Value:
    """table[0 .. C - 1, image], the image's channels last: the normalisation table."""
    table = b.weight(self)
    channels, image = (*indices, None, None)[:2]
    if not isinstance(image, Value) or not isinstance(channels, Constant) or table.data.shape[1:] != (256,):
        b.refuse("expected table[0 .. C - 1, image] with a table [C, 256]")
    rising = np.array_equal(channels.data.ravel(), np.arange(len(table.data)))
    if not rising or image.axes != (0, 1, 2, 3) or b.tensors[image.tensor].dtype != "uint8":
        b.refuse("expected table[0 .. C - 1, image] with a uint8 image [1, H, W, C]")
    return b.like(Table(), [image.tensor, b.constant(table.name, table.data)], image)


def split(b: Builder, self: Operand, dim: int = 0, **_: object) -> Pieces:
    """Into the sizes that the results have; getitem takes the pieces that are read."""
    x = b.plain(self)
    return Pieces(x, x.axes[dim % len(x.axes)], tuple(shape[dim] for shape in b.shapes))


def getitem(b: Builder, self: Operand | Pieces, item: int) -> Value:
    """A piece; of batch_norm, which returns its saved statistics too, the result, for evaluation does not read those."""
    if isinstance(self, Pieces):
        begin = sum(self.sizes[:item])
        return _cut(b, self.of, self.axis, begin, begin + self.sizes[item])
    if item != 0:
        b.refuse(f"reads result {item} of a layer that has one here")
    return same(b, self)


def cut(b: Builder, self: Operand, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    """x[:, start:end]; torch counts from the end below 0, and goes as far as there is something."""
    x = b.plain(self)
    if step != 1:
        b.refuse(f"takes one of {step} places")
    axis = x.axes[dim % len(x.axes)]
    begin, stop, _ = slice(start, end).indices(b.graph_shape(x)[axis])
    return _cut(b, x, axis, begin, stop)


def narrow(b: Builder, self: Operand, dim: int, start: int, length: int) -> Value:
    """x[:, start : start + length]."""
    return cut(b, self, dim, start, start + length)


def _cut(b: Builder, x: Value, axis: int, begin: int, end: int) -> Value:
    whole = (begin, end) == (0, b.graph_shape(x)[axis])
    return x if whole else b.result(Slice(axis, begin, end), [x.tensor], x.axes)


def to(b: Builder, self: Operand, dtype: torch.dtype | None = None, **_: object) -> Value:
    """float32 stays float32; uint8 may become an index into a table."""
    x = same(b, self)
    wanted = {"float32": (None, torch.float32), "uint8": (None, torch.uint8, torch.int32, torch.int64)}
    found = b.tensors[x.tensor].dtype
    if dtype not in wanted.get(found, ()):
        b.refuse(f"turns {found} into {dtype}")
    return x


# ---- the table -------------------------------------------------------------------------------------------------------------------

Handler = Callable[..., Value | Pieces]  # (builder, the schema's parameters by name) -> the result

ATEN: Final[Mapping[str, Handler]] = {
    "conv2d": conv2d,
    "linear": linear,
    "_native_batch_norm_legit_no_training": batch_norm,
    "relu": relu,
    "relu6": relu6,
    "hardtanh": hardtanh,
    "clamp": clamp,
    "clamp_min": clamp,
    "hardswish": hardswish,
    "hardsigmoid": hardsigmoid,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "silu": silu,
    "gelu": gelu,
    "softmax": softmax,
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "cat": cat,
    "slice": cut,
    "narrow": narrow,
    "split": split,
    "split_with_sizes": split,
    "chunk": split,
    "mean": mean,
    "adaptive_avg_pool2d": adaptive_avg_pool2d,
    "avg_pool2d": avg_pool2d,
    "max_pool2d": max_pool2d,
    "upsample_nearest2d": upsample_nearest2d,
    "pad": constant_pad,
    "constant_pad_nd": constant_pad,
    "view": reshape,
    "_unsafe_view": reshape,
    "reshape": reshape,
    "flatten": reshape,
    "squeeze": reshape,
    "unsqueeze": reshape,
    "permute": permute,
    "transpose": transpose,
    "dropout": dropout,
    "clone": same,
    "contiguous": same,
    "alias": same,
    "detach": same,
    "to": to,
    "_to_copy": to,
    "index": index,
}
