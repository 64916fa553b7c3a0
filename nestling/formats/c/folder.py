"""A network as a folder of C: printed, and put in place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from nestling.errors import UnusableData
from nestling.files import replace_folder
from nestling.formats.about import About
from nestling.formats.c import emit, names
from nestling.formats.c.arrange import arrange
from nestling.formats.c.machines import Machine
from nestling.formats.c.trusted import signed
from nestling.graph.ir import Graph
from nestling.temporary import restored


def print_network(graph: Graph, about: About, machine: Machine, name: str = "", prefix: str = names.USUAL) -> dict[str, bytes]:
    """The folder's files, content by name.

    graph: int8, from a uint8 image to float32 scores: with a head (heads.with_head) or its own end (heads.with_own_end).
    name, prefix: as emit.files has them. No torch is needed.
    Raises UnsupportedOp, naming the layer, for what the C target has no kernel for.
    """
    return emit.files(*arrange(graph, machine), machine, about, name, prefix)


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Put the files, and the MAC that they are known by, in place of an older folder of C, all or none of them.

    Raises UnusableData where something else is there.
    """
    if restored(folder).is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UnusableData(f"{folder} is no folder.", "name another one:  -o out/")
    if folder.exists() and any(folder.iterdir()) and names.of(folder) is None:
        raise UnusableData(f"{folder} holds other files than a network in C.", "name another folder:  -o out/")
    replace_folder(folder, signed(files).items())
