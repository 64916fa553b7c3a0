"""Real numbers as 32-bit integers, as TFLite's reference kernels and gemmlowp do it: the arithmetic under every integer op.

Every function takes and returns whole arrays. Values are int64 in between and always fit int32 where the kernels hold an int32;
where a kernel's int32 would wrap, `wrap` wraps in the same way. Formulas and sources: docs/integer-semantics.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nestling.graph.ir import Clamp, Quant

Int = NDArray[np.int64]

_INT32_MAX = 2**31 - 1


def wrap(x: NDArray[np.generic]) -> Int:
    """x modulo 2**32, as a signed 32-bit number."""
    return x.astype(np.int64).astype(np.int32).astype(np.int64)


def round_half_away(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """The nearest whole number, halves away from zero, as C's round()."""
    wide = x.astype(np.float64)
    return np.copysign(np.floor(np.abs(wide) + 0.5), wide)


def quantize_multiplier(real: NDArray[np.float64]) -> tuple[Int, Int]:
    """(multiplier, shift) with real ~ multiplier * 2**(shift - 31), multiplier in [2**30, 2**31) or 0.

    real: float64, >= 0. Under 2**-32 it becomes 0, as in TFLite's QuantizeMultiplier.
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    multiplier = round_half_away(fraction * 2.0**31).astype(np.int64)
    carried = multiplier == 2**31
    multiplier = np.where(carried, 2**30, multiplier)
    shift = exponent.astype(np.int64) + carried
    tiny = (shift < -31) | (multiplier == 0)
    return np.where(tiny, 0, multiplier), np.where(tiny, 0, shift)


def high_mul(a: NDArray[np.generic], b: Int | int) -> Int:
    """a * b / 2**31, halves up; int32 in, int32 out, saturating (gemmlowp's SaturatingRoundingDoublingHighMul).

    gemmlowp writes it as a truncating division with a nudge of the product's sign, which is the same number.
    """
    product: Int = a.astype(np.int64) * b
    return np.asarray(np.minimum((product + 2**30) >> 31, _INT32_MAX))


def divide_by_power(x: Int, exponent: Int | int) -> Int:
    """x / 2**exponent, halves away from zero (gemmlowp's RoundingDivideByPOT)."""
    exponent = np.asarray(exponent, np.int64)
    half = (np.int64(1) << exponent) >> 1
    negative = (x >> 63) & np.where(exponent > 0, -1, 0)  # -1 where x < 0 and something is shifted out
    return np.asarray((x + half + negative) >> exponent)


def multiply(x: NDArray[np.generic], multiplier: Int, shift: Int) -> Int:
    """x * multiplier * 2**(shift - 31) in two roundings (TFLite's MultiplyByQuantizedMultiplier); int32 in and out.

    multiplier and shift broadcast against x: one number, or one a channel along the last axis.
    """
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    wide = x.astype(np.int64)
    if np.any(left):
        wide = wrap(wide << left)
    return divide_by_power(high_mul(wide, multiplier), right)


def clamp_range(clamp: Clamp, quant: Quant) -> tuple[int, int]:
    """The smallest and the largest int8 value that an activation leaves through."""
    scale, zero = np.float32(quant.scale[0]), int(quant.zero_point[0])
    low = -128 if clamp == "none" else max(-128, zero)
    high = 127 if clamp != "relu6" else min(127, zero + int(round_half_away(np.float32(6) / np.asarray([scale]))[0]))
    return low, high


# ---- exp and 1 / x in fixed point, for softmax (gemmlowp's fixedpoint.h) --------------------------------------------------------


def shift_left_saturating(x: Int, bits: int) -> Int:
    """x * 2**bits, held inside int32."""
    return np.asarray(np.clip(x << bits, -(2**31), _INT32_MAX))


# e to the powers -1/4, -1/2, -1, -2, -4, -8, -16, times 2**31
_EXPONENTIALS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)


def exp_of_negative(x: Int) -> Int:
    """e**x for x <= 0. x has 26 fractional bits (so it lies in (-32, 0]); the result has 31."""
    quarter = 1 << 24
    inside = (x & (quarter - 1)) - quarter  # x modulo 1/4, in [-1/4, 0)
    rest = inside - x
    result = _exp_near_zero(shift_left_saturating(inside, 5))
    for bit, factor in enumerate(_EXPONENTIALS):
        result = np.where(rest & (quarter << bit), high_mul(result, factor), result)
    return np.where(x == 0, _INT32_MAX, result)


def _exp_near_zero(x: Int) -> Int:
    """e**x for x in [-1/4, 0): four terms of the series around -1/8; 31 fractional bits in and out."""
    at_eighth, third = 1895147668, 715827883  # e**(-1/8) and 1/3
    x = x + (1 << 28)
    x2 = high_mul(x, x)
    x3, x4 = high_mul(x2, x), high_mul(x2, x2)
    tail = divide_by_power(high_mul(divide_by_power(x4, 2) + x3, third) + x2, 1)
    return at_eighth + high_mul(x + tail, at_eighth)


def reciprocal(x: Int, integer_bits: int) -> tuple[Int, Int]:
    """(r, bits) with 1 / x = r * 2**-31 * 2**-bits, for positive x that has `integer_bits` integer bits."""
    headroom = 32 - np.frexp(x.astype(np.float64))[1].astype(np.int64)  # leading zeros of a 32-bit word
    fraction = wrap((x << headroom) - 2**31)
    return _one_over_one_plus(fraction), integer_bits - headroom


def _one_over_one_plus(x: Int) -> Int:
    """1 / (1 + x) for x in [0, 1), by three Newton steps; 31 fractional bits in and out."""
    half = (x + _INT32_MAX + 1) >> 1  # (1 + x) / 2, the sum being positive
    estimate = 1515870810 + high_mul(half, -1010580540)  # 48 / 17 - 32 / 17 * half, 29 fractional bits
    for _ in range(3):
        error = (1 << 29) - high_mul(half, estimate)
        estimate = estimate + shift_left_saturating(high_mul(estimate, error), 2)
    return shift_left_saturating(estimate, 1)
