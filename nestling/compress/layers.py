"""A float Graph as torch's own layers, for tools that look for those (torch-pruning), and back after its channels have changed.

GraphModule holds the same numbers as bare parameters in the Graph's layout, which such tools do not see into.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, cast

import numpy as np
import torch
from torch import nn

from nestling.errors import UnsupportedOp
from nestling.graph.edit import free_name, tidy
from nestling.graph.head import Head
from nestling.graph.ir import BatchNorm, Concat, Conv2d, DepthwiseConv2d, Graph, Node, Slice, Tensor
from nestling.graph.spec import check
from nestling.models.graph_module import CLAMPED, RUN

T = torch.Tensor
Layer = nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d
BACK: Final[Mapping[str, tuple[int, ...]]] = {  # torch's weight -> the Graph's, by op: OHWI, 1HWO, OI
    "conv2d": (0, 2, 3, 1),
    "depthwise_conv2d": (1, 2, 3, 0),
    "fully_connected": (0, 1),
}


class Layers(nn.Module):
    """The Graph's embedding under `head`: forward takes the Graph's input for N images and gives logits float32 [N, classes].

    layers[i] is torch's layer of the Graph's i-th node, where it has weights or is a batch_norm. head: nn.Linear.
    Vectors that are added or multiplied are parameters, with the channels last.
    Raises UnsupportedOp for a reshape that mixes channels with places: which number is which channel is lost there.
    """

    def __init__(self, graph: Graph, head: Head) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleDict()
        self.vectors = nn.Module()
        self.numbers: dict[str, T] = {}
        self._keys: dict[str, str] = {}
        for index, node in enumerate(graph.nodes):
            if node.op in BACK or node.op == "batch_norm":
                self.layers[str(index)] = _layer(node, graph)
                continue
            _require_followed(node, graph)
            for name in node.inputs:
                if graph.tensors[name].data is not None:
                    self._hold(graph.tensors[name])
        self.head = nn.Linear(head.weight.shape[1], head.weight.shape[0])
        _fill(self.head.weight, head.weight)
        _fill(self.head.bias, head.bias)
        self.eval()

    def forward(self, images: T) -> T:
        """See the class."""
        logits: T = self.head(_reshaped(self.values(images)[self.graph.outputs[0]], 2))
        return logits

    def values(self, images: T) -> dict[str, T]:
        """Every activation of the Graph, NHWC, by its name."""
        values = {self.graph.inputs[0]: images}
        for index, node in enumerate(self.graph.nodes):
            inputs = [values[name] if name in values else self._constant(name) for name in node.inputs if self._read(index, name)]
            values[node.name] = self._run(index, node, inputs)
        return values

    def layer(self, index: int) -> Layer | None:
        """Of the Graph's node at `index`."""
        return cast(Layer, self.layers[str(index)]) if str(index) in self.layers else None

    def _hold(self, tensor: Tensor) -> None:
        value = torch.from_numpy(np.array(tensor.data))
        if tensor.dtype == "float32" and tensor.shape and tensor.shape[-1] > 1 and tensor.shape[-1] == value.numel():
            key = self._keys.setdefault(tensor.name, f"v{len(self._keys)}")
            self.vectors.register_parameter(key, nn.Parameter(value))
        else:
            self.numbers[tensor.name] = value

    def _constant(self, name: str) -> T:
        return cast(T, getattr(self.vectors, self._keys[name])) if name in self._keys else self.numbers[name]

    def _read(self, index: int, name: str) -> bool:
        """A layer's own constants are in the layer."""
        return str(index) not in self.layers or self.graph.tensors[name].data is None

    def _run(self, index: int, node: Node, inputs: list[T]) -> T:
        layer = self.layer(index)
        if isinstance(layer, nn.Conv2d):
            assert isinstance(node.attrs, Conv2d | DepthwiseConv2d)
            top, bottom, left, right = node.attrs.padding
            image = inputs[0].permute(0, 3, 1, 2)
            if (top, left) != (bottom, right):
                image = nn.functional.pad(image, (left, right, top, bottom))
            return CLAMPED[node.attrs.clamp](layer(image).permute(0, 2, 3, 1))
        if isinstance(layer, nn.Linear):
            return CLAMPED[getattr(node.attrs, "clamp", "none")](layer(inputs[0]))
        if layer is not None:
            x = inputs[0]
            return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if x.ndim == 4 else cast(T, layer(x))
        if node.op == "reshape":
            return _reshaped(inputs[0], len(self.graph.tensors[node.name].shape))
        if isinstance(node.attrs, Concat) and inputs[0].ndim == 4 and node.attrs.axis == 3:
            # as torch's own networks join channels, which is the form that dependency graphs know
            return torch.cat([x.permute(0, 3, 1, 2) for x in inputs], 1).permute(0, 2, 3, 1)
        return RUN[node.op](node.attrs, *inputs)

    def to_graph(self) -> Graph:
        """The Graph with the layers' numbers and sizes as they are now; names, order and attributes stay."""
        tensors = dict(self.graph.tensors) | {name: _tensor(name, _array(self._constant(name))) for name in self._keys}
        nodes, written = [], set[str]()
        for index, node in enumerate(self.graph.nodes):
            layer = self.layer(index)
            held = [] if layer is None else _arrays(layer, node.op)
            names = []
            for name, data in zip(node.inputs[1:], held, strict=False):
                names.append(free_name(name, tensors) if name in written else name)  # layers that shared it may differ now
                tensors[names[-1]] = _tensor(names[-1], data)
                written.add(name)
            nodes.append(replace(node, inputs=(node.inputs[0], *names)) if names else node)
        image = self.graph.tensors[self.graph.inputs[0]]
        with torch.no_grad():
            values = self.values(torch.from_numpy(np.zeros(image.shape, image.dtype)))
        tensors |= {name: replace(tensors[name], shape=tuple(value.shape)) for name, value in values.items()}
        return check(tidy(replace(self.graph, tensors=tensors, nodes=tuple(nodes))))

    def to_head(self) -> Head:
        """The head as it is now: as wide as the embedding."""
        return Head(_array(self.head.weight), _array(self.head.bias))


def _layer(node: Node, graph: Graph) -> nn.Module:
    constants = [graph.tensors[name].data for name in node.inputs[1:]]
    if any(data is None for data in constants):
        raise UnsupportedOp(f"{node.op} {node.name!r} has weights that the network computes; its channels cannot be removed.")
    arrays = [np.asarray(data, np.float32) for data in constants]
    if isinstance(node.attrs, BatchNorm):
        gamma, beta, mean, variance = arrays
        kind = nn.BatchNorm2d if len(graph.tensors[node.name].shape) == 4 else nn.BatchNorm1d
        norm = kind(len(gamma), eps=node.attrs.epsilon)
        assert norm.running_mean is not None and norm.running_var is not None
        for tensor, data in ((norm.weight, gamma), (norm.bias, beta), (norm.running_mean, mean), (norm.running_var, variance)):
            _fill(tensor, data)
        return norm
    weight = np.ascontiguousarray(arrays[0].transpose(np.argsort(BACK[node.op])))
    layer: nn.Conv2d | nn.Linear
    if isinstance(node.attrs, Conv2d | DepthwiseConv2d):
        channels = graph.tensors[node.inputs[0]].shape[3]
        top, bottom, left, right = node.attrs.padding
        layer = nn.Conv2d(
            channels,
            len(weight),
            (weight.shape[2], weight.shape[3]),
            node.attrs.stride,
            (top, left) if (top, left) == (bottom, right) else 0,
            node.attrs.dilation,
            channels // weight.shape[1],
            len(arrays) > 1,
        )
    else:
        layer = nn.Linear(weight.shape[1], len(weight), len(arrays) > 1)
    _fill(layer.weight, weight)
    if layer.bias is not None:
        _fill(layer.bias, arrays[1])
    return layer


def _arrays(layer: Layer, op: str) -> list[np.ndarray]:
    """As the node lists them."""
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
        assert layer.running_mean is not None and layer.running_var is not None
        return [_array(tensor) for tensor in (layer.weight, layer.bias, layer.running_mean, layer.running_var)]
    weight = np.ascontiguousarray(_array(layer.weight).transpose(BACK[op]))
    return [weight] if layer.bias is None else [weight, _array(layer.bias)]


def _require_followed(node: Node, graph: Graph) -> None:
    """A channel must stay a place along the last axis."""
    before, after = graph.tensors[node.inputs[0]].shape, graph.tensors[node.name].shape
    if node.op == "pad_channels":
        raise UnsupportedOp(f"pad_channels {node.name!r} adds channels: they cannot be followed through it, nor removed.")
    if isinstance(node.attrs, Slice) and node.attrs.axis == len(before) - 1:
        raise UnsupportedOp(f"slice {node.name!r} takes some of the channels: they cannot be followed through it, nor removed.")
    if node.op == "reshape" and (before[-1] != after[-1] or {*before[:-1], *after[:-1]} != {1}):
        raise UnsupportedOp(
            f"reshape {node.name!r} makes {list(after)} of {list(before)}: channels cannot be followed through it, nor removed."
        )


def _reshaped(x: T, dimensions: int) -> T:
    """Sides of 1 taken away or put in, between the batch and the channels."""
    while x.ndim > dimensions:
        x = x.squeeze(1)
    while x.ndim < dimensions:
        x = x.unsqueeze(1)
    return x


def _tensor(name: str, data: np.ndarray) -> Tensor:
    return Tensor(name, data.shape, "float32", data)


def _array(tensor: T) -> np.ndarray:
    return tensor.detach().numpy().copy()


def _fill(tensor: T, data: np.ndarray) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(data)))
