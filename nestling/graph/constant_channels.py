"""Channels that answer the same whatever the image is: what they bring moves into biases, and their weights become zeros.

Training with weight decay leaves such channels, often most of a layer: weights of 1e-20, or a relu that never opens. The float
network does not mind. But what reads them has weights that count for nothing, of any size, and these would set the scale of a
layer that has one scale, or be what equalisation makes its channels like. NumPy only.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nestling.graph import reference_float
from nestling.graph.edit import constant, with_nodes
from nestling.graph.ir import IN_AXIS, OUT_AXIS, Clamp, DepthwiseConv2d, Graph, Node, Tensor
from nestling.graph.spec import check

Floats = NDArray[np.float64]

NOTHING: Final = 1e-6  # of a layer's largest weight: a row that has none above it is empty
PASSED: Final = (
    "average_pool",
    "max_pool",
    "mean",
    "resize_nearest",
)  # of a constant channel they give that constant, unless over channels


def without_constant_channels(graph: Graph) -> Graph:
    """The prepared float graph with the same answers for every image (within float rounding), and zeros for what never matters.

    Looked through are layers that own their weights, pools and means; a channel counts as constant where it is so at every place,
    the borders included.
    """
    known: dict[str, Floats] = {}  # activation -> the value of each channel, NaN where it depends on the image
    changed: list[Tensor] = []
    nodes: list[Node] = []
    for node in graph.nodes:
        varying = np.full(graph.tensors[node.name].shape[-1:], np.nan)
        before = known.get(node.inputs[0], np.full(graph.tensors[node.inputs[0]].shape[-1:], np.nan))
        if _owns_weights(node, graph):
            weight, bias = _freed(node, graph, before)
            node, tensors = _with(node, graph, weight, bias)
            changed += tensors
            empty = ~weight.any(axis=tuple(axis for axis in range(weight.ndim) if axis != OUT_AXIS[node.op]))
            known[node.name] = np.where(empty, _clamped(node, bias), varying)
        elif node.op in PASSED and len(graph.tensors[node.inputs[0]].shape) - 1 not in getattr(node.attrs, "axes", ()):
            known[node.name] = _clamped(node, before)
        nodes.append(node)
    return check(with_nodes(graph, nodes, changed)) if changed else graph


def _owns_weights(node: Node, graph: Graph) -> bool:
    """A layer, not grouped (but depthwise with as many channels out as in), whose constants nothing else reads."""
    if node.op not in OUT_AXIS or any(graph.tensors[name].data is None for name in node.inputs[1:]):
        return False
    own = all(graph.readers(name) == (node,) for name in node.inputs[1:])
    return own and graph.tensors[node.inputs[1]].shape[IN_AXIS[node.op]] == graph.tensors[node.inputs[0]].shape[-1]


def _freed(node: Node, graph: Graph, before: Floats) -> tuple[Floats, Floats]:
    """(weight, bias) float64, zeros where weights read a constant or cannot open their relu. before: [I], NaN where it varies."""
    weight = np.array(graph.tensors[node.inputs[1]].data, np.float64)
    rows = np.moveaxis(weight, OUT_AXIS[node.op], 0)  # views: what is written here is written into `weight`
    bias = np.zeros(len(rows))
    if len(node.inputs) > 2:
        bias += np.asarray(graph.tensors[node.inputs[2]].data, np.float64)
    largest = np.abs(rows).reshape(len(rows), -1).max(axis=1)
    rows[largest <= NOTHING * largest.max()] = 0

    columns = np.moveaxis(weight, IN_AXIS[node.op], -1)
    padded = any(getattr(node.attrs, "padding", ()))
    moved = np.isfinite(before) & ((before == 0) | (not padded))  # the same at every place, the borders included
    brought = np.where(moved, np.nan_to_num(before), 0.0) * columns
    each = brought if node.op == "depthwise_conv2d" else brought.sum(axis=-1)
    bias += np.moveaxis(each, -1 if node.op == "depthwise_conv2d" else 0, 0).reshape(len(bias), -1).sum(axis=1)
    columns[..., moved] = 0

    if isinstance(node.attrs, DepthwiseConv2d) and node.attrs.clamp != "none":
        shut = _shut(node, graph, weight, bias, np.where(moved, np.nan, before))
        rows[shut] = 0
        bias[shut] = np.minimum(bias[shut], 0)
    return weight, bias


def _shut(node: Node, graph: Graph, weight: Floats, bias: Floats, before: Floats) -> NDArray[np.bool_]:
    """Depthwise channels that read a constant, zeros around it, and are clamped to 0 at every place."""
    assert isinstance(node.attrs, DepthwiseConv2d)
    steady = np.isfinite(before)
    if not steady.any():
        return steady
    _, height, width, channels = graph.tensors[node.inputs[0]].shape
    plane = np.broadcast_to(np.nan_to_num(before), (1, height, width, channels)).astype(np.float32)
    linear = replace(node.attrs, clamp="none")
    values = reference_float.depthwise_conv2d(linear, (plane, weight.astype(np.float32)), (), graph.tensors[node.name])
    shut: NDArray[np.bool_] = steady & (values.max(axis=(0, 1, 2)) + bias <= 0)
    return shut


def _with(node: Node, graph: Graph, weight: Floats, bias: Floats) -> tuple[Node, list[Tensor]]:
    """(the layer, its constants that are new): none where nothing changed, so that not a bit does."""
    made = {}
    for place, values in ((1, weight), (2, bias)):
        name = node.inputs[place] if place < len(node.inputs) else f"{node.name}.bias"
        old = graph.tensors[name].data if place < len(node.inputs) else np.zeros_like(bias)
        if not np.array_equal(values, np.asarray(old, np.float64)):
            made[place] = constant(graph, name, values, node)
    inputs = [made[place].name if place in made else name for place, name in enumerate(node.inputs)]
    if 2 in made and len(node.inputs) == 2:
        inputs.append(made[2].name)
    return replace(node, inputs=tuple(inputs)), list(made.values())


def _clamped(node: Node, values: Floats) -> Floats:
    clamp: Clamp = getattr(node.attrs, "clamp", "none")
    return reference_float.CLAMPS[clamp](values.astype(np.float32)).astype(np.float64)
