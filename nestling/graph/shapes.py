"""The shape that each op gives: (attributes, shapes of the inputs) -> shape of the output. A ValueError says why there is none."""

from __future__ import annotations

import math

import numpy as np

from nestling.graph import ir
from nestling.graph.ir import Attrs
from nestling.graph.windows import windowed_size

Shape = tuple[int, ...]

MAX_ACTIVATION = 2**26  # elements of an activation, padding included, which no file's size bounds: 256 MiB in float32
MAX_POOLED = 2**34  # places of all of a pool's windows together


def conv2d(attrs: ir.Conv2d, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    """weight [O, KH, KW, I / groups]."""
    groups, rest = divmod(x[3], weight[3])
    require(rest == 0 and weight[0] % max(groups, 1) == 0, f"{x[3]} channels do not fit weights {list(weight)}")
    require(bias in (None, (weight[0],)), f"the bias must be [{weight[0]}]")
    return (x[0], *_windowed(x, weight[1:3], attrs.stride, attrs.dilation, attrs.padding), weight[0])


def depthwise_conv2d(attrs: ir.DepthwiseConv2d, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    """weight [1, KH, KW, O]."""
    require(weight[0] == 1 and weight[3] % x[3] == 0, f"{x[3]} channels do not fit weights {list(weight)}")
    require(bias in (None, (weight[3],)), f"the bias must be [{weight[3]}]")
    return (x[0], *_windowed(x, weight[1:3], attrs.stride, attrs.dilation, attrs.padding), weight[3])


def fully_connected(attrs: ir.FullyConnected, x: Shape, weight: Shape, bias: Shape | None = None) -> Shape:
    """x [1, I], weight [O, I]."""
    require(x[1] == weight[1], f"{x[1]} inputs do not fit weights {list(weight)}")
    require(bias in (None, (weight[0],)), f"the bias must be [{weight[0]}]")
    return (x[0], weight[0])


def broadcast(attrs: Attrs, a: Shape, b: Shape) -> Shape:
    """As in NumPy."""
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        raise ValueError(f"{list(a)} and {list(b)} do not broadcast") from None


def pool(attrs: ir.AveragePool | ir.MaxPool, x: Shape) -> Shape:
    """A window must touch the image."""
    out = _windowed(x, attrs.size, attrs.stride, (1, 1), attrs.padding)
    require(math.prod((*out, *attrs.size, x[3])) <= MAX_POOLED, f"windows {list(attrs.size)} at {list(out)} places see too much")
    for side in (0, 1):
        before = attrs.padding[2 * side]
        last = (out[side] - 1) * attrs.stride[side] - before  # where the last window starts
        require(before < attrs.size[side] and last < x[1 + side], "a window lies wholly in the padding")
    return (x[0], *out, x[3])


def mean(attrs: ir.Mean, x: Shape) -> Shape:
    """Without axes, or with them as 1."""
    axes = attrs.axes
    require(bool(axes) and list(axes) == sorted(set(axes)), f"axes {list(axes)} must be in order, each once")
    require(axes[0] >= 1 and axes[-1] < len(x), f"axes {list(axes)} must lie between 1 and {len(x) - 1}")
    if attrs.keep_dims:
        return tuple(1 if axis in axes else side for axis, side in enumerate(x))
    return tuple(side for axis, side in enumerate(x) if axis not in axes)


def pad(attrs: ir.Pad, x: Shape) -> Shape:
    """Larger by the padding."""
    top, bottom, left, right = attrs.padding
    return (x[0], x[1] + top + bottom, x[2] + left + right, x[3])


def pad_channels(attrs: ir.PadChannels, x: Shape) -> Shape:
    """Deeper by the padding."""
    return (*x[:3], attrs.before + x[3] + attrs.after)


def resized(attrs: ir.ResizeNearest, x: Shape) -> Shape:
    """As large as it says."""
    return (x[0], *attrs.size, x[3])


def concat(attrs: ir.Concat, *shapes: Shape) -> Shape:
    """The sum along axis."""
    first, axis = shapes[0], attrs.axis
    require(1 <= axis < len(first), f"axis {axis} must lie between 1 and {len(first) - 1}")
    rest = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    require(len(rest) == 1 and {len(shape) for shape in shapes} == {len(first)}, "inputs differ in more than the axis")
    return (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])


def part(attrs: ir.Slice, x: Shape) -> Shape:
    """Narrower along axis."""
    axis = attrs.axis
    require(1 <= axis < len(x), f"axis {axis} must lie between 1 and {len(x) - 1}")
    require(attrs.begin < attrs.end <= x[axis], f"places {attrs.begin} to {attrs.end} are not among {x[axis]}")
    return (*x[:axis], attrs.end - attrs.begin, *x[axis + 1 :])


def table(attrs: ir.Table, x: Shape, table: Shape) -> Shape:
    """One row of 256 a channel."""
    require(table == (x[3], 256), f"the table must be [{x[3]}, 256]")
    return x


def batch_norm(attrs: ir.BatchNorm, x: Shape, *vectors: Shape) -> Shape:
    """Vectors along the last axis."""
    require(all(vector == (x[-1],) for vector in vectors), f"every vector must be [{x[-1]}]")
    return x


def unchanged(attrs: Attrs, x: Shape) -> Shape:
    """The input's."""
    return x


def _windowed(x: Shape, kernel: Shape, stride: ir.Pair, dilation: ir.Pair, padding: ir.Sides) -> tuple[int, int]:
    sums = (padding[0] + padding[1], padding[2] + padding[3])
    rows, columns = (windowed_size(x[1 + i], kernel[i], stride[i], dilation[i], sums[i]) for i in (0, 1))
    require(rows > 0 and columns > 0, f"a kernel {list(kernel)} does not fit into {list(x[1:3])}")
    seen = (x[1] + sums[0]) * (x[2] + sums[1]) * x[3]
    require(seen <= MAX_ACTIVATION, f"{list(x)} with padding {list(padding)} has more than {MAX_ACTIVATION} elements")
    return rows, columns


def require(holds: bool, message: str) -> None:
    """Raise ValueError with the message where a rule does not hold."""
    if not holds:
        raise ValueError(message)
