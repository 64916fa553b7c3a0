"""What the standard metadata of a .tflite file says an application has to do to the values of an image before they go in.

Format: metadata_schema.fbs of TFLite Support (ModelMetadata, identifier "M001"). Nothing but NormalizationOptions is read.
"""

from __future__ import annotations

import math
import struct

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from nestling.formats.tflite.metadata import NORMALIZATION_OPTIONS, STANDARD, read_entries

# field numbers in metadata_schema.fbs
SUBGRAPHS = 3  # of ModelMetadata
INPUTS = 2  # of SubGraphMetadata
PROCESS_UNITS = 4  # of TensorMetadata
KIND, OPTIONS = 0, 1  # of ProcessUnit
MEAN, STD = 0, 1  # of NormalizationOptions

Numbers = tuple[float, ...]


def normalization(model: bytes) -> tuple[Numbers, Numbers] | None:
    """(mean, std) of the first input, for values in 0..255: input = (v - mean) / std; None where the file does not say.

    Each holds one number, or one a channel. Metadata that is damaged or makes no sense says nothing.
    """
    try:
        entry = read_entries(model).get(STANDARD)
        if entry is None or entry.nbytes < 8:
            return None
        content = bytes(entry)
        root = Table(content, flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, content, 0))
        tensors = _first(_first(root, SUBGRAPHS), INPUTS)
        count = _count(tensors, PROCESS_UNITS)
        units = (_member(tensors, PROCESS_UNITS, i) for i in range(min(count, 16)))
        for unit in units:
            if _byte(unit, KIND) == NORMALIZATION_OPTIONS:
                options = _table(unit, OPTIONS)
                return _sound(_floats(options, MEAN), _floats(options, STD))
    except (struct.error, IndexError, TypeError, ValueError, OverflowError):
        return None
    return None


def _sound(mean: Numbers, std: Numbers) -> tuple[Numbers, Numbers] | None:
    """The two where they are numbers that one can divide by."""
    fine = all(map(math.isfinite, (*mean, *std))) and all(value > 0 for value in std) and len(mean) == len(std) > 0
    return (mean, std) if fine else None


def _first(table: Table, slot: int) -> Table:
    if not _count(table, slot):
        raise ValueError("an empty list")
    return _member(table, slot, 0)


def _place(table: Table, slot: int) -> int:
    """Where a field stands; 0 where it is absent."""
    return int(table.Offset(4 + 2 * slot))


def _count(table: Table, slot: int) -> int:
    place = _place(table, slot)
    return int(table.VectorLen(place)) if place else 0


def _member(table: Table, slot: int, index: int) -> Table:
    at = table.Vector(_place(table, slot)) + 4 * index
    return Table(table.Bytes, table.Indirect(at))


def _table(table: Table, slot: int) -> Table:
    place = _place(table, slot)
    if not place:
        raise ValueError("a table is missing")
    return Table(table.Bytes, table.Indirect(table.Pos + place))


def _byte(table: Table, slot: int) -> int:
    place = _place(table, slot)
    return int(table.Get(number_types.Uint8Flags, table.Pos + place)) if place else 0


def _floats(table: Table, slot: int) -> Numbers:
    count = _count(table, slot)
    if count > 4:
        raise ValueError("more numbers than an image has channels")
    start = table.Vector(_place(table, slot)) if count else 0
    return tuple(float(value) for value in np.frombuffer(table.Bytes, "<f4", count, start)) if count else ()
