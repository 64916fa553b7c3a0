"""Bias correction: quantised weights shift the mean of what a layer computes; the bias takes the shift back.

Source: Nagel et al. 2019, "Data-free quantization through weight equalization and bias correction", section 4.2 and its appendix D
(the empirical form, with images).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.tflite.floats import Value, stepwise
from nestling.graph.edit import constant, with_nodes
from nestling.graph.ir import OUT_AXIS, Conv2d, DepthwiseConv2d, FullyConnected, Graph, Node
from nestling.quantization.calibrate import batches
from nestling.quantization.simulate import carrying, with_carried_constants

Floats = NDArray[np.float32]
LIMITS: Mapping[str, tuple[float, float]] = {"none": (-np.inf, np.inf), "relu": (0.0, np.inf), "relu6": (0.0, 6.0)}
IMAGES = 32  # all of them go through at once, so that a layer's correction is seen by the layers behind it


def bias_corrected(graph: Graph, integers: Graph, images: Sequence[NDArray[np.uint8]]) -> Graph:
    """The float graph with other biases: with integers again, each layer's channels have the means that they have in float.

    integers: with_integers of `graph`. images: the first IMAGES of them are used. A layer without a bias gets one.
    Means are taken before the clamp, where a bias acts, layer after layer: each sees the corrections of those before it.
    """
    # a bias that sits before the clamp can be added after the sum: so the clamps are taken out of the nodes and done in the hook
    unclamped = replace(graph, nodes=tuple(_without_clamp(node) if node.op in OUT_AXIS else node for node in graph.nodes))
    clamps = {node.name: LIMITS[getattr(node.attrs, "clamp", "none")] for node in graph.nodes if node.op in OUT_AXIS}
    wanted: dict[str, Floats] = {}
    shifts: dict[str, Floats] = {}
    carry = carrying(integers)

    def in_float(name: str, value: Value) -> Value:
        if name not in clamps:
            return value
        wanted[name] = _means(value)
        return np.clip(value, *clamps[name], out=value)  # a step's answer is nobody else's: of 32 images it is large

    def in_integers(name: str, value: Value) -> Value:
        if name in clamps:
            shifts[name] = wanted[name] - _means(value)
            value += shifts[name]
            np.clip(value, *clamps[name], out=value)
        return carry(name, value)

    batch = next(batches(images, IMAGES))
    stepwise(unclamped)(batch, hook=in_float)
    stepwise(with_carried_constants(unclamped, integers))(batch, hook=in_integers)
    return _with_shifts(graph, shifts)


def _without_clamp(node: Node) -> Node:
    assert isinstance(node.attrs, Conv2d | DepthwiseConv2d | FullyConnected)
    return replace(node, attrs=replace(node.attrs, clamp="none"))


def _means(value: Value) -> Floats:
    """Of each channel, the last axis."""
    means: Floats = value.reshape(-1, value.shape[-1]).mean(axis=0, dtype=np.float64).astype(np.float32)
    return means


def _with_shifts(graph: Graph, shifts: dict[str, NDArray[np.float32]]) -> Graph:
    nodes, biases = [], []
    for node in graph.nodes:
        if node.name in shifts:
            shift = shifts[node.name].astype(np.float64)
            name = node.inputs[2] if len(node.inputs) > 2 else f"{node.name}.bias"
            old = graph.tensors[name].data if len(node.inputs) > 2 else 0
            bias = constant(graph, name, np.asarray(old, np.float64) + shift, node)
            node = replace(node, inputs=(*node.inputs[:2], bias.name))
            biases.append(bias)
        nodes.append(node)
    return with_nodes(graph, nodes, biases)
