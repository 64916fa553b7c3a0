"""What a bundle weighs: multiply-accumulates, parameters, bytes, and how far its weights compress."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.graph.ir import Array, Graph, Quant
from nestling.graph.macs import PRODUCTS, macs
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph

LEVEL = 9  # of zlib


@dataclass(frozen=True)
class Weights:
    """What a network weighs before anything is run. What is None could not be told.

    macs: multiply-accumulates of the backbone for one image. parameters: learned numbers of backbone and head. float_bytes: of the
    float32 numbers that a device holds (batch norms folded, with the head). int8_bytes: of the int8 weights; compressed_bytes: of
    the same, one layer after the other, by zlib at level 9. zeros, int8_zeros: share of the weights that are zero.
    """

    macs: int | None
    parameters: int | None
    float_bytes: int | None
    zeros: float | None
    int8_bytes: int | None = None
    compressed_bytes: int | None = None
    int8_zeros: float | None = None


def weighed(bundle: Bundle, integers: Graph | None) -> tuple[Weights, tuple[str, ...]]:
    """(what it weighs, what could not be told and why). integers: its int8 graph, or one that was made of it."""
    notes: list[str] = []
    head = bundle.head.weight.size + bundle.head.bias.size if bundle.head is not None else 0
    floats: Graph | None = None
    learned: int | None = None
    if bundle.architecture is not None:
        try:
            learned = head + sum(parameter.numel() for parameter in build(replace(bundle, head=None)).parameters())
            floats = float_graph(bundle)
        except NestlingError as error:
            notes.append(f"its float network is no Graph, so its MACs are not counted: {error.message}")
    graph = floats or integers
    if learned is None and graph is not None:
        learned = head + _constants(graph)
    found = Weights(
        macs=sum(macs(node, graph) for node in graph.nodes) if graph else None,
        parameters=learned,
        float_bytes=4 * (head + _constants(floats)) if floats else None,
        zeros=_zeros(floats) if floats else None,
    )
    if integers is None:
        return found, tuple(notes)
    stored = b"".join(weight.tobytes() for weight, _ in _weights(integers))
    packed = len(zlib.compress(stored, LEVEL))
    return replace(found, int8_bytes=len(stored), compressed_bytes=packed, int8_zeros=_zeros(integers)), tuple(notes)


def _weights(graph: Graph) -> Iterator[tuple[Array, Quant | None]]:
    """Each layer's weights, OHWI, in running order."""
    for node in graph.nodes:
        weight = graph.tensors[node.inputs[1]] if node.op in PRODUCTS else None
        if weight is not None and weight.data is not None:
            yield weight.data, weight.quant


def _constants(graph: Graph) -> int:
    """Numbers that the graph holds; the normalisation's table is not learned."""
    tables = {node.inputs[1] for node in graph.nodes if node.op == "table"}
    return sum(tensor.data.size for name, tensor in graph.tensors.items() if tensor.data is not None and name not in tables)


def _zeros(graph: Graph) -> float:
    """Share of the weights that stand for zero."""
    zeros = size = 0
    for data, quant in _weights(graph):
        shape = [-1 if quant is not None and axis == quant.axis else 1 for axis in range(data.ndim)]
        zeros += int((data == (quant.zero_point.reshape(shape) if quant is not None else 0)).sum())
        size += data.size
    return zeros / max(size, 1)
