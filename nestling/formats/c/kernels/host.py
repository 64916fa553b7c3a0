"""Convolutions for 64-bit x86 and Arm (feature "host"): weights in groups of channels, one float a channel from sums to bytes.

    byte = clamp(nearest(float32(sum) * factor + zero))

is what these processors do in three instructions for sixteen sums; the product and the sum are rounded once (fused), halves to even.
The reference rounds twice in integers, halves away from zero. Both grow with the sum, so they agree everywhere exactly if they do
where each byte begins: `factors` tries floats next to the true factor until one does. A channel without one goes the long way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import windows
from nestling.formats.c.kernels.layers import Constant, Crew, CType, Layer, Read, Scratch, Struct, Written, clamp_of, plane
from nestling.formats.c.kernels.rescaling import UNKNOWN, Asked, asked_of, thresholds
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node

GROUP, FOUR = 16, 4  # channels side by side, and weights of each
ROWS, BLOCK = 32, 64  # NST_ROWS, NST_BLOCK
MOST_TAPS = 128  # NST_MOST_TAPS
EIGHT = 8  # channels of a depthwise convolution are a multiple of it
ELEMENT = 2  # bytes of a number, at most
AROUND = sorted(range(-64, 65), key=abs)  # how far a factor may be from the true one, in units in the last place
LEAST = 1e-30  # a factor, where a channel answers one byte to everything: 0 means the long way
FLOAT32 = NDArray[np.float32]


# ---- which nodes ----------------------------------------------------------------------------------------------------------------


def _weights_are_symmetric(node: Node, graph: Graph) -> bool:
    return pack.zero_point(graph.tensors[node.inputs[1]]) == 0


def takes_1x1(node: Node, graph: Graph) -> bool:
    """A matrix product of weights around zero."""
    return windows.is_1x1(node, graph) and _weights_are_symmetric(node, graph)


def takes_conv(node: Node, graph: Graph) -> bool:
    """One group."""
    _, x, weight, _ = windows.windowed(node, graph)
    return x.shape[3] == weight.shape[3] and weight.shape[1] <= MOST_TAPS and _weights_are_symmetric(node, graph)


def takes_depthwise(node: Node, graph: Graph) -> bool:
    """As many channels out as in."""
    _, x, weight, y = windows.windowed(node, graph)
    same, taps = x.shape[3] == y.shape[3], math.prod(weight.shape[1:3])
    fits = windows.is_depthwise(node, graph) and same and x.shape[3] % EIGHT == 0 and taps <= MOST_TAPS
    return fits and _weights_are_symmetric(node, graph)


# ---- calls ----------------------------------------------------------------------------------------------------------------------


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_1x1."""
    _, x, weight, y = windows.windowed(node, graph)
    sums = _sums(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1), in_fours)
    struct = Struct("nst_conv_1x1_host_layer", {"out": plane(y), "sums": sums})
    return layer(node, graph, "conv 1x1", variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_conv."""
    attrs, x, weight, y = windows.windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    sums = _sums(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1), in_fours)
    struct = Struct("nst_conv_host_layer", {**windows.map_fields(attrs, size, x, y), "sums": sums})
    kind = windows.kind_of("conv", size, attrs.stride, attrs.dilation)
    return layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def depthwise(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_depthwise."""
    attrs, x, weight, y = windows.windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    sums = _sums(node, graph, windows.depthwise_weights(node, graph), by_taps)
    struct = Struct("nst_depthwise_host_layer", {**windows.map_fields(attrs, size, x, y), "sums": sums})
    kind = windows.kind_of("depthwise", size, attrs.stride, attrs.dilation)
    return layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def _sums(node: Node, graph: Graph, weight: NDArray[np.int8], laid: Callable[[NDArray[np.int8]], Constant]) -> Struct:
    """nst_host_sums. weight: int8 [O, K]."""
    found = pack.sums(node, graph, weight)
    channels, depth = weight.shape
    multiplier, exponent = pack.factors(node, graph, channels)
    factor = factors(asked_of(node, graph, found), found.largest)
    whole = -(-channels // GROUP) * GROUP
    of_bytes = found.bias - 128 * weight.astype(np.int64).sum(axis=1)

    def array(role: str, ctype: CType, values: NDArray[Any]) -> Constant:
        data = np.zeros(whole, values.dtype)
        data[:channels] = values
        return Constant(role, ctype, data, (whole,))

    return Struct(
        "nst_host_sums",
        {
            "depth": depth,
            "channels": channels,
            "weights": laid(weight),
            "bias": array("bias", "int32_t", found.bias.astype(np.int32)),
            "bias_of_bytes": array("bias_of_bytes", "int32_t", of_bytes.astype(np.int32)),
            "factor": array("factor", "float", factor),
            "multiplier": array("multiplier", "int32_t", multiplier.astype(np.int32)),
            "shift": array("shift", "int8_t", pack.shifts(multiplier, exponent, found.largest).astype(np.int8)),
            "long_ones": int((factor == 0).sum()),
            "output": pack.output(graph.tensors[node.name], clamp_of(node)),
        },
    )


def in_fours(weight: NDArray[np.int8]) -> Constant:
    """int8 [O, K] as [(O + 15) / 16][(K + 3) / 4][16][4], zeros where there are none."""
    channels, depth = weight.shape
    groups, fours = -(-channels // GROUP), -(-depth // FOUR)
    whole = np.zeros((groups * GROUP, fours * FOUR), np.int8)
    whole[:channels, :depth] = weight
    data = whole.reshape(groups, GROUP, fours, FOUR).transpose(0, 2, 1, 3)
    return Constant("weights", "int8_t", np.ascontiguousarray(data), (groups, fours, GROUP, FOUR))


def by_taps(weight: NDArray[np.int8]) -> Constant:
    """int8 [C, taps] as [taps][C]."""
    data = np.ascontiguousarray(weight.T)
    return Constant("weights", "int8_t", data, data.shape)


# ---- scratch --------------------------------------------------------------------------------------------------------------------


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


def pixels(node: Node, graph: Graph) -> int:
    """nst_conv_1x1_host's."""
    return BLOCK + ROWS * ELEMENT * _up(graph.tensors[node.inputs[1]].shape[3], FOUR)


def patches(node: Node, graph: Graph) -> int:
    """nst_conv_host's: patches, rows, and one of an image that was looked up."""
    _, x, weight, _ = windows.windowed(node, graph)
    rows = ROWS * ELEMENT * _up(math.prod(weight.shape[1:]), FOUR)
    return BLOCK + _up(rows + BLOCK, BLOCK) + _rows(node, graph, phases=1) + x.shape[2] * x.shape[3]


def weights_and_rows(node: Node, graph: Graph) -> int:
    """nst_depthwise_host's."""
    attrs, x, weight, _ = windows.windowed(node, graph)
    taps = _up(math.prod(weight.shape[1:3]), FOUR)
    return BLOCK + _up(math.lcm(x.shape[3], BLOCK) * (2 * taps + 8), BLOCK) + _rows(node, graph, attrs.stride[1])


def _rows(node: Node, graph: Graph, phases: int) -> int:
    """Of nst_rows.h: the rows that a window reaches, and one of zeros."""
    attrs, x, weight, y = windows.windowed(node, graph)
    kept, reach = ((weight.shape[1 + i] - 1) * attrs.dilation[i] for i in (0, 1))
    wide = y.shape[2] + reach // phases if phases > 1 else (y.shape[2] - 1) * attrs.stride[1] + reach + 1
    return (kept + 2) * phases * _up(wide * x.shape[3] * ELEMENT + 2 * BLOCK, BLOCK)


# ---- from sums to bytes ---------------------------------------------------------------------------------------------------------


def factors(asked: Asked, largest: Int) -> FLOAT32:
    """[O]: of each channel the float nearest to its factor that gives the reference's byte for every sum; 0 where none was found.

    largest: int64 [O], of the absolute values of a channel's sums.
    """
    real = asked.multiplier * 2.0 ** (asked.exponent - 31.0)
    true = np.maximum(real, LEAST).astype(np.float32)
    best = np.zeros(len(true), np.float32)
    begins = thresholds(asked)
    settled = (begins[1] != UNKNOWN).all(axis=1) & (largest * np.abs(real) < 2.0**30) & (largest < 2**31)
    for step in AROUND:
        missing = np.flatnonzero(settled & (best == 0))
        if not len(missing):
            break
        tried = (true[missing].view(np.int32) + np.int32(step)).view(np.float32)
        good = _agree(asked, begins, missing, tried)
        best[missing[good]] = tried[good]
    return best


def _agree(asked: Asked, begins: tuple[Int, Int], some: Int, factor: FLOAT32) -> NDArray[np.bool_]:
    """Whether each byte begins where it should, for the channels `some`."""
    values, sums = begins[0], begins[1][some]
    lowest, highest = asked.lowest[some, None], asked.highest[some, None]

    def nearest(of: Int) -> NDArray[np.float64]:
        # float64 holds a product of two float32 exactly, and with a zero point added all that matter here; float32 rounds it once
        fused = of.astype(np.float32).astype(np.float64) * factor[:, None].astype(np.float64) + asked.zero
        return np.rint(fused.astype(np.float32)).astype(np.float64)

    reached = (nearest(np.clip(sums, lowest, highest)) >= values) | (sums > highest)
    before = (nearest(np.clip(sums - 1, lowest, highest)) < values) | (sums <= lowest)
    return np.asarray((reached & before).all(axis=1))
