"""Which photographs are learned from, chosen by and tested on: the same for the same seed, in Python and in C."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from nestling.bundle import PARTS, Part, Split
from nestling.data.folders import Dataset, Item, given_parts, require_enough

TAKEN_FROM_TRAIN: tuple[Part, ...] = ("test", "val")  # in this order
LEAST = 3  # photographs of a class that can be divided; fewer that came later are all learned from


def split(dataset: Dataset, seed: int, known: Split | None = None) -> Split:
    """Divide each class 60/20/20 into train, val and test, a photograph's copies together; parts that the folders give stay so.

    known: the split of a bundle that photographs are added to: those that it has keep their part, the others are divided among
    themselves. Those of it that are in the data set no more stay in the answer, for a network has learned from them.
    Each class that nothing is known of has at least one photograph in each part. Raises UnusableData where there are too few (see
    require_enough).
    """
    require_enough(dataset)
    parts = known.part_of() if known else {}
    for label in range(len(dataset.labels)):
        parts |= divided([item for item in dataset.items if item.label == label], given_parts(dataset), seed, parts)
    return Split(seed, *(tuple(sorted(print_ for print_, of in parts.items() if of == part)) for part in PARTS))


def divided(items: Iterable[Item], given: Sequence[Part], seed: int, known: Mapping[str, Part]) -> dict[str, Part]:
    """fingerprint -> part, for the photographs of one class. given: the parts that folders give.

    The rule. fingerprint = first 16 hex digits (lower case) of the SHA-256 of a file's content. A photograph that is known keeps
    its part, and else one in a folder of val or test is of that part. Take each fingerprint of the others once, and sort ascending
    by key = SHA-256 of the ASCII text "SEED:FINGERPRINT", SEED in decimal. Of n, the first max(1, (n + 2) // 5) are test, the next
    max(1, (n + 2) // 5) val, the rest train; where n is below 3, all are train. With test or val given, the missing part is the
    first max(1, (n + 2) // 4).
    A photograph's place depends on its own class's contents only, not on files' names, order or other classes. The twin of
    device/runtime/split.c.
    """
    part_of: dict[str, Part] = {}
    others: set[str] = set()
    for item in items:
        if item.fingerprint in known:
            part_of[item.fingerprint] = known[item.fingerprint]
        elif item.part in ("val", "test"):
            part_of[item.fingerprint] = item.part
        else:
            others.add(item.fingerprint)
    missing = [part for part in TAKEN_FROM_TRAIN if part not in given]
    share = max(1, (len(others) + 2) // (3 + len(missing))) if len(others) >= LEAST else 0
    for number, print_ in enumerate(sorted(others, key=lambda print_: hashlib.sha256(f"{seed}:{print_}".encode()).digest())):
        taken = number // share if share else len(missing)
        part_of[print_] = missing[taken] if taken < len(missing) else "train"
    return part_of


def of_part(dataset: Dataset, split: Split, part: Part) -> tuple[Item, ...]:
    """The data set's items that the split puts into `part`, one a photograph: of copies, the first by path."""
    wanted = set(getattr(split, part))
    first: dict[str, Item] = {}
    for item in dataset.items:
        if item.fingerprint in wanted:
            first.setdefault(item.fingerprint, item)
    return tuple(first.values())
