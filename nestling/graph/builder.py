"""A Graph under construction, and how a value of the program that it is read from is seen in it.

Layout is settled here once: the Graph holds NHWC, torch and ONNX NCHW, and a `Value` says for every axis of theirs which Graph axis
holds it. A permute therefore changes a Value and nothing else; the Graph has no transposes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnsupportedOp
from nestling.graph.edit import free_name
from nestling.graph.ir import OPS, Add, Array, Attrs, Clamp, Dtype, Graph, MaxPool, Node, Sides, Tensor

NHWC = (0, 3, 1, 2)  # N, C, H, W stand at these axes of the Graph's tensor
NO_SIDES: Sides = (0, 0, 0, 0)
OP_NAMES = {attrs: op for op, attrs in OPS.items()}
DTYPES: dict[np.dtype[np.generic], Dtype] = {np.dtype(np.float32): "float32", np.dtype(np.uint8): "uint8"}
WORKS = "what does not need the Graph still works: fp32 .pte  (nestling export --to pte --precision fp32)"


@dataclass(frozen=True, eq=False)
class Value:
    """What a value of the source is in the Graph.

    tensor: name of the Graph's tensor.
    axes: axes[i] is the Graph's axis that holds the source's axis i.
    order: of a flattened map, int64 [N]: what the source has at i stands at order[i] in the Graph; None where both agree.
    edge: rows and columns of minus infinity around it, which only a max_pool can take.
    """

    tensor: str
    axes: tuple[int, ...]
    order: NDArray[np.int64] | None = None
    edge: Sides = NO_SIDES


@dataclass(frozen=True, eq=False)
class Constant:
    """A parameter, a buffer, or what was computed from them alone; in the source's layout, floats as float32."""

    name: str
    data: Array


@dataclass(frozen=True)
class Pieces:
    """What an operation of several results gives: pieces of a value, which lie side by side along the Graph's `axis`."""

    of: Value
    axis: int
    sizes: tuple[int, ...]


Operand = Value | Constant | float  # what an operation may be given


class Builder:
    """Collects tensors and nodes while the operations of a program are gone through in order.

    source, where, op, shape: of the operation being gone through: layer, source line, name, and shape of its result in the source;
    shapes: of all of its results.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.source, self.where, self.op = "", "", ""
        self.shapes: tuple[tuple[int, ...], ...] = ((),)
        self.before_permute = False  # whether the result goes to permutes only, so that its axes are not NCHW

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first result."""
        return self.shapes[0]

    def refuse(self, reason: str) -> NoReturn:
        """Raise UnsupportedOp for the operation being gone through."""
        place = ", ".join(part for part in (self.source and f"layer {self.source}", self.where) if part)
        what = f"{self.op} (layer {self.source})" if self.source else self.op
        raise UnsupportedOp(f"{self.op}{f' ({place})' if place else ''}: {reason}", WORKS, what)

    # ---- what goes in ----------------------------------------------------------------------------------------------------------

    def name(self, wanted: str) -> str:
        """`wanted`, or with a number after it where a tensor is called so already."""
        return free_name(wanted, self.tensors)

    def input(self, name: str, shape: Sequence[int], dtype: Dtype) -> str:
        """A tensor that comes in."""
        self.tensors[name] = Tensor(name, tuple(shape), dtype)
        return name

    def constant(self, name: str, data: Array) -> str:
        """A constant, in the Graph's layout. The same name with the same bytes is the same constant (shared weights)."""
        data = np.array(data, data.dtype if data.dtype in DTYPES else np.float32, order="C")  # a copy: its owner may go on training
        there = self.tensors.get(name)
        if there is not None and there.data is not None and np.array_equal(there.data, data):
            return name
        name = self.name(name)
        self.tensors[name] = Tensor(name, data.shape, DTYPES[data.dtype], data)
        return name

    def emit(self, attrs: Attrs, inputs: Sequence[str], shape: Sequence[int]) -> str:
        """A node with one float32 output of `shape` (the Graph's layout), named after the layer."""
        out = self.name(self.source or self.op)
        self.tensors[out] = Tensor(out, tuple(shape), "float32")
        self.nodes.append(Node(OP_NAMES[type(attrs)], tuple(inputs), (out,), attrs, self.source))
        return out

    def clamp(self, tensor: str, clamp: Clamp) -> str:
        """An activation as a node of its own, exact whoever reads its producer; fuse_clamps moves it where it can.

        A max_pool of one place clamps maps [1, H, W, C], adding zero clamps the rest.
        """
        shape = self.tensors[tensor].shape
        if len(shape) == 4:
            return self.emit(MaxPool((1, 1), (1, 1), clamp=clamp), [tensor], shape)
        return self.emit(Add(clamp=clamp), [tensor, self.scalar(0.0)], shape)

    def scalar(self, value: float) -> str:
        """A constant [1]."""
        return self.constant(f"constant_{value:.9g}", np.array([value], np.float32))

    # ---- what handlers ask ---------------------------------------------------------------------------------------------------

    def plain(self, value: object) -> Value:
        """`value` as an activation without a pending edge or order."""
        value = self.activation(value)
        if value.order is not None:
            self.refuse("reads a flattened map place by place; only a linear layer or an activation can follow flatten here")
        return value

    def activation(self, value: object) -> Value:
        """`value` as an activation without a pending edge."""
        if not isinstance(value, Value):
            self.refuse("expected an activation here, found a constant")
        if value.edge != NO_SIDES:
            self.refuse("padding with minus infinity is taken by max_pool only")
        return value

    def map(self, value: object) -> Value:
        """`value` as an activation that the source holds as NCHW."""
        value = self.plain(value)
        if value.axes != NHWC:
            self.refuse(f"expected a map [1, C, H, W], found axes at {value.axes} of the Graph's")
        return value

    def weight(self, value: object) -> Constant:
        """`value` as a constant."""
        if not isinstance(value, Constant):
            self.refuse("weights computed from the image are not supported")
        return value

    def graph_shape(self, value: Value) -> tuple[int, ...]:
        """The Graph's shape of `value`."""
        return self.tensors[value.tensor].shape

    def source_shape(self, value: Value) -> tuple[int, ...]:
        """The shape of `value` in the source, its edge not counted."""
        shape = self.graph_shape(value)
        return tuple(shape[axis] for axis in value.axes)

    def result(self, attrs: Attrs, inputs: Sequence[str], axes: tuple[int, ...]) -> Value:
        """A node whose output is the result of the operation being gone through."""
        return Value(self.emit(attrs, inputs, to_graph_order(self.shape, axes)), axes)

    def like(self, attrs: Attrs, inputs: Sequence[str], value: Value) -> Value:
        """A node whose output looks like `value`."""
        return replace(value, tensor=self.emit(attrs, inputs, self.graph_shape(value)))

    def graph(self, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
        """What was collected."""
        return Graph(self.tensors, tuple(self.nodes), tuple(inputs), tuple(outputs))


def to_graph_order(shape: Sequence[int], axes: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of the source in the Graph's order of axes."""
    return tuple(shape[axes.index(axis)] for axis in range(len(axes)))
