"""Multiply-accumulates: what a layer costs before anything is measured. NumPy only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from nestling.graph.ir import Graph, Node
from nestling.graph.shapes import Shape

PRODUCTS: Mapping[str, Callable[[Shape, Shape], int]] = {  # (output's shape, weight's shape); every other op counts none
    "conv2d": lambda out, weight: math.prod(out) * math.prod(weight[1:]),
    "depthwise_conv2d": lambda out, weight: math.prod(out) * weight[1] * weight[2],
    "fully_connected": lambda out, weight: math.prod(out) * weight[1],
}


def macs(node: Node, graph: Graph) -> int:
    """Multiply-accumulates of a node for one image, padding counted as if it were image."""
    count = PRODUCTS.get(node.op)
    return count(graph.tensors[node.name].shape, graph.tensors[node.inputs[1]].shape) if count else 0
