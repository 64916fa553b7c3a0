"""How a network made elsewhere ends: which tensor its scores are, and where its last layer comes off. NumPy only."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nestling.bundle import Head
from nestling.graph.edit import free_name, tidy
from nestling.graph.ir import Conv2d, FullyConnected, Graph, Node, Reshape, Softmax, Tensor
from nestling.graph.spec import check

MOVERS = ("reshape", "quantize", "dequantize")  # what may stand behind the last layer and changes no order among scores


@dataclass(frozen=True)
class Ending:
    """logits: the tensor with one score a class, before a softmax where there is one.

    layer: the fully connected node (or convolution of one place on a map of one place) that they come from; None for other ends.
    """

    logits: str
    layer: Node | None


def ending(graph: Graph) -> Ending:
    """How the graph's first output comes about. A softmax with a beta of its own is an end of its own."""
    name = logits = graph.outputs[0]
    node = graph.producer(name)
    while node is not None and (node.op in MOVERS or node.attrs == Softmax(1.0)):
        name = node.inputs[0]
        logits = name if node.op == "softmax" else logits
        node = graph.producer(name)
    return Ending(logits, node if node is not None and _is_dense(node, graph) else None)


def without_last_layer(graph: Graph, layer: Node) -> tuple[Graph, Head]:
    """(the graph that ends in what `layer` reads, flat: the embedding [1, D]; the layer as a Head).

    layer: float, as `ending` finds it. Where it reads an int8 tensor through a dequantize, the int8 tensor is the embedding.
    """
    x = graph.tensors[layer.inputs[0]]
    weight, *biases = (np.asarray(graph.tensors[name].data, np.float32) for name in layer.inputs[1:])
    head = Head(weight.reshape(len(weight), -1), biases[0] if biases else np.zeros(len(weight), np.float32))
    before = graph.producer(x.name)
    if before is not None and before.op == "dequantize":
        x = graph.tensors[before.inputs[0]]
    return ending_in(graph, x.name), head


def ending_in(graph: Graph, name: str) -> Graph:
    """The graph whose one output is the tensor `name` as [1, n]; what only others need is left out."""
    x = graph.tensors[name]
    tensors, nodes = dict(graph.tensors), graph.nodes
    if len(x.shape) != 2:
        flat = Tensor(free_name(f"{name}:flat", tensors), (1, math.prod(x.shape)), x.dtype, None, x.quant)
        tensors[flat.name] = flat
        nodes = (*nodes, Node("reshape", (name,), (flat.name,), Reshape()))
        name = flat.name
    return check(tidy(replace(graph, tensors=tensors, nodes=nodes, outputs=(name,))), "the graph without its last layer")


def _is_dense(node: Node, graph: Graph) -> bool:
    """Whether the node multiplies one vector, which another node computed, with a constant matrix, and does no more."""
    tensors = [graph.tensors[name] for name in node.inputs]
    if tensors[0].name in graph.inputs or any(tensor.data is None for tensor in tensors[1:]):
        return False
    match node.attrs:
        case FullyConnected(clamp="none"):
            return True
        case Conv2d(clamp="none", padding=(0, 0, 0, 0)):
            one_place = tensors[0].shape[:3] == (1, 1, 1) and tensors[1].shape[1:3] == (1, 1)
            return one_place and tensors[1].shape[3] == tensors[0].shape[3]
        case _:
            return False
