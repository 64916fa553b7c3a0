"""A float Graph as a trainable torch module, and back: for imported and pruned networks, calibration, training with quantisers.

Values keep the Graph's layout, NHWC, outside the layers; a convolution sees the same memory as NCHW in channels_last, which is
its quick form. So what a hook gets and what a Quant's axis means are the same here as in the Graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
from torch import nn

from nestling.errors import UnsupportedOp
from nestling.graph.ir import (
    Add,
    AveragePool,
    BatchNorm,
    Clamp,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    Gelu,
    Graph,
    HardSwish,
    LeakyRelu,
    Logistic,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    PadChannels,
    Pair,
    Reshape,
    ResizeNearest,
    Sides,
    Slice,
    Softmax,
    Table,
)
from nestling.graph.windows import nearest_places

T = torch.Tensor
Hook = Callable[[str, T], T]  # (tensor's name, value in the Graph's layout) -> the value to go on with

LEARNED: Final[Mapping[str, tuple[int, ...]]] = {  # inputs that are parameters, by op; every other constant is a buffer
    "conv2d": (1, 2),
    "depthwise_conv2d": (1, 2),
    "fully_connected": (1, 2),
    "batch_norm": (1, 2),
}


class GraphModule(nn.Module):
    """A float Graph that torch can train.

    forward: the Graph's inputs (uint8 or float32 [N, H, W, C], any N) -> its output, or a tuple where it has several.
    Parameters: weights and biases, gamma and beta; buffers: means, variances, tables and the rest; all in the Graph's layout.
    In training mode batch_norm uses the batch's statistics and moves the buffers by `momentum`, as torch's own.

    observe: called with every activation's name and value, inputs included; what it returns is gone on with.
    observe_constant: the same for the constants of every node but batch_norm. Calibration records here, fake quantisers act here.
    Raises UnsupportedOp for a graph with integer nodes.
    """

    observe: Hook | None
    observe_constant: Hook | None

    def __init__(self, graph: Graph, momentum: float = 0.1) -> None:
        super().__init__()
        self.graph = graph
        self.momentum = momentum
        self.observe = None
        self.observe_constant = None
        self.constants = nn.Module()
        self._keys = _hold(graph, self.constants)
        self._done = _last_reads(graph)
        for node in graph.nodes:
            if node.op not in (*RUN, "batch_norm", "reshape") or any(
                graph.tensors[name].dtype in ("int8", "int32") for name in node.inputs
            ):
                raise UnsupportedOp(f"{node.op} {node.name!r} works on integers; only a float graph can be trained")

    def extra_repr(self) -> str:
        """The nodes: two modules with equal constants differ where these do."""
        return "\n".join(f"{node.op}{node.inputs} -> {node.outputs}: {node.attrs}" for node in self.graph.nodes)

    def constant(self, name: str) -> T:
        """The parameter or buffer that holds the Graph's constant `name`."""
        return cast(T, getattr(self.constants, self._keys[name]))

    def forward(self, *inputs: T) -> T | tuple[T, ...]:
        """See the class."""
        values: dict[str, T] = {}
        for name, value in zip(self.graph.inputs, inputs, strict=True):
            values[name] = self.observe(name, value) if self.observe else value
        for node, done in zip(self.graph.nodes, self._done, strict=True):
            value = self._run(node, [self._read(name, node, values) for name in node.inputs])
            values[node.name] = self.observe(node.name, value) if self.observe else value
            for name in done:
                del values[name]
        outputs = tuple(values[name] for name in self.graph.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _read(self, name: str, node: Node, values: Mapping[str, T]) -> T:
        if name not in self._keys:
            return values[name]
        value = self.constant(name)
        return self.observe_constant(name, value) if self.observe_constant and node.op != "batch_norm" else value

    def _run(self, node: Node, inputs: list[T]) -> T:
        if isinstance(node.attrs, BatchNorm):
            x, gamma, beta, mean, variance = inputs
            return _nhwc(F.batch_norm(_nchw(x), mean, variance, gamma, beta, self.training, self.momentum, node.attrs.epsilon))
        if isinstance(node.attrs, Reshape):
            return inputs[0].reshape(inputs[0].shape[0], *self.graph.tensors[node.name].shape[1:])
        return RUN[node.op](node.attrs, *inputs)


def to_graph(module: GraphModule) -> Graph:
    """The module's graph with the constants as they are in the module now."""
    now = {name: module.constant(name).detach().cpu().numpy().copy() for name in module._keys}
    tensors = {name: replace(t, data=now[name]) if name in now else t for name, t in module.graph.tensors.items()}
    return replace(module.graph, tensors=tensors)


def _hold(graph: Graph, holder: nn.Module) -> dict[str, str]:
    """Put the constants into `holder`, learned ones as parameters; tensor name -> attribute (torch allows no dots there)."""
    learned = {name for node in graph.nodes for place, name in enumerate(node.inputs) if place in LEARNED.get(node.op, ())}
    keys: dict[str, str] = {}
    for name, tensor in graph.tensors.items():
        if tensor.data is None:
            continue
        key = name.replace(".", "/") or "_"
        while hasattr(holder, key):
            key += "_"
        keys[name] = key
        value = torch.from_numpy(np.array(tensor.data))
        if name in learned:
            holder.register_parameter(key, nn.Parameter(value))
        else:
            holder.register_buffer(key, value)
    return keys


def _last_reads(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """For every node the activations that nobody reads after it."""
    last = {name: index for index, node in enumerate(graph.nodes) for name in (*node.outputs, *node.inputs)}
    forget = {name for name in last if graph.tensors[name].data is None} - set(graph.outputs)
    return tuple(
        tuple(dict.fromkeys(name for name in (*node.inputs, *node.outputs) if name in forget and last[name] == index))
        for index, node in enumerate(graph.nodes)
    )


# ---- one function an op: (attributes, inputs) -> output, NHWC outside ------------------------------------------------------------


def _conv2d(attrs: Conv2d, x: T, weight: T, bias: T | None = None) -> T:
    """weight [O, KH, KW, I / groups] is OIHW in channels_last."""
    return _convolved(attrs, x, weight.permute(0, 3, 1, 2), bias, groups=x.shape[3] // weight.shape[3])


def _depthwise(attrs: DepthwiseConv2d, x: T, weight: T, bias: T | None = None) -> T:
    """weight [1, KH, KW, O]."""
    return _convolved(attrs, x, weight.permute(3, 0, 1, 2), bias, groups=x.shape[3])


def _convolved(attrs: Conv2d | DepthwiseConv2d, x: T, weight: T, bias: T | None, groups: int) -> T:
    image, padding = _nchw(x), _symmetric(attrs.padding)
    if padding is None:
        image, padding = _padded(image, attrs.padding, 0.0), (0, 0)
    return _clamped(_nhwc(F.conv2d(image, weight, bias, attrs.stride, padding, attrs.dilation, groups)), attrs.clamp)


def _fully_connected(attrs: FullyConnected, x: T, weight: T, bias: T | None = None) -> T:
    return _clamped(F.linear(x, weight, bias), attrs.clamp)


def _add(attrs: Add, a: T, b: T) -> T:
    return _clamped(a + b, attrs.clamp)


def _mul(attrs: Mul, a: T, b: T) -> T:
    return _clamped(a * b, attrs.clamp)


def _average_pool(attrs: AveragePool, x: T) -> T:
    """Padding that torch cannot express: sums over counts, both as means of windows of one size."""
    image, padding = _nchw(x), _pool_padding(attrs)
    if padding is not None:
        pooled = F.avg_pool2d(image, attrs.size, attrs.stride, padding, count_include_pad=False)
    else:
        sums = F.avg_pool2d(_padded(image, attrs.padding, 0.0), attrs.size, attrs.stride)
        pooled = sums / F.avg_pool2d(_padded(torch.ones_like(image[:1, :1]), attrs.padding, 0.0), attrs.size, attrs.stride)
    return _clamped(_nhwc(pooled), attrs.clamp)


def _max_pool(attrs: MaxPool, x: T) -> T:
    """A window of one place is a clamp and nothing else."""
    if (attrs.size, attrs.stride, attrs.padding) == ((1, 1), (1, 1), (0, 0, 0, 0)):
        return _clamped(x, attrs.clamp)
    image, padding = _nchw(x), _pool_padding(attrs)
    if padding is None:
        image, padding = _padded(image, attrs.padding, -torch.inf), (0, 0)
    return _clamped(_nhwc(F.max_pool2d(image, attrs.size, attrs.stride, padding)), attrs.clamp)


def _mean(attrs: Mean, x: T) -> T:
    return x.mean(attrs.axes, keepdim=attrs.keep_dims)


def _pad(attrs: Pad, x: T) -> T:
    return _nhwc(_padded(_nchw(x), attrs.padding, 0.0))


def _pad_channels(attrs: PadChannels, x: T) -> T:
    return F.pad(x, (attrs.before, attrs.after))


def _resize_nearest(attrs: ResizeNearest, x: T) -> T:
    for axis, size in zip((1, 2), attrs.size, strict=True):
        places = nearest_places(x.shape[axis], size, attrs.align_corners, attrs.half_pixel_centers)
        x = x.index_select(axis, torch.from_numpy(places).to(x.device))
    return x


def _concat(attrs: Concat, *parts: T) -> T:
    return torch.cat(parts, attrs.axis)


def _slice(attrs: Slice, x: T) -> T:
    return x.narrow(attrs.axis, attrs.begin, attrs.end - attrs.begin)


def _softmax(attrs: Softmax, x: T) -> T:
    return F.softmax(x if attrs.beta == 1 else x * attrs.beta, -1)


def _hard_swish(attrs: HardSwish, x: T) -> T:
    return F.hardswish(x)


def _leaky_relu(attrs: LeakyRelu, x: T) -> T:
    return F.leaky_relu(x, attrs.alpha)


def _logistic(attrs: Logistic, x: T) -> T:
    return torch.sigmoid(x)


def _gelu(attrs: Gelu, x: T) -> T:
    return F.gelu(x, approximate="tanh" if attrs.approximate else "none")


def _table(attrs: Table, image: T, table: T) -> T:
    """image uint8 [N, H, W, C], table [C, 256]."""
    return table[torch.arange(len(table), device=table.device), image.long()]


RUN: Final[Mapping[str, Callable[..., T]]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise,
    "fully_connected": _fully_connected,
    "add": _add,
    "mul": _mul,
    "average_pool": _average_pool,
    "max_pool": _max_pool,
    "mean": _mean,
    "pad": _pad,
    "pad_channels": _pad_channels,
    "resize_nearest": _resize_nearest,
    "concat": _concat,
    "slice": _slice,
    "softmax": _softmax,
    "hard_swish": _hard_swish,
    "leaky_relu": _leaky_relu,
    "logistic": _logistic,
    "gelu": _gelu,
    "table": _table,
}

CLAMPED: Final[Mapping[Clamp, Callable[[T], T]]] = {"none": lambda x: x, "relu": F.relu, "relu6": F.relu6}


def _clamped(x: T, clamp: Clamp) -> T:
    return CLAMPED[clamp](x)


def _nchw(x: T) -> T:
    """A view; what is no image stays."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _nhwc(x: T) -> T:
    """A view; what is no image stays."""
    return x.permute(0, 2, 3, 1) if x.ndim == 4 else x


def _padded(image: T, padding: Sides, value: float) -> T:
    """image NCHW; torch lists left, right, top, bottom."""
    top, bottom, left, right = padding
    return F.pad(image, (left, right, top, bottom), value=value)


def _symmetric(padding: Sides) -> Pair | None:
    """Padding as torch's layers take it, None where the sides differ."""
    top, bottom, left, right = padding
    return (top, left) if top == bottom and left == right else None


def _pool_padding(attrs: AveragePool | MaxPool) -> Pair | None:
    """As _symmetric; torch's pools take half the window at most."""
    padding = _symmetric(attrs.padding)
    fits = padding is not None and 2 * padding[0] <= attrs.size[0] and 2 * padding[1] <= attrs.size[1]
    return padding if fits else None
