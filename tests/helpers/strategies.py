"""Random small valid graphs, for hypothesis: a chain of one to a few ops, every tensor and scale drawn.

What is drawn by hypothesis (and shrinks): ops, shapes, strides, dilation, padding, clamps, the kinds of scales and values. The many
numbers of a constant come from a drawn seed. LiteRT's rules that a graph must keep are written where they are kept: it refuses, or
aborts on, graphs that break them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from nestling.errors import UnusableFile
from nestling.formats.tflite.print_operators import same_padding
from nestling.formats.tflite.read_builder import DTYPES
from nestling.graph import ir, spec
from nestling.graph.ir import Array, Graph, Node, Quant, Tensor

WITH_UNSIGNED = (ir.Conv2d, ir.DepthwiseConv2d, ir.AveragePool)
Draw = st.DrawFn
Case = tuple[Graph, Array]
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONGER = settings(QUICK, max_examples=200)

CLAMPS: st.SearchStrategy[ir.Clamp] = st.sampled_from(("none", "relu", "relu6"))
ZERO_POINTS = st.one_of(st.sampled_from((-128, 127, 0, -1, 1)), st.integers(-128, 127))
# mostly scales as networks have them, sometimes ones that saturate everything or leave nothing
STRETCH = st.one_of(st.floats(-3, 3), st.floats(-3, 3), st.floats(-12, 12))


@dataclass
class Sketch:
    """A graph while it is drawn."""

    draw: Draw
    integer: bool
    rng: np.random.Generator
    per_channel: bool = True
    tensors: dict[str, Tensor] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)

    def activation(self, shape: tuple[int, ...], quant: Quant | None, dtype: ir.Dtype | None = None) -> Tensor:
        tensor = Tensor(f"t{len(self.tensors)}", shape, dtype or ("int8" if self.integer else "float32"), None, quant)
        self.tensors[tensor.name] = tensor
        return tensor

    def constant(self, data: Array, quant: Quant | None = None) -> Tensor:
        tensor = Tensor(f"c{len(self.tensors)}", data.shape, DTYPES[data.dtype.name], data, quant)
        self.tensors[tensor.name] = tensor
        return tensor

    def node(self, op: str, inputs: tuple[Tensor, ...], shape: tuple[int, ...], quant: Quant | None, attrs: ir.Attrs) -> Tensor:
        out = self.activation(shape, quant if self.integer else None)
        self.nodes.append(Node(op, tuple(tensor.name for tensor in inputs), (out.name,), attrs))
        return out

    def quant(self, natural: float, least: float = 1e-9) -> Quant:
        """A quant whose scale is the natural one, stretched by up to 2**3, sometimes by up to 2**12; at least `least`."""
        scale = max(min(natural * 2.0 ** self.draw(STRETCH), 1e6), least)
        return per_tensor(scale, self.draw(ZERO_POINTS))

    def int8(self, shape: tuple[int, ...]) -> Array:
        """Uniform, or the two extremes only."""
        if self.draw(st.booleans()):
            return self.rng.integers(-128, 128, shape).astype(np.int8)
        return self.rng.choice(np.array([-128, 127], np.int8), shape)


def per_tensor(scale: float, zero_point: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int32))


def scale_of(tensor: Tensor) -> float:
    assert tensor.quant
    return float(tensor.quant.scale[0])


# ---- one step an op: (sketch, x) -> the next activation -------------------------------------------------------------------


def conv2d(s: Sketch, x: Tensor) -> Tensor:
    groups = s.draw(st.sampled_from([g for g in (1, 1, 2, 3) if x.shape[3] % g == 0]))
    out = groups * s.draw(st.integers(1, 5))
    kernel, stride, dilation, padding, plane = _window(s, x)
    weight, bias, scales = _weights(s, x, (out, *kernel, x.shape[3] // groups), 0)
    attrs = ir.Conv2d(stride, dilation, padding, s.draw(CLAMPS))
    return s.node("conv2d", (x, weight, *bias), (1, *plane, out), s.quant(*scales), attrs)


def depthwise_conv2d(s: Sketch, x: Tensor) -> Tensor:
    out = x.shape[3] * s.draw(st.integers(1, 3))
    kernel, stride, dilation, padding, plane = _window(s, x)
    weight, bias, scales = _weights(s, x, (1, *kernel, out), 3)
    attrs = ir.DepthwiseConv2d(stride, dilation, padding, s.draw(CLAMPS))
    return s.node("depthwise_conv2d", (x, weight, *bias), (1, *plane, out), s.quant(*scales), attrs)


def fully_connected(s: Sketch, x: Tensor) -> Tensor:
    if len(x.shape) != 2:
        x = reshape(s, x, flat=True)
    out = s.draw(st.integers(1, 8))
    weight, bias, scales = _weights(s, x, (out, x.shape[1]), 0)
    attrs = ir.FullyConnected(s.draw(CLAMPS))
    return s.node("fully_connected", (x, weight, *bias), (1, out), s.quant(*scales), attrs)


def add(s: Sketch, x: Tensor) -> Tensor:
    other = _other(s, x)
    natural = max(scale_of(x), scale_of(other)) if s.integer else 1.0
    a, b = s.draw(st.permutations((x, other)))
    return s.node("add", (a, b), x.shape, s.quant(natural), ir.Add(s.draw(CLAMPS)))


def mul(s: Sketch, x: Tensor) -> Tensor:
    other = _other(s, x)
    natural = scale_of(x) * scale_of(other) * 64 if s.integer else 1.0
    a, b = s.draw(st.permutations((x, other)))
    return s.node("mul", (a, b), x.shape, s.quant(natural), ir.Mul(s.draw(CLAMPS)))


def average_pool(s: Sketch, x: Tensor) -> Tensor:
    return _pool(s, x, "average_pool")


def max_pool(s: Sketch, x: Tensor) -> Tensor:
    return _pool(s, x, "max_pool")


def mean(s: Sketch, x: Tensor) -> Tensor:
    axes = s.draw(st.sampled_from(((1, 2), (1, 2), (1,), (2,), (3,), (1, 2, 3)) if len(x.shape) == 4 else ((1,),)))
    # a mean over every axis but the batch leaves a shape that nothing else here takes
    keep = s.draw(st.booleans()) if axes == (1, 2) else True
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes)
    return s.node("mean", (x,), shape, s.quant(_scale(x)), ir.Mean(axes, keep))


def pad(s: Sketch, x: Tensor) -> Tensor:
    top, bottom, left, right = (s.draw(st.integers(0, 3)) for _ in range(4))
    shape = (1, x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3])
    return s.node("pad", (x,), shape, x.quant, ir.Pad((top, bottom, left, right)))


def pad_channels(s: Sketch, x: Tensor) -> Tensor:
    before, after = s.draw(st.sampled_from(((0, 2), (1, 0), (3, 3))))
    return s.node("pad_channels", (x,), (*x.shape[:3], before + x.shape[3] + after), x.quant, ir.PadChannels(before, after))


def resize_nearest(s: Sketch, x: Tensor) -> Tensor:
    size = s.draw(st.sampled_from(((2 * x.shape[1], 3 * x.shape[2]), (s.draw(st.integers(1, 12)), s.draw(st.integers(1, 12))))))
    corners, centers = s.draw(st.sampled_from(((False, False), (False, False), (False, True), (True, False))))
    # to the size that it has nothing is done, and a file is read back without it
    size = (size[0] + 1, size[1]) if size == x.shape[1:3] else size
    return s.node("resize_nearest", (x,), (1, *size, x.shape[3]), x.quant, ir.ResizeNearest(size, corners, centers))


def concat(s: Sketch, x: Tensor) -> Tensor:
    axis = s.draw(st.integers(1, len(x.shape) - 1))
    shape = tuple(s.draw(st.integers(1, 4)) if i == axis else n for i, n in enumerate(x.shape))
    # LiteRT's int8 concatenation copies bytes: inputs and output share one quant
    other = s.constant(s.int8(shape), x.quant) if s.integer else s.constant(_normal(s, shape))
    total = tuple(n + shape[axis] if i == axis else n for i, n in enumerate(x.shape))
    return s.node("concat", tuple(s.draw(st.permutations((x, other)))), total, x.quant, ir.Concat(axis))


def cut(s: Sketch, x: Tensor) -> Tensor:
    """A slice: less than all of an axis, for a file is read back without one that does nothing."""
    axes = [axis for axis in range(1, len(x.shape)) if x.shape[axis] > 1]
    if not axes:
        return x
    axis = s.draw(st.sampled_from(axes))
    begin = s.draw(st.integers(0, x.shape[axis] - 1))
    end = s.draw(st.integers(begin + 1, x.shape[axis] - (begin == 0)))
    shape = tuple(end - begin if i == axis else n for i, n in enumerate(x.shape))
    return s.node("slice", (x,), shape, x.quant, ir.Slice(axis, begin, end))


def reshape(s: Sketch, x: Tensor, *, flat: bool = False) -> Tensor:
    size = int(np.prod(x.shape))
    shape = (1, size) if flat or s.draw(st.booleans()) else (1, 1, size, 1)
    return s.node("reshape", (x,), shape, x.quant, ir.Reshape())


def softmax(s: Sketch, x: Tensor) -> Tensor:
    beta = s.draw(st.sampled_from((1.0, 1.0, 0.5, 2.0)))
    return s.node("softmax", (x,), x.shape, per_tensor(1 / 256, -128), ir.Softmax(beta))  # the only quant that LiteRT takes


def hard_swish(s: Sketch, x: Tensor) -> Tensor:
    stretch = s.draw(st.floats(-6, 6))  # the scales' ratio: below 128, above 1 / 512
    quant = per_tensor(_scale(x) * 2.0**stretch, s.draw(ZERO_POINTS))
    return s.node("hard_swish", (x,), x.shape, quant, ir.HardSwish())


def leaky_relu(s: Sketch, x: Tensor) -> Tensor:
    alpha = s.draw(st.one_of(st.sampled_from((0.01, 0.1, 0.2, 0.3, 0.0, 1.0)), st.floats(0, 4, width=32)))
    quant = s.quant(_scale(x)) if s.integer else None
    return s.node("leaky_relu", (x,), x.shape, quant, ir.LeakyRelu(float(np.float32(alpha))))


def logistic(s: Sketch, x: Tensor) -> Tensor:
    # LiteRT takes this scale only
    return s.node("logistic", (x,), x.shape, per_tensor(1 / 256, -128), ir.Logistic())


def gelu(s: Sketch, x: Tensor) -> Tensor:
    return s.node("gelu", (x,), x.shape, s.quant(_scale(x)), ir.Gelu(s.draw(st.booleans())))


def quantize(s: Sketch, x: Tensor) -> Tensor:
    """int8 to int8 of another scale; a float graph stays float and has no such step."""
    if not s.integer:
        return x
    return s.node("quantize", (x,), x.shape, s.quant(scale_of(x)), ir.Quantize())


STEPS: Mapping[str, Callable[[Sketch, Tensor], Tensor]] = {
    "conv2d": conv2d,
    "depthwise_conv2d": depthwise_conv2d,
    "fully_connected": fully_connected,
    "add": add,
    "mul": mul,
    "average_pool": average_pool,
    "max_pool": max_pool,
    "mean": mean,
    "pad": pad,
    "pad_channels": pad_channels,
    "resize_nearest": resize_nearest,
    "concat": concat,
    "slice": cut,
    "reshape": reshape,
    "softmax": softmax,
    "hard_swish": hard_swish,
    "leaky_relu": leaky_relu,
    "logistic": logistic,
    "gelu": gelu,
    "quantize": quantize,
}
FOUR_DIMENSIONS = ("conv2d", "depthwise_conv2d", "average_pool", "max_pool", "pad", "pad_channels", "resize_nearest")


# ---- parts of the steps ---------------------------------------------------------------------------------------------------


def _scale(x: Tensor) -> float:
    return scale_of(x) if x.quant else 1.0


def _normal(s: Sketch, shape: tuple[int, ...]) -> Array:
    return s.rng.normal(size=shape).astype(np.float32)


def _window(s: Sketch, x: Tensor) -> tuple[ir.Pair, ir.Pair, ir.Pair, ir.Sides, ir.Pair]:
    """kernel, stride, dilation, padding, and the plane that comes out; at least one window fits."""
    pair = lambda most: (s.draw(st.integers(1, most)), s.draw(st.integers(1, most)))  # noqa: E731  # a short name for one line
    kernel, stride = pair(4), pair(3)
    dilation = pair(3) if s.draw(st.booleans()) else (1, 1)
    same = same_padding((x.shape[1], x.shape[2]), kernel, stride, dilation)
    top, bottom, left, right = (s.draw(st.integers(0, 3)) for _ in range(4))
    padding = s.draw(st.sampled_from((same, (0, 0, 0, 0), (top, bottom, left, right))))
    for i in (0, 1):
        reach = (kernel[i] - 1) * dilation[i] + 1
        if x.shape[1 + i] + padding[2 * i] + padding[2 * i + 1] < reach:
            kernel = (1, kernel[1]) if i == 0 else (kernel[0], 1)
    plane = tuple(
        (x.shape[1 + i] + padding[2 * i] + padding[2 * i + 1] - (kernel[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1)
    )
    return kernel, stride, dilation, padding, (plane[0], plane[1])


def _weights(s: Sketch, x: Tensor, shape: tuple[int, ...], axis: int) -> tuple[Tensor, tuple[Tensor, ...], tuple[float, float]]:
    """Weight, bias (or none), and two output scales: the one that fits their products, and the least that is allowed."""
    out = shape[axis]
    terms = int(np.prod(shape)) // out
    with_bias = s.draw(st.booleans())
    if not s.integer:
        bias = (s.constant(_normal(s, (out,))),) if with_bias else ()
        return s.constant(_normal(s, shape)), bias, (1.0, 1.0)
    channels = out if s.per_channel and s.draw(st.booleans()) else 1
    spread = s.draw(st.sampled_from((0.0, 1.0, 6.0)))  # how far apart the channels' scales lie
    base = 0.01 * 2.0 ** s.draw(st.floats(-6, 6))
    scale = (base * np.exp(s.rng.normal(size=channels) * spread)).clip(1e-8, 1e3).astype(np.float32)
    # one channel is written per tensor: the file has no other way to say it
    weight = s.constant(s.int8(shape), Quant(scale, np.zeros(channels, np.int32), axis if channels > 1 else None))
    products = (np.float32(scale_of(x)) * scale).astype(np.float32)
    size = s.draw(st.sampled_from((100, 20_000, 2**30)))  # the last one near the limits of the accumulator
    quant = Quant(products, np.zeros(channels, np.int32), 0 if channels > 1 else None)
    bias = (s.constant(s.rng.integers(-size, size, out).astype(np.int32), quant),) if with_bias else ()
    # the kernels shift the accumulator left where the output's scale is small; what passes int32 there is undefined in C++
    largest = 255 * 255 * terms + (size if with_bias else 0)
    return weight, bias, (float(np.median(products) * 64 * np.sqrt(terms)), float(products.max()) * largest / 2**30)


def _other(s: Sketch, x: Tensor) -> Tensor:
    """A second operand that broadcasts to x: x itself, a constant of its shape, one a channel, or one number."""
    kind = s.draw(st.sampled_from(("itself", "whole", "channels", "one")))
    if kind == "itself":
        return x
    shape = {"whole": x.shape, "channels": (1,) * (len(x.shape) - 1) + x.shape[-1:], "one": (1,) * len(x.shape)}[kind]
    return s.constant(s.int8(shape), s.quant(scale_of(x))) if s.integer else s.constant(_normal(s, shape))


def _pool(s: Sketch, x: Tensor, op: str) -> Tensor:
    size = (s.draw(st.integers(1, min(4, x.shape[1]))), s.draw(st.integers(1, min(4, x.shape[2]))))
    stride = (s.draw(st.integers(1, 3)), s.draw(st.integers(1, 3)))
    choices = [(0, 0, 0, 0), same_padding((x.shape[1], x.shape[2]), size, stride)]
    if op == "max_pool":  # .tflite has no other padding that is left out of a mean
        choices.append((size[0] - 1, 0, size[1] - 1, 0))
        top, bottom, left, right = (s.draw(st.integers(0, size[i // 2] - 1)) for i in range(4))
        choices.append((top, bottom, left, right))
    padding = s.draw(st.sampled_from(choices))
    plane = [(x.shape[1 + i] + padding[2 * i] + padding[2 * i + 1] - size[i]) // stride[i] + 1 for i in (0, 1)]
    attrs = {"average_pool": ir.AveragePool, "max_pool": ir.MaxPool}[op](size, stride, padding, s.draw(CLAMPS))
    return s.node(op, (x,), (1, *plane, x.shape[3]), x.quant, attrs)  # LiteRT pools keep their input's quant


# ---- whole graphs ---------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: Draw, *, integer: bool, op: str | None = None, most: int = 4) -> tuple[Graph, Array]:
    """A graph and an input for it. op: the first step; then up to most - 1 others.

    An int8 graph begins with int8, with float32 and `quantize`, or with an image and its `table`; it may end in `dequantize`, and
    may have what it had before its last step as a second output.
    """
    s = Sketch(draw, integer, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    x, value = _beginning(s, _plane(draw))
    first, trail = next(iter(s.tensors)), [x]
    for name in (op or draw(st.sampled_from(list(STEPS))), *draw(st.lists(st.sampled_from(list(STEPS)), max_size=most - 1))):
        if len(x.shape) == 4 or name not in FOUR_DIMENSIONS:
            x = STEPS[name](s, x)
            trail.append(x)
    if not s.nodes:
        x = reshape(s, x, flat=True)
    before = trail[-2].name if len(trail) > 1 and draw(st.booleans()) else first
    if integer and draw(st.booleans()):
        out = s.activation(x.shape, None, "float32")
        s.nodes.append(Node("dequantize", (x.name,), (out.name,), ir.Dequantize()))
        x = out
    outputs = (x.name,) if before in (first, x.name) else (x.name, before)
    return Graph(s.tensors, tuple(s.nodes), (first,), outputs), value


@st.composite
def old_graphs(draw: Draw, most: int = 4) -> tuple[Graph, Array]:
    """A graph as it is read from a uint8 network, all int8 here: weights per tensor with a zero point, nodes marked `unsigned`."""
    s = Sketch(draw, True, np.random.default_rng(draw(st.integers(0, 2**32 - 1))), per_channel=False)
    first = x = s.activation(_plane(draw), s.quant(0.02))
    for name in draw(st.lists(st.sampled_from(OLD), min_size=1, max_size=most)):
        if len(x.shape) == 4 or name not in FOUR_DIMENSIONS:
            x = STEPS[name](s, x)
    x = fully_connected(s, x)  # at least one node says that the network is old
    for node in s.nodes:
        if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"):
            weight = s.tensors[node.inputs[1]]
            zero_point = np.array([draw(ZERO_POINTS.filter(bool))], np.int32)
            s.tensors[weight.name] = replace(weight, quant=replace(weight.quant, zero_point=zero_point))
    nodes = (replace(n, attrs=replace(n.attrs, unsigned=True)) if isinstance(n.attrs, WITH_UNSIGNED) else n for n in s.nodes)
    return Graph(s.tensors, tuple(nodes), (first.name,), (x.name,)), s.int8(first.shape)


OLD = ("conv2d", "depthwise_conv2d", "fully_connected", "average_pool", "max_pool", "add", "reshape", "softmax")


def _plane(draw: Draw) -> tuple[int, int, int, int]:
    return 1, draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 6))


def _beginning(s: Sketch, shape: tuple[int, ...]) -> tuple[Tensor, Array]:
    """The input, made the graph's own type, and a value for it."""
    kind = (
        s.draw(st.sampled_from(("int8", "int8", "float32", "image")))
        if s.integer
        else s.draw(st.sampled_from(("float32", "image")))
    )
    quant = s.quant(0.02) if s.integer else None
    if kind == "int8":
        return s.activation(shape, quant), s.int8(shape)
    if kind == "image":
        image = s.activation(shape, None, "uint8")
        table = s.constant(_table(s.rng, shape[3], quant, s.draw(st.booleans())), quant)
        return s.node("table", (image, table), shape, quant, ir.Table()), s.rng.integers(0, 256, shape).astype(np.uint8)
    real = s.activation(shape, None, "float32")
    value = _normal(s, shape)
    return (s.node("quantize", (real,), shape, quant, ir.Quantize()) if s.integer else real), value


def _table(rng: np.random.Generator, channels: int, quant: Quant | None, affine: bool) -> Array:
    """A normalisation by a random mean and std, or any values at all: float32, or int8 where there is a quant."""
    if not affine:
        return (
            rng.integers(-128, 128, (channels, 256)).astype(np.int8)
            if quant
            else rng.normal(size=(channels, 256)).astype(np.float32)
        )
    real = (np.arange(256) / 255 - rng.uniform(0, 1, (channels, 1))) / rng.uniform(0.05, 1, (channels, 1))
    if quant is None:
        return real.astype(np.float32)
    return np.clip(np.round(real / quant.scale[0]) + quant.zero_point[0], -128, 127).astype(np.int8)


def valid(case: Case) -> Case:
    """The strategies draw scales that spec.py refuses now and then: too small for what the kernels' integers hold."""
    try:
        spec.check(case[0])
    except UnusableFile as error:
        assume("too small" not in str(error))
        raise
    return case
