"""One message: 8 bytes of length, a JSON text {"value": ..., "arrays": [[dtype, shape], ...]}, and the arrays' bytes.

Nothing here is ever unpickled: what the other side sends are plain values and numbers.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nestling.graph.ir import Array

LENGTH = struct.Struct("<Q")
MOST_TEXT, MOST_ARRAY = 1 << 28, 1 << 32  # bytes
NUMBERS = "biuf"  # kinds of dtypes


def packed(value: Any, arrays: Sequence[Array] = ()) -> bytes:
    """A message. value: what JSON holds."""
    described = [[array.dtype.str, list(array.shape)] for array in arrays]
    text = json.dumps({"value": value, "arrays": described}).encode()
    return b"".join([LENGTH.pack(len(text)), text, *(np.ascontiguousarray(array).tobytes() for array in arrays)])


def unpacked(take: Callable[[int], bytes]) -> tuple[Any, tuple[Array, ...]]:
    """(value, arrays) of the next message. take: gives as many bytes as it is asked for. Raises ValueError for no such message."""
    (length,) = LENGTH.unpack(take(LENGTH.size))
    if length > MOST_TEXT:
        raise ValueError(f"a text of {length} bytes")
    try:
        text = json.loads(take(length))
        return text["value"], tuple(_array(take, kind, shape) for kind, shape in text["arrays"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no message ({error})") from error


def _array(take: Callable[[int], bytes], kind: str, shape: Sequence[int]) -> Array:
    dtype, sides = np.dtype(str(kind)), tuple(int(side) for side in shape)
    size = dtype.itemsize * math.prod(sides)
    if dtype.kind not in NUMBERS or min(sides, default=0) < 0 or size > MOST_ARRAY:
        raise ValueError(f"an array of {kind} {list(shape)}")
    return np.frombuffer(take(size), dtype).reshape(sides).copy()  # one that may be written to
