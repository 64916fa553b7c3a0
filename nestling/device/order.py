"""The order of the training data: the same for the same seed and epoch here and in nestling_head_order.c, which makes it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnusableData

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1
MOST = 2**26  # places of an epoch: half a GB


def order(seed: int, epoch: int, items: int, labels: Sequence[int] | NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """The item at every place of an epoch: int64 [length].

    seed: 0 to 2**64 - 1. epoch: 0 to 2**32 - 1. items: at least 1.
    labels: None, and each item comes once; or each item's class, and the order is balanced: the classes that have items take turns,
    each going through its own items again and again, until the largest class has gone through all of its own once.
    Sources: splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014, with the constants of
    Vigna's version), Fisher and Yates' shuffle as Durstenfeld wrote it (Algorithm 235, 1964), and Lemire's draw without bias ("Fast
    random integer generation in an interval", 2019). Raises UnusableData where a balanced epoch would have more than MOST places.
    """
    if items < 1:
        raise ValueError(f"an order of {items} items")
    below = _generator(seed, epoch)
    if labels is None:
        places = list(range(items))
        _shuffle(places, below)
        return np.array(places, np.int64)
    if len(labels) != items:
        raise ValueError(f"{len(labels)} labels of {items} items")
    members: dict[int, list[int]] = {}
    for item, label in enumerate(labels):
        members.setdefault(int(label), []).append(item)
    present = [members[label] for label in sorted(members)]
    for own in present:
        _shuffle(own, below)
    longest = max(map(len, present))
    if longest * len(present) > MOST:
        raise UnusableData(
            f"an epoch in which {len(present)} classes come as often as the largest one, {longest} times, is too long.",
            "leave out some of the largest class",
        )
    return np.stack([np.resize(np.array(own, np.int64), longest) for own in present], axis=1).reshape(-1)


def _shuffle(places: list[int], below: Callable[[int], int]) -> None:
    for last in range(len(places) - 1, 0, -1):
        chosen = below(last + 1)
        places[last], places[chosen] = places[chosen], places[last]


def _generator(seed: int, epoch: int) -> Callable[[int], int]:
    """below(n): the next draw, uniform in 0 .. n - 1, 1 <= n < 2**32."""
    state = _mixed((_mixed((seed + GOLDEN) & MASK) + epoch) & MASK)

    def draw() -> int:
        nonlocal state
        state = (state + GOLDEN) & MASK
        return _mixed(state) >> 32

    def below(count: int) -> int:
        product = draw() * count
        while product & 0xFFFFFFFF < 2**32 % count:
            product = draw() * count
        return product >> 32

    return below


def _mixed(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)
