"""Axes that a file holds in another order than the Graph, as converters from PyTorch leave them: TRANSPOSE moves no data here.

A transposed value is Turned: the Graph's tensor, and the order that the file has its axes in. What works place by place is done on
the tensor as it lies in the Graph, and is turned as well; a TRANSPOSE back takes that away again. A map that is flattened while it
is turned is Shuffled, and the columns of the matrix that reads it move instead. So a transpose is gone only where that is proved;
whatever else reads a turned value is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

import numpy as np

from nestling.errors import UnusableFile
from nestling.formats.tflite.file import FileModel
from nestling.formats.tflite.read_builder import FileBuilder, Lookup, Padded, Shuffled, Turned, Value, moves_nothing
from nestling.graph import ir

Reader = Callable[[FileBuilder], None]
Order = tuple[int, ...]

TO_NHWC: Order = (0, 2, 3, 1)  # what a TRANSPOSE of an NCHW image is given
ONE = ("RELU", "RELU6", "LEAKY_RELU", "LOGISTIC", "HARD_SWISH", "QUANTIZE", "DEQUANTIZE", "CAST")  # each place by itself
TWO = ("ADD", "SUB", "MUL", "DIV")
LONGEST_WAY = 16  # operators between an image and the TRANSPOSE that shows its order


def is_channels_first(model: FileModel, index: int) -> bool:
    """Whether the one input is [1, C, H, W]: what is done to it, place by place, ends in a TRANSPOSE to [1, H, W, C]."""
    shape = model.tensors[index].shape
    if len(model.inputs) != 1 or len(shape) != 4 or shape[1] not in (1, 3):
        return False
    for _ in range(LONGEST_WAY):
        readers = [op for op in model.ops if index in op.inputs]
        if readers and all(op.name == "TRANSPOSE" and _constant_order(model, op.inputs) == TO_NHWC for op in readers):
            return True
        if len(readers) != 1 or readers[0].name not in (*ONE, *TWO, "PAD") or not readers[0].outputs:
            return False
        index = readers[0].outputs[0]
    return False


def _constant_order(model: FileModel, inputs: Sequence[int]) -> Order:
    data = model.tensors[inputs[1]].data if len(inputs) > 1 and inputs[1] >= 0 else None
    return () if data is None or data.size != 4 or data.dtype.kind != "i" else tuple(int(axis) for axis in data.reshape(-1))


def transpose(b: FileBuilder) -> None:
    """The axes in another order. Where only sides of one move, nothing moves in memory: a reshape, which keeps its name."""
    value, order = b.value(0), b.integers(1)
    if isinstance(value, Turned):
        _settle(b, value.value, _after(b, value.order, order))
    elif isinstance(value, Lookup | Padded):
        _settle(b, value, _after(b, (0, 1, 2, 3), order))
    else:
        x = b.tensors[b.read_tensor(0)]
        order = _after(b, tuple(range(len(x.shape))), order)
        if moves_nothing(order, x.shape):
            b.node("reshape", ir.Reshape(), (x.name,), tuple(x.shape[axis] for axis in order))
            return
        _settle(b, x.name, order)
    b.moved()


def _after(b: FileBuilder, before: Order, order: Order) -> Order:
    if sorted(order) != list(range(len(before))):
        raise UnusableFile(f"{b.where}: operator TRANSPOSE has the order {list(order)} for {len(before)} axes")
    return tuple(before[axis] for axis in order)


def turned(b: FileBuilder, reader: Reader) -> None:
    """An operator that reads a turned or a shuffled value, done on what the Graph holds of it; or refused."""
    values = [b.values.get(index) for index in b.op.inputs]
    moved = next(value for value in values if isinstance(value, Turned | Shuffled))
    if isinstance(moved, Shuffled):
        _shuffled(b, moved, reader)
    elif b.op.name == "TRANSPOSE":
        transpose(b)
    elif b.op.name in CHANGES:
        CHANGES[b.op.name](b, moved.order, reader)
    else:
        _refuse(b)


def _refuse(b: FileBuilder) -> NoReturn:
    b.refuse("it reads axes in the order that a TRANSPOSE gave them, and would move data; the Graph is NHWC throughout")


def _settle(b: FileBuilder, value: Value, order: Order) -> None:
    """The operator's output: a value whose axes the file has in this order."""
    assert not isinstance(value, np.ndarray | Turned | Shuffled)
    b.values[b.op.outputs[0]] = value if order == tuple(range(len(order))) else Turned(value, order)


def _read_as(b: FileBuilder, reader: Reader, instead: Mapping[int, Value], named: bool = False) -> Value:
    """What the reader makes of other values at some of the operator's inputs, by tensor index.

    named: the file has the output just so; else the Graph's tensor gets a name that no tensor of the file has.
    """
    out = b.op.outputs[0]
    before = {index: b.values[index] for index in instead}
    entered = {index: b.entered.pop(index) for index in instead if index in b.entered}
    b.values |= instead
    if not named:
        b.names[out] = b.fresh(f"{b.names[out]}:nhwc")
    reader(b)
    b.values |= before
    for index in instead:
        b.entered.pop(index, None)
    b.entered |= entered
    return b.values[out]


# ---- what goes on turned --------------------------------------------------------------------------------------------------------


def _place_by_place(b: FileBuilder, order: Order, reader: Reader) -> None:
    _settle(b, _read_as(b, reader, {index: _laid(b, index, order) for index in b.op.inputs if index >= 0}), order)


def _laid(b: FileBuilder, index: int, order: Order) -> Value:
    """An operand as the Graph has it beside operands of this order."""
    value = b.values.get(index)
    back = _inverse(order)
    if isinstance(value, Turned) and value.order == order:
        return value.value
    if isinstance(value, np.ndarray) and value.ndim <= len(order):
        b.count(value.size)
        return value if value.size == 1 else value.reshape((1,) * (len(order) - value.ndim) + value.shape).transpose(back)
    if isinstance(value, str) and b.tensors[value].data is None:
        x = b.tensors[value]
        if len(x.shape) == len(order) and moves_nothing(back, x.shape):
            shape = tuple(x.shape[axis] for axis in back)
            return b.emit("reshape", ir.Reshape(), (value,), b.fresh(f"{value}:nhwc"), x.dtype, x.quant, shape)
    b.value(b.op.inputs.index(index))  # says where nothing has been written
    _refuse(b)


def _inverse(order: Order) -> Order:
    return tuple(order.index(axis) for axis in range(len(order)))


def _concatenation(b: FileBuilder, order: Order, reader: Reader) -> None:
    axis = int(b.op.options["Axis"])
    if not -len(order) <= axis < len(order):
        raise UnusableFile(f"{b.where}: operator CONCATENATION has the axis {axis}")
    b.op = replace(b.op, options={**b.op.options, "Axis": order[axis]})
    _place_by_place(b, order, reader)


def _pad(b: FileBuilder, order: Order, reader: Reader) -> None:
    amounts = b.integers(1)
    if len(amounts) != 2 * len(order):
        raise UnusableFile(f"{b.where}: operator {b.op.name} pads by {list(amounts)}")
    there = np.array(amounts, np.int64).reshape(-1, 2)[list(_inverse(order))]
    _settle(b, _read_as(b, reader, {b.op.inputs[0]: _laid(b, b.op.inputs[0], order), b.op.inputs[1]: there}), order)


def _mean(b: FileBuilder, order: Order, reader: Reader) -> None:
    axes = {axis + len(order) if axis < 0 else axis for axis in b.integers(1)}
    if not axes <= set(range(len(order))):
        raise UnusableFile(f"{b.where}: operator MEAN has the axes {list(b.integers(1))}")
    left = order if b.op.options["KeepDims"] else tuple(own for axis, own in enumerate(order) if axis not in axes)
    left = tuple(sorted(left).index(own) for own in left)
    there = np.array([order[axis] for axis in sorted(axes)], np.int64)
    instead = {b.op.inputs[0]: _laid(b, b.op.inputs[0], order), b.op.inputs[1]: there}
    _settle(b, _read_as(b, reader, instead, named=left == tuple(range(len(left)))), left)


def _softmax(b: FileBuilder, order: Order, reader: Reader) -> None:
    if order[-1] != len(order) - 1:
        _refuse(b)
    _place_by_place(b, order, reader)


def _reshape(b: FileBuilder, order: Order, reader: Reader) -> None:
    """Where the axes' order is one in memory as well: a reshape. Flattened, each place's number goes on to who reads it."""
    out, index = b.op.outputs[0], b.op.inputs[0]
    x = b.tensors[_in_graph(b, index)]
    stays = moves_nothing(order, x.shape)
    made = _read_as(b, reader, {index: x.name}, named=stays)
    if stays:
        return
    if not isinstance(made, str) or b.tensors[made].shape != (1, math.prod(x.shape)):
        _refuse(b)
    b.count(math.prod(x.shape))
    b.values[out] = Shuffled(made, np.arange(math.prod(x.shape)).reshape(x.shape).transpose(order).reshape(-1))


def _in_graph(b: FileBuilder, index: int) -> str:
    """The Graph's tensor of a turned value, which a lookup or a padding becomes here."""
    value = b.values[index]
    assert isinstance(value, Turned)
    b.values[index] = value.value
    name = b.activation(index)
    b.values[index] = replace(value, value=name)
    return name


CHANGES: Mapping[str, Callable[[FileBuilder, Order, Reader], None]] = {
    **dict.fromkeys((*ONE, *TWO), _place_by_place),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _reshape),
    "CONCATENATION": _concatenation,
    "PAD": _pad,
    "PADV2": _pad,
    "MEAN": _mean,
    "SOFTMAX": _softmax,
}


# ---- flattened while turned -----------------------------------------------------------------------------------------------------


def _shuffled(b: FileBuilder, moved: Shuffled, reader: Reader) -> None:
    """A layer whose columns move, or what works number by number."""
    index = b.op.inputs[0]
    if b.values.get(index) is moved and b.op.name in (*ONE, "RESHAPE"):
        made = _read_as(b, reader, {index: moved.value})
        if not isinstance(made, str) or b.tensors[made].shape != b.tensors[moved.value].shape:
            _refuse(b)
        b.values[b.op.outputs[0]] = replace(moved, value=made)
        return
    place = b.op.inputs[1] if b.op.name == "FULLY_CONNECTED" and b.has(1) else -1
    weight = b.values.get(place)
    if b.values.get(index) is not moved or not isinstance(weight, np.ndarray) or weight.shape[1:] != moved.places.shape:
        _refuse(b)
    quant = b.model.tensors[place].quant
    if quant is not None and len(quant.scale) > 1 and quant.axis != 0:
        _refuse(b)
    b.count(weight.size)
    _read_as(b, reader, {index: moved.value, place: weight[:, np.argsort(moved.places)]}, named=True)
