"""Channels of large sums whose answer is settled: the same byte whatever the image is. They get small ones, without weights.

Training leaves such channels: a relu that never opens, with a bias of 2^31 and a scale of 1e-16. The reference's accumulator may
wrap at 32 bits, which C leaves undefined for its own; and already sums of 2^30 take the long way of scaling. Where every sum that
there can be gives one byte, a smaller one may give it.

That there is only one is proven. Between the least and the largest sum that weights and bias allow, a larger sum never gives a
smaller answer, as long as nothing wraps on the way: so where both ends give the same byte, all do. A sum that may wrap has every
32-bit number between its ends.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.graph import ir, reference_integer
from nestling.graph.edit import free_name, with_nodes
from nestling.graph.fixed_point import Int, wrap
from nestling.graph.ir import OUT_AXIS, Array, Graph, Node, Tensor
from nestling.graph.spec import check

LEAST, MOST = -(2**31), 2**31 - 1
LARGE = 2**26  # what some thousand products of bytes come to, and far below what any way of scaling takes
WITHOUT_WRAPPING = MOST - 128  # a scaled sum up to here takes any zero point


def with_settled_channels(graph: Graph) -> Graph:
    """The int8 graph with the same bytes for every image: such channels have no weights, and the bias nearest to 0 that will do."""
    nodes: list[Node] = []
    changed: dict[str, Tensor] = {}
    for node in graph.nodes:
        own = _settled(node, graph)
        inputs = list(node.inputs)
        for place, data in own.items():
            old = graph.tensors[inputs[place]]
            alone = graph.readers(old.name) == (node,)
            inputs[place] = old.name if alone else free_name(old.name, graph.tensors.keys() | changed.keys())
            changed[inputs[place]] = replace(old, name=inputs[place], data=data)
        nodes.append(replace(node, inputs=tuple(inputs)))
    return check(with_nodes(graph, nodes, changed.values())) if changed else graph


def _settled(node: Node, graph: Graph) -> dict[int, Array]:
    """The inputs that have to be others, by their place: weights and bias."""
    if node.op not in OUT_AXIS or graph.tensors[node.name].dtype != "int8":
        return {}
    x, weight = (graph.tensors[name] for name in node.inputs[:2])
    zero, data = pack.zero_point(weight), np.array(weight.data)
    channels = np.moveaxis(data, OUT_AXIS[node.op], 0)  # a view: what is written here is written into `data`
    bias = pack.bias_of(node, graph, len(channels))
    low, high = _ends(channels.reshape(len(channels), -1).astype(np.int16) - zero, bias, pack.zero_point(x))
    settled = np.maximum(-low, high) >= LARGE
    if settled.any():
        limit = _rising(node, graph)
        settled &= (-limit <= low) & (high <= limit) & (_answers(node, graph, low) == _answers(node, graph, high))
    if not settled.any():
        return {}
    channels[settled] = zero
    nearest = _nearest_to_0(node, graph, np.where(settled, np.clip(0, low, high), 0))
    made: dict[int, Array] = {1: data, 2: np.where(settled, nearest, bias).astype(np.int32)}
    there = {place: np.asarray(graph.tensors[name].data) for place, name in enumerate(node.inputs)}
    return {place: new for place, new in made.items() if place in there and not np.array_equal(new, there[place])}


def _ends(weight: NDArray[np.int16], bias: Int, in_zero: int) -> tuple[Int, Int]:
    """(least, largest) of the 32-bit sums of each channel, int64 [O]. weight: centred, [O, K]."""
    above, below = (part.sum(axis=1, dtype=np.int64) for part in (np.maximum(weight, 0), np.minimum(weight, 0)))
    least, most = -128 - in_zero, 127 - in_zero  # of the input, centred
    low, high = bias + least * above + most * below, bias + most * above + least * below
    together = (low - LEAST) >> 32 == (high - LEAST) >> 32  # wrapped as often as each other
    return np.where(together, wrap(low), LEAST), np.where(together, wrap(high), MOST)


def _rising(node: Node, graph: Graph) -> Int:
    """Up to which absolute value of its sum a channel's answer never falls, [O]."""
    channels = graph.tensors[node.name].shape[-1]
    if isinstance(node.attrs, ir.FullyConnected):  # in float64, where nothing wraps
        return np.full(channels, -LEAST)
    multiplier, exponent = pack.factors(node, graph, channels)
    halved = (exponent < 0) | (multiplier == 0)
    return np.where(halved, -LEAST, WITHOUT_WRAPPING >> np.maximum(exponent, 0))


def _answers(node: Node, graph: Graph, sums: Int) -> NDArray[np.int8]:
    """What the reference makes of sums [O]: its own kernel at one place, with these for biases and without weights."""
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    sides = [1] * len(weight.shape)
    sides[OUT_AXIS[node.op]] = len(sums)
    nothing = np.full(sides, pack.zero_point(weight), np.int8)
    attrs = node.attrs
    if isinstance(attrs, ir.Conv2d | ir.DepthwiseConv2d):
        attrs = replace(attrs, stride=(1, 1), dilation=(1, 1), padding=(0, 0, 0, 0))
    arrays = (np.zeros([1] * len(x.shape), np.int8), nothing, sums)
    return reference_integer.KERNELS[node.op](attrs, arrays, (x, weight), y).reshape(-1).astype(np.int8)


def _nearest_to_0(node: Node, graph: Graph, sums: Int) -> Int:
    """The sums [O] nearest to 0, of the same sign, that are answered as these are."""
    answer, sign = _answers(node, graph, sums), np.sign(sums)
    other, same = np.full_like(sums, -1), np.abs(sums)  # sizes that are answered otherwise, and as `sums`
    for _ in range(33):
        between = other + (same - other + 1) // 2
        as_well = _answers(node, graph, sign * between) == answer
        other, same = np.where(as_well, other, between), np.where(as_well, between, same)
    return np.asarray(sign * same)
