"""A float Graph as one torch network of convolutions, channels second throughout: the form that Model Optimizer can trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
from torch import nn

from nestling.compress.layers import Layers
from nestling.graph.head import Head
from nestling.graph.ir import (
    Add,
    AveragePool,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Gelu,
    Graph,
    HardSwish,
    Logistic,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Reshape,
)
from nestling.models.graph_module import CLAMPED, RUN

T = torch.Tensor


class Images(nn.Module):
    """The Graph under `head`; forward: the Graph's input for N images as [N, C, H, W] -> logits float32 [N, classes].

    Every value has four axes: what is [N, D] in the Graph is [N, D, 1, 1] here, and a matrix product is a convolution of 1 x 1.
    Only so does Model Optimizer follow channels from a convolution through a mean into a matrix product.
    Operations that it does not follow go through the Graph's own form and functions: the channels that reach them stay.
    Raises UnsupportedOp for a Graph that Layers does not take.
    """

    def __init__(self, graph: Graph, head: Head) -> None:
        super().__init__()
        self.graph, self.whole_head = graph, head
        with torch.random.fork_rng(devices=[]):  # torch's layers begin with random numbers, which are not wanted
            layers = Layers(graph, head)
            self.layers = nn.ModuleDict({key: _of_images(layer) for key, layer in layers.layers.items()})
            self.head = cast(nn.Conv2d, _of_images(layers.head))
        self.pads = nn.ModuleDict({str(i): pad for i, node in enumerate(graph.nodes) if (pad := _pad(node)) is not None})
        self.others = nn.ModuleDict()
        self._steps = tuple(self._step(index, node) for index, node in enumerate(graph.nodes))
        self.eval()

    def forward(self, images: T) -> T:
        """See the class."""
        values = {self.graph.inputs[0]: images}
        for node, step in zip(self.graph.nodes, self._steps, strict=True):
            values[node.name] = step(*(values[name] for name in node.inputs if name in values))
        return torch.flatten(self.head(values[self.graph.outputs[0]]), 1)

    def layer(self, index: int) -> nn.Conv2d | nn.BatchNorm2d | None:
        """Of the Graph's node at `index`."""
        return cast(nn.Conv2d, self.layers[str(index)]) if str(index) in self.layers else None

    def example(self) -> T:
        """One blank image, as forward takes it."""
        image = self.graph.tensors[self.graph.inputs[0]]
        return torch.from_numpy(np.zeros(image.shape, image.dtype)).permute(0, 3, 1, 2)

    def _step(self, index: int, node: Node) -> Callable[..., T]:
        """What the node does with the values that it reads. Modules are looked up when it runs: Model Optimizer replaces them."""
        key = str(index)
        if key in self.layers:
            clamped, padded = CLAMPED[getattr(node.attrs, "clamp", "none")], key in self.pads
            return lambda x: clamped(self.layers[key](self.pads[key](x) if padded else x))
        if key in self.pads:
            return lambda x: self.pads[key](x)
        function = _function(node, self.graph)
        if function is not None:
            return function
        self.others[key] = _AsGraph(node, self.graph)
        return lambda *inputs: self.others[key](*inputs)


class _AsGraph(nn.Module):
    """A node by the Graph's own function, in the Graph's form; a module of its own, for there Model Optimizer's tracing ends."""

    def __init__(self, node: Node, graph: Graph) -> None:
        super().__init__()
        self.node = node
        self.ranks = {name: len(graph.tensors[name].shape) for name in (*node.inputs, node.name)}
        self.held = {name for name in node.inputs if graph.tensors[name].data is not None}
        for place, name in enumerate(node.inputs):
            if name in self.held:
                self.register_buffer(f"c{place}", torch.from_numpy(np.array(graph.tensors[name].data)))

    def forward(self, *inputs: T) -> T:
        """Channels second, in and out."""
        given = iter(inputs)
        values = [
            cast(T, getattr(self, f"c{place}")) if name in self.held else _as_graph(next(given), self.ranks[name])
            for place, name in enumerate(self.node.inputs)
        ]
        out = RUN[self.node.op](self.node.attrs, *values)
        return out.permute(0, 3, 1, 2) if self.ranks[self.node.name] == 4 else out[:, :, None, None]


def _function(node: Node, graph: Graph) -> Callable[..., T] | None:
    """In words that Model Optimizer follows; None where there are none."""
    attrs = node.attrs
    held = [data for name in node.inputs if (data := graph.tensors[name].data) is not None]
    if isinstance(attrs, Add | Mul) and all(data.size == 1 for data in held):
        numbers = [float(data.reshape(())) for data in held]
        clamped = CLAMPED[attrs.clamp]
        if isinstance(attrs, Add):
            return lambda *x: clamped(x[0] + (*x, *numbers)[1])
        return lambda *x: clamped(x[0] * (*x, *numbers)[1])
    if isinstance(attrs, Reshape):
        return lambda x: x  # sides of 1 come or go, nothing else: Layers has made sure
    if isinstance(attrs, Mean) and attrs.axes == (1, 2):
        return lambda x: x.mean((2, 3), keepdim=True)
    if isinstance(attrs, HardSwish):
        return F.hardswish
    if isinstance(attrs, Logistic):
        return torch.sigmoid
    if isinstance(attrs, Gelu):
        how = "tanh" if attrs.approximate else "none"
        return lambda x: F.gelu(x, approximate=how)
    if isinstance(attrs, Concat) and not held and attrs.axis == len(graph.tensors[node.name].shape) - 1:
        return lambda *x: torch.cat(x, 1)
    if isinstance(attrs, MaxPool | AveragePool) and (padding := _pool_padding(attrs)) is not None:
        clamped, size, stride = CLAMPED[attrs.clamp], attrs.size, attrs.stride
        if isinstance(attrs, MaxPool):
            return lambda x: clamped(F.max_pool2d(x, size, stride, padding))
        return lambda x: clamped(F.avg_pool2d(x, size, stride, padding, count_include_pad=False))
    return None


def _pad(node: Node) -> nn.ZeroPad2d | None:
    """Zeros around an image, where a convolution does not put them itself. A module: torch's function would end the tracing."""
    if not isinstance(node.attrs, Conv2d | DepthwiseConv2d | Pad):
        return None
    top, bottom, left, right = node.attrs.padding
    by_layer = not isinstance(node.attrs, Pad) and (top, left) == (bottom, right)
    return None if by_layer else nn.ZeroPad2d((left, right, top, bottom))


def _as_graph(x: T, rank: int) -> T:
    return x.permute(0, 2, 3, 1) if rank == 4 else torch.flatten(x, 1)


def _pool_padding(attrs: AveragePool | MaxPool) -> tuple[int, int] | None:
    """Torch's, where it can express it."""
    top, bottom, left, right = attrs.padding
    small = 2 * top <= attrs.size[0] and 2 * left <= attrs.size[1]
    return (top, left) if (top, left) == (bottom, right) and small else None


def _of_images(layer: nn.Module) -> nn.Module:
    """A matrix product as a convolution of 1 x 1, a batch norm of vectors as one of images."""
    if isinstance(layer, nn.Linear):
        convolution = nn.Conv2d(layer.in_features, layer.out_features, 1, bias=layer.bias is not None)
        convolution.weight.data.copy_(layer.weight.data[:, :, None, None])
        if convolution.bias is not None:
            convolution.bias.data.copy_(layer.bias.data)
        return convolution
    if isinstance(layer, nn.BatchNorm1d):
        norm = nn.BatchNorm2d(layer.num_features, eps=layer.eps)
        norm.load_state_dict(layer.state_dict())
        return norm
    return layer
