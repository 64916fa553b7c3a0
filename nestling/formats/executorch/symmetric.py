"""Weights with a zero point made symmetric, as XNNPACK takes them. NumPy only.

Networks of the uint8 age store weights per tensor with a zero point. Subtracted, it leaves numbers between -255 and 255. A channel
whose numbers fit into int8 keeps them, and so its answers; only the others get new, coarser integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestling.graph.edit import free_name, with_nodes
from nestling.graph.ir import AveragePool, Conv2d, DepthwiseConv2d, Graph, Node, Quant, Quantize, Tensor
from nestling.graph.spec import check

AXIS: Final[Mapping[str, int]] = {"conv2d": 0, "depthwise_conv2d": 3, "fully_connected": 0}  # of a layer's output channels
LARGEST = 127  # not -128: where kernels add products in pairs, two of (-128) * (-128) would not fit


@dataclass(frozen=True)
class Requantised:
    """How many output channels got other integers, of how many; 0 of 0 where no weight has a zero point."""

    channels: int
    of: int


def symmetric_weights(graph: Graph) -> tuple[Graph, Requantised]:
    """(the graph with int8 weights per channel and without zero points, what that took). Valid as spec.py has it.

    Channels where |q - zero_point| <= 127 everywhere keep q - zero_point and the scale. In the others the scale becomes
    scale * max|q - zero_point| / 127; weights and biases are rounded to the nearest of the new steps. The nodes are then those of
    an int8 network (`unsigned` goes; what concat reads is brought to its scale first): other answers differ by a rounding.
    A graph without zero points in its weights comes back as it is.
    """
    layers = [node for node in graph.nodes if node.op in AXIS and graph.tensors[node.inputs[1]].quant is not None]
    if not any(_zero_point(graph.tensors[node.inputs[1]]) for node in layers):
        return graph, Requantised(0, 0)
    nodes: list[Node] = []
    tensors: list[Tensor] = []
    changed = of = 0
    for node in graph.nodes:
        if node in layers:
            layer, constants, requantised = _symmetric(node, graph)
            nodes.append(layer)
            tensors += constants
            changed, of = changed + int(requantised.sum()), of + len(requantised)
        elif node.op == "concat":
            before, read = _brought_together(node, graph)
            nodes += [*before, replace(node, inputs=tuple(tensor.name for tensor in read))]
            tensors += read
        else:
            nodes.append(_signed(node))
    return check(with_nodes(graph, nodes, tensors), "the graph with symmetric weights"), Requantised(changed, of)


def _symmetric(node: Node, graph: Graph) -> tuple[Node, list[Tensor], NDArray[np.bool_]]:
    """(the layer, its constants, which output channels got other integers)."""
    x, weight, *biases = (graph.tensors[name] for name in node.inputs)
    assert x.quant and weight.quant and weight.data is not None
    axis = AXIS[node.op]
    steps = weight.data.astype(np.int32) - _zero_point(weight)
    largest = np.abs(steps).max(axis=tuple(i for i in range(steps.ndim) if i != axis))
    changed = largest > LARGEST
    grow = np.where(changed, largest / LARGEST, 1.0)
    old = np.broadcast_to(weight.quant.scale, largest.shape)
    along = [-1 if i == axis else 1 for i in range(steps.ndim)]
    integers = np.rint(steps / grow.reshape(along)).astype(np.int8)
    scale = np.where(changed, old * grow, old).astype(np.float32)
    constants = [_constant(weight, node, graph, integers, scale, axis)]
    for bias in biases:
        assert bias.quant and bias.data is not None
        own = np.broadcast_to(bias.quant.scale, largest.shape)
        wider = np.where(changed, x.quant.scale * scale, own).astype(np.float32)
        moved = np.rint(bias.data.astype(np.float64) * own / wider).astype(np.int32)
        constants.append(_constant(bias, node, graph, np.where(changed, moved, bias.data), wider, 0))
    return _signed(replace(node, inputs=(x.name, *(tensor.name for tensor in constants)))), constants, changed


def _constant(old: Tensor, reader: Node, graph: Graph, data: NDArray[np.generic], scale: NDArray[np.float32], axis: int) -> Tensor:
    """`old` with other contents, per channel; by its own name where nothing else reads it."""
    shared = len(graph.readers(old.name)) > 1
    name = free_name(f"{old.name}:{reader.name}", graph.tensors) if shared else old.name
    quant = Quant(scale, np.zeros(len(scale), np.int32), axis if len(scale) > 1 else None)
    return replace(old, name=name, data=np.ascontiguousarray(data), quant=quant)


def _brought_together(node: Node, graph: Graph) -> tuple[list[Node], list[Tensor]]:
    """(a quantize for every input of a concat that has another scale than its output, what concat reads then)."""
    before: list[Node] = []
    read: list[Tensor] = []
    out = graph.tensors[node.name]
    for name in node.inputs:
        x = graph.tensors[name]
        if _same(x.quant, out.quant):
            read.append(x)
            continue
        taken = {*graph.tensors, *(tensor.name for tensor in read)}
        read.append(Tensor(free_name(f"{name}:{node.name}", taken), x.shape, "int8", None, out.quant))
        before.append(Node("quantize", (name,), (read[-1].name,), Quantize(), node.source))
    return before, read


def _same(a: Quant | None, b: Quant | None) -> bool:
    if a is None or b is None:
        return a is b
    return bool(a.scale[0] == b.scale[0]) and bool(a.zero_point[0] == b.zero_point[0])


def _signed(node: Node) -> Node:
    match node.attrs:
        case Conv2d() | DepthwiseConv2d() | AveragePool():
            return replace(node, attrs=replace(node.attrs, unsigned=False))
        case _:
            return node


def _zero_point(weight: Tensor) -> int:
    """0 where it is per channel: those have none."""
    return int(weight.quant.zero_point[0]) if weight.quant else 0
