"""A network that takes no photographs: which numbers it takes instead, and its Graph from what everything here hands to a network.

Float numbers go in as they are. An integer network's int8 goes in as bytes, 128 higher, [rows, columns, 1]: a table and a reshape
in front make of them what the file takes, so that every printer, runtime and gate has bytes as of a photograph. NumPy only.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nestling.errors import UnusableFile
from nestling.graph.edit import free_name
from nestling.graph.ir import Graph, Node, Reshape, Table, Tensor
from nestling.graph.spec import check
from nestling.preprocess.image import Numbers


def with_numbers(graph: Graph, where: str) -> tuple[Graph, Numbers]:
    """(the graph that takes what the Numbers say, they). Raises UnusableFile for a network of several inputs, or of other types."""
    found = [graph.tensors[name] for name in graph.inputs]
    if len(found) == 1 and found[0].dtype == "int8" and found[0].quant is not None:
        return _of_bytes(graph, found[0])
    if len(found) == 1 and found[0].dtype in ("float32", "uint8"):  # bytes go through a table, says the spec
        return graph, Numbers(found[0].shape[1:], "float32" if found[0].dtype == "float32" else "uint8")
    takes = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in found)
    raise UnusableFile(f"{where} takes {takes}; nestling imports networks of one input, of float32, int8 or uint8.")


def _of_bytes(graph: Graph, taken: Tensor) -> tuple[Graph, Numbers]:
    sides = (math.prod(taken.shape[1:-1]), taken.shape[-1], 1)
    steps = Tensor(
        free_name(f"{taken.name}:table", graph.tensors), (1, 256), "int8", np.arange(-128, 128, dtype=np.int8)[None], taken.quant
    )
    given = Tensor(free_name("bytes", graph.tensors), (1, *sides), "uint8")
    if taken.shape == given.shape:
        nodes = [Node("table", (given.name, steps.name), (taken.name,), Table())]
        more = []
    else:
        laid = replace(taken, name=free_name(f"{taken.name}:bytes", graph.tensors), shape=given.shape)
        nodes = [
            Node("table", (given.name, steps.name), (laid.name,), Table()),
            Node("reshape", (laid.name,), (taken.name,), Reshape()),
        ]
        more = [laid]
    tensors = {**{tensor.name: tensor for tensor in (given, steps, *more)}, **graph.tensors}
    made = Graph(tensors, (*nodes, *graph.nodes), (given.name,), graph.outputs)
    return check(made, "the graph with its bytes"), Numbers(sides, "uint8")
