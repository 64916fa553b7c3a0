"""The int8 Graph in float arithmetic: its values are rounded to the integers' grid.

Within a step of the integers themselves (which add the roundings of fixed-point rescaling), and a layer may be left in float.
"""

from __future__ import annotations

from collections.abc import Container

from nestling.formats.tflite.floats import Hook
from nestling.graph.float_twin import real
from nestling.graph.ir import Graph, Tensor
from nestling.quantization.calibrate import carried


def with_carried_constants(graph: Graph, integers: Graph) -> Graph:
    """The float graph with each constant as its integers carry it. Weights that layers share are carried as the first one's."""
    tensors = {}
    for name, tensor in graph.tensors.items():
        twin = integers.tensors.get(name)
        if tensor.data is not None and twin is not None and twin.quant is not None:
            tensor = Tensor(name, tensor.shape, "float32", real(twin))
        tensors[name] = tensor
    return Graph(tensors, graph.nodes, graph.inputs, graph.outputs)


def carrying(integers: Graph, off: Container[str] = ()) -> Hook:
    """A hook of stepwise() that brings activations to their integers' grid. off: names of those that stay in float."""
    quants = {name: t.quant for name, t in integers.tensors.items() if t.data is None and t.quant is not None and name not in off}
    return lambda name, value: carried(value, quants[name]) if name in quants else value
