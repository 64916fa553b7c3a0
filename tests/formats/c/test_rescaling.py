"""Short ways from a sum to its byte. Judge: two roundings in Python's whole numbers, on every sum that there can be."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.formats.c.kernels.rescaling import SHIFT, WORD, Asked, Short, agrees, searched
from nestling.graph.fixed_point import Int, multiply, quantize_multiplier, round_half_away

QUICK = settings(max_examples=80, deadline=None, derandomize=True)


def twice_rounded(x: int, multiplier: int, exponent: int) -> int:
    """docs/integer-semantics.md, halves up and then away from zero."""
    high = (x * 2 ** max(exponent, 0) * multiplier + 2**30) // 2**31
    size = floor(Fraction(abs(high), 2 ** max(-exponent, 0)) + Fraction(1, 2))
    return size if high >= 0 else -size


def once_rounded(x: int, factor: float) -> int:
    """A fully connected layer's: one float64 product, halves away from zero."""
    product = Fraction(float(x) * factor)
    size = floor(abs(product) + Fraction(1, 2))
    return size if product >= 0 else -size


def short(x: int, one: Short, channel: int, shift: int) -> int:
    """The formula that the kernels have, as rescaling.py says it."""
    moved = x + int(one.start[channel])
    scaled = (moved << int(one.left[channel])) * int(one.multiplier[channel])
    assert abs(moved << int(one.left[channel])) <= WORD or one.multiplier[channel] == 0, "the shift leaves 32 bits"
    high = (scaled >> 32) + int(one.addend[channel])
    high -= int(one.negative[channel]) if moved < 0 else 0
    assert -WORD <= high < WORD, "the addition leaves 32 bits"
    return high >> shift


def asked(numbers: list[tuple[int, int]], lowest: int, highest: int, zero: int, low: int, high: int, shift: int = SHIFT) -> Asked:
    multiplier, exponent = (np.array(values, np.int64) for values in zip(*numbers, strict=True))
    first, last = (np.full(len(numbers), end, np.int64) for end in (lowest, highest))

    def exact(sums: Int) -> Int:
        return multiply(sums, multiplier[:, None], exponent[:, None]) + zero

    return Asked(exact, first, last, multiplier, exponent, zero, low, high, shift)


FACTORS = st.tuples(st.one_of(st.integers(2**30, 2**31 - 1), st.sampled_from((0, 2**30, 2**31 - 1))), st.integers(-18, 1))


@QUICK
@given(
    numbers=st.lists(FACTORS, min_size=1, max_size=5),
    lowest=st.integers(-(2**20), 2**20),
    span=st.integers(0, 6000),
    zero=st.sampled_from((-128, -3, 0, 127)),
    relu=st.booleans(),
    shift=st.sampled_from((10, SHIFT)),
)
def test_a_proven_channel_gives_the_reference_bytes_for_every_sum(
    numbers: list[tuple[int, int]], lowest: int, span: int, zero: int, relu: bool, shift: int
) -> None:
    low, high = zero if relu else -128, 127
    found = searched(asked(numbers, lowest, lowest + span, zero, low, high, shift))
    for channel, factor in enumerate(numbers):
        for x in range(lowest, lowest + span + 1) if found.proven[channel] else ():
            wanted = min(max(twice_rounded(x, *factor) + zero, low), high)
            assert min(max(short(x, found, channel, shift), low), high) == wanted, (x, factor)


@pytest.mark.parametrize("relu", [True, False])
def test_almost_all_usual_channels_are_proven(relu: bool) -> None:
    """Factors and sums as layers have them: not proving anything would pass every other test here."""
    rng = np.random.default_rng(0)
    numbers = [(int(m), int(e)) for m, e in zip(rng.integers(2**30, 2**31, 400), rng.integers(-11, -4, 400), strict=True)]
    found = searched(asked(numbers, -300_000, 300_000, -128 if relu else 4, -128, 127))
    assert found.proven.mean() > 0.99
    assert relu == (not found.negative.any())


@pytest.mark.parametrize("factor", [0.0037, 0.25, 1 / 3, 2.0**-9])
def test_a_dense_layer_rounds_once(factor: float) -> None:

    def exact(sums: Int) -> Int:
        return round_half_away(sums * factor).astype(np.int64) + 3

    ends = np.array([-90_000]), np.array([90_000])
    found = searched(Asked(exact, *ends, *quantize_multiplier(np.array([factor])), 3, -128, 127))
    for x in range(-90_000, 90_001) if found.proven[0] else ():
        wanted = min(max(once_rounded(x, factor) + 3, -128), 127)
        assert min(max(short(x, found, 0, SHIFT), -128), 127) == wanted, x


def test_what_leaves_32_bits_is_not_proven() -> None:
    """Sums whose answers lie far outside of a byte: exact arithmetic would agree, a register would not hold it."""
    found = searched(asked([(2**30 + 12345, -3), (2**30 + 12345, -9)], -(2**22), 2**22, -128, -128, 127))
    assert found.proven.tolist() == [False, True]


@pytest.mark.parametrize(
    ("field", "by"), [("addend", 64), ("addend", -64), ("multiplier", 2**16), ("multiplier", -(2**16)), ("left", 1), ("left", -1)]
)
def test_a_wrong_constant_is_found(field: str, by: int) -> None:
    rng = np.random.default_rng(1)
    question = asked([(int(m), -7) for m in rng.integers(2**30, 2**31, 50)], -100_000, 100_000, -128, -128, 127)
    found = searched(question)
    assert found.proven.all() and agrees(question, found).all()
    assert not agrees(question, replace(found, **{field: getattr(found, field) + by})).any()


def test_halves_below_the_zero_point_are_found() -> None:
    """Without the step less for negative sums the short form is wrong there, and not where nothing is wanted beneath."""
    wide = asked([(2**30, -6)], -20_000, 20_000, 0, -128, 127)
    found = searched(wide)
    assert found.proven.all() and found.negative.all()
    assert not agrees(wide, replace(found, negative=np.zeros(1, np.int64))).any()
    assert searched(replace(wide, low=0)).negative.tolist() == [0]
