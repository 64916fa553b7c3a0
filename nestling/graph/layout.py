"""Operations that compute nothing: they give a value another shape, other axes, or the same once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nestling.graph.builder import NHWC, Builder, Operand, Value, to_graph_order
from nestling.graph.ir import Reshape


def reshape(b: Builder, self: Operand, *_: object, **__: object) -> Value:
    """To the result's shape, where the Graph's memory order needs no change or only a linear layer reads it.

    Between [1, C, 1, 1] and [1, C] nothing moves. A flattened map [1, C, H, W] has another order in NHWC; it goes with the Value.
    """
    x, new = b.activation(self), b.shape
    if b.source_shape(x) == new:
        return x
    x = b.plain(x)
    places = np.arange(math.prod(new)).reshape(b.graph_shape(x)).transpose(x.axes).reshape(new)  # of the source's, in the Graph
    identity = tuple(range(len(new)))
    views = [identity] if len(new) != 4 else [identity, NHWC] if b.before_permute else [NHWC, identity]
    for axes in views:
        if np.all(np.diff(places.transpose(np.argsort(axes)).ravel()) == 1):
            return Value(b.emit(Reshape(), [x.tensor], to_graph_order(new, axes)), axes)
    if len(new) != 2 or new[0] != 1:
        b.refuse(f"{list(b.source_shape(x))} to {list(new)} would need a transpose")
    return Value(b.emit(Reshape(), [x.tensor], new), (0, 1), places.ravel())


def permute(b: Builder, self: Operand, dims: Sequence[int]) -> Value:
    """Only what we know about the axes changes."""
    x = b.plain(self)
    return replace(x, axes=tuple(x.axes[d % len(x.axes)] for d in dims))


def transpose(b: Builder, self: Operand, dim0: int, dim1: int) -> Value:
    """Two axes change places."""
    x = b.plain(self)
    axes = list(x.axes)
    axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
    return replace(x, axes=tuple(axes))


def dropout(b: Builder, input: Operand, p: float, train: bool) -> Value:
    """Nothing, in evaluation."""
    if train:
        b.refuse("drops at random even in evaluation")
    return same(b, input)


def same(b: Builder, self: Operand, *_: object, **__: object) -> Value:
    """clone, contiguous, ...: they arrange memory, which the Graph does in its own way."""
    if not isinstance(self, Value):
        b.refuse("expected an activation here, found a constant")
    return self
