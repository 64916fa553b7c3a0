"""The normalisation table as operators that every runtime has, and back.

No runtime has a lookup by channel, so `table` becomes cast, mul, add(, quantize) with constants that give every one of the 256 x C
entries, or, where no such constants exist, a gather over the flat table. Both were measured: the first takes 0.6% of an
EfficientNet-Lite0 inference, the gather 2.6%. The constants are repeated along the width, [1, 1, W, C]: at a broadcast of C = 3
the kernels are slow (4%).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nestling.graph.ir import Array, Quant

Float64s = NDArray[np.float64]
Float32s = NDArray[np.float32]

MARGIN = 1e-3  # in quantisation steps; how far from a rounding boundary every entry stays, so that all kernels round it alike
FREE = 1e4  # a saturated entry has one bound only; the other is this many steps away
STEEPEST = 1e3  # steps of output an input step; beyond it a table is no longer worth calling affine
FLOAT_TOLERANCE = 1e-6  # of the table's largest value
PIXELS = np.arange(256, dtype=np.float32)


def affine(table: Array, quant: Quant | None) -> tuple[Float32s, Float32s] | None:
    """Constants (mul, add), float32 [C] each, for which `evaluate` gives the table; None where there are none.

    table: float32 or int8 [C, 256]; quant: of the int8 table's values, None for a float table. An int8 table's entries are equal
    and away from every rounding boundary, a float table's within FLOAT_TOLERANCE.
    """
    if quant is None:
        real = table.astype(np.float64)
        slope = (real[:, -1] - real[:, 0]) / 255
        mul, add = slope.astype(np.float32), real[:, 0].astype(np.float32)
        error = np.abs(_real(mul, add) - real).max()
        return (mul, add) if error <= FLOAT_TOLERANCE * np.abs(real).max() else None
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    slope, offset = _centre(table.astype(np.float64))
    mul, add = (slope * scale).astype(np.float32), ((offset - zero) * scale).astype(np.float32)
    if not np.isfinite(mul).all() or not np.isfinite(add).all():
        return None
    steps = _real(mul, add).astype(np.float64) / scale + zero
    low, high = _bounds(table.astype(np.float64))
    inside = (steps > low + MARGIN) & (steps < high - MARGIN)
    return (mul, add) if bool(inside.all()) else None


def evaluate(mul: Float32s, add: Float32s, quant: Quant | None) -> Array:
    """The table [C, 256] that cast, mul, add(, quantize) compute: float32, or int8 where `quant` says how."""
    real = _real(mul, add)
    if quant is None:
        return real
    steps = real / quant.scale[0]
    rounded = np.trunc(steps + np.copysign(np.float32(0.5), steps)) + quant.zero_point[0]  # half away from zero, as TFLite
    entries: Array = np.clip(rounded, -128, 127).astype(np.int8)
    return entries


def _real(mul: Float32s, add: Float32s) -> Float32s:
    return PIXELS * mul[:, None] + add[:, None]


def _bounds(table: Float64s) -> tuple[Float64s, Float64s]:
    """Between which values, in steps, an entry may lie and still be rounded to what the table says."""
    return np.where(table <= -128, -FREE, table - 0.5), np.where(table >= 127, FREE, table + 0.5)


def _centre(table: Float64s) -> tuple[Float64s, Float64s]:
    """The line, slope and offset [C] each, that stays farthest inside the bounds of all 256 entries of its channel.

    For a given slope the room left is (least upper bound - greatest lower bound), a concave function of the slope: ternary search.
    """
    low, high = _bounds(table)

    def room(slope: Float64s) -> tuple[Float64s, Float64s]:
        line = slope[:, None] * PIXELS
        top, bottom = (high - line).min(axis=1), (low - line).max(axis=1)
        return top - bottom, (top + bottom) / 2

    left, right = np.full(len(table), -STEEPEST), np.full(len(table), STEEPEST)
    for _ in range(100):
        third = (right - left) / 3
        better = room(left + third)[0] < room(right - third)[0]
        left, right = np.where(better, left + third, left), np.where(better, right, right - third)
    slope = (left + right) / 2
    return slope, room(slope)[1]
