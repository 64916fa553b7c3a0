"""A float Graph over arrays that are kept anyway, by name: so a network of torch's is a Graph where there is no torch.

Each constant is an array of the network's state, its axes in the Graph's order, or the structure's own (a 6 that somebody divides
by, weights that are computed of others).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeGuard

import numpy as np

from nestling.errors import UnusableFile
from nestling.graph import file as graph_file
from nestling.graph.ir import Array, Graph
from nestling.graph.spec import MAX_RANK
from nestling.outside import Record, brief

LAYOUTS = ((0, 2, 3, 1), (1, 2, 3, 0))  # of torch's weights in the Graph: convolutions, depthwise ones
MOST_AXES = 4


@dataclass(frozen=True, eq=False)
class Structure:
    """plain: the Graph as graph/file.py writes it, without arrays. own: constants, as graph/file.py names them.

    of: of the other constants, by name, (the array's name, the order in which the Graph has the array's axes).
    """

    plain: Mapping[str, Any]
    of: Mapping[str, tuple[str, tuple[int, ...]]]
    own: Mapping[str, Array]


def structure_of(graph: Graph, arrays: Mapping[str, Array]) -> Structure:
    """The structure of a float graph over a network's arrays: filled() with them gives the same graph."""
    plain, constants = graph_file.to_plain(graph)
    of: dict[str, tuple[str, tuple[int, ...]]] = {}
    own: dict[str, Array] = {}
    for index, tensor in enumerate(graph.tensors.values()):
        if tensor.data is not None:
            axes = _axes(tensor.data, arrays[tensor.name]) if tensor.name in arrays else None
            if axes is None:
                own[str(index)] = constants[str(index)]
            else:
                of[tensor.name] = (tensor.name, axes)
    return Structure(plain, of, own)


def filled(structure: Structure, arrays: Mapping[str, Array], where: str = "the bundle") -> Graph:
    """The checked graph over these arrays. Raises UnusableFile, naming `where`, for arrays that are not its own."""
    constants = dict(structure.own)
    for index, tensor in enumerate(structure.plain["tensors"]):
        if tensor["name"] in structure.of:
            name, axes = structure.of[tensor["name"]]
            if name not in arrays or arrays[name].ndim != len(axes):
                raise UnusableFile(f"{where}: its graph wants an array {brief(name)} of {len(axes)} axes, and there is none.")
            constants[str(index)] = np.ascontiguousarray(arrays[name].transpose(axes), np.float32)
    return graph_file.from_plain(structure.plain, constants, where)


def image_of(structure: Structure) -> tuple[int, ...]:
    """The shape of what goes in."""
    shapes = {tensor["name"]: tuple(tensor["shape"]) for tensor in structure.plain["tensors"]}
    return shapes[structure.plain["inputs"][0]]


def _axes(data: Array, array: Array) -> tuple[int, ...] | None:
    """The order of the array's axes that gives the constant, the usual ones first; None where none does."""
    usual = [axes for axes in (tuple(range(array.ndim)), *LAYOUTS) if len(axes) == array.ndim]
    orders = dict.fromkeys([*usual, *(permutations(range(array.ndim)) if array.ndim <= MOST_AXES else ())])
    return next((axes for axes in orders if np.array_equal(array.transpose(axes), data)), None)


# ---- as plain values -------------------------------------------------------------------------------------------------------------


def to_plain(structure: Structure) -> dict[str, Any]:
    """JSON values of all but `own`."""
    return {"graph": dict(structure.plain), "of": {name: [array, list(axes)] for name, (array, axes) in structure.of.items()}}


def from_plain(record: Record, own: Mapping[str, Array]) -> Structure:
    """The inverse of to_plain; the rest of what the graph's values are worth, filled() finds out. Raises UnusableFile.

    No array stands for two constants, so that they take no more memory than there are arrays.
    """
    record.only("graph", "of")
    graph = record.record("graph")
    shapes = {item.text("name"): item.list_of("shape", int, MAX_RANK) for item in graph.records("tensors", graph_file.MAX_TENSORS)}
    if len(shapes) < len(graph.plain["tensors"]):
        graph.refuse("two tensors have one name")
    if not (inputs := graph.names("inputs")) or inputs[0] not in shapes:
        graph.refuse("its input is none of its tensors")
    of: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, value in record.get("of", dict).items():
        array, axes = value if isinstance(value, list) and len(value) == 2 else (None, None)
        if not isinstance(array, str) or not _is_order(axes) or name not in shapes:
            record.refuse(f"{brief(name)} is no tensor with an [array, axes]")
        of[name] = (array, tuple(axes))
    if len({array for array, _ in of.values()}) < len(of):
        record.refuse("an array stands for two constants")
    return Structure(graph.plain, of, own)


def _is_order(axes: object) -> TypeGuard[list[int]]:
    """Of so many axes as an array may have."""
    if not isinstance(axes, list) or len(axes) > MAX_RANK or not all(type(axis) is int for axis in axes):
        return False
    return sorted(axes) == list(range(len(axes)))
