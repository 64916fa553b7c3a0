"""What a Graph ends in when it is printed: a head on its embedding, or its own scores. NumPy only: printers use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from nestling.bundle import Head
from nestling.errors import NestlingError
from nestling.graph.edit import free_name
from nestling.graph.endings import ending, ending_in
from nestling.graph.integers import Range, quant_of, quantized_bias, quantized_weight
from nestling.graph.ir import Dequantize, FullyConnected, Graph, Node, Tensor
from nestling.graph.spec import check


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
    graph = ending_in(graph, ending(graph).logits)
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
