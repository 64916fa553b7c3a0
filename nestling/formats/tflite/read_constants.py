"""Operators of a .tflite file whose inputs are all constants, computed while reading: shape arithmetic and packed weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from nestling.formats.tflite.file import FileOp, FileQuant, FileTensor
from nestling.graph.ir import Array

MAX_FOLDED = 2**26  # elements

Fold = Callable[[FileOp, tuple[Array, ...], tuple[FileTensor, ...]], Array]


def dequantized(values: Array, quant: FileQuant | None) -> Array:
    """Half precision or 8-bit constants as float32."""
    if quant is None:
        return values.astype(np.float32)
    sides = [-1 if axis == quant.axis and len(quant.scale) > 1 else 1 for axis in range(values.ndim)]
    scale, zero = quant.scale.reshape(sides), quant.zero_point.reshape(sides)
    return ((values.astype(np.int32) - zero.astype(np.int32)) * scale.astype(np.float64)).astype(np.float32)


def _dequantize(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    return dequantized(values[0], tensors[0].quant)


def _strided_slice(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    """Along one axis, which is what shape arithmetic does."""
    x, begin, end, step = values
    if x.ndim != 1 or len(begin) != 1 or op.options["EllipsisMask"] or op.options["NewAxisMask"]:
        raise ValueError("STRIDED_SLICE of a constant is read along one axis only")
    if op.options["ShrinkAxisMask"]:
        return np.array(x[int(begin[0])])
    first = None if op.options["BeginMask"] else int(begin[0])
    last = None if op.options["EndMask"] else int(end[0])
    return x[first : last : int(step[0])]


def _pack(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    return np.stack(_small(values), axis=int(op.options["Axis"]))


def _concatenation(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    return np.concatenate(_small(values), axis=int(op.options["Axis"]))


def _reshape(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    if len(values) != 2:
        raise ValueError("RESHAPE of a constant without a shape")
    return values[0].reshape([int(side) for side in values[1].reshape(-1)[:8]])


def _reduce_prod(op: FileOp, values: tuple[Array, ...], tensors: tuple[FileTensor, ...]) -> Array:
    return np.array(np.prod(values[0].astype(np.int64)))


def _small(values: tuple[Array, ...]) -> tuple[Array, ...]:
    if sum(value.size for value in values) > MAX_FOLDED:
        raise ValueError("constants that are put together are too large")
    return values


FOLDS: Mapping[str, Fold] = {
    "DEQUANTIZE": _dequantize,
    "STRIDED_SLICE": _strided_slice,
    "PACK": _pack,
    "CONCATENATION": _concatenation,
    "RESHAPE": _reshape,
    "REDUCE_PROD": _reduce_prod,
}
