"""The float network that an int8 Graph stands for. NumPy only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.graph.edit import with_nodes
from nestling.graph.ir import Add, AveragePool, Conv2d, DepthwiseConv2d, FullyConnected, Graph, Mul, Node, Tensor
from nestling.graph.spec import check

CONVERSIONS = ("quantize", "dequantize")
CLAMPING = (Conv2d, DepthwiseConv2d, FullyConnected, Add, Mul)


def float_twin(graph: Graph) -> Graph:
    """The same layers with the same real weights in float32, activations not rounded: what an imported integer network would
    answer without its roundings. Its distance from the int8 Graph is the noise that other runtimes are measured by.
    """
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in CONVERSIONS:
            renamed[node.name] = renamed.get(node.inputs[0], node.inputs[0])
            continue
        if isinstance(node.attrs, Conv2d | DepthwiseConv2d | AveragePool):
            node = replace(node, attrs=replace(node.attrs, unsigned=False))
        nodes.append(_clamped(node, graph.tensors[node.name]))
    tensors = [_in_float(tensor) for tensor in graph.tensors.values()]
    return check(with_nodes(graph, nodes, tensors, renamed), "the float twin")


def _clamped(node: Node, output: Tensor) -> Node:
    """A layer whose integers begin at zero cuts off what is negative, though it does not say so: so old uint8 networks have their
    relu6, which ends where the range does, and relu.
    """
    if not isinstance(node.attrs, CLAMPING) or node.attrs.clamp != "none" or output.quant is None:
        return node
    if int(output.quant.zero_point[0]) != -128:
        return node
    six = abs(255 * float(output.quant.scale[0]) - 6) < 0.05
    return replace(node, attrs=replace(node.attrs, clamp="relu6" if six else "relu"))


def real(tensor: Tensor) -> NDArray[np.float32]:
    """The real numbers of an int8 or int32 constant, float32, in its shape."""
    assert tensor.data is not None and tensor.quant is not None
    shape = [1] * len(tensor.shape)
    if tensor.quant.axis is not None:
        shape[tensor.quant.axis] = -1
    steps = tensor.data.astype(np.float64) - tensor.quant.zero_point.reshape(shape)
    return (steps * tensor.quant.scale.astype(np.float64).reshape(shape)).astype(np.float32)


def _in_float(tensor: Tensor) -> Tensor:
    if tensor.quant is None:
        return tensor
    return Tensor(tensor.name, tensor.shape, "float32", None if tensor.data is None else real(tensor))
