"""Offsets for blocks of bytes that live at different steps: simple orders first, then a search that aims at the lower bound.

Sources: best fit in order of size, Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference (2020); blocks in
the order of their offsets, turning back where a step's rest can't fit any more, Moffitt's MiniMalloc (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, str]  # ("tensor", its name) or ("scratch", the step's name)
Gap = tuple[int, int]  # no offset between the two, ends excluded
Integers = NDArray[np.int64]

TARGETS = 2  # arenas that the search aims at: the lower bound, then between that and what it has
NODES = 300  # blocks that it places, for one target and one order of preference
ENDLESS = 2**40  # higher than any arena


@dataclass(frozen=True)
class Piece:
    """Bytes low .. high of a block, alive from step `first` to step `last`, both included. key: whose they are."""

    key: Key
    low: int
    high: int
    first: int
    last: int


@dataclass(frozen=True)
class Block:
    """What lies at fixed distances. places: where in the block each tensor or scratch begins."""

    places: Mapping[Key, int]
    pieces: tuple[Piece, ...]

    @property
    def height(self) -> int:
        """Where its last byte ends."""
        return max(piece.high for piece in self.pieces)

    @property
    def first(self) -> int:
        """The step at which it begins to live."""
        return min(piece.first for piece in self.pieces)

    @property
    def last(self) -> int:
        """The last step at which it lives."""
        return max(piece.last for piece in self.pieces)

    @property
    def area(self) -> int:
        """Bytes times steps."""
        return sum((piece.high - piece.low) * (1 + piece.last - piece.first) for piece in self.pieces)


def down(value: int, alignment: int) -> int:
    """The multiple of the alignment at or below a value."""
    return value // alignment * alignment


def up(value: int, alignment: int) -> int:
    """The multiple of the alignment at or above a value."""
    return -(-value // alignment) * alignment


def meet(a: Piece, b: Piece) -> bool:
    """Whether both are alive at some step."""
    return a.first <= b.last and b.first <= a.last


def taken(block: Block, now: int) -> int:
    """Bytes of the block that are alive at a step, each counted once."""
    total = end = 0
    for low, high in sorted((piece.low, piece.high) for piece in block.pieces if piece.first <= now <= piece.last):
        total += max(0, high - max(low, end))
        end = max(end, high)
    return total


def arena(blocks: Sequence[Block], places: Sequence[int]) -> int:
    """Bytes that the blocks need at these places."""
    return max(place + block.height for place, block in zip(places, blocks, strict=True))


def placed(blocks: Sequence[Block], bound: int, alignment: int) -> list[int]:
    """An offset a block, for the smallest arena that is found. bound: what no arena can be smaller than; there the search ends.

    Every number in the blocks is a multiple of the alignment, and so is every offset.
    """
    best: list[int] = []
    for places in _simple(blocks):
        if not best or arena(blocks, places) < arena(blocks, best):
            best = places
        if arena(blocks, best) <= bound:
            return best
    low, target, profiles = bound, bound, _profiles(blocks)
    for _ in range(TARGETS):
        found = _searched(blocks, profiles, target)
        best, low = (found, low) if found else (best, target + alignment)
        target = down((low + arena(blocks, best) - alignment) // 2, alignment)
        if low >= arena(blocks, best):
            break
    return best


# ---- one after the other, in a simple order -------------------------------------------------------------------------------------

Rank = Callable[[Block], tuple[int, ...]]
RANKS: tuple[Rank, ...] = (
    lambda block: (-block.area,),
    lambda block: (-block.height, block.first - block.last),
    lambda block: (block.first - block.last, -block.height),
    lambda block: (-block.last, -block.height),
    lambda block: (block.first, -block.height),
)


def _simple(blocks: Sequence[Block]) -> Iterator[list[int]]:
    """Offsets by every rank, with either way to choose among the gaps."""
    apart = [[_apart(one, other) for other in blocks] for one in blocks]
    for rank in RANKS:
        order = sorted(range(len(blocks)), key=lambda i: rank(blocks[i]))
        for fit in (_best_fit, _lowest):
            places: dict[int, int] = {}
            for i in order:
                places[i] = fit(sorted((place + low, place + high) for j, place in places.items() for low, high in apart[i][j]))
            yield [places[i] for i in range(len(blocks))]


def _apart(one: Block, other: Block) -> frozenset[Gap]:
    """Where `one` must not lie, as distances from `other`."""
    return frozenset((b.low - a.high, b.high - a.low) for a in one.pieces for b in other.pieces if meet(a, b))


def _free(used: Sequence[Gap]) -> Iterator[tuple[int, int]]:
    """Offsets from .. to, both included, that are not used."""
    start = 0
    for low, high in used:
        if low >= start:
            yield start, low
        start = max(start, high)
    yield start, ENDLESS


def _lowest(used: Sequence[Gap]) -> int:
    return next(start for start, _ in _free(used))


def _best_fit(used: Sequence[Gap]) -> int:
    """The offset with the least room around it; above everything only where there is no other."""
    return min(_free(used), key=lambda gap: gap[1] - gap[0])[0]


# ---- a search for an arena of a given size --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Profiles:
    """int64 [blocks, steps]: a block's lowest and highest living byte, and how many live. height: int64 [blocks]."""

    low: Integers
    high: Integers
    needs: Integers
    height: Integers


def _profiles(blocks: Sequence[Block]) -> _Profiles:
    shape = len(blocks), 1 + max(block.last for block in blocks)
    low, high, needs = np.full(shape, ENDLESS, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for i, block in enumerate(blocks):
        for piece in block.pieces:
            now = slice(piece.first, piece.last + 1)
            low[i, now] = np.minimum(low[i, now], piece.low)
            high[i, now] = np.maximum(high[i, now], piece.high)
        needs[i] = [taken(block, now) for now in range(shape[1])]
    return _Profiles(low, high, needs, np.array([block.height for block in blocks], np.int64))


def _searched(blocks: Sequence[Block], profiles: _Profiles, target: int) -> list[int] | None:
    """Offsets within an arena of `target` bytes; None where none were found."""
    for rank in RANKS:
        order = sorted(range(len(blocks)), key=lambda i: rank(blocks[i]))
        search = _Search(profiles, target)
        if search.fits(np.zeros_like(profiles.needs[0]), profiles.needs.sum(axis=0), order, 0):
            return [search.places[i] for i in range(len(blocks))]
    return None


@dataclass
class _Search:
    """Blocks placed in the order of their offsets, each as low as those beneath allow. left: blocks that it may still place."""

    profiles: _Profiles
    target: int
    left: int = NODES
    places: dict[int, int] = field(default_factory=dict)

    def fits(self, floor: Integers, needed: Integers, rest: list[int], bottom: int) -> bool:
        """Whether the rest of the blocks finds places.

        floor: the top of what is placed, at every step; needed: bytes of the rest, at every step; bottom: the last block's offset.
        """
        if not rest:
            return True
        self.left -= 1
        offsets = np.maximum((floor - self.profiles.low[rest]).max(axis=1), 0)
        tops = offsets + self.profiles.height[rest]
        if self.left < 0 or offsets.min() < bottom or tops.max() > self.target:
            return False  # a block below the last one had to come before it: that order is tried elsewhere
        for choice in np.argsort(offsets, kind="stable"):
            block, offset = rest[choice], int(offsets[choice])
            if offset >= tops.min():
                return False  # another one still fits beneath
            needs = self.profiles.needs[block]
            raised = np.where(needs > 0, offset + self.profiles.high[block], floor)
            without = needed - needs
            if (np.maximum(raised, np.where(without > 0, offset, 0)) + without).max() > self.target:
                continue
            self.places[block] = offset
            if self.fits(raised, without, [other for other in rest if other != block], offset):
                return True
        return False
