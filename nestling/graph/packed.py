"""Integers of 4 or 2 bits, several in a byte: how weights that need no more are stored, in bundles and in C.

The first value stands in a byte's lowest bits; values are two's complement; the last byte is filled up with zeros.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nestling.graph.ir import Array

FEW: tuple[int, ...] = (2, 4)  # bits, the fewest first
FULL = 8


def bits_for(values: Array) -> int:
    """The fewest of 2, 4 and 8 bits that hold every one of some int8 values: -2 .. 1, -8 .. 7 or all."""
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    return next((bits for bits in FEW if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)), FULL)


def packed_size(count: int, bits: int) -> int:
    """Bytes that so many values take."""
    return -(-count * bits // FULL)


def pack(values: Array, bits: int) -> NDArray[np.uint8]:
    """int8, any shape, each value within `bits` (2 or 4) -> uint8 [packed_size(count, bits)], in C order."""
    flat = np.asarray(values, np.int8).reshape(-1)
    whole = np.zeros(packed_size(flat.size, bits) * FULL // bits, np.uint8)
    whole[: flat.size] = flat.view(np.uint8) & (2**bits - 1)
    made: NDArray[np.uint8] = np.bitwise_or.reduce(whole.reshape(-1, FULL // bits) << _places(bits), axis=1)
    return made


def unpack(content: NDArray[np.uint8], bits: int) -> NDArray[np.int8]:
    """uint8 [N] -> int8 [N * 8 / bits]: what pack took, and the zeros that fill the last byte."""
    half = 2 ** (bits - 1)
    values = (content[:, None] >> _places(bits)) & (2**bits - 1)
    made: NDArray[np.int8] = (values.astype(np.int8) ^ half) - half
    return made.reshape(-1)


def _places(bits: int) -> NDArray[np.uint8]:
    return np.arange(0, FULL, bits, dtype=np.uint8)
