"""x * P(X <= x) of a normal distribution, in float32 as LiteRT has it: shared by the float and the integer reference."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]

ROOT_HALF, ROOT_2_PI = np.float32(math.sqrt(0.5)), np.float32(math.sqrt(2 / math.pi))
HALF, ONE, CUBIC = np.float32(0.5), np.float32(1), np.float32(0.044715)


def gelu(x: Float, approximate: bool) -> Float:
    """By erfc, which keeps what is left of large negative numbers; approximate: by tanh.

    Source: TensorFlow Lite, kernels/internal/reference/gelu.h.
    """
    if approximate:
        with np.errstate(over="ignore"):
            return np.asarray(HALF * x * (ONE + np.tanh(ROOT_2_PI * (x + CUBIC * x * x * x))), np.float32)
    return np.asarray(HALF * x * erfc(x * -ROOT_HALF), np.float32)


def erfc(x: Float) -> Float:
    """1 - erf(x), rounded once to float32; NumPy has none."""
    return np.fromiter(map(math.erfc, x.ravel().tolist()), np.float32, x.size).reshape(x.shape)
