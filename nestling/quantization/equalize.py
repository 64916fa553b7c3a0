"""Cross-layer equalisation: give the channels of a tensor like sizes without changing what the float network answers. NumPy only.

A channel between two layers may be divided by s where it is computed and multiplied by s where it is read, for any s > 0 that the
operations between let through. With one scale for all channels (per tensor), that decides how many integers each of them gets.
Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.1:
s = sqrt(r1 / r2), r1 and r2 being the channel's largest weights on both sides; done again and again until nothing changes.

Here the two sides may have several layers each: a residual stream is one tensor group, written by every projection into it and read
by every layer that takes it, so that the adds go on adding like to like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.graph.edit import with_nodes
from nestling.graph.ir import IN_AXIS, OUT_AXIS, Graph, Node, Tensor
from nestling.graph.spec import check

Factors = NDArray[np.float64]

ROUNDS = 50
STILL = 1e-3  # the largest relative change of a factor at which the rounds end
THROUGH = ("average_pool", "max_pool", "pad", "mean", "resize_nearest", "leaky_relu")  # f(s x) = s f(x) a channel, for s > 0
DEAD = 1e-6  # of the largest channel's weights
MOST = 1024.0  # how much larger or smaller a channel may become in all
BOUND = 6.0
MARGIN = 0.75  # of relu6's bound that an observed channel may reach after it was made larger


@dataclass(frozen=True)
class Group:
    """Tensors whose channels can only be scaled together.

    writers, readers: layers that compute them and that read them. bounded: those of them that end in relu6.
    """

    tensors: tuple[str, ...]
    writers: tuple[Node, ...]
    readers: tuple[Node, ...]
    bounded: tuple[str, ...]


def equalized(graph: Graph, channel_highs: Mapping[str, NDArray[np.float32]] | None = None) -> Graph:
    """The prepared float graph with other weights and the same answers (within float rounding).

    channel_highs: the largest value seen of each channel of an activation (calibrate.Statistics). relu6 does not let a factor
    through: without them what it bounds is left alone; with them its channels that stayed below 6 are scaled as far as they stay
    there, so there the answers are the same on images like those that were seen.
    """
    highs = channel_highs or {}
    found = [group for group in groups(graph) if all(name in highs for name in group.bounded)]
    arrays = _arrays(graph)
    total = {group.tensors: np.ones(graph.tensors[group.tensors[0]].shape[-1]) for group in found}
    for _ in range(ROUNDS):
        largest = 0.0
        for group in found:
            factors = _factors(group, arrays, highs, total[group.tensors])
            _apply(group, factors, arrays)
            total[group.tensors] = total[group.tensors] * factors
            largest = max(largest, float(np.abs(factors - 1).max()))
        if largest < STILL:
            break
    return _with_arrays(graph, found, arrays)


def scaled(graph: Graph, group: Group, factors: Factors) -> Graph:
    """The graph with a group's channels divided by `factors`, float64 [C], positive. The same answers unless relu6 bounds it."""
    arrays = _arrays(graph)
    _apply(group, factors, arrays)
    return _with_arrays(graph, [group], arrays)


def _arrays(graph: Graph) -> dict[str, NDArray[np.float64]]:
    return {name: np.asarray(t.data, np.float64) for name, t in graph.tensors.items() if t.data is not None}


def _with_arrays(graph: Graph, changed: Sequence[Group], arrays: Mapping[str, NDArray[np.float64]]) -> Graph:
    layers = [layer for group in changed for layer in group.writers + group.readers]
    names = dict.fromkeys(name for layer in layers for name in layer.inputs[1:])
    tensors = (Tensor(name, graph.tensors[name].shape, "float32", arrays[name].astype(np.float32)) for name in names)
    return check(with_nodes(graph, graph.nodes, tensors), "the equalised graph")


def groups(graph: Graph) -> tuple[Group, ...]:
    """Every group that can be scaled, relu6 aside: written and read by layers only, no end of the graph in it."""
    root = {name: name for name, tensor in graph.tensors.items() if tensor.data is None}
    fixed = {*graph.inputs, *graph.outputs}
    for node in graph.nodes:
        same = _moves_together(node, graph)
        if same:
            first = root[same[0]]
            joined = {root[name] for name in same}
            root = {name: first if own in joined else own for name, own in root.items()}
        elif not _scalable(node, graph):
            fixed.update(name for name in (*node.inputs, node.name) if name in root)
    members: dict[str, list[str]] = {}
    for name, own in root.items():
        members.setdefault(own, []).append(name)
    some = [_group(tuple(names), graph) for names in members.values() if not fixed.intersection(names)]
    return tuple(group for group in some if group.writers and group.readers)


def _moves_together(node: Node, graph: Graph) -> tuple[str, ...]:
    """The tensors whose channels the node ties to each other: none where it is a layer, or not linear."""
    if node.op in THROUGH and graph.tensors[node.name].shape[-1] == graph.tensors[node.inputs[0]].shape[-1]:
        last = len(graph.tensors[node.inputs[0]].shape) - 1
        return () if last in getattr(node.attrs, "axes", ()) else (node.inputs[0], node.name)
    shapes = {graph.tensors[name].shape for name in (*node.inputs, node.name)}
    constants = any(graph.tensors[name].data is not None for name in node.inputs)
    return (*node.inputs, node.name) if node.op == "add" and len(shapes) == 1 and not constants else ()


def _scalable(node: Node, graph: Graph) -> bool:
    """Whether it is a layer with weights of its own, not grouped (but depthwise with as many channels out as in)."""
    if node.op not in OUT_AXIS or any(len(graph.readers(name)) != 1 for name in node.inputs[1:]):
        return False
    x, weight = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]]
    if weight.data is None:
        return False
    return weight.shape[3] == x.shape[3] if node.op != "fully_connected" else True


def _group(names: tuple[str, ...], graph: Graph) -> Group:
    inside = set(names)
    writers = tuple(node for node in graph.nodes if node.name in inside and node.op in OUT_AXIS)
    readers = tuple(node for node in graph.nodes if node.inputs[0] in inside and node.op in OUT_AXIS)
    bounded = tuple(n.name for n in graph.nodes if n.name in inside and getattr(n.attrs, "clamp", "none") == "relu6")
    return Group(names, writers, readers, bounded)


def _factors(
    group: Group, arrays: Mapping[str, NDArray[np.float64]], highs: Mapping[str, NDArray[np.float32]], so_far: Factors
) -> Factors:
    """s of each channel: it is divided by s where it is written and multiplied where it is read."""
    r1 = np.max([_largest(arrays[node.inputs[1]], OUT_AXIS[node.op]) for node in group.writers], axis=0)
    r2 = np.max([_largest(arrays[node.inputs[1]], IN_AXIS[node.op]) for node in group.readers], axis=0)
    # A channel that nothing writes or nothing reads stays as it is. Training leaves some with weights of 1e-20: made like the
    # others they would blow their biases up beyond any scale.
    alive = (r1 > DEAD * r1.max()) & (r2 > DEAD * r2.max())
    factors: Factors = np.sqrt(np.where(alive, r1, 1.0) / np.where(alive, r2, 1.0))
    factors = np.clip(factors, 1 / (MOST * so_far), MOST / so_far)
    for name in group.bounded:
        seen = highs[name].astype(np.float64)
        least = np.maximum(seen / (MARGIN * BOUND), 1e-6) / so_far
        factors = np.where(seen < MARGIN * BOUND, np.maximum(factors, least), 1 / so_far)
    return factors


def _apply(group: Group, factors: Factors, arrays: dict[str, NDArray[np.float64]]) -> None:
    for node in group.writers:
        weight, *bias = node.inputs[1:]
        arrays[weight] = arrays[weight] / _along(factors, arrays[weight].ndim, OUT_AXIS[node.op])
        for name in bias:
            arrays[name] = arrays[name] / factors
    for node in group.readers:
        weight = node.inputs[1]
        arrays[weight] = arrays[weight] * _along(factors, arrays[weight].ndim, IN_AXIS[node.op])


def _largest(weight: NDArray[np.float64], axis: int) -> Factors:
    largest: Factors = np.abs(np.moveaxis(weight, axis, 0)).reshape(weight.shape[axis], -1).max(axis=1)
    return largest


def _along(factors: Factors, rank: int, axis: int) -> Factors:
    shape = [1] * rank
    shape[axis] = -1
    return factors.reshape(shape)
