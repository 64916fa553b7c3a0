"""The int8 Graph in float arithmetic: a GraphModule whose values are rounded to the integers' grid.

Within a step of the integers themselves (which add the roundings of fixed-point rescaling), several times as fast, and a layer may
be left in float.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

import torch

from nestling.graph.edit import tidy
from nestling.graph.float_twin import real
from nestling.graph.ir import Graph, Node, Quant, Tensor
from nestling.models.graph_module import GraphModule, Hook

T = torch.Tensor
Carry = Callable[[T], T]
LIMITS = {"int8": (-128, 127), "int32": (-(2**31), 2**31 - 1)}


def simulated(graph: Graph, integers: Graph, off: Container[str] = ()) -> GraphModule:
    """`graph` (float) computing as `integers` (with_integers of it) would.

    off: names of activations and constants that stay in float.
    """
    module = GraphModule(with_carried_constants(graph, integers, off)).eval()
    module.observe = carrying(integers, off)
    return module


def with_carried_constants(graph: Graph, integers: Graph, off: Container[str] = ()) -> Graph:
    """The float graph with each constant as its integers carry it. Weights that layers share are carried as the first one's."""
    tensors = {}
    for name, tensor in graph.tensors.items():
        twin = integers.tensors.get(name)
        if tensor.data is not None and twin is not None and twin.quant is not None and name not in off:
            tensor = Tensor(name, tensor.shape, "float32", real(twin))
        tensors[name] = tensor
    return Graph(tensors, graph.nodes, graph.inputs, graph.outputs)


def carrying(integers: Graph, off: Container[str] = ()) -> Hook:
    """A GraphModule.observe that brings activations to their integers' grid."""
    quants = {name: t.quant for name, t in integers.tensors.items() if t.data is None and t.quant is not None and name not in off}
    carries = {name: carry(quant) for name, quant in quants.items()}
    return lambda name, value: carries[name](value) if name in carries else value


def carry(quant: Quant) -> Carry:
    """value -> the nearest one that int8 with this quant (per tensor) can hold."""
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    return lambda value: torch.fake_quantize_per_tensor_affine(value, scale, zero, *LIMITS["int8"])


def rest_from(graph: Graph, first: Node) -> Graph:
    """The graph from a node on; what was computed before it are inputs."""
    nodes = graph.nodes[graph.nodes.index(first) :]
    own = {node.name for node in nodes}
    read = dict.fromkeys(name for node in nodes for name in node.inputs)
    inputs = tuple(name for name in read if name not in own and graph.tensors[name].data is None)
    return tidy(replace(graph, nodes=nodes, inputs=inputs))
