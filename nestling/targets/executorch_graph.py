"""An int8 Graph as a torch module of quantise and dequantise nodes (QDQ), which ExecuTorch lowers to XNNPACK's int8 kernels.

The integers are the Graph's own: weights stand in the module as int8, scales and zero points as constants. Float is only the way
there: XNNPACK sees dequantise -> operation -> quantise and runs the integer kernel of that operation. Values are NCHW, as its
patterns want them; inside it runs NHWC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.ao.quantization.fx._decomposed  # registers the operators quantized_decomposed.*
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own habit

from nestling.errors import UnsupportedOp
from nestling.graph import ir
from nestling.graph.ir import Graph, Node, Quant
from nestling.graph.simulate import real
from nestling.targets.tflite_table import affine

NCHW = (0, 3, 1, 2)
CHANNELS_FIRST = {"conv2d": NCHW, "depthwise_conv2d": (3, 0, 1, 2)}  # weights: OHWI and 1HWO become OIHW
AXIS = {0: 0, 1: 2, 2: 3, 3: 1}  # of NHWC -> of NCHW
CLAMPS: Mapping[ir.Clamp, Callable[[Tensor], Tensor]] = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}
quantized_decomposed = torch.ops.quantized_decomposed


class QdqModule(nn.Module):
    """forward: uint8 [1, H, W, C] -> the Graph's outputs, float32 (an int8 output as the real numbers that it stands for).

    graph: int8 with a table in front; a float end (dequantize, fully_connected) is welcome. Raises UnsupportedOp, naming the
    layer, for an op that has no such form, or weights with a zero point, which XNNPACK does not take.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.places = {name: f"constant_{i}" for i, name in enumerate(graph.tensors) if graph.tensors[name].data is not None}
        weights = {node.inputs[1] for node in graph.nodes if node.op in (*CHANNELS_FIRST, "fully_connected")}
        layouts = {node.inputs[1]: CHANNELS_FIRST[node.op] for node in graph.nodes if node.op in CHANNELS_FIRST}
        for node in graph.nodes:
            if node.op != "table" and node.op not in RUN:
                raise UnsupportedOp(f"{node.op} ({node.source or node.name}) has no int8 form in a .pte; fp32 .pte works.")
        for name, place in self.places.items():
            tensor = graph.tensors[name]
            if name in layouts and tensor.quant is not None and tensor.quant.zero_point.any():
                raise UnsupportedOp(f"the weights {name!r} have a zero point, which XNNPACK does not take; .tflite works.")
            data = real(tensor) if tensor.dtype == "int32" else np.asarray(tensor.data)  # biases: XNNPACK rounds them back
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
            if node.op == "table":
                value = self._normalised(node, image)
            else:
                value = RUN[node.op](node.attrs, *(self._read(name, node, values) for name in node.inputs))
            values[node.name] = self._finished(value, node)
        outputs = tuple(self._real(values[name], name) for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _normalised(self, node: Node, image: Tensor) -> Tensor:
        """The table as a multiplication and an addition a channel."""
        table = self.graph.tensors[node.inputs[1]]
        assert table.data is not None and table.quant is not None
        constants = affine(table.data, table.quant) or _nearest_line(table.data, table.quant)
        mul, add = (torch.from_numpy(np.array(values, np.float32).reshape(1, -1, 1, 1)) for values in constants)
        return image.permute(*NCHW).to(torch.float32) * mul + add

    def _read(self, name: str, node: Node, values: Mapping[str, Tensor]) -> Tensor:
        """The real numbers; each reader has a dequantise of its own, or the partitioner finds circles where one is shared."""
        if name not in self.places:
            return self._real(values[name], name)
        value: Tensor = getattr(self, self.places[name])
        if hasattr(self, f"{self.places[name]}_scale"):
            scale, zero = (getattr(self, f"{self.places[name]}_{part}") for part in ("scale", "zero"))
            value = quantized_decomposed.dequantize_per_channel(value, scale, zero, 0, -127, 127, torch.int8)
        else:
            value = self._real(value, name)
        spread = value.ndim == 1 and len(self.graph.tensors[node.name].shape) == 4 and node.op in ("add", "mul")
        return value.reshape(1, -1, 1, 1) if spread else value

    def _real(self, value: Tensor, name: str) -> Tensor:
        quant = self.graph.tensors[name].quant
        if quant is None or value.dtype != torch.int8:
            return value
        result: Tensor = quantized_decomposed.dequantize_per_tensor(value, *_grid(quant))
        return result

    def _finished(self, value: Tensor, node: Node) -> Tensor:
        """Brought to the integers' grid, then to the Graph's shape: mean keeps its dimensions until it is in integers."""
        tensor = self.graph.tensors[node.name]
        if tensor.quant is not None and tensor.dtype == "int8":
            value = quantized_decomposed.quantize_per_tensor(value, *_grid(tensor.quant))
        return value.reshape(tensor.shape) if len(tensor.shape) < value.ndim else value


def _nearest_line(table: ir.Array, quant: Quant) -> tuple[list[float], list[float]]:
    """Where no line gives every entry (values that lie right between two integers): one that is a step off at the most."""
    scale, zero_point = float(quant.scale[0]), int(quant.zero_point[0])
    lines = []
    for channel in table.astype(np.float64):
        inside = np.flatnonzero((channel > -128) & (channel < 127))
        slope, offset = np.polyfit(inside, channel[inside], 1) if len(inside) > 1 else (0.0, channel[0])
        if np.abs(np.clip(np.rint(slope * np.arange(256) + offset), -128, 127) - channel).max() > 1:
            raise UnsupportedOp("a normalisation that is no straight line has no form in a .pte; .tflite works.")
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
    top, bottom, left, right = attrs.padding
    if (top, left) != (bottom, right):
        raise UnsupportedOp("an average_pool padded on one side has no form in a .pte; .tflite works.")
    return CLAMPS[attrs.clamp](F.avg_pool2d(x, attrs.size, attrs.stride, (top, left), count_include_pad=False))


def _max_pool(attrs: ir.MaxPool, x: Tensor) -> Tensor:
    top, bottom, left, right = attrs.padding
    image = F.pad(x, (left, right, top, bottom), value=-torch.inf) if (top, left) != (bottom, right) else x
    padding = (0, 0) if image is not x else (top, left)
    one = attrs.size == (1, 1) and attrs.stride == (1, 1)
    return CLAMPS[attrs.clamp](image if one else F.max_pool2d(image, attrs.size, attrs.stride, padding))


def _pad(attrs: ir.Pad, x: Tensor) -> Tensor:
    top, bottom, left, right = attrs.padding
    return F.pad(x, (left, right, top, bottom))


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
    "concat": lambda attrs, *parts: torch.cat(parts, _axes(parts[0], (attrs.axis,))[0]),
    "reshape": lambda attrs, x: x.flatten(1) if x.ndim == 4 and x.shape[2:] == (1, 1) else _unshapable(),
    "softmax": lambda attrs, x: F.softmax(x * attrs.beta, -1),
    "hard_swish": lambda attrs, x: F.hardswish(x),
    "logistic": lambda attrs, x: torch.sigmoid(x),
    "quantize": lambda attrs, x: x,
    "dequantize": lambda attrs, x: x,
}


def _unshapable() -> Any:
    raise UnsupportedOp("a reshape of more than one place has no form in an int8 .pte; .tflite works.")
