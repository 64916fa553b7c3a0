"""Branches that one layer can be: convolutions, norms and the map itself, added together, as a single convolution.

RepVGG, MobileOne, RepViT, FastViT and others learn with such branches. Each is linear, so that their sum is one layer; in integers
it rounds once where the branches would round one by one. Source: Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.graph.edit import constant, links, swapped, with_nodes
from nestling.graph.ir import Add, BatchNorm, Conv2d, DepthwiseConv2d, Graph, Node, Pair, Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Branch:
    """A linear layer of maps. layer: the convolution that computes it; None of a norm, or the map itself. source: what it reads.

    weight: [O, KH, KW, I / groups], or of a depthwise layer [1, KH, KW, C]. bias: [O]. start: rows and columns of padding before.
    """

    layer: Node | None
    source: str
    weight: Floats
    bias: Floats
    stride: Pair = (1, 1)
    start: Pair = (0, 0)
    depthwise: bool = True


def merge_branches(graph: Graph) -> Graph | None:
    """The graph with one sum of branches as one layer; None where there is none."""
    written, read = links(graph)
    for node in graph.nodes:
        if node.op == "add" and (pair := _branches(node, graph, written, read)):
            return _merged(graph, node, *pair)
    return None


def _branches(node: Node, graph: Graph, written: Mapping[str, Node], read: Mapping[str, int]) -> tuple[Branch, Branch] | None:
    """Two branches of one map that can be one layer.

    The map itself joins depthwise layers only: among many small weights its one would make their steps large.
    """
    shapes = {graph.tensors[name].shape for name in (*node.inputs, node.name)}
    if len(shapes) > 1 or node.inputs[0] == node.inputs[1]:
        return None
    found = [_branch(written[name], graph) if name in written and read[name] == 1 else None for name in node.inputs]
    for place, name in enumerate(node.inputs):
        other = found[1 - place]
        if found[place] is None and other and other.depthwise and other.source == name:
            found[place] = _itself(graph.tensors[name])
    a, b = found
    if a is None or b is None or a.source != b.source or a.stride != b.stride or not (a.layer or b.layer):
        return None
    fits = a.depthwise or b.depthwise or a.weight.shape[3] == b.weight.shape[3]
    return (a, b) if fits else None


def _branch(node: Node, graph: Graph) -> Branch | None:
    """A node as one, where it is linear and as wide as long as what it reads."""
    x, out, arrays = graph.tensors[node.inputs[0]], graph.tensors[node.name], [graph.tensors[name].data for name in node.inputs[1:]]
    if len(out.shape) != 4 or any(data is None for data in arrays):
        return None
    if isinstance(node.attrs, BatchNorm):
        factor, shift = affine(node, graph)
        return Branch(None, x.name, factor.reshape(1, 1, 1, -1), shift)
    if not isinstance(node.attrs, Conv2d | DepthwiseConv2d) or node.attrs.clamp != "none" or node.attrs.dilation != (1, 1):
        return None
    depthwise = isinstance(node.attrs, DepthwiseConv2d)
    if depthwise and x.shape[3] != out.shape[3]:
        return None
    weight, *bias = (np.asarray(data, np.float64) for data in arrays)
    start = (node.attrs.padding[0], node.attrs.padding[2])
    return Branch(node, x.name, weight, bias[0] if bias else np.zeros(out.shape[3]), node.attrs.stride, start, depthwise)


def _itself(x: Tensor) -> Branch:
    return Branch(None, x.name, np.ones((1, 1, 1, x.shape[3])), np.zeros(x.shape[3]))


def affine(norm: Node, graph: Graph) -> tuple[Floats, Floats]:
    """A batch_norm as x * factor + shift, float64 [C] each."""
    assert isinstance(norm.attrs, BatchNorm)
    gamma, beta, mean, variance = (np.asarray(graph.tensors[name].data, np.float64) for name in norm.inputs[1:])
    factor = gamma / np.sqrt(variance + norm.attrs.epsilon)
    return factor, beta - mean * factor


def _merged(graph: Graph, node: Node, a: Branch, b: Branch) -> Graph:
    layer = a.layer or b.layer
    assert layer is not None and isinstance(node.attrs, Add)
    weight, start = _sum(a, b)
    x, out = graph.tensors[a.source].shape, graph.tensors[node.name].shape
    end = [max(0, (out[1 + i] - 1) * a.stride[i] + weight.shape[1 + i] - x[1 + i] - start[i]) for i in (0, 1)]
    op, kind = ("depthwise_conv2d", DepthwiseConv2d) if a.depthwise and b.depthwise else ("conv2d", Conv2d)
    bias_name = layer.inputs[2] if len(layer.inputs) > 2 else f"{layer.name}.bias"
    tensors = constant(graph, layer.inputs[1], weight, layer), constant(graph, bias_name, a.bias + b.bias, layer)
    attrs = kind(a.stride, padding=(start[0], end[0], start[1], end[1]), clamp=node.attrs.clamp)
    one = Node(op, (a.source, *(tensor.name for tensor in tensors)), node.outputs, attrs, layer.source)
    return with_nodes(graph, swapped(graph, node, (one,)), tensors)


def _sum(a: Branch, b: Branch) -> tuple[Floats, Pair]:
    """(the weights of both together, the rows and columns of padding before): their taps where they read the same places."""
    depth = next((branch.weight.shape[3] for branch in (a, b) if not branch.depthwise), 0)
    weights = [_dense(branch, depth) if depth else branch.weight for branch in (a, b)]
    before = [max(a.start[i], b.start[i]) for i in (0, 1)]
    after = [max(weight.shape[1 + i] - branch.start[i] for weight, branch in zip(weights, (a, b), strict=True)) for i in (0, 1)]
    total = np.zeros((len(weights[0]), before[0] + after[0], before[1] + after[1], weights[0].shape[3]))
    for weight, branch in zip(weights, (a, b), strict=True):
        row, column = before[0] - branch.start[0], before[1] - branch.start[1]
        total[:, row : row + weight.shape[1], column : column + weight.shape[2]] += weight
    return total, (before[0], before[1])


def _dense(branch: Branch, depth: int) -> Floats:
    """[C, KH, KW, I / groups], where channel c of as many reads the one at c % depth of its group."""
    if not branch.depthwise:
        return branch.weight
    _, height, width, channels = branch.weight.shape
    dense = np.zeros((channels, height, width, depth))
    every = np.arange(channels)
    dense[every, :, :, every % depth] = branch.weight[0].transpose(2, 0, 1)
    return dense
