"""Which numbers a float network made elsewhere takes, where its graph shows it: by what it makes of them before its first layer.

A network is taught on images that were normalised: to 0..1, to -1..1, by the mean and deviation of many photographs, or to 0..255
less a mean. Arithmetic with constants at the beginning of a graph makes one of these of what the network takes. So each usual range
is put in (CANDIDATES), and where one of them alone comes out normalised, that is the one. Else it cannot be known. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.graph import reference
from nestling.graph.ir import Array, Graph, Node

ARITHMETIC = ("table", "add", "mul", "pad", "reshape", "quantize", "dequantize")  # ops with one input that comes from the image
LARGEST = 8.0  # of a normalised value; photographs normalised by ImageNet's mean and deviation reach 2.7
NARROWEST = 0.2  # width of a normalised range
BYTES_WIDE = (200.0, 300.0)  # width of a range that is left as wide as bytes are
APART = 0.6  # share of the bytes that stay apart; in a quantised range half as wide as they need, half of them do


@dataclass(frozen=True)
class Candidate:
    """A range that networks take. input = (v / 255 - mean) / std."""

    name: str
    mean: float
    std: float

    def table(self, channels: int) -> NDArray[np.float32]:
        """float32 [C, 256]."""
        row = ((np.arange(256) / 255 - self.mean) / self.std).astype(np.float32)
        return np.tile(row, (channels, 1))


BYTES = Candidate("0..255", 0.0, 1 / 255)
SHARES = Candidate("0..1", 0.0, 1.0)
SIGNED = Candidate("-1..1", 0.5, 0.5)
CANDIDATES = (BYTES, SHARES, SIGNED)


@dataclass(frozen=True)
class Found:
    """What each candidate becomes, in words, by its name, and those that come out normalised; both empty for a graph that begins
    with a layer."""

    becomes: dict[str, str]
    fitting: tuple[Candidate, ...]


def found(read: Callable[[Array], Graph], channels: int) -> Found:
    """read: the graph that takes an image's bytes, of the table that stands for its float input."""
    tables = {candidate: candidate.table(channels) for candidate in CANDIDATES}
    made = {candidate: _beginning(read(table), table) for candidate, table in tables.items()}
    if not any(changed for _, changed in made.values()):
        return Found({}, ())
    fitting = (
        candidate
        for candidate, (values, _) in made.items()
        if _apart(values) and (values.dtype == np.int8 or _normalised(values, candidate))
    )
    return Found({candidate.name: _range(values) for candidate, (values, _) in made.items()}, tuple(fitting))


def _beginning(graph: Graph, table: Array) -> tuple[Array, bool]:
    """(what stands before the first layer, [N, H, W, C], for images that hold every byte; whether numbers were changed there)."""
    name = graph.inputs[0]
    _, height, width, channels = graph.tensors[name].shape
    count = -(-256 // (height * width))
    values: Array = np.repeat(np.resize(np.arange(256), (count, height, width, 1)), channels, axis=3).astype(np.uint8)
    shown, changed = values, False
    while (node := _next(graph, name)) is not None:
        constants = {each: graph.tensors[each].data for each in node.inputs if each != name}
        values = reference.step(graph, node, tuple(values if each == name else np.asarray(constants[each]) for each in node.inputs))
        if node.op == "table":
            changed = not np.array_equal(np.asarray(constants[node.inputs[1]]), table)
        if node.op not in ("pad", "reshape"):
            shown, changed = values, changed or node.op != "table"
        name = node.name
    return shown, changed


def _next(graph: Graph, name: str) -> Node | None:
    """The only reader of a tensor, where it reckons with constants; a map stays one."""
    readers = graph.readers(name)
    if len(readers) != 1 or readers[0].op not in ARITHMETIC or len(graph.tensors[readers[0].name].shape) != 4:
        return None
    others = [graph.tensors[each] for each in readers[0].inputs if each != name]
    return readers[0] if all(other.data is not None for other in others) else None


def _ends(values: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(lowest, highest) of each channel that is not the same for every byte."""
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    low, high = rows.min(axis=0), rows.max(axis=0)
    return low[high > low], high[high > low]


def _apart(values: Array) -> bool:
    """Whether bytes stay apart: in a quantised range those beyond it all become its end, those in a part of it fall together."""
    rows = values.reshape(-1, values.shape[-1])
    counts = [len(np.unique(rows[:, channel])) for channel in range(rows.shape[1])]
    return max(counts) > 1 and all(count == 1 or count >= APART * 256 for count in counts)


def _normalised(values: Array, candidate: Candidate) -> bool:
    """Whether networks are taught on such numbers."""
    low, high = _ends(values)
    if not len(low):
        return False
    width, middle = high - low, np.abs(low + high) / 2
    small = (np.abs(low) <= LARGEST) & (np.abs(high) <= LARGEST) & (width >= NARROWEST)
    large = (width >= BYTES_WIDE[0]) & (width <= BYTES_WIDE[1])
    from_zero = np.abs(low) <= 1e-3 * width
    match candidate.name:
        case BYTES.name:  # no other range is as wide, so zero may lie anywhere in it
            fits = (small & (low <= 0.1 * width) & (high >= -0.1 * width)) | (large & (from_zero | (middle <= width / 4)))
        case SHARES.name:
            fits = (small | large) & (from_zero | ((low <= 0) & (high >= 0)))
        case _:  # its middle stays about the middle, or it is moved to where the others are
            fits = ((small | large) & (middle <= 0.12 * width)) | (from_zero & ((np.abs(high - 1) < 0.05) | large))
    return bool(fits.all())


def _range(values: Array) -> str:
    low, high = (float(end) for end in (values.min(), values.max()))
    return f"{low:.4g}..{high:.4g}"
