"""Weights of 4 or 2 bits as several in a byte: layers become calls of the kernels that unpack them first (runtime/nst_packed.h).

A program of 8-bit weights stays as it is. What is packed follows from the values alone; the answers stay the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from nestling.formats.c.kernels.layers import Constant, Layer, Program, Room, Scratch, Struct, Value, bytes_of
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
    def saved(self) -> int:
        """Bytes of flash."""
        return self.weights.bytes - packed.packed_size(self.weights.data.size, self.bits)

    @property
    def unpacked(self) -> int:
        """Bytes of scratch for all of them, a multiple of 4."""
        return -(-self.weights.bytes // 4) * 4


def with_packed_weights(program: Program, worth: int = WORTH) -> Program:
    """The program with its weights of few bits packed, kernel by kernel, where that saves `worth` bytes of constants or more."""
    found = {layer.writes: few for layer in program.layers if (few := _few(layer)) is not None}
    saved: Counter[str] = Counter()
    for layer in program.layers:
        if layer.writes in found:
            saved[_file(layer)] += found[layer.writes].saved
    chosen = {layer.writes for layer in program.layers if layer.writes in found and saved[_file(layer)] >= worth}
    layers = (_packed(layer, found[layer.writes], program) if layer.writes in chosen else layer for layer in program.layers)
    return replace(program, layers=tuple(layers))


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
    arguments = tuple(_with_packed(argument, few) if isinstance(argument, Struct) else argument for argument in layer.arguments)
    return replace(
        layer,
        kind=f"{layer.kind}, {few.bits}-bit weights",
        function=layer.few_bits,
        arguments=(*arguments, *scratch, *((Room(),) if parts else ()), few.bits),
        files=(*layer.files, _file(layer), SHARED),
        scratch=least,
        scratch_most=whole,
        over=over,
        header=HEADER,
        few_bits="",  # packed weights may look like ones of few bits: they are not packed again
    )


def _file(layer: Layer) -> str:
    """Where its twin is."""
    return LIES_IN.get(layer.few_bits, f"{layer.few_bits}.c")


def _smaller(layer: Layer, program: Program) -> int:
    """Bytes of what it reads or of what it writes, whichever are fewer."""
    return min(bytes_of(program.tensors[name]) for name in (*layer.reads, layer.writes))


def _with_packed(struct: Struct, few: Few) -> Struct:
    """The struct with the packed weights in the place of the whole ones."""

    def made(field: Value) -> Value:
        if field is few.weights:
            return replace(few.weights, data=packed.pack(few.weights.data, few.bits).view(np.int8), bits=few.bits)
        return _with_packed(field, few) if isinstance(field, Struct) else field

    return replace(struct, fields={name: made(field) for name, field in struct.fields.items()})
