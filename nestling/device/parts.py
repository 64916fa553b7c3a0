"""Which photographs on the device are learned from, watched and tested on. The twin of runtime/folder.c."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestling.bundle import PARTS, Part
from nestling.data.folders import Item, LeftOut, given_parts, scan
from nestling.data.split import divided
from nestling.errors import UnusableFile
from nestling.files import read_at_most

HEADING = "fingerprint,part"
MOST_BYTES = 2**26  # of split.csv


@dataclass(frozen=True)
class Parts:
    """labels: the head's, then the new ones. train, val, test: one item a photograph, sorted by (label, fingerprint).

    Items' labels are places in `labels`.
    """

    labels: tuple[str, ...]
    new: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]


def parts(data: Path, labels: Sequence[str], known: Mapping[str, Part], seed: int) -> Parts:
    """Divide a folder's photographs. labels: the head's; known: split.csv's; seed: the head's.

    A photograph that `known` has keeps its part, and else the part that the folders give (data.folders.scan). The others of a class
    are divided among themselves by data.split's rule; where they are fewer than 3, they are all learned from. A class folder that
    the head does not know is a new class; new ones come in the order of their names. Raises UnusableData as scan does.
    """
    dataset = scan(data, known=labels)
    new = tuple(label for label in dataset.labels if label not in labels)
    all_labels = (*labels, *new)
    by_part: dict[Part, list[Item]] = {part: [] for part in PARTS}
    for index, label in enumerate(dataset.labels):
        own = {item.fingerprint: item for item in reversed(dataset.items) if item.label == index}  # of copies the first by path
        part_of = divided(own.values(), given_parts(dataset), seed, known)
        for print_ in sorted(own):
            by_part[part_of[print_]].append(replace(own[print_], label=all_labels.index(label)))
    train, val, test = (tuple(sorted(by_part[part], key=lambda item: (item.label, item.fingerprint))) for part in PARTS)
    return Parts(all_labels, new, train, val, test, dataset.left_out)


def read_split(path: Path) -> dict[str, Part]:
    """split.csv: fingerprint -> part; empty where there is no such file. Raises UnusableFile, naming file and line."""
    if not path.exists():
        return {}
    try:
        content = read_at_most(path, MOST_BYTES).decode("ascii")
    except (OSError, ValueError) as error:
        raise UnusableFile(f"{path} cannot be read ({error}).", "pack the package again") from error
    lines = [line.removesuffix("\r") for line in content.removesuffix("\n").split("\n")]
    if not lines or lines[0] != HEADING:
        raise UnusableFile(f"{path} does not begin with the line {HEADING!r}.", "pack the package again")
    known: dict[str, Part] = {}
    for number, line in enumerate(lines[1:], 2):
        print_, _, name = line.partition(",")
        part = next((part for part in PARTS if part == name), None)
        if part is None or len(print_) != 16 or set(print_) - set("0123456789abcdef"):
            raise UnusableFile(f"{path}, line {number}: {line[:40]!r} is not a fingerprint and train, val or test.", "pack again")
        if known.setdefault(print_, part) != part:
            raise UnusableFile(f"{path} puts the photograph {print_} into two parts.", "pack the package again")
    return known
