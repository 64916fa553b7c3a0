"""Small edits that passes are made of: each takes a Graph and returns another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count

import numpy as np

from nestling.graph.ir import Array, Graph, Node, Tensor


def with_nodes(
    graph: Graph, nodes: Iterable[Node], tensors: Iterable[Tensor] = (), renamed: Mapping[str, str] | None = None
) -> Graph:
    """`graph` with other nodes and further (or replaced) tensors; what read the keys of `renamed` reads their values instead.

    Nodes that nothing reads and tensors that no node names are left out.
    """
    names = renamed or {}
    moved = tuple(replace(node, inputs=tuple(names.get(name, name) for name in node.inputs)) for node in nodes)
    outputs = tuple(names.get(name, name) for name in graph.outputs)
    everything = {**graph.tensors, **{tensor.name: tensor for tensor in tensors}}
    return tidy(Graph(everything, moved, graph.inputs, outputs))


def tidy(graph: Graph) -> Graph:
    """Without the nodes whose answers nobody reads and the tensors that nobody names. Inputs stay."""
    read = set(graph.outputs)
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if read.intersection(node.outputs):
            nodes.append(node)
            read.update(node.inputs)
    named = read.union(graph.inputs, *(node.outputs for node in nodes))
    return replace(graph, tensors={name: t for name, t in graph.tensors.items() if name in named}, nodes=tuple(reversed(nodes)))


def links(graph: Graph) -> tuple[dict[str, Node], Counter[str]]:
    """(the node that writes each activation, how often each tensor is read: by nodes, and as an output)."""
    read = Counter(chain(graph.outputs, *(node.inputs for node in graph.nodes)))
    return {node.name: node for node in graph.nodes}, read


def swapped(graph: Graph, old: Node, new: Sequence[Node]) -> tuple[Node, ...]:
    """The nodes with `new` where `old` was."""
    at = graph.nodes.index(old)
    return (*graph.nodes[:at], *new, *graph.nodes[at + 1 :])


def constant(graph: Graph, name: str, data: Array, reader: Node) -> Tensor:
    """A float32 constant for `reader`, in place of the one called `name` where nothing else reads that."""
    there = graph.tensors.get(name)
    own = there is not None and there.data is not None and graph.readers(name) == (reader,)
    return Tensor(name if own else free_name(name, graph.tensors), data.shape, "float32", np.ascontiguousarray(data, np.float32))


def free_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or with a number after it where that is taken."""
    names = chain([wanted], (f"{wanted}_{i}" for i in count(1)))
    return next(name for name in names if name not in taken)


def canonical(graph: Graph) -> Graph:
    """The same graph with tensors called t0, t1, ... in the order in which nodes name them, so that names make no difference."""
    order = dict.fromkeys(
        [*graph.inputs, *(name for node in graph.nodes for name in (*node.inputs, *node.outputs)), *graph.outputs]
    )
    new = {name: f"t{i}" for i, name in enumerate(order)}

    def names(old: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(new[name] for name in old)

    return Graph(
        {new[name]: replace(graph.tensors[name], name=new[name]) for name in order},
        tuple(replace(node, inputs=names(node.inputs), outputs=names(node.outputs)) for node in graph.nodes),
        names(graph.inputs),
        names(graph.outputs),
    )
