"""Which channels of a float Graph go, and the Graph without them.

torch-pruning says which channels of which layers stand or fall together (residual adds, depthwise convolutions, squeeze-and-excite)
and how much each matters; what goes is ranked here, over the whole network and in blocks, until the multiply-accumulates fit.
Source: Fang et al. 2023, "DepGraph: Towards Any Structural Pruning"; Molchanov et al. 2019 (Taylor); Liu et al. 2017 (norm).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
import torch_pruning  # type: ignore[import-untyped]  # it brings no types
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from nestling.compress.layers import Layer, Layers
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.graph.macs import macs
from nestling.words import Importance

Batch = tuple[NDArray[Any], NDArray[np.int64]]  # the Graph's input for N images, their labels [N]

# (torch-pruning's measure, whether its mean over a group's channels is made 1). What the loss would change by is in one unit
# everywhere; sizes of weights and scales only mean something beside those of the same layers.
IMPORTANCES: Final[Mapping[str, tuple[Callable[[], Callable[[Any], torch.Tensor | None]], bool]]] = {
    "l1": (lambda: torch_pruning.importance.GroupMagnitudeImportance(p=1, normalizer=None), True),
    "taylor": (lambda: torch_pruning.importance.GroupTaylorImportance(normalizer=None), False),
    "norm": (lambda: torch_pruning.importance.BNScaleImportance(normalizer=None), True),
}


@dataclass(frozen=True, eq=False)
class Thinned:
    """graph, head: without the channels. kept: for each layer, by the name of its node, which of its channels stayed, in order."""

    graph: Graph
    head: Head
    kept: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Group:
    """Channels that go together. root, prune: what torch-pruning is asked with.

    importance: float64 [n]. layers: (layer, whether its outputs, channels of it a channel of the group).
    """

    root: nn.Module
    prune: Any
    importance: NDArray[np.float64]
    layers: tuple[tuple[Layer, bool, int], ...]


@dataclass(frozen=True, eq=False)
class _Block:
    """Channels of one group, the next that go if the blocks before it went. score: importance a channel and multiply-accumulate."""

    group: int
    channels: tuple[int, ...]
    score: float


def total_macs(graph: Graph) -> int:
    """Multiply-accumulates of the whole graph for one image."""
    return sum(macs(node, graph) for node in graph.nodes)


def thinned(
    graph: Graph,
    head: Head,
    goal: int,
    importance: Importance = "l1",
    round_to: int = 8,
    steps: int = 1,
    batches: Sequence[Batch] = (),
) -> Thinned:
    """The graph with so few channels that it takes at most `goal` multiply-accumulates, and its head, not learned again.

    importance: l1: absolute weights; taylor: weight x gradient of the cross-entropy on `batches`; norm: BatchNorm's scales.
    round_to: a layer that loses channels keeps a multiple of it, and never fewer. steps: channels are ranked anew so many times.
    A float graph; it may still hold its batch norms. The same arguments give the same result.
    Raises NestlingError where the goal cannot be reached, UnsupportedOp where channels cannot be followed.
    """
    layers = Layers(graph, head)
    places = {layer: _places(graph, index) for index, layer in _layers(layers)}
    kept = {layer: np.arange(_width(layer)) for _, layer in _layers(layers)}
    start = total_macs(graph)
    for step in range(1, steps + 1):
        if importance == "taylor":
            _accumulate_gradients(layers, batches)
        groups = _groups(layers, importance)
        goes = _ranked(groups, places, start - (start - goal) * step / steps, round_to)
        for group, channels in zip(groups[1], goes, strict=True):
            if channels:
                _remove(groups[0], group, channels, kept)
        layers.zero_grad()
    thin = layers.to_graph()
    if total_macs(thin) > goal:
        raise NestlingError(
            f"{goal / start:.1%} of the multiply-accumulates cannot be reached: {total_macs(thin) / start:.1%} are left "
            f"where every layer that may lose channels has only {round_to}.",
            "ask for a larger share, or a smaller --round",
        )
    names = {layer: graph.nodes[index].name for index, layer in _layers(layers)}
    return Thinned(thin, layers.to_head(), {names[layer]: tuple(left.tolist()) for layer, left in kept.items()})


# ---- what can go ----------------------------------------------------------------------------------------------------------------


def _groups(layers: Layers, importance: Importance) -> tuple[Any, list[_Group]]:
    """(torch-pruning's graph, the groups of channels that may go)."""
    image = layers.graph.tensors[layers.graph.inputs[0]]
    example = torch.from_numpy(np.zeros(image.shape, image.dtype))
    vectors = [(parameter, parameter.ndim - 1) for parameter in layers.vectors.parameters()]
    dependencies = torch_pruning.DependencyGraph().build_dependency(layers, example, unwrapped_parameters=vectors, verbose=False)
    measure, relative = IMPORTANCES[importance]
    score = measure()
    found: list[_Group] = []
    for group in dependencies.get_all_groups(ignored_layers=[layers.head], root_module_types=[nn.Conv2d, nn.Linear]):
        parts = _parts(dependencies, group)
        if parts is None or (values := score(group)) is None:
            continue
        own = values.double().numpy()
        mean = float(own.mean()) if relative else 1.0
        found.append(_Group(group[0].dep.target.module, group[0].dep.handler, own / (mean or 1.0), parts))
    if not found:
        lack = "its batch norms are folded, or it never had any" if importance == "norm" else "no layer's channels are free to go"
        raise NestlingError(f"nothing in this network can be pruned by {importance!r}: {lack}.", "try --importance l1")
    return dependencies, found


def _parts(dependencies: Any, group: Any) -> tuple[tuple[Layer, bool, int], ...] | None:
    """The layers of a group, None where it cannot be thinned: channels in bundles (grouped convolutions), or spread over others."""
    width = len(group[0].idxs)
    parts: dict[tuple[Layer, bool], int] = {}
    for dep, channels in group:
        layer = dep.target.module
        if isinstance(layer, nn.Conv2d) and layer.groups not in (1, layer.out_channels):
            return None
        outputs = dependencies.is_out_channel_pruning_fn(dep.handler)
        if isinstance(layer, Layer):
            if len(channels) % width or max(channels) >= (_width(layer) if outputs else layer.weight.shape[1]):
                return None
            parts[layer, outputs] = len(channels) // width
    return tuple((layer, outputs, times) for (layer, outputs), times in parts.items())


def _accumulate_gradients(layers: Layers, batches: Iterable[Batch]) -> None:
    for images, labels in batches:
        loss = cross_entropy(layers(torch.from_numpy(images)), torch.from_numpy(labels), reduction="sum")
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it


# ---- what goes ------------------------------------------------------------------------------------------------------------------


def _ranked(groups: tuple[Any, Sequence[_Group]], places: Mapping[Layer, int], goal: float, round_to: int) -> list[tuple[int, ...]]:
    """For each group the channels that go: blocks of least importance for what they cost, until the goal is reached."""
    sizes = {layer: list(_sizes(layer)) for layer in places}
    blocks = [block for index, group in enumerate(groups[1]) for block in _blocks(index, group, places, round_to)]
    goes: list[tuple[int, ...]] = [() for _ in groups[1]]
    left = sum(_cost(layer, size, places) for layer, size in sizes.items())
    for block in sorted(blocks, key=lambda block: block.score):  # stable: a group's blocks stay in order
        if left <= goal:
            break
        goes[block.group] += block.channels
        for layer, outputs, times in groups[1][block.group].layers:
            if layer in places:
                left -= _cost(layer, sizes[layer], places)
                sizes[layer][0 if outputs else 1] -= times * len(block.channels)
                left += _cost(layer, sizes[layer], places)
    return goes


def _blocks(index: int, group: _Group, places: Mapping[Layer, int], round_to: int) -> list[_Block]:
    """A group's channels from the least important on, in blocks that leave multiples of round_to, down to one of them."""
    width = len(group.importance)
    order = np.argsort(group.importance, kind="stable")
    cost = sum(
        _cost(layer, _sizes(layer), places) * times / _sizes(layer)[0 if outputs else 1]
        for layer, outputs, times in group.layers
        if layer in places
    )
    ends = [width - left for left in range((width - 1) // round_to * round_to, 0, -round_to)]
    scored: list[_Block] = []
    for begin, end in zip([0, *ends], ends, strict=False):
        channels = order[begin:end]
        score = float(group.importance[channels].mean()) / max(cost, 1)
        scored.append(_Block(index, tuple(channels.tolist()), score))
    return scored


def _remove(dependencies: Any, group: _Group, channels: Sequence[int], kept: dict[Layer, NDArray[np.int64]]) -> None:
    whole = dependencies.get_pruning_group(group.root, group.prune, sorted(channels))
    for dep, gone in whole:
        if dep.target.module in kept and dependencies.is_out_channel_pruning_fn(dep.handler):
            kept[dep.target.module] = np.delete(kept[dep.target.module], gone)
    whole.prune()


# ---- sizes ----------------------------------------------------------------------------------------------------------------------


def _layers(layers: Layers) -> list[tuple[int, Layer]]:
    found = [(index, layers.layer(index)) for index in range(len(layers.graph.nodes))]
    return [(index, layer) for index, layer in found if layer is not None]


def _places(graph: Graph, index: int) -> int:
    """How often a layer's every weight is multiplied for one image; none of a batch norm's are, once it is folded."""
    node = graph.nodes[index]
    shape = graph.tensors[node.name].shape
    return 0 if node.op == "batch_norm" else math.prod(shape[1:-1])


def _width(layer: Layer) -> int:
    """Channels that come out."""
    return layer.weight.shape[0]


def _sizes(layer: Layer) -> tuple[int, int]:
    """(channels out, channels in that each of them reads: 1 in a depthwise convolution)."""
    return (layer.weight.shape[0], layer.weight.shape[1] if layer.weight.ndim > 1 else 1)


def _cost(layer: Layer, sizes: Sequence[int], places: Mapping[Layer, int]) -> int:
    """Multiply-accumulates of a layer if it had these sizes."""
    return places[layer] * sizes[0] * sizes[1] * math.prod(layer.weight.shape[2:])
