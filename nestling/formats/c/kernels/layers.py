"""What a network is in C: layers in running order, each one call of a kernel with its constants.

Program: layers, and which tensors they hand to one another. Layer: function, arguments, scratch, what it may write over.
Constant: numbers that go into an array of their own. Struct: the parameters that a kernel takes by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from nestling.errors import UnsupportedOp
from nestling.graph.ir import Array, Clamp, Node, Tensor

CType = Literal["int8_t", "int16_t", "int32_t", "float", "double"]
BYTES: Mapping[CType, int] = {"int8_t": 1, "int16_t": 2, "int32_t": 4, "float": 4, "double": 8}
PORTABLE = "nst_kernels.h"


@dataclass(frozen=True, eq=False)
class Constant:
    """An array in flash. role: the field or argument that it is ("weights"). layout: its sides, outermost first.

    bits: of one number where several lie in a byte of `data` (see packing.py); the layout is that of the numbers.
    """

    role: str
    ctype: CType
    data: Array
    layout: tuple[int, ...]
    bits: int | None = None

    @property
    def bytes(self) -> int:
        """In flash."""
        return BYTES[self.ctype] * self.data.size


@dataclass(frozen=True)
class Pointers:
    """An array of pointers to constants, None for 0."""

    role: str
    targets: tuple[Constant | None, ...]


@dataclass(frozen=True, eq=False)
class Struct:
    """A value of a type in nst_kernels.h, field by field, in the header's order."""

    type: str
    fields: Mapping[str, Value]


Value = int | float | tuple[int, ...] | Struct | Constant | Pointers | None


@dataclass(frozen=True)
class Read:
    """The bytes of an activation."""

    tensor: str


@dataclass(frozen=True)
class Parts:
    """Several operands as one array of pointers."""

    operands: tuple[Read | Constant, ...]


@dataclass(frozen=True)
class Written:
    """Where the answer goes."""


@dataclass(frozen=True)
class Scratch:
    """Bytes that only this call uses."""


@dataclass(frozen=True)
class Room:
    """How many bytes of scratch there are."""


@dataclass(frozen=True)
class Whole:
    """Which part of the answer is computed, where a kernel can compute parts: all of it."""


@dataclass(frozen=True)
class Crew:
    """Who computes: instructions and threads (runtime/host/nst_crew.h)."""


Argument = Read | Parts | Written | Scratch | Room | Whole | Crew | Struct | Constant | int | float


@dataclass(frozen=True, eq=False)
class Layer:
    """One call. kind: what it is, in words ("depthwise 3x3 s2"). reads: activations; writes: the tensor it answers.

    scratch: bytes; scratch_most: as many as it can use, where it is told how many there are (Room), 0 for no more than scratch.
    over: inputs whose bytes the answer may take over, the best first. lead: how many bytes before such an input it must then begin:
    its end is always behind what the kernel has yet to read.
    files: the runtime's .c files that hold the function and what it calls; header: the one that declares it. feature: that the
    machine must have for it, "" for none.
    few_bits, of_image: its twins for packed weights, and for an image that passes a table on its way.
    packing: makes of it the same call with packed weights, where they are of few bits and the kernel is a machine's own; it is told
    the bytes of what is read or of what is written, whichever are fewer.
    widen: makes of it the same call with weights that lie in flash as the processor wants them, where they are widened in scratch;
    wide: whether that was done.
    long: channels whose sums take the long way to a byte, of those that could take a short one (see rescaling.py); None where the
    kernel knows no short one.
    """

    kind: str
    function: str
    arguments: tuple[Argument, ...]
    writes: str
    files: tuple[str, ...]
    scratch: int = 0
    over: tuple[str, ...] = ()
    clamp: Clamp = "none"
    macs: int = 0
    source: str = ""
    scratch_most: int = 0
    few_bits: str = ""
    of_image: str = ""
    header: str = PORTABLE
    feature: str = ""
    lead: int = 0
    long: int | None = None
    packing: Callable[[Layer, int], Layer] | None = None
    widen: Callable[[Layer], Layer] | None = None
    wide: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        """Activations, each once, in the order of the arguments."""
        found = [read for argument in self.arguments for read in _reads(argument)]
        return tuple(dict.fromkeys(found))

    @property
    def constants(self) -> tuple[Constant, ...]:
        """Every array that the call needs, in the order of the arguments."""
        return tuple(constant for argument in self.arguments for constant in _constants(argument))


@dataclass(frozen=True)
class View:
    """The node's output is its input's bytes."""

    name: str
    of: str


@dataclass(frozen=True, eq=False)
class Program:
    """tensors: every activation, by name. aliases: name -> (of, offset), where a tensor's bytes are part of another's.

    embedding: what the head, or the network's own last dense layer, reads; the integer scores where there is no such layer.
    """

    layers: tuple[Layer, ...]
    tensors: Mapping[str, Tensor]
    aliases: Mapping[str, tuple[str, int]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    embedding: str

    def root(self, name: str) -> tuple[str, int]:
        """The tensor that a name's bytes lie in, and where."""
        offset = 0
        while name in self.aliases:
            name, further = self.aliases[name]
            offset += further
        return name, offset

    def sources(self, layer: Layer) -> tuple[int, ...]:
        """Numbers of the layers whose answers it reads, views and parts of concats resolved; -1 for the image."""
        found = [number for name in layer.reads for number in self._writers(name)]
        return tuple(dict.fromkeys(found))

    def _writers(self, name: str) -> tuple[int, ...]:
        root, first = self.root(name)
        if root in self.inputs:
            return (-1,)
        end = first + bytes_of(self.tensors[name])
        spans = [(*self.root(layer.writes), bytes_of(self.tensors[layer.writes])) for layer in self.layers]
        return tuple(i for i, (of, start, size) in enumerate(spans) if of == root and start < end and first < start + size)


def clamp_of(node: Node) -> Clamp:
    """The activation at the node's end."""
    clamp: Clamp = getattr(node.attrs, "clamp", "none")
    return clamp


def without_kernel(node: Node) -> UnsupportedOp:
    """What is to be raised for float arithmetic before the head."""
    where = f" ({node.source})" if node.source else ""
    return UnsupportedOp(f"{node.op} {node.name!r}{where} is in float, which the C target has no kernel for; .tflite works.")


def bytes_of(tensor: Tensor) -> int:
    """In memory."""
    return math.prod(tensor.shape) * (4 if tensor.dtype in ("float32", "int32") else 1)


def plane(tensor: Tensor) -> tuple[int, int, int]:
    """An activation's shape as (height, width, channels); missing sides are 1, sides beyond three are part of the height."""
    sides = (1, 1, *tensor.shape[1:])
    return math.prod(sides[:-2]), sides[-2], sides[-1]


def _reads(argument: Argument) -> tuple[str, ...]:
    if isinstance(argument, Parts):
        return tuple(operand.tensor for operand in argument.operands if isinstance(operand, Read))
    return (argument.tensor,) if isinstance(argument, Read) else ()


def _constants(value: Argument | Value) -> tuple[Constant, ...]:
    match value:
        case Constant():
            return (value,)
        case Pointers(targets=targets):
            return tuple(target for target in targets if target is not None)
        case Parts(operands=operands):
            return tuple(operand for operand in operands if isinstance(operand, Constant))
        case Struct(fields=fields):
            return tuple(constant for field in fields.values() for constant in _constants(field))
        case _:
            return ()
