"""Sliding windows over NHWC arrays, as views: what convolutions and pools read. Shared by the float and the integer reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nestling.graph.ir import Array, Pair, Sides

MOST_COPIED = 2**26  # numbers


def windowed_size(size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
    """The number of places that a kernel takes along one side; padding is both sides' sum. May be < 1 where it doesn't fit."""
    return (size + padding - (kernel - 1) * dilation - 1) // stride + 1


def padded(x: Array, padding: Sides, value: float) -> Array:
    """x [N, H, W, C] with `value` around height and width."""
    top, bottom, left, right = padding
    if not any(padding):
        return x
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)


def windows(x: Array, size: Pair, stride: Pair = (1, 1), dilation: Pair = (1, 1)) -> Array:
    """A view [N, OH, OW, KH, KW, C] of x [N, H, W, C]; nothing is copied."""
    count, height, width, channels = x.shape
    rows = windowed_size(height, size[0], stride[0], dilation[0], 0)
    columns = windowed_size(width, size[1], stride[1], dilation[1], 0)
    n, h, w, c = x.strides
    return np.lib.stride_tricks.as_strided(
        x,
        (count, rows, columns, size[0], size[1], channels),
        (n, h * stride[0], w * stride[1], h * dilation[0], w * dilation[1], c),
        writeable=False,
    )


def in_bands(seen: Array, answer: Callable[[Array], Array]) -> Array:
    """answer(seen), which is [N, OH, OW, O], of a view as windows gives it; where a copy of the view would be large, a band of rows
    after the other."""
    rows = max(1, MOST_COPIED * seen.shape[1] // seen.size)
    if rows >= seen.shape[1]:
        return answer(seen)
    return np.concatenate([answer(seen[:, first : first + rows]) for first in range(0, seen.shape[1], rows)], axis=1)


def inside(shape: tuple[int, ...], size: Pair, stride: Pair, padding: Sides) -> NDArray[np.int64]:
    """How many places of each window lie inside the image: [OH, OW, 1]."""
    ones = padded(np.ones((1, *shape[1:3], 1), np.int64), padding, 0)
    count: NDArray[np.int64] = windows(ones, size, stride).sum(axis=(3, 4))[0]
    return count
