"""A Graph as the torch module that ExecuTorch lowers to XNNPACK: a float one as it is, an int8 one with quantise and dequantise.

An int8 Graph's integers are its own: weights stand in the module as int8, scales and zero points as constants. Float is only the
way there: XNNPACK sees dequantise -> operation -> quantise (QDQ) and runs the integer kernel of that operation, or a float one
between the two where it has no other (average_pool, hard_swish, logistic, gelu, softmax). Resizes stay outside of it. Values of
four dimensions are NCHW, as its patterns want them (inside it runs NHWC), all others as in the Graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators quantized_decomposed.*
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from nestling.errors import UnsupportedOp
from nestling.formats.affine_table import affine
from nestling.graph import ir
from nestling.graph.float_twin import real
from nestling.graph.ir import Graph, Node, Quant
from nestling.graph.windows import nearest_places

NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)  # permutations: from NHWC, from NCHW
CHANNELS_FIRST = {"conv2d": NCHW, "depthwise_conv2d": (3, 0, 1, 2)}  # weights: OHWI and 1HWO become OIHW
AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # of NHWC -> of NCHW
CLAMPS: Mapping[ir.Clamp, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}
NO_LINE = "a normalisation that is no straight line has no form in a .pte; .tflite works."
OWN_FORM = ("table", "reshape")
ALMOST_ZERO = (
    1e-30  # padding by zero of what was dequantised is taken for a quantised convolution's, which a float pool cannot read
)
quantized_decomposed = torch.ops.quantized_decomposed


class GraphProgram(nn.Module):
    """forward: uint8 [1, H, W, C] -> the Graph's outputs, float32 (an int8 output as the real numbers that it stands for).

    graph: float or int8, with a table in front; a float end of an int8 one (dequantize, fully_connected) is welcome. Raises
    UnsupportedOp, naming the layer, for an op that has no such form, and weights with a zero point, which XNNPACK does not take
    (see symmetric.py).
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.places = {name: f"constant_{i}" for i, name in enumerate(graph.tensors) if graph.tensors[name].data is not None}
        weights = {node.inputs[1] for node in graph.nodes if node.op in (*CHANNELS_FIRST, "fully_connected")}
        layouts = {node.inputs[1]: CHANNELS_FIRST[node.op] for node in graph.nodes if node.op in CHANNELS_FIRST}
        broadcast = {name for node in graph.nodes for name in node.inputs if node.op in ("add", "mul")}
        broadcast -= {name for node in graph.nodes for name in node.inputs if node.op not in ("add", "mul")}
        if graph.tensors[graph.inputs[0]].dtype != "uint8":
            raise UnsupportedOp("a .pte takes bytes, and this network float numbers; .tflite and .onnx work.")
        for node in graph.nodes:
            if node.op not in (*RUN, *OWN_FORM):
                raise UnsupportedOp(
                    f"{node.op} ({node.source or node.name}) has no form in a .pte.", "prepare the graph: passes.py"
                )
        for name, place in self.places.items():
            tensor = graph.tensors[name]
            if name in weights and tensor.quant is not None and tensor.quant.zero_point.any():
                hint = "make them symmetric: symmetric.py"
                raise UnsupportedOp(f"the weights {name!r} have a zero point, which XNNPACK does not take; .tflite works.", hint)
            data = real(tensor) if tensor.dtype == "int32" else np.asarray(tensor.data)  # biases: XNNPACK rounds them back
            if name in broadcast and data.shape[:3] == (1, 1, 1):
                data = data.reshape(-1)  # [C]: of a constant [1, C, 1, 1] XNNPACK makes one of another layout
            order = layouts.get(name, NCHW if data.ndim == 4 else tuple(range(data.ndim)))
            self.register_buffer(place, torch.from_numpy(np.ascontiguousarray(data.transpose(order))))
            if tensor.quant is not None and name in weights:  # as buffers: the partitioner wants to find them there
                scale = np.broadcast_to(tensor.quant.scale, data.transpose(order).shape[:1])
                self.register_buffer(f"{place}_scale", torch.from_numpy(np.array(scale, np.float32)))
                self.register_buffer(f"{place}_zero", torch.zeros(len(scale), dtype=torch.int64))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        values = {self.graph.inputs[0]: image}
        for node in self.graph.nodes:
            values[node.name] = self._run(node, values)
        real_numbers = (self._real(values[name], name) for name in self.graph.outputs)
        outputs = tuple(value.permute(*NHWC) if value.ndim == 4 else value for value in real_numbers)
        return outputs[0] if len(outputs) == 1 else outputs

    def _run(self, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        out = self.graph.tensors[node.name]
        if node.op == "reshape":
            return _reshaped(values[node.inputs[0]], out.shape, out.quant)
        if node.op == "table":
            value = self._normalised(node, values[node.inputs[0]])
        else:
            value = RUN[node.op](node.attrs, *(self._read(name, node, values) for name in node.inputs))
        if out.quant is not None and out.dtype == "int8":
            value = quantized_decomposed.quantize_per_tensor(value, *_grid(out.quant))
        return _reshaped(value, out.shape, out.quant)  # mean has kept its dimensions until here: so it stays in the delegate

    def _normalised(self, node: Node, image: Tensor) -> Tensor:
        """The table as a multiplication and an addition a channel.

        The cast comes first and alone: it is the only operator outside the delegate, where a permutation is ten times as slow.
        """
        table = self.graph.tensors[node.inputs[1]]
        assert table.data is not None
        constants = affine(table.data, table.quant) or _nearest_line(table.data, table.quant)
        mul, add = (torch.from_numpy(np.array(values, np.float32).reshape(1, -1, 1, 1)) for values in constants)
        return image.to(torch.float32).permute(*NCHW) * mul + add

    def _read(self, name: str, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """The real numbers; each reader has a dequantise of its own, or the partitioner finds circles where one is shared."""
        if name not in self.places:
            value = self._real(values[name], name)
        elif hasattr(self, f"{self.places[name]}_scale"):
            weight, scale, zero = (getattr(self, f"{self.places[name]}{part}") for part in ("", "_scale", "_zero"))
            value = quantized_decomposed.dequantize_per_channel(weight, scale, zero, 0, -127, 127, torch.int8)
        else:
            value = self._real(getattr(self, self.places[name]), name)
        missing = len(self.graph.tensors[node.name].shape) - value.ndim
        if node.op in ("add", "mul") and missing:  # broadcasting goes by the Graph's order of dimensions
            return _reshaped(value, (1,) * missing + tuple(value.shape), None)
        return value

    def _real(self, value: Tensor, name: str) -> Tensor:
        quant = self.graph.tensors[name].quant
        return value if quant is None or value.dtype != torch.int8 else _dequantized(value, quant)


def _reshaped(value: Tensor, shape: tuple[int, ...], quant: Quant | None) -> Tensor:
    """value and the result: NCHW where they have four dimensions; shape: in the Graph's order. quant: of an int8 value."""
    own = tuple(value.shape[i] for i in NHWC) if value.ndim == 4 else tuple(value.shape)
    if own == shape:
        return value
    if value.ndim == 4 and own[1:3] != (1, 1):  # of one place both orders are the same
        value = _moved(value, quant, lambda x: x.permute(*NHWC))
    if len(shape) != 4:
        return _moved(value, quant, lambda x: x.reshape(shape))
    batch, height, width, channels = shape
    if (height, width) == (1, 1):
        return _moved(value, quant, lambda x: x.reshape(batch, channels, 1, 1))
    return _moved(_moved(value, quant, lambda x: x.reshape(shape)), quant, lambda x: x.permute(*NCHW))


def _moved(value: Tensor, quant: Quant | None, move: Callable[[Tensor], Tensor]) -> Tensor:
    """move(value); of integers between dequantise and quantise, the form in which the delegate takes it."""
    if value.dtype != torch.int8:
        return move(value)
    assert quant is not None
    moved: Tensor = quantized_decomposed.quantize_per_tensor(move(_dequantized(value, quant)), *_grid(quant))
    return moved


def _dequantized(value: Tensor, quant: Quant) -> Tensor:
    result: Tensor = quantized_decomposed.dequantize_per_tensor(value, *_grid(quant))
    return result


def _nearest_line(table: ir.Array, quant: Quant | None) -> tuple[list[float], list[float]]:
    """Where no line gives every entry (values that lie right between two integers): one that is a step off at the most."""
    if quant is None:
        raise UnsupportedOp(NO_LINE)
    scale, zero_point = float(quant.scale[0]), int(quant.zero_point[0])
    lines = []
    for channel in table.astype(np.float64):
        inside = np.flatnonzero((channel > -128) & (channel < 127))
        slope, offset = np.polyfit(inside, channel[inside], 1) if len(inside) > 1 else (0.0, channel[0])
        if np.abs(np.clip(np.rint(slope * np.arange(256) + offset), -128, 127) - channel).max() > 1:
            raise UnsupportedOp(NO_LINE)
        lines.append((slope * scale, (offset - zero_point) * scale))
    return [mul for mul, _ in lines], [add for _, add in lines]


def _grid(quant: Quant) -> tuple[float, int, int, int, torch.dtype]:
    return float(quant.scale[0]), int(quant.zero_point[0]), -128, 127, torch.int8


# ---- one function an op: (attributes, inputs) -> output, NCHW --------------------------------------------------------------------


def _conv(attrs: ir.Conv2d | ir.DepthwiseConv2d, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    top, bottom, left, right = attrs.padding
    even = top == bottom and left == right
    image = x if even else F.pad(x, (left, right, top, bottom))
    groups = x.shape[1] // weight.shape[1]
    y = F.conv2d(image, weight, bias, attrs.stride, (top, left) if even else 0, attrs.dilation, groups)
    return CLAMPS[attrs.clamp](y)


def _average_pool(attrs: ir.AveragePool, x: Tensor) -> Tensor:
    """XNNPACK's own counts no padding, but its sides are even; else sums over counts, both as means of windows of one size."""
    plane = (int(x.shape[2]), int(x.shape[3]))
    padding = _even(attrs)
    if attrs.size == plane and not any(attrs.padding):
        pooled = x.mean((2, 3), keepdim=True)  # which has an integer kernel
    elif padding is not None:
        pooled = F.avg_pool2d(x, attrs.size, attrs.stride, padding, count_include_pad=False)
    else:
        top, bottom, left, right = attrs.padding
        image = F.pad(x, (left, right, top, bottom), value=ALMOST_ZERO)
        pooled = F.avg_pool2d(image, attrs.size, attrs.stride) * _shares(attrs, plane)
    return CLAMPS[attrs.clamp](pooled)


def _shares(attrs: ir.AveragePool, plane: ir.Pair) -> Tensor:
    """float32 [1, 1, OH, OW]: a window's places over those of them inside the image."""
    top, bottom, left, right = attrs.padding
    inside = []
    for length, before, after, k, stride in zip(plane, (top, left), (bottom, right), attrs.size, attrs.stride, strict=True):
        starts = np.arange(-before, length + after - k + 1, stride)
        inside.append(np.minimum(starts + k, length) - np.maximum(starts, 0))
    return torch.from_numpy((math.prod(attrs.size) / np.outer(*inside))[None, None].astype(np.float32))


def _max_pool(attrs: ir.MaxPool, x: Tensor) -> Tensor:
    top, bottom, left, right = attrs.padding
    padding = _even(attrs)
    image = F.pad(x, (left, right, top, bottom), value=-torch.inf) if padding is None else x
    one = attrs.size == (1, 1) and attrs.stride == (1, 1)
    return CLAMPS[attrs.clamp](image if one else F.max_pool2d(image, attrs.size, attrs.stride, padding or (0, 0)))


def _even(attrs: ir.AveragePool | ir.MaxPool) -> ir.Pair | None:
    """Padding as torch's pools take it, at most half the window on both sides; None where they cannot."""
    top, bottom, left, right = attrs.padding
    fits = (top, left) == (bottom, right) and 2 * top <= attrs.size[0] and 2 * left <= attrs.size[1]
    return (top, left) if fits else None


def _pad(attrs: ir.Pad, x: Tensor) -> Tensor:
    top, bottom, left, right = attrs.padding
    return F.pad(x, (left, right, top, bottom))


def _resize_nearest(attrs: ir.ResizeNearest, x: Tensor) -> Tensor:
    """By torch's own operator where its places are these: index_select stops where the delegate hands it channels last.

    One place is spread by a product, which stays in the delegate: outside it the order of [1, C, 1, 1] is taken for another.
    """
    if tuple(x.shape[2:]) == (1, 1):
        return x * torch.ones(1, 1, *attrs.size)
    if not attrs.align_corners and not attrs.half_pixel_centers:
        return F.interpolate(x, size=attrs.size, mode="nearest")
    for axis, size in zip((2, 3), attrs.size, strict=True):
        places = nearest_places(int(x.shape[axis]), size, attrs.align_corners, attrs.half_pixel_centers)
        x = x.index_select(axis, torch.from_numpy(places))
    return x


def _axes(x: Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(AXIS[axis % 4] for axis in axes) if x.ndim == 4 else axes


RUN: Mapping[str, Callable[..., Tensor]] = {
    "conv2d": _conv,
    "depthwise_conv2d": _conv,
    "fully_connected": lambda attrs, x, weight, bias=None: CLAMPS[attrs.clamp](F.linear(x, weight, bias)),
    "add": lambda attrs, a, b: CLAMPS[attrs.clamp](a + b),
    "mul": lambda attrs, a, b: CLAMPS[attrs.clamp](a * b),
    "average_pool": _average_pool,
    "max_pool": _max_pool,
    "mean": lambda attrs, x: x.mean(_axes(x, attrs.axes), keepdim=True),
    "pad": _pad,
    "pad_channels": lambda attrs, x: F.pad(x, (0, 0, 0, 0, attrs.before, attrs.after)),
    "resize_nearest": _resize_nearest,
    "concat": lambda attrs, *parts: torch.cat(parts, _axes(parts[0], (attrs.axis,))[0]),
    "slice": lambda attrs, x: x.narrow(_axes(x, (attrs.axis,))[0], attrs.begin, attrs.end - attrs.begin),
    "softmax": lambda attrs, x: F.softmax(x if attrs.beta == 1 else x * attrs.beta, _axes(x, (x.ndim - 1,))[0]),
    "hard_swish": lambda attrs, x: F.hardswish(x),
    "leaky_relu": lambda attrs, x: F.leaky_relu(x, attrs.alpha),
    "logistic": lambda attrs, x: torch.sigmoid(x),
    "gelu": lambda attrs, x: F.gelu(x, approximate="tanh" if attrs.approximate else "none"),
    "quantize": lambda attrs, x: x,
    "dequantize": lambda attrs, x: x,
}
