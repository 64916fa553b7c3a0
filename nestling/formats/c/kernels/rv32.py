"""Layers for RV32IM without vectors: two pixels in one multiplication. See runtime/rv32/nst_rv32.h, and table.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import rescaling
from nestling.formats.c.kernels.constants import SIDE_BY_SIDE, Sums
from nestling.formats.c.kernels.few_bits import Unpacked, packed_twin
from nestling.formats.c.kernels.layers import Constant, Layer, Read, Scratch, Struct, Whole, Written, clamp_of, plane
from nestling.formats.c.kernels.variant import Variant, Weights, layer
from nestling.formats.c.kernels.windows import (
    behind,
    depthwise,
    depthwise_sums,
    is_1x1,
    is_depthwise,
    kind_of,
    map_fields,
    windowed,
)
from nestling.graph import packed
from nestling.graph.ir import Graph, Node

LARGEST = 255  # what a block's weights may add up to in absolute values: 128 times that stays within 16 bits
LONGEST = 16  # weights a block
WORTH_A_STEP = 3  # so many zeros in a row cost as much as another block
FURTHEST = 127  # zeros that one byte says
NEGATIVE, LONG = 1 << 10, 1 << 11  # flags in a channel's ending, see runtime/rv32/nst_ending_rv32.h


def symmetric(node: Node, graph: Graph) -> bool:
    """Weights without a zero point."""
    return pack.zero_point(graph.tensors[node.inputs[1]]) == 0


def takes_1x1(node: Node, graph: Graph) -> bool:
    """A matrix product, of such weights."""
    return is_1x1(node, graph) and symmetric(node, graph)


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See windows.conv_1x1."""
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1))
    sums, long = sums_struct(node, graph, found, variant.pack)
    struct = Struct("nst_conv_1x1_rv32_layer", {"out": plane(y), "sums": sums})
    arguments = (Read(x.name), struct, Written(), Scratch(), Whole())
    return replace(layer(node, graph, "conv 1x1", variant, arguments, (x.name,)), long=long, packing=_packing(found))


def two_depth_words(node: Node, graph: Graph) -> int:
    """nst_conv_1x1_rv32's scratch."""
    return 8 * graph.tensors[node.inputs[1]].shape[3]


def takes_conv(node: Node, graph: Graph) -> bool:
    """One group, columns side by side, of such weights."""
    attrs, x, weight, _ = windowed(node, graph)
    return x.shape[3] == weight.shape[3] and attrs.dilation[1] == 1 and symmetric(node, graph)


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See windows.conv."""
    attrs, x, weight, y = windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1))
    sums, long = sums_struct(node, graph, found, variant.pack)
    struct = Struct("nst_conv_rv32_layer", {**map_fields(attrs, size, x, y), "groups": 1, "sums": sums})
    arguments = (Read(x.name), struct, Written(), Scratch(), Whole())
    made = layer(node, graph, kind_of("conv", size, attrs.stride, attrs.dilation), variant, arguments)
    return behind(replace(made, long=long, packing=_packing(found)), node, graph)


def four_patches(node: Node, graph: Graph) -> int:
    """nst_conv_rv32's scratch."""
    attrs, x, weight, _ = windowed(node, graph)
    return 8 * math.prod(weight.shape[1:]) + (3 * attrs.stride[1] + weight.shape[2]) * x.shape[3]


def takes_depthwise_3(node: Node, graph: Graph) -> bool:
    """Windows of 3 x 3 that are not dilated, at most two columns apart."""
    attrs, _, weight, _ = windowed(node, graph)
    usual = weight.shape[1:3] == (3, 3) and attrs.dilation == (1, 1) and attrs.stride[1] <= 2
    return usual and is_depthwise(node, graph) and symmetric(node, graph)


def depthwise_3(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See windows.depthwise."""
    made = depthwise(node, graph, variant)
    attrs, x, _, y = windowed(node, graph)
    sums, long = sums_struct(node, graph, depthwise_sums(node, graph), variant.pack)
    struct = Struct("nst_depthwise_rv32_layer", {**map_fields(attrs, (3, 3), x, y), "sums": sums})
    return replace(made, arguments=(made.arguments[0], struct, *made.arguments[2:]), long=long)


# ---- weights --------------------------------------------------------------------------------------------------------------------


def in_blocks(weight: Weights, groups: int) -> Constant:
    """int8 [O, K] of one group as nst_rv32_sums has them."""
    assert groups == 1
    channels, depth = weight.shape
    fours = -(-channels // SIDE_BY_SIDE)
    whole = np.zeros((fours * SIDE_BY_SIDE, depth), np.int8)
    whole[:channels] = weight
    data = np.array([byte for four in whole.reshape(fours, SIDE_BY_SIDE, depth) for byte in _stream(four)], np.int8)
    return Constant("weights", "int8_t", data, data.shape)


def _stream(four: NDArray[np.int8]) -> list[int]:
    """Four channels' weights, int8 [4, K], in blocks; a negative number says how many zeros, of all four, are stepped over."""
    found: list[int] = []
    at = 0
    for first, end in blocks(four):
        for done in range(at, first, FURTHEST):
            found.append(-min(first - done, FURTHEST))
        found += [end - first, *four[:, first:end].T.reshape(-1).tolist()]
        at = end
    return [*found, 0]


def blocks(four: NDArray[np.int8]) -> list[tuple[int, int]]:
    """(first, end) of each, as long as it may be. There is one at least."""
    found: list[tuple[int, int]] = []
    first, end, sums = 0, 0, np.zeros(len(four), np.int64)
    sizes = np.abs(four.astype(np.int64))
    for k in np.flatnonzero(sizes.any(axis=0)).tolist():
        more = sums + sizes[:, k]
        if k - end >= WORTH_A_STEP or k - first >= LONGEST or more.max() > LARGEST:
            found += [(first, end)] if end else []
            first, more = k, sizes[:, k]
        end, sums = k + 1, more
    return [*found, (first, max(end, 1))]


def _packing(found: Sums) -> Callable[[Layer, int], Layer] | None:
    bits = packed.bits_for(found.weight)
    return partial(_packed, bits=bits) if bits in packed.FEW else None


def _packed(made: Layer, smaller: int, bits: int) -> Layer:
    """Its call with the weights of blocks packed, what stands between them as it is."""
    whole = next(constant for constant in made.constants if constant.role == "weights")
    data, kept, fours = np.asarray(whole.data, np.int8), [], [0]
    at = 0
    while at < len(data):
        count = SIDE_BY_SIDE * max(int(data[at]), 0)
        kept += [data[at : at + 1], packed.pack(data[at + 1 : at + 1 + count], bits).view(np.int8)]
        fours += [] if data[at] else [at + 1]
        at += 1 + count
    stored = np.concatenate(kept)
    constant = Constant("weights", "int8_t", stored, stored.shape)
    most = int(np.diff(fours).max())
    files = (f"rv32/{made.function.replace('_image', '')}_packed.c", "rv32/nst_packed_rv32.c", "nst_packed.c")
    return packed_twin(made, smaller, Unpacked(whole, constant, (most, bits), most * (len(fours) - 1), most, files))


# ---- endings --------------------------------------------------------------------------------------------------------------------


def sums_struct(node: Node, graph: Graph, found: Sums, laid: Callable[[Weights, int], Constant]) -> tuple[Struct, int]:
    """nst_rv32_sums, and how many of its channels take the long way. laid: see Variant.pack."""
    y = graph.tensors[node.name]
    short = rescaling.short(node, graph, found)
    dead = short.proven & (short.multiplier == 0) & (short.negative == 0)
    three, long = endings(node, graph, found, short)
    weights = laid(np.where(dead[:, None], np.int8(0), found.weight), 1)
    fields = {
        "depth": found.weight.shape[1],
        "channels": len(found.weight),
        "weights": weights,
        "endings": Constant("endings", "int32_t", three, three.shape),
        "output": pack.output(y, clamp_of(node)),
    }
    return Struct("nst_rv32_sums", fields), long


def endings(node: Node, graph: Graph, found: Sums, short: rescaling.Short) -> tuple[NDArray[np.int32], int]:
    """int32 [O, 3] as nst_rv32_ending_of() takes them apart, and how many channels take the long way.

    Where one byte is the answer to everything (multiplier 0) it comes from the bias alone: the weights are to be 0.
    """
    y = graph.tensors[node.name]
    multiplier, exponent = pack.factors(node, graph, len(found.bias))
    shift = pack.shifts(multiplier, exponent, found.largest)
    zero, (low, high) = pack.zero_point(y), pack.ends(node, graph)
    own = short.addend - (zero << rescaling.SHIFT) - (1 << rescaling.SHIFT - 1)
    proven = short.proven & (np.abs(own) < 1 << 15) & _counted_from(low, short, found)
    power = np.round(np.log2(np.maximum(short.negative, 1))).astype(np.int64)
    flags = np.where(short.negative > 0, NEGATIVE | power << 5, 0) | short.left
    rest = np.where(proven, own << 16 | flags, shift << 16 | LONG)
    bias, multiplier = found.bias + np.where(proven, short.start, 0), np.where(proven, short.multiplier, multiplier)
    dead = short.proven & (short.multiplier == 0) & (short.negative == 0)
    steps = np.clip(short.addend >> rescaling.SHIFT, low, high) - zero << rescaling.SHIFT
    rows = np.where(dead, [steps * 4, np.full_like(steps, 1 << 30), np.zeros_like(steps)], [bias, multiplier, rest])
    return rows.T.astype(np.int32), int((~proven & ~dead).sum())


def _counted_from(low: int, short: rescaling.Short, found: Sums) -> NDArray[np.bool_]:
    """Whether no sum leaves 32 bits where bytes are counted from low, and no part of one where weights are shifted: bool [O]."""
    parts = 128 * np.abs(found.weight.astype(np.int64)).sum(axis=1) << short.left
    return np.asarray(rescaling.counted_from(low, short, found) & (parts < 2**31))
