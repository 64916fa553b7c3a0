"""Pictures of where a runtime spends its time, each beside its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nestling.files import write_atomically
from nestling.measure.layers import LayerTable
from nestling.pages.page import layer_picture, standalone


def draw(tables: Sequence[LayerTable], files: Sequence[Path]) -> tuple[Path, ...]:
    """A picture of every table, beside its file: NAME.FORMAT-layers.svg."""
    places = {file.name: file for file in files}
    drawn = []
    for table in tables:
        picture = places[table.file].with_name(f"{table.file}-layers.svg")
        write_atomically(picture, standalone(layer_picture(table, "layers")).encode())
        drawn.append(picture)
    return tuple(drawn)
