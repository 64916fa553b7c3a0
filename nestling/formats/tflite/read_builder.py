"""A Graph under construction from the operators of a .tflite file: what the readers in tflite_operators.py build with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnsupportedOp, UnusableFile
from nestling.formats.tflite import metadata
from nestling.formats.tflite.file import SHARED, SMALL, FileModel, FileOp, FileTensor
from nestling.graph import ir, spec
from nestling.graph.ir import Array, Attrs, Clamp, Dtype, Node, Pair, Quant, Sides, Tensor

HINT = "the file still runs under LiteRT itself"
INSTEAD = {  # of types that are not held: what to do
    "INT16": "its activations have 16 bits, nestling's have 8: convert it again with int8 activations (static_wi8_ai8, or\n"
    "  TFLITE_BUILTINS_INT8), or import its float file and quantise that:  nestling quantize"
}
SAY_SIZE = "say it:  nestling import FILE --size 224, or --size HEIGHTxWIDTH"
CLAMPS: dict[int, Clamp] = {0: "none", 1: "relu", 3: "relu6"}
CLAMP_NAMES = {2: "RELU_N1_TO_1", 4: "TANH", 5: "SIGN_BIT"}
DTYPES: dict[str, Dtype] = {"float32": "float32", "int8": "int8", "uint8": "uint8", "int32": "int32"}


@dataclass(frozen=True, eq=False)
class Lookup:
    """A function of an image's bytes, value by value: values[c, byte] for channel c. It becomes a `table`, or goes on growing.

    values: float32, whole numbers on their way to a table (int32), or, behind a quantised input, int8.
    whole: our own printer wrote it and says by a name that a float table ends here.
    """

    image: str
    values: Array
    name: str
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Padded:
    """A tensor with padding around it that its reader takes over."""

    tensor: str
    padding: Sides
    lowest: bool


@dataclass(frozen=True, eq=False)
class Turned:
    """A value whose axes the file holds in another order: the file's axis i is axis order[i] of `value`. See read_layouts.py."""

    value: str | Lookup | Padded
    order: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Shuffled:
    """A row [1, n] whose numbers the file holds in another order: its i-th is that at places[i] of the Graph's tensor `value`."""

    value: str
    places: NDArray[np.int64]


Value = str | Array | Lookup | Padded | Turned | Shuffled  # a Graph tensor's name; a constant of the file; those above
NHWC, NCHW = (0, 1, 2, 3), (0, 3, 1, 2)  # which axes of an image in the Graph a file's axes are


class FileBuilder:
    """Collects tensors and nodes while the operators of a file are gone through in order.

    values: what stands behind a tensor index of the file once it is known; constants enter the Graph when a node reads them.
    """

    def __init__(self, model: FileModel, where: str, data: bytes, size: Pair | None = None) -> None:
        self.model, self.where, self.data, self.size = model, where, data, size
        self.tensors: dict[str, Tensor] = {}
        self.nodes: list[Node] = []
        self.values: dict[int, Value] = {i: t.data for i, t in enumerate(model.tensors) if t.data is not None and t.dtype}
        self.entered: dict[int, str] = {}
        self.names = _unique_names(model)
        self.quants = [_quant(t) for t in model.tensors]
        self.readers = [0] * len(model.tensors)
        for index in (*model.outputs, *(index for op in model.ops for index in op.inputs if index >= 0)):
            self.readers[index] += 1
        self.op = FileOp("", (), ())
        self.taken, self.last = set(self.names), dict[str, int]()
        self.computed = 0

    def count(self, numbers: int) -> None:
        """Raise UnusableFile where what is computed of the file's constants is out of all proportion to the file."""
        self.computed += numbers
        if self.computed > SHARED * len(self.data) + SMALL:
            raise UnusableFile(f"{self.where}: its operators make of its constants more than {SHARED} times the file")

    def input(self, index: int, pixels: Array | None = None, channels_first: bool = False) -> str:
        """A tensor that comes in, or, with what each byte becomes there ([C, 256]), an image's bytes in its place.

        channels_first: the file has an image as [1, C, H, W]; the Graph's is [1, H, W, C] all the same.
        Raises UnusableFile where it is not one image (or vector), and where its size is open and was not said.
        """
        if channels_first:
            self.names[index] = self.fresh(f"{self.names[index]}:nhwc")
        name, shape = self.names[index], self._input_shape(index, NCHW if channels_first else NHWC)
        value: str | Lookup = name
        if pixels is None:
            self.tensors[name] = Tensor(name, shape, self._dtype(index), None, self.quants[index])
        else:
            name = self.fresh("image")
            self.tensors[name] = Tensor(name, shape, "uint8")
            value = Lookup(name, pixels, f"{self.names[index]}:table")
        self.values[index] = Turned(value, NCHW) if channels_first else value
        return name

    def _input_shape(self, index: int, order: tuple[int, ...]) -> tuple[int, ...]:
        """The Graph's shape of one image; height and width as they were said, where the file leaves them open."""
        tensor, name = self.model.tensors[index], self.names[index]
        shape, wide = tensor.shape, tuple(axis for axis in tensor.open_sides if axis > 0)
        if len(shape) == 4:
            shape, wide = tuple(shape[order.index(axis)] for axis in NHWC), tuple(order[axis] for axis in wide)
        if shape[:1] != (1,) and tensor.open_sides[:1] != (0,):
            raise UnusableFile(f"{self.where}: input {name!r} has shape {list(shape)}; one image at a time is read")
        if not wide:
            if self.size is not None and self.size != shape[1:3]:
                raise UnusableFile(f"{self.where}: input {name!r} has the shape {list(shape)} and no other.", "leave out --size")
            return (1, *shape[1:])
        if len(shape) != 4 or not set(wide) <= {1, 2}:
            open_shape = [-1 if axis in tensor.open_sides else side for axis, side in enumerate(tensor.shape)]
            raise UnusableFile(f"{self.where}: input {name!r} has the shape {open_shape}; height and width of an image may be open")
        if self.size is None:
            raise UnusableFile(f"{self.where}: input {name!r} is an image of any size.", SAY_SIZE)
        sides = tuple(said if axis in wide else shape[axis] for axis, said in enumerate(self.size, 1))
        if sides != self.size:
            raise UnusableFile(f"{self.where}: input {name!r} is of any size only along axis {wide[0]} of {list(shape)}.", SAY_SIZE)
        return (1, *sides, shape[3])

    def refuse(self, reason: str, hint: str = HINT) -> NoReturn:
        """Raise UnsupportedOp for the operator being read."""
        at = repr(self.names[self.op.outputs[0]]) if self.op.outputs else "a place without output"
        raise UnsupportedOp(f"{self.where}: operator {self.op.name} at {at}: {reason}", hint)

    # ---- what an operator reads -------------------------------------------------------------------------------------------------

    def value(self, place: int) -> Value:
        """What stands at an input. Raises UnusableFile where nothing has been written there."""
        index = self.op.inputs[place] if place < len(self.op.inputs) else -1
        if index >= 0 and self.model.tensors[index].dtype is None:
            kind = self.model.tensors[index].type_name
            self.refuse(f"its input {self.names[index]!r} is {kind}, which the Graph does not hold", INSTEAD.get(kind, HINT))
        if index not in self.values:
            what = f"{self.names[index]!r} before it is written" if index >= 0 else f"no input {place}"
            raise UnusableFile(f"{self.where}: operator {self.op.name} reads {what}")
        return self.values[index]

    def unchanged(self) -> None:
        """The operator's output is its input: whoever reads one reads the other."""
        self.values[self.op.outputs[0]] = self.value(0)
        self.moved()

    def moved(self) -> None:
        """The output holds what the input does, elsewhere in the file at most."""
        index, out = self.op.inputs[0], self.op.outputs[0]
        self.quants[out] = self.quants[index]
        self.readers[out] += self.readers[index] - 1

    def shape_of(self, value: Value | None) -> tuple[int, ...] | None:
        """The shape that the file has for an activation; None for what is none, or not yet one."""
        match value:
            case str():
                return self.tensors[value].shape
            case Lookup():
                return self.tensors[value.image].shape
            case Turned():
                shape = self.shape_of(value.value)
                return None if shape is None else tuple(shape[axis] for axis in value.order)
            case _:
                return None

    def has(self, place: int) -> bool:
        """Whether an optional input is there."""
        return place < len(self.op.inputs) and self.op.inputs[place] >= 0

    def read_tensor(self, place: int) -> str:
        """The Graph tensor at an input; a constant or a lookup enters the Graph here."""
        self.value(place)
        return self.activation(self.op.inputs[place])

    def activation(self, index: int) -> str:
        """The Graph tensor behind a tensor of the file."""
        value = self.values.get(index)
        if isinstance(value, str):
            return value
        if isinstance(value, Lookup):
            name = self.table(value, self.names[index], self.quants[index] if value.values.dtype == np.int8 else None)
        elif isinstance(value, Padded):
            name = self._explicit_pad(value, index)
        elif isinstance(value, Turned | Shuffled):
            self.refuse(f"{self.names[index]!r} has its axes in the order that a TRANSPOSE gave them; the Graph is NHWC throughout")
        elif value is None:
            raise UnusableFile(f"{self.where}: {self.names[index]!r} is read before it is written")
        else:
            return self._constant(index, value)
        self.values[index] = name
        return name

    def _constant(self, index: int, value: Array) -> str:
        if index not in self.entered:
            tensor = self.model.tensors[index]
            quant = self.quants[index]
            shifted = quant is not None and tensor.dtype == np.uint8
            data = (value.view(np.uint8) ^ np.uint8(128)).view(np.int8) if shifted else np.array(value)
            data = data.reshape(1) if data.ndim == 0 else data  # a scalar: it broadcasts as [1] does
            own = self.names[index]
            name = self.entered[index] = own if own not in self.tensors else self.fresh(own)
            if data.dtype.name not in DTYPES:
                self.refuse(f"its constant {name!r} is {data.dtype}")
            self.tensors[name] = Tensor(name, tuple(data.shape), DTYPES[data.dtype.name], data, quant)
        return self.entered[index]

    def integers(self, place: int) -> tuple[int, ...]:
        """A constant list of integers: axes, paddings, a shape."""
        value = self.value(place)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "i" or value.size > 64:
            self.refuse(f"its input {place} must be a constant list of integers")
        return tuple(int(v) for v in value.reshape(-1))

    def _dtype(self, index: int) -> Dtype:
        tensor = self.model.tensors[index]
        name = tensor.dtype.name if tensor.dtype is not None else tensor.type_name
        if name == "uint8" and self.quants[index] is not None:
            return "int8"
        if name not in DTYPES:
            said = f"{self.where}: tensor {self.names[index]!r} is {name}, which the Graph does not hold"
            raise UnsupportedOp(said, INSTEAD.get(name, HINT))
        return DTYPES[name]

    def unsigned(self, place: int = 0) -> bool:
        """Whether an input was quantised uint8 in the file."""
        index = self.op.inputs[place]
        return self.model.tensors[index].dtype == np.uint8 and self.quants[index] is not None

    def clamp(self) -> Clamp:
        """The fused activation. Raises UnsupportedOp by name for those that the Graph does not hold."""
        code = int(self.op.options["FusedActivationFunction"])
        if code not in CLAMPS:
            self.refuse(f"its fused activation {CLAMP_NAMES.get(code, code)} is not held; NONE, RELU and RELU6 are")
        return CLAMPS[code]

    # ---- what an operator writes ------------------------------------------------------------------------------------------------

    def node(self, op: str, attrs: Attrs, inputs: tuple[str, ...], shape: tuple[int, ...] | None = None) -> str:
        """A node that writes the operator's output. shape: of a reshape; else it follows."""
        return self.write(self.op.outputs[0], op, attrs, inputs, shape)

    def write(self, out: int, op: str, attrs: Attrs, inputs: tuple[str, ...], shape: tuple[int, ...] | None = None) -> str:
        """A node that writes the file's tensor `out`."""
        name = self.names[out]
        self.values[out] = self.emit(op, attrs, inputs, name, self._dtype(out), self.quants[out], shape)
        return name

    def emit(
        self, op: str, attrs: Attrs, inputs: tuple[str, ...], name: str, dtype: Dtype, quant: Quant | None,
        shape: tuple[int, ...] | None = None,
    ) -> str:  # fmt: skip
        """A node that writes a tensor of this name."""
        if shape is None:
            try:
                shape = spec.output_shape(op, attrs, *(self.tensors[i].shape for i in inputs))
            except ValueError as error:
                raise UnusableFile(f"{self.where}: operator {self.op.name} at {name!r}: {error}") from error
        if name in self.tensors:
            raise UnusableFile(f"{self.where}: {name!r} is written twice")
        self.tensors[name] = Tensor(name, shape, dtype, None, quant)
        self.nodes.append(Node(op, inputs, (name,), attrs))
        return name

    def own(self, place: int, data: Array, quant: Quant | None) -> str:
        """The constant at an input with other contents, for this operator alone."""
        index = self.op.inputs[place]
        if self.readers[index] > 1 or index in self.entered:
            return self.constant(self.names[index], data, quant)
        self.count(data.size)
        self.entered[index] = name = self.names[index]
        self.tensors[name] = Tensor(name, tuple(data.shape), DTYPES[data.dtype.name], data, quant)
        return name

    def constant(self, wanted: str, data: Array, quant: Quant | None = None) -> str:
        """A constant of our own."""
        self.count(data.size)
        name = self.fresh(wanted)
        self.tensors[name] = Tensor(name, tuple(data.shape), DTYPES[data.dtype.name], data, quant)
        return name

    def fresh(self, wanted: str) -> str:
        """`wanted`, or with a number where a tensor of the file or the Graph has the name."""
        names = ((i, f"{wanted}_{i}" if i else wanted) for i in count(self.last.get(wanted, 0)))
        self.last[wanted], name = next((i, name) for i, name in names if name not in self.tensors and name not in self.taken)
        return name

    def flattened(self, name: str) -> str:
        """x as [1, n], for fully_connected."""
        x = self.tensors[name]
        if len(x.shape) == 2:
            return name
        flat = self.fresh(f"{self.names[self.op.outputs[0]]}:flat")
        return self.emit("reshape", ir.Reshape(), (name,), flat, x.dtype, x.quant, (1, math.prod(x.shape)))

    def table(self, lookup: Lookup, out: str, quant: Quant | None) -> str:
        """A table node for a lookup."""
        if lookup.values.dtype.name not in ("float32", "int8"):
            self.refuse("bytes of an image become whole numbers that no table holds")
        values = lookup.values
        if values.dtype == np.float32:
            values = metadata.exact_table(self.data, lookup.name, values.astype(np.float32))
        table = lookup.name if lookup.name not in self.tensors else self.fresh(lookup.name)
        self.tensors[table] = Tensor(table, tuple(values.shape), DTYPES[values.dtype.name], values, quant)
        return self.emit("table", ir.Table(), (lookup.image, table), out, DTYPES[values.dtype.name], quant)

    def _explicit_pad(self, padded: Padded, index: int) -> str:
        x = self.tensors[padded.tensor]
        if padded.lowest:
            self.refuse("padding with the lowest value is read before MAX_POOL_2D only")
        return self.emit("pad", ir.Pad(padded.padding), (x.name,), self.names[index], x.dtype, self.quants[index])


def moves_nothing(order: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a transposition to this order leaves the numbers where they are in memory."""
    moved = [axis for axis in order if shape[axis] > 1]
    return moved == sorted(moved)


def _unique_names(model: FileModel) -> list[str]:
    """Names of all tensors, a number behind those that another tensor has."""
    taken: set[str] = set()
    names = []
    for index, tensor in enumerate(model.tensors):
        name = tensor.name or f"tensor_{index}"
        if name in taken:
            name = f"{name}_{index}"
        while name in taken:
            name += "_"
        taken.add(name)
        names.append(name)
    return names


def _quant(tensor: FileTensor) -> Quant | None:
    """uint8 zero points move by 128 with the values. What a file says of the quantisation of floats means nothing."""
    if tensor.quant is None or tensor.dtype not in (np.uint8, np.int8, np.int32):
        return None
    return Quant(
        np.array(tensor.quant.scale, np.float32),
        (tensor.quant.zero_point - (128 if tensor.dtype == np.uint8 else 0)).astype(np.int32),
        tensor.quant.axis if len(tensor.quant.scale) > 1 else None,
    )
