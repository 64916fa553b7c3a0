"""Weights of 4 or 2 bits as several in a byte: layers become calls of the kernels that unpack them first (runtime/nst_packed.h).

Kernels of a machine's own have twins of theirs (Layer.packing), or unpack such weights themselves (dsp_convolutions.py).
A program of 8-bit weights stays as it is. What is packed follows from the values alone; the answers stay the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from nestling.formats.c.kernels.layers import Argument, Constant, Layer, Program, Room, Scratch, Struct, Value, bytes_of
from nestling.graph import packed

WORTH = 768  # bytes of flash that a kernel's layers must save together: more than it takes with nst_packed.c, on any machine
SHARED, HEADER = "nst_packed.c", "nst_packed.h"
IN_PARTS = ("nst_conv_1x1_packed", "nst_conv_packed", "nst_fully_connected_packed")  # some channels after the others: nst_packed.h
LIES_IN = {"nst_conv_image_packed": "nst_conv_packed.c"}  # of twins without a file of their own
ONE_GROUP = 3  # sides of a layout, [rows][depth][4]; several groups, which have one more, are unpacked all at once


@dataclass(frozen=True, eq=False)
class Few:
    """A layer's weights and the bits that each of them needs."""

    weights: Constant
    bits: int

    @property
    def unpacked(self) -> int:
        """Bytes of scratch for all of them, a multiple of 4."""
        return -(-self.weights.bytes // 4) * 4


def with_packed_weights(program: Program, worth: int = WORTH) -> Program:
    """The program with its weights of few bits packed, kernel by kernel, where that saves `worth` bytes of constants or more."""
    found = {layer.writes: twin for layer in program.layers if (twin := _twin(layer, program)) is not None}
    saved: Counter[str] = Counter()
    for layer in program.layers:
        if layer.writes in found:
            saved[_file(found[layer.writes])] += _bytes(layer) - _bytes(found[layer.writes])
    chosen = {name: twin for name, twin in found.items() if saved[_file(twin)] >= worth}
    return replace(program, layers=tuple(chosen.get(layer.writes, layer) for layer in program.layers))


def _bytes(layer: Layer) -> int:
    return sum(constant.bytes for constant in layer.constants)


def _twin(layer: Layer, program: Program) -> Layer | None:
    if layer.packing is not None:
        return layer.packing(layer, _smaller(layer, program))
    few = _few(layer)
    return None if few is None else _packed(layer, few, program)


def _few(layer: Layer) -> Few | None:
    if not layer.few_bits:
        return None
    weights = next(constant for constant in layer.constants if constant.role == "weights")
    bits = packed.bits_for(weights.data)
    return Few(weights, bits) if bits in packed.FEW else None


def _packed(layer: Layer, few: Few, program: Program) -> Layer:
    """The call of the twin.

    Over its input a 1x1 convolution can only write with all of its weights unpacked. Where these take more than a place of its own
    for the answer does, it writes there, and unpacks as many at once as the arena has room for (see plan.py).
    """
    whole, parts = layer.scratch + few.unpacked, layer.few_bits in IN_PARTS
    least, over = whole, layer.over
    if parts and len(few.weights.layout) == ONE_GROUP and not (over and few.unpacked <= _smaller(layer, program)):
        least, over = layer.scratch + 4 * few.weights.layout[1], ()
    scratch = () if Scratch() in layer.arguments else (Scratch(),)
    arguments = _with(layer, few.weights, in_bits(few.weights, few.bits))
    return replace(
        layer,
        kind=with_bits(layer.kind, few.bits),
        function=layer.few_bits,
        arguments=(*arguments, *scratch, *((Room(),) if parts else ()), few.bits),
        files=(*layer.files, LIES_IN.get(layer.few_bits, f"{layer.few_bits}.c"), SHARED),
        scratch=least,
        scratch_most=whole,
        over=over,
        header=HEADER,
        few_bits="",  # packed weights may look like ones of few bits: they are not packed again
    )


def _file(twin: Layer) -> str:
    """Where it is; of twins of a machine's own its function, which two may share a file with."""
    return LIES_IN.get(twin.function, f"{twin.function}.c")


def _smaller(layer: Layer, program: Program) -> int:
    """Bytes of what it reads or of what it writes, whichever are fewer."""
    return min(bytes_of(program.tensors[name]) for name in (*layer.reads, layer.writes))


def _with(layer: Layer, old: Constant, new: Constant) -> tuple[Argument, ...]:
    """Its arguments with a constant in the place of another."""

    def made(struct: Struct) -> Struct:
        return replace(struct, fields={name: of_field(field) for name, field in struct.fields.items()})

    def of_field(field: Value) -> Value:
        return new if field is old else made(field) if isinstance(field, Struct) else field

    return tuple(made(argument) if isinstance(argument, Struct) else argument for argument in layer.arguments)


@dataclass(frozen=True, eq=False)
class Unpacked:
    """What a kernel of a machine's own takes of a layer with packed weights.

    whole, packed: its constant as it is and packed. numbers: further arguments, of which the last is bits. all, least: bytes of
    scratch that unpacked weights take, those of all channels and those of as few as can be computed at once. files: further ones.
    """

    whole: Constant
    packed: Constant
    numbers: tuple[int, ...]
    all: int
    least: int
    files: tuple[str, ...]


def packed_twin(layer: Layer, smaller: int, found: Unpacked) -> Layer:
    """The call of the twin: as many channels at once as the arena has room for, all of them where it writes over its input.

    smaller: as in Layer.packing. Where all weights unpacked are more, the answer gets a place of its own.
    """
    bits = found.numbers[-1]
    over = layer.over if found.all <= smaller else ()
    return replace(
        layer,
        kind=with_bits(layer.kind, bits),
        function=f"{layer.function}_packed",
        arguments=(*_with(layer, found.whole, found.packed), Room(), *found.numbers),
        files=(*layer.files, *found.files),
        scratch=layer.scratch + (found.all if over else found.least),
        scratch_most=layer.scratch + found.all,
        over=over,
        packing=None,
    )


def in_bits(weights: Constant, bits: int) -> Constant:
    """The same constant, several weights in a byte where they have few bits."""
    if bits not in packed.FEW:
        return weights
    return replace(weights, data=packed.pack(weights.data, bits).view(np.int8), bits=bits)


def with_bits(kind: str, bits: int) -> str:
    """A layer's kind in words, of weights of so many bits."""
    return f"{kind}, {bits}-bit weights" if bits in packed.FEW else kind
