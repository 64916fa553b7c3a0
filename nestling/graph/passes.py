"""A captured float Graph made ready for the bridge and the printers: PREPARE, in order, each step checked.

Every pass keeps the answer (within float rounding), and a rule that may refuse says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from nestling.graph.branches import affine, merge_branches
from nestling.graph.edit import constant, free_name, links, swapped, with_nodes
from nestling.graph.ir import (
    OUT_AXIS,
    Add,
    AveragePool,
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
    Slice,
    Tensor,
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
        case Reshape() | ResizeNearest() | Slice():
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


# ---- fold_layers -----------------------------------------------------------------------------------------------------------------


def fold_layers(graph: Graph) -> Graph:
    """What is linear behind a layer, or beside it, into its weights: batch norms, constant factors, other branches of a sum."""
    while better := _norm_folded(graph) or _factor_folded(graph) or merge_branches(graph):
        graph = better
    return graph


def _norm_folded(graph: Graph) -> Graph | None:
    """factor = gamma / sqrt(variance + epsilon); weight * factor, (bias - mean) * factor + beta.

    Source: Jacob et al. 2018, section 3.2.
    """
    written, _ = links(graph)
    for norm in graph.nodes:
        layer = written.get(norm.inputs[0]) if norm.op == "batch_norm" else None
        if layer is not None and not foldable(layer, norm, graph):
            return _fold(graph, layer, norm, *affine(norm, graph))
    return None


def _factor_folded(graph: Graph) -> Graph | None:
    """A constant a channel that a layer, or a batch_norm, is multiplied with: a layer scale, the minus of a difference."""
    written, read = links(graph)
    for node in graph.nodes:
        if node.op != "mul" or node.attrs != Mul():
            continue
        layer = next((written[name] for name in node.inputs if name in written and read[name] == 1), None)
        factor = _factor(node, graph)
        if layer is None or factor is None or graph.tensors[layer.name].shape != graph.tensors[node.name].shape:
            continue
        if layer.op == "batch_norm":
            return _rescaled(graph, layer, node, factor)
        if not foldable(layer, node, graph):
            return _fold(graph, layer, node, factor, np.zeros_like(factor))
    return None


def _factor(node: Node, graph: Graph) -> np.ndarray | None:
    """What a mul multiplies each channel with, float64 [C]; None where that is no constant a channel."""
    held = [np.asarray(data, np.float64) for name in node.inputs if (data := graph.tensors[name].data) is not None]
    if len(held) != 1 or held[0].size not in (1, held[0].shape[-1]):
        return None
    return np.broadcast_to(held[0].reshape(-1), graph.tensors[node.name].shape[-1:])


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


def _fold(graph: Graph, layer: Node, node: Node, factor: np.ndarray, shift: np.ndarray) -> Graph:
    """The layer gives what `node` does with its answer: times factor, plus shift, float64 [C] each."""
    old = np.asarray(graph.tensors[layer.inputs[1]].data, np.float64)
    along = [1] * old.ndim
    along[OUT_AXIS[layer.op]] = -1
    weight = constant(graph, layer.inputs[1], old * factor.reshape(along), layer)
    if len(layer.inputs) > 2:
        shift = shift + np.asarray(graph.tensors[layer.inputs[2]].data, np.float64) * factor
    bias = constant(graph, layer.inputs[2] if len(layer.inputs) > 2 else f"{layer.name}.bias", shift, layer)
    return _joined(graph, layer, node, (weight, bias))


def _rescaled(graph: Graph, norm: Node, node: Node, factor: np.ndarray) -> Graph:
    """A batch_norm's gamma and beta times factor."""
    gamma, beta = (constant(graph, name, np.asarray(graph.tensors[name].data) * factor, norm) for name in norm.inputs[1:3])
    return _joined(graph, norm, node, (gamma, beta))


def _joined(graph: Graph, layer: Node, node: Node, constants: tuple[Tensor, Tensor]) -> Graph:
    """The layer with other constants behind its input, in place of itself and of the `node` behind it."""
    inputs = (layer.inputs[0], *(tensor.name for tensor in constants), *layer.inputs[3:])
    folded = replace(layer, inputs=inputs)
    nodes = [folded if other is layer else other for other in graph.nodes if other is not node]
    return with_nodes(graph, nodes, constants, {node.name: layer.name})


# ---- spread_norms ----------------------------------------------------------------------------------------------------------------


def spread_norms(graph: Graph) -> Graph:
    """What is left of batch norms, a mul and an add each."""
    while norm := next((node for node in graph.nodes if node.op == "batch_norm"), None):
        graph = _mul_add(graph, norm)
    return graph


def _mul_add(graph: Graph, norm: Node) -> Graph:
    factor, shift = affine(norm, graph)
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
    fold_layers,  # needs layer -> batch_norm with one reader; branches may only be seen once their norms are folded
    spread_norms,  # what can't be folded becomes mul and add
    fuse_clamps,  # after the norms, which stand between a convolution and its relu
    merge_pads,  # "same" padding of TensorFlow's networks moves into the convolution, which may be asymmetric
)
