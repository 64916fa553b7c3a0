"""Which photographs are learned from, chosen by and tested on: the same for the same seed, in Python and in C."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from nestling.bundle import PARTS, Part, Split
from nestling.data.folders import Dataset, Item, given_parts, require_enough

TAKEN_FROM_TRAIN: tuple[Part, ...] = ("test", "val")  # in this order


def split(dataset: Dataset, seed: int) -> Split:
    """Divide each class 60/20/20 into train, val and test, a photograph's copies together; parts that the folders give stay so.

    The rule. fingerprint = first 16 hex digits (lower case) of the SHA-256 of a file's content. Within each class, take each
    fingerprint once, and sort ascending by key = SHA-256 of the ASCII text "SEED:FINGERPRINT", SEED in decimal. Of n, the first
    max(1, (n + 2) // 5) are test, the next max(1, (n + 2) // 5) val, the rest train.
    With train/ and test/ (or val/) given, the missing part is the first max(1, (n + 2) // 4) of train; with train/ alone, as above.
    A photograph's place depends on its own class's contents only, not on files' names, order or other classes.

    Each class has at least one photograph in each part. Raises UnusableData where there are too few (see require_enough).
    """
    require_enough(dataset)
    given = given_parts(dataset)
    parts: dict[Part, list[str]] = {part: [] for part in PARTS}
    for label in range(len(dataset.labels)):
        of_class = [item for item in dataset.items if item.label == label]
        for part in given:
            if part != "train":
                parts[part] += {item.fingerprint for item in of_class if item.part == part}
        undivided = _ordered([item for item in of_class if item.part in ("train", None)], seed)
        missing = [part for part in TAKEN_FROM_TRAIN if part not in given]
        share = _share(len(undivided), 3 + len(missing))
        for part in missing:
            parts[part] += undivided[:share]
            undivided = undivided[share:]
        parts["train"] += undivided
    return Split(seed, *(tuple(sorted(parts[part])) for part in PARTS))


def of_part(dataset: Dataset, split: Split, part: Part) -> tuple[Item, ...]:
    """The data set's items that the split puts into `part`, one a photograph: of copies, the first by path."""
    wanted = set(getattr(split, part))
    first: dict[str, Item] = {}
    for item in dataset.items:
        if item.fingerprint in wanted:
            first.setdefault(item.fingerprint, item)
    return tuple(first.values())


def _ordered(items: Sequence[Item], seed: int) -> list[str]:
    return sorted({item.fingerprint for item in items}, key=lambda print_: hashlib.sha256(f"{seed}:{print_}".encode()).digest())


def _share(count: int, parts: int) -> int:
    """One of `parts` equal parts of `count`, rounded, at least 1; three of them (60%) are train's."""
    return max(1, (count + 2) // parts)
