"""A captured float Graph made ready for the bridge and the printers: PREPARE, in order, each step checked.

Every pass keeps the answer (within float rounding), and a rule that may refuse says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from nestling.graph.edit import constant, free_name, swapped, with_nodes
from nestling.graph.ir import (
    OUT_AXIS,
    Add,
    AveragePool,
    BatchNorm,
    Clamp,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    Graph,
    MaxPool,
    Mul,
    Node,
    Pad,
    PadChannels,
    Reshape,
    ResizeNearest,
    Sides,
)
from nestling.graph.spec import check

Pass = Callable[[Graph], Graph]
Weighted = Conv2d | DepthwiseConv2d | FullyConnected
Clamped = Conv2d | DepthwiseConv2d | FullyConnected | Add | Mul | AveragePool | MaxPool

ONE_AFTER_OTHER: Final[Mapping[tuple[Clamp, Clamp], Clamp]] = {
    ("none", "relu"): "relu",
    ("none", "relu6"): "relu6",
    ("relu", "relu"): "relu",
    ("relu", "relu6"): "relu6",
    ("relu6", "relu"): "relu6",
    ("relu6", "relu6"): "relu6",
}


def prepare(graph: Graph) -> Graph:
    """A float Graph as captured -> the float Graph that is calibrated and printed: no batch_norm, clamps on their producers."""
    for rewrite in PREPARE:
        graph = check(rewrite(graph))
    return graph


# ---- drop_identities -------------------------------------------------------------------------------------------------------------


def drop_identities(graph: Graph) -> Graph:
    """Without nodes that give back what they got; one that joins an input or another output to an output stays."""
    renamed: dict[str, str] = {}
    kept: list[Node] = []
    for node in graph.nodes:
        source = passed_through(node, graph)
        source = source and renamed.get(source, source)
        ends = {*graph.inputs, *(renamed.get(name, name) for name in graph.outputs)}
        if source is None or (node.name in graph.outputs and source in ends):
            kept.append(node)
        else:
            renamed[node.name] = source
    return with_nodes(graph, kept, renamed=renamed)


def passed_through(node: Node, graph: Graph) -> str | None:
    """The name of the tensor that `node` gives back unchanged, None where it does something."""
    first, out = graph.tensors[node.inputs[0]], graph.tensors[node.outputs[0]]
    nothing: bool
    match node.attrs:
        case Reshape() | ResizeNearest():
            nothing = first.shape == out.shape
        case Pad(padding):
            nothing = not any(padding)
        case PadChannels(before, after):
            nothing = before == after == 0
        case MaxPool(clamp="none") | AveragePool(clamp="none"):
            nothing = (node.attrs.size, node.attrs.stride, node.attrs.padding) == ((1, 1), (1, 1), (0, 0, 0, 0))
        case Add(clamp="none"):
            return _other_than(0.0, node, graph)
        case Mul(clamp="none"):
            return _other_than(1.0, node, graph)
        case _:
            nothing = False
    return first.name if nothing else None


def _other_than(neutral: float, node: Node, graph: Graph) -> str | None:
    """The activation of an add or mul whose other operand is `neutral` everywhere and widens nothing."""
    for one, other in (node.inputs, node.inputs[::-1]):
        data = graph.tensors[other].data
        if data is not None and np.all(data == neutral) and graph.tensors[one].shape == graph.tensors[node.name].shape:
            return one
    return None


# ---- merge_reshapes --------------------------------------------------------------------------------------------------------------


def merge_reshapes(graph: Graph) -> Graph:
    """A reshape of a reshape reads what the first one read."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        before = nodes.get(node.inputs[0])
        twice = before is not None and (before.op, node.op) == ("reshape", "reshape")
        nodes[node.name] = replace(node, inputs=before.inputs) if before is not None and twice else node
    return with_nodes(graph, nodes.values())


# ---- fold_batch_norm -------------------------------------------------------------------------------------------------------------


def fold_batch_norm(graph: Graph) -> Graph:
    """Each batch_norm into the weights before it, or where that can't be, into a mul and an add.

    factor = gamma / sqrt(variance + epsilon); weight * factor, (bias - mean) * factor + beta.
    Source: Jacob et al. 2018, section 3.2.
    """
    while norm := next((node for node in graph.nodes if node.op == "batch_norm"), None):
        layer = graph.producer(norm.inputs[0])
        graph = _mul_add(graph, norm) if layer is None or foldable(layer, norm, graph) else _fold(graph, layer, norm)
    return graph


def foldable(layer: Node, norm: Node, graph: Graph) -> str | None:
    """None where the batch_norm can go into the layer that writes its input, else the reason it can't."""
    if not isinstance(layer.attrs, Weighted):
        return f"{layer.name} before {norm.name} is a {layer.op}, which has no weights"
    if layer.attrs.clamp != "none":
        return f"{layer.name} is clamped ({layer.attrs.clamp}) before {norm.name}"
    if layer.name in graph.outputs or len(graph.readers(layer.name)) > 1:
        return f"{layer.name} is also read before {norm.name}"
    if any(graph.tensors[name].data is None for name in layer.inputs[1:]):
        return f"{layer.name}'s weights are not constants"
    return None


def _affine(norm: Node, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """A batch_norm as x * factor + shift, float64 [C] each."""
    assert isinstance(norm.attrs, BatchNorm)
    gamma, beta, mean, variance = (np.asarray(graph.tensors[name].data, np.float64) for name in norm.inputs[1:])
    factor = gamma / np.sqrt(variance + norm.attrs.epsilon)
    return factor, beta - mean * factor


def _fold(graph: Graph, layer: Node, norm: Node) -> Graph:
    factor, shift = _affine(norm, graph)
    old = np.asarray(graph.tensors[layer.inputs[1]].data, np.float64)
    along = [1] * old.ndim
    along[OUT_AXIS[layer.op]] = -1
    weight = constant(graph, layer.inputs[1], old * factor.reshape(along), layer)
    if len(layer.inputs) > 2:
        shift = shift + np.asarray(graph.tensors[layer.inputs[2]].data, np.float64) * factor
    bias = constant(graph, layer.inputs[2] if len(layer.inputs) > 2 else f"{layer.name}.bias", shift, layer)
    folded = replace(layer, inputs=(layer.inputs[0], weight.name, bias.name))
    nodes = [folded if node is layer else node for node in graph.nodes if node is not norm]
    return with_nodes(graph, nodes, (weight, bias), {norm.name: layer.name})


def _mul_add(graph: Graph, norm: Node) -> Graph:
    factor, shift = _affine(norm, graph)
    scale, offset = constant(graph, f"{norm.name}.scale", factor, norm), constant(graph, f"{norm.name}.shift", shift, norm)
    scaled = replace(graph.tensors[norm.name], name=free_name(f"{norm.name}.scaled", graph.tensors))
    mul = Node("mul", (norm.inputs[0], scale.name), (scaled.name,), Mul(), norm.source)
    add = Node("add", (scaled.name, offset.name), norm.outputs, Add(), norm.source)
    return with_nodes(graph, swapped(graph, norm, (mul, add)), (scale, offset, scaled))


# ---- fuse_clamps -----------------------------------------------------------------------------------------------------------------


def fuse_clamps(graph: Graph) -> Graph:
    """Clamps that stand alone become their producer's, so that its range is taken after them; the others stay as they are."""
    for name in [node.name for node in graph.nodes if standing_clamp(node, graph)]:
        node = next(node for node in graph.nodes if node.name == name)
        alone = standing_clamp(node, graph)
        producer = graph.producer(alone[0]) if alone else None
        if alone is None or producer is None or clampable(producer, node, graph):
            continue
        assert isinstance(producer.attrs, Clamped)  # clampable saw to it
        clamp = ONE_AFTER_OTHER[producer.attrs.clamp, alone[1]]
        joined = replace(producer, attrs=replace(producer.attrs, clamp=clamp))
        nodes = [joined if other is producer else other for other in graph.nodes if other is not node]
        graph = with_nodes(graph, nodes, renamed={node.name: producer.name})
    return graph


def standing_clamp(node: Node, graph: Graph) -> tuple[str, Clamp] | None:
    """(the tensor, the clamp) where a node does nothing but clamp: a max_pool of one place, an add of zero."""
    attrs = node.attrs
    if not isinstance(attrs, MaxPool | Add) or attrs.clamp == "none":
        return None
    source = passed_through(replace(node, attrs=replace(attrs, clamp="none")), graph)
    return None if source is None else (source, attrs.clamp)


def clampable(producer: Node, clamp: Node, graph: Graph) -> str | None:
    """None where the clamp can move to the node before it, else the reason it can't."""
    if not isinstance(producer.attrs, Clamped):
        return f"{producer.name} before {clamp.name} is a {producer.op}, which has no clamp"
    if producer.name in graph.outputs or len(graph.readers(producer.name)) > 1:
        return f"{producer.name} is also read before {clamp.name}"
    return None


# ---- merge_pads ------------------------------------------------------------------------------------------------------------------


def merge_pads(graph: Graph) -> Graph:
    """Explicit zeros before a convolution (or another pad) become its own padding. A pool stays: it does not count its padding."""
    nodes: dict[str, Node] = {}
    for node in graph.nodes:
        before = nodes.get(node.inputs[0])
        if before is not None and isinstance(before.attrs, Pad) and isinstance(node.attrs, Conv2d | DepthwiseConv2d | Pad):
            attrs = replace(node.attrs, padding=_sum(before.attrs.padding, node.attrs.padding))
            node = replace(node, inputs=(before.inputs[0], *node.inputs[1:]), attrs=attrs)
        nodes[node.name] = node
    return with_nodes(graph, nodes.values())


def _sum(a: Sides, b: Sides) -> Sides:
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


PREPARE: Final[tuple[Pass, ...]] = (
    merge_reshapes,  # squeeze after squeeze; what is left may do nothing at all
    drop_identities,  # a flatten of a flat tensor, a pad by nothing: they only hide the patterns below
    fold_batch_norm,  # needs layer -> batch_norm with one reader; what can't be folded becomes mul and add
    fuse_clamps,  # after the norms, which stand between a convolution and its relu
    merge_pads,  # "same" padding of TensorFlow's networks moves into the convolution, which may be asymmetric
)
