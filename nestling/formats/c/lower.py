"""The int8 Graph as a Program: one call of a kernel a layer, and nothing that need not be done.

What disappears on the way: pads and the image's table go into the convolution behind them, tables of tables become one table,
reshapes and concats of what lies side by side anyway become other names for the same bytes. Large sums of
channels that answer one byte whatever the image is become small ones.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np

from nestling.formats.c.kernels.few_bits import with_packed_weights
from nestling.formats.c.kernels.layers import Layer, Parts, Program, Read, Struct, View
from nestling.formats.c.kernels.table import kernel
from nestling.formats.c.kernels.windows import with_table
from nestling.formats.c.machines import Machine
from nestling.formats.c.settled import with_settled_channels
from nestling.graph.ends import ending
from nestling.graph.ir import Graph
from nestling.graph.passes import merge_pads
from nestling.graph.spec import check

Layers = Mapping[str, Layer]  # by the tensor that each writes, in running order
Aliases = Mapping[str, tuple[str, int]]


def lower(graph: Graph, machine: Machine, portable: Collection[str] = ()) -> Program:
    """The calls for a graph on a machine. Activations are int8, but for an image at the beginning and float32 scores at the end.

    portable: nodes that get a kernel which every machine has.

    Raises UnsupportedOp, naming the layer, for float arithmetic before the head.
    """
    graph = with_settled_channels(check(merge_pads(graph), "the graph with its pads in the convolutions"))
    plain = replace(machine, features=())
    layers: dict[str, Layer] = {}
    aliases: dict[str, tuple[str, int]] = {}
    for node in graph.nodes:
        made = kernel(node, graph, plain if node.name in portable else machine)
        if isinstance(made, View):
            aliases[made.name] = (made.of, 0)
        else:
            layers[node.name] = _with_lookup(_with_image(made, graph), layers, graph)
    needed = _needed(layers, aliases, graph)
    aliases |= (parts := _concats_in_place(needed, aliases, graph))
    layers = {name: layer for name, layer in needed.items() if not any(of == name for of, _ in parts.values())}
    names = {*graph.inputs, *needed, *aliases}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in names}
    found = Program(tuple(layers.values()), tensors, aliases, graph.inputs, graph.outputs, _embedding(graph))
    found = replace(found, outputs=tuple(found.root(name)[0] for name in found.outputs))  # a last reshape moves nothing
    return with_packed_weights(found)


# ---- calls that take in the one before them -------------------------------------------------------------------------------------


def _with_image(layer: Layer, graph: Graph) -> Layer:
    """A convolution behind the image's table looks the bytes up itself."""
    before = graph.producer(layer.reads[0]) if layer.of_image else None
    several = _field(layer, "groups") not in (1, None)
    return layer if before is None or before.op != "table" or several else with_table(layer, before, graph)


def _with_lookup(layer: Layer, layers: Layers, graph: Graph) -> Layer:
    """A lookup behind another that nothing else reads: hard-sigmoid is an add, a clamp and a mul, and all of it one table."""
    before = layers.get(layer.reads[0]) if layer.function == "nst_lookup" else None
    if before is None or before.function != "nst_lookup" or len(graph.readers(before.writes)) > 1:
        return layer
    if before.writes in graph.outputs:
        return layer
    (first,), (second,) = before.constants, layer.constants
    table = replace(second, data=np.asarray(second.data)[np.asarray(first.data).astype(np.int64) + 128])
    arguments = (Read(before.reads[0]), table, *layer.arguments[2:])
    return replace(layer, kind=f"{before.kind}, {layer.kind}", arguments=arguments, over=before.over)


def _field(layer: Layer, name: str) -> object:
    return next((argument.fields.get(name) for argument in layer.arguments if isinstance(argument, Struct)), None)


# ---- what need not be done ------------------------------------------------------------------------------------------------------


def _needed(layers: Layers, aliases: Aliases, graph: Graph) -> dict[str, Layer]:
    """Without the layers whose answers nobody reads any more."""
    read: set[str] = set()
    kept: dict[str, Layer] = {}

    def mark(names: tuple[str, ...]) -> None:
        for name in names:
            read.add(name)
            mark((aliases[name][0],) if name in aliases else ())

    mark(graph.outputs)
    for name, layer in reversed(list(layers.items())):
        if name in read:
            kept[name] = layer
            mark(layer.reads)
    return dict(reversed(list(kept.items())))


def _concats_in_place(layers: Layers, aliases: Aliases, graph: Graph) -> dict[str, tuple[str, int]]:
    """part -> (concat, offset), where every part of a concat can be written where it will stand: one row, bytes as they are."""
    found: dict[str, tuple[str, int]] = {}
    for name, layer in layers.items():
        if layer.function != "nst_concat" or _field(layer, "rows") != 1:
            continue
        parts = next(argument.operands for argument in layer.arguments if isinstance(argument, Parts))
        free = layers.keys() - aliases.keys() - found.keys() - set(graph.outputs)
        names = [part.tensor for part in parts if isinstance(part, Read) and part.tensor in free]
        as_they_are = not any(constant.role.startswith("table") for constant in layer.constants)
        if len(set(names)) == len(parts) and as_they_are:
            offset = 0
            for part in names:
                found[part] = (name, offset)
                offset += math.prod(graph.tensors[part].shape)
    return found


# ---- ends -----------------------------------------------------------------------------------------------------------------------


def _embedding(graph: Graph) -> str:
    """The int8 vector that the last dense layer reads; where there is no such layer, the scores in integers."""
    layer = ending(graph).layer
    name = graph.outputs[0] if layer is None else layer.inputs[0]
    before = graph.producer(name)
    while graph.tensors[name].dtype == "float32" and before is not None and before.op in ("dequantize", "reshape"):
        name = before.inputs[0]
        before = graph.producer(name)
    return name
