"""A sum's way to its byte in three or four instructions instead of a dozen, where it is proven to give the same byte.

    byte = clamp(((sum + start << left) * multiplier >> 32) + addend - (negative where sum + start < 0) >> SHIFT)

The reference rounds twice, halves away from zero (docs/integer-semantics.md). Both this and that grow with the sum, so they agree
on every sum that there can be exactly if they agree on where each byte begins: at most 255 sums a channel, and the one before each.
That is what `short` tests, with the reference's own arithmetic, when the C is generated. A channel where no constants are found is
told, and its kernel goes the long way (nst_scaled() in nst_fixed.h).

Why it mostly is so: where nothing below the zero point is wanted (a relu), two roundings downwards are one, and the halves that
both of them add are one number; elsewhere negative sums need one step less, which is `negative`. `start` belongs to the bias: it is
what the addend cannot say where many sums make one step of 2^-SHIFT.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels.constants import Sums, factors, quant_of, zero_point
from nestling.formats.c.kernels.layers import clamp_of
from nestling.graph.fixed_point import Int, clamp_range, multiply, quantize_multiplier, round_half_away
from nestling.graph.ir import Clamp, Graph, Node, Tensor

SHIFT = 14  # bits below the byte's; it leaves 17 above for sums that are far from any byte, and is one constant for all kernels
STARTS = 8  # parts of a step of 2^-SHIFT that are tried as starts
AROUND = np.arange(-2, 3)  # how far a guessed threshold may be from the right one
WORD = 2**31
UNKNOWN = -(2**40)  # a threshold that was not found, with which nothing is proven


@dataclass(frozen=True, eq=False)
class Short:
    """int64 [O] each, see above; 0 in channels that are not proven. proven: bool [O]."""

    start: Int
    left: Int
    multiplier: Int
    addend: Int
    negative: Int
    proven: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Asked:
    """What the short form must equal. exact: sums int64 [O, N] -> bytes before the clamp, int64 [O, N].

    lowest, highest: int64 [O], of a channel's sum. multiplier, exponent: int64 [O], about what the exact form multiplies by.
    zero, low, high: of the answer. shift: see `short`.
    """

    exact: Callable[[Int], Int]
    lowest: Int
    highest: Int
    multiplier: Int
    exponent: Int
    zero: int
    low: int
    high: int
    shift: int = SHIFT


def short(node: Node, graph: Graph, found: Sums, shift: int = SHIFT) -> Short:
    """For every channel of a convolution, or of a fully connected layer in integers. found: see constants.sums.

    shift: what the kernel has for SHIFT; the less it is, the smaller is `left`, and the fewer channels are proven.
    """
    return searched(replace(asked_of(node, graph, found), shift=shift))


def asked_of(node: Node, graph: Graph, found: Sums) -> Asked:
    """What a short way of a convolution, or of a fully connected layer in integers, must equal. found: see constants.sums."""
    return (_dense if node.op == "fully_connected" else _convolution)(node, graph, found)


def _convolution(node: Node, graph: Graph, found: Sums) -> Asked:
    y = graph.tensors[node.name]
    multiplier, exponent = factors(node, graph, len(found.bias))

    def exact(sums: Int) -> Int:
        return multiply(sums, multiplier[:, None], exponent[:, None]) + zero_point(y)

    return _asked(exact, found, multiplier, exponent, y, clamp_of(node))


def _dense(node: Node, graph: Graph, found: Sums) -> Asked:
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    scales = [quant_of(tensor).scale.astype(np.float64) for tensor in (x, weight, y)]
    factor = np.broadcast_to(scales[0] * scales[1] / scales[2], found.bias.shape)

    def exact(sums: Int) -> Int:
        return round_half_away(sums * factor[:, None]).astype(np.int64) + zero_point(y)

    return _asked(exact, found, *quantize_multiplier(factor), y, clamp_of(node))


def _asked(exact: Callable[[Int], Int], found: Sums, multiplier: Int, exponent: Int, y: Tensor, clamp: Clamp) -> Asked:
    lowest, highest = bounds(found)
    return Asked(exact, lowest, highest, multiplier, exponent, zero_point(y), *clamp_range(clamp, quant_of(y)))


def counted_from(low: int, short: Short, found: Sums) -> NDArray[np.bool_]:
    """Whether no sum that there can be leaves 32 bits where bytes are counted from low: bool [O]."""

    def fits(sums: Int) -> NDArray[np.bool_]:
        moved = sums + short.start
        value = ((moved << short.left) * short.multiplier >> 32) + short.addend - (low << SHIFT)
        value = value - np.where(moved < 0, short.negative, 0)
        return np.asarray(np.abs(value) < WORD)

    lowest, highest = bounds(found)
    return fits(lowest) & fits(highest)


def bounds(found: Sums) -> tuple[Int, Int]:
    """The smallest and the largest sum that any input gives, int64 [O] each."""
    weight = found.weight.astype(np.int64) - found.weight_zero
    up, down = np.maximum(weight, 0).sum(axis=1), np.minimum(weight, 0).sum(axis=1)
    return found.bias - 128 * up + 127 * down, found.bias + 127 * up - 128 * down


def searched(asked: Asked) -> Short:
    """The first constants that do, channel by channel."""
    none = np.zeros(len(asked.multiplier), np.int64)
    best = Short(none, none, none, none, none, none > 0)
    begins = thresholds(asked)
    for start, left, multiplier, negative in _candidates(asked):
        low, high = _room_for_addend(asked, begins, start, left, multiplier, negative)
        new = (low <= high) & ~best.proven
        found = (start, left, multiplier, (low + high) >> 1, negative)
        kept = (best.start, best.left, best.multiplier, best.addend, best.negative)
        merged = [np.where(new, *pair) for pair in zip(found, kept, strict=True)]
        best = Short(*merged, best.proven | new)  # type: ignore[call-arg]  # five of them
        if best.proven.all():
            break
    return best


def _candidates(asked: Asked) -> Iterator[tuple[Int, Int, Int, Int]]:
    """(start, left, multiplier, negative), int64 [O] each. Channels that answer one byte to everything multiply by 0."""
    none = np.zeros(len(asked.multiplier), np.int64)
    ends = np.clip(asked.exact(np.stack([asked.lowest, asked.highest], axis=1)), asked.low, asked.high)
    alive = ends[:, 0] != ends[:, 1]
    left = asked.shift + 1 + asked.exponent
    multiplier = np.where(alive, asked.multiplier >> np.clip(-left, 0, 31), 0)
    steps = np.left_shift(1, np.clip(1 - left, 0, 30))  # about so many sums make one step of 2^-SHIFT
    left = np.where(alive, np.clip(left, 0, 31), 0)
    less = np.where(alive, np.left_shift(1, np.clip(asked.shift + asked.exponent, 0, 30)), 0)
    beneath = asked.low < asked.zero  # bytes below the zero point are wanted
    for part in range(STARTS):
        for negative in (less, none) if beneath else (none,):
            yield np.where(alive, part * steps // STARTS, 0), left, multiplier, negative


def thresholds(asked: Asked) -> tuple[Int, Int]:
    """(bytes int64 [V], for each the smallest sum that gives it or more, int64 [O, V]).

    The lowest sum where all do, one more than the highest where none does; UNKNOWN where it was not found. Guessed from the
    multiplier, then settled by the exact form itself.
    """
    values = np.arange(asked.low + 1, asked.high + 1)
    real = np.maximum(asked.multiplier, 1) * 2.0 ** (asked.exponent - 31)
    guess = np.ceil((values - asked.zero - 0.5)[None, :] / real[:, None])
    lowest, highest = asked.lowest[:, None], asked.highest[:, None]
    guess = np.clip(guess, lowest - 3, highest + 3).astype(np.int64)
    found = np.full(guess.shape, UNKNOWN, np.int64)
    for step in AROUND[::-1]:  # the smallest comes last
        sums = np.clip(guess + step, lowest, highest + 1)
        inside = np.minimum(sums, highest)
        reached = (asked.exact(inside) >= values) | (sums > highest)
        before = (asked.exact(np.maximum(sums - 1, lowest)) < values) | (sums <= lowest)
        found = np.where(reached & before, sums, found)
    return values, found


def agrees(asked: Asked, constants: Short) -> NDArray[np.bool_]:
    """Channel by channel, whether these constants give the exact form's bytes for all sums that there can be: bool [O]."""
    found = (constants.start, constants.left, constants.multiplier, constants.negative)
    low, high = _room_for_addend(asked, thresholds(asked), *found)
    return np.asarray((low <= constants.addend) & (constants.addend <= high))


def _room_for_addend(
    asked: Asked, begins: tuple[Int, Int], start: Int, left: Int, multiplier: Int, negative: Int
) -> tuple[Int, Int]:
    """The smallest and the largest addend with which every byte begins where it should, int64 [O] each; none where low > high."""
    values, sums = begins
    lowest, highest = asked.lowest[:, None], asked.highest[:, None]

    def product(some: Int) -> Int:
        moved = some + start[:, None]
        return ((moved << left[:, None]) * multiplier[:, None] >> 32) - np.where(moved < 0, negative[:, None], 0)

    ends = product(np.concatenate([lowest, highest], axis=1))
    largest = np.maximum(np.abs(asked.lowest + start), np.abs(asked.highest + start))
    fits = (largest < WORD >> left) | ((multiplier == 0) & (left == 0))
    least = np.maximum(-WORD - ends.min(axis=1), -WORD)  # no addition may leave 32 bits
    most = np.minimum(WORD - 1 - ends.max(axis=1), WORD - 1)
    wanted = values[None, :] << asked.shift
    from_below = np.where(sums <= highest, wanted - product(np.clip(sums, lowest, highest)), least[:, None])
    from_above = np.where(sums > lowest, wanted - 1 - product(np.clip(sums - 1, lowest, highest)), most[:, None])
    settled = fits & (sums != UNKNOWN).all(axis=1)
    low = np.maximum(from_below.max(axis=1, initial=-WORD), least)
    high = np.minimum(from_above.min(axis=1, initial=WORD - 1), most)
    return low, np.where(settled, high, low - 1)
