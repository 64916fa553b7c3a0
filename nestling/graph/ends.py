"""What a Graph ends in: a head on its embedding, or its own scores; where a network made elsewhere has its last layer.

NumPy only: printers use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from nestling.errors import NestlingError
from nestling.graph.edit import free_name, tidy
from nestling.graph.head import Head
from nestling.graph.integers import Range, quant_of, quantized_bias, quantized_weight
from nestling.graph.ir import Conv2d, Dequantize, FullyConnected, Graph, Node, Reshape, Softmax, Tensor
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


# ---- what is printed behind it -------------------------------------------------------------------------------------------------


def with_head(graph: Graph, head: Head, features: bool = False) -> Graph:
    """embedding -> (dequantize, where it is int8) -> fully_connected in float32 -> logits float32 [1, classes].

    graph: float or int8, with one output, the embedding [1, D]. features: the embedding, as float32, is a second output.
    Raises NestlingError where graph and head do not fit.
    """
    embedding = _embedding(graph, head)
    tensors, nodes = [], []
    if embedding.quant is not None:
        real = Tensor(free_name("embedding", graph.tensors), embedding.shape, "float32")
        tensors.append(real)
        nodes.append(Node("dequantize", (embedding.name,), (real.name,), Dequantize(), "head"))
        embedding = real
    weight = Tensor(free_name("head.weight", graph.tensors), head.weight.shape, "float32", np.asarray(head.weight, np.float32))
    bias = Tensor(free_name("head.bias", graph.tensors), head.bias.shape, "float32", np.asarray(head.bias, np.float32))
    logits = Tensor(free_name("logits", graph.tensors), (1, len(head.bias)), "float32")
    nodes.append(Node("fully_connected", (embedding.name, weight.name, bias.name), (logits.name,), FullyConnected(), "head"))
    outputs = (logits.name, embedding.name) if features else (logits.name,)
    return _extended(graph, (*tensors, weight, bias, logits), nodes, outputs)


def with_int8_head(graph: Graph, head: Head, logit_range: Range) -> Graph:
    """The same in integers: int8 embedding -> fully_connected int8, per channel -> int8 logits -> dequantize -> float32.

    logit_range: of the logits, for instance of the yardstick's. The head can't learn any more where it is printed so.
    """
    embedding = _embedding(graph, head)
    if embedding.quant is None:
        raise NestlingError("an int8 head needs an int8 graph.", "quantise it first:  nestling quantize my.nest -o my8.nest")
    weight = quantized_weight(head.weight, head.bias, 0, float(embedding.quant.scale[0]), bits=8, per_layer=False)
    assert weight.quant is not None
    bias = quantized_bias(head.bias, embedding.quant, weight.quant)
    weight = replace(weight, name=free_name("head.weight", graph.tensors))
    bias = replace(bias, name=free_name("head.bias", graph.tensors))
    steps = Tensor(free_name("logits.int8", graph.tensors), (1, len(head.bias)), "int8", None, quant_of(logit_range, 8, False))
    logits = Tensor(free_name("logits", graph.tensors), steps.shape, "float32")
    nodes = (
        Node("fully_connected", (embedding.name, weight.name, bias.name), (steps.name,), FullyConnected(), "head"),
        Node("dequantize", (steps.name,), (logits.name,), Dequantize(), "head"),
    )
    return _extended(graph, (weight, bias, steps, logits), nodes, (logits.name,))


def with_own_end(graph: Graph) -> Graph:
    """For a network that keeps its own end: the graph whose output are its scores before a softmax, float32 [1, classes]."""
    return with_real_numbers(ending_in(graph, ending(graph).logits))


def with_real_numbers(graph: Graph) -> Graph:
    """The graph whose output is float32, [1, classes] mostly: where it gives integers, the numbers that they stand for."""
    scores = graph.tensors[graph.outputs[0]]
    if scores.quant is None:
        return graph
    logits = Tensor(free_name("logits", graph.tensors), scores.shape, "float32")
    node = Node("dequantize", (scores.name,), (logits.name,), Dequantize(), "head")
    return _extended(graph, (logits,), (node,), (logits.name,))


def _embedding(graph: Graph, head: Head) -> Tensor:
    embedding = graph.tensors[graph.outputs[0]]
    if len(graph.outputs) != 1 or embedding.shape != (1, head.weight.shape[1]):
        raise NestlingError(f"a head for embeddings of {head.weight.shape[1]} numbers does not fit {list(embedding.shape)}.")
    return embedding


def _extended(graph: Graph, tensors: Iterable[Tensor], nodes: Iterable[Node], outputs: tuple[str, ...]) -> Graph:
    everything = {**graph.tensors, **{tensor.name: tensor for tensor in tensors}}
    return check(Graph(everything, (*graph.nodes, *nodes), graph.inputs, outputs), "the graph with its head")
