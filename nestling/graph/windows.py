"""Which places of an NHWC array are read: sliding windows, as views, by convolutions and pools; the nearest ones by a resize.

Shared by the float and the integer reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from nestling.graph.fixed_point import round_half_away
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


def deepened(x: Array, before: int, after: int, value: float) -> Array:
    """x [N, H, W, C] with so many channels of `value` before and after its own."""
    return np.pad(x, ((0, 0), (0, 0), (0, 0), (before, after)), constant_values=value)


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


def nearest_places(length: int, size: int, align_corners: bool, half_pixel_centers: bool) -> NDArray[np.int64]:
    """Which of `length` places each of `size` new ones along one side takes its value from, int64 [size].

    In float32, as TFLite has it (reference/resize_nearest_neighbor.h): a place next to a boundary may be one off what is exact.
    """
    corners = align_corners and size > 1
    scale = np.float32(length - 1) / np.float32(size - 1) if corners else np.float32(length) / np.float32(size)
    offset = np.float32(0.5) if half_pixel_centers else np.float32(0)
    real = (np.arange(size).astype(np.float32) + offset) * scale
    place = round_half_away(real) if align_corners else np.floor(real)
    return np.minimum(place.astype(np.int64), length - 1)


def nearest(x: Array, size: Pair, align_corners: bool, half_pixel_centers: bool) -> Array:
    """x [N, H, W, C] at another size."""
    rows, columns = (nearest_places(x.shape[1 + i], size[i], align_corners, half_pixel_centers) for i in (0, 1))
    return x[:, rows[:, None], columns]
