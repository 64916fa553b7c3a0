"""Convolutions for 64-bit x86 and Arm (feature "host"): weights in groups of channels, one float a channel from sums to bytes.

    byte = clamp(nearest(float32(sum) * factor + addend, with the sum's sign) + zero)

is what these processors do in four instructions for many sums; product and addition are rounded once (fused), halves to even. The
reference rounds twice in integers, halves away from zero: that is what the addend stands for. Both grow with the sum, so they agree
everywhere exactly if they do where each byte begins: `ends` tries floats next to the true factor, each with addends that all bytes
of a channel have room for, until that is so. Where float32 is too coarse for that, a few sums may be left that this gives one too
near to zero: the kernel knows these, too. A channel with more of them goes the long way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
MOST_RUNS = 128  # NST_MOST_RUNS
EIGHT = 8  # channels of a depthwise convolution are a multiple of it
ELEMENT = 2  # bytes of a number, at most
AROUND = sorted(range(-8, 9), key=abs)  # how far a factor may be from the true one, in units in the last place
SHARED = 8  # weights of a channel, side by side, of which no two may be -128
LEAST = 1e-30  # a factor, where a channel answers one byte to everything: 0 means the long way
# Of the room for an addend, which parts are tried; where there is none, others may be right for all sums but a few.
PARTS = (0.5, 0.25, 0.75, 0.1, 0.9, -1.0, 2.0, -0.5, 1.5, 1.2, -0.2, 3.0, -2.0)
NONE = -(2**31)  # no sum is that
ODD_ONES = 3  # of a channel, at most
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
    return x.shape[3] == weight.shape[3] and _runs(node, graph) <= MOST_RUNS and _weights_are_symmetric(node, graph)


def takes_depthwise(node: Node, graph: Graph) -> bool:
    """As many channels out as in."""
    _, x, weight, y = windows.windowed(node, graph)
    same, taps = x.shape[3] == y.shape[3], math.prod(weight.shape[1:3])
    fits = windows.is_depthwise(node, graph) and same and x.shape[3] % EIGHT == 0 and taps <= MOST_RUNS
    return fits and _weights_are_symmetric(node, graph)


# ---- calls ----------------------------------------------------------------------------------------------------------------------


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_1x1."""
    _, x, weight, y = windows.windowed(node, graph)
    sums = sums_struct(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], 1, -1), in_fours)
    struct = Struct("nst_conv_1x1_host_layer", {"out": plane(y), "sums": sums})
    return layer(node, graph, "conv 1x1", variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_conv."""
    attrs, x, weight, y = windows.windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    sums = sums_struct(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], _runs(node, graph), -1), in_fours)
    struct = Struct("nst_conv_host_layer", {**windows.map_fields(attrs, size, x, y), "sums": sums})
    kind = windows.kind_of("conv", size, attrs.stride, attrs.dilation)
    return layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def depthwise(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_depthwise."""
    attrs, x, weight, y = windows.windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    sums = sums_struct(node, graph, windows.depthwise_weights(node, graph)[:, :, None], by_taps)
    struct = Struct("nst_depthwise_host_layer", {**windows.map_fields(attrs, size, x, y), "sums": sums})
    kind = windows.kind_of("depthwise", size, attrs.stride, attrs.dilation)
    return layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Crew()))


def sums_struct(node: Node, graph: Graph, weight: NDArray[np.int8], laid: Callable[[NDArray[np.int8]], Constant]) -> Struct:
    """nst_host_sums. weight: int8 [O, runs, depth]."""
    channels, runs, depth = weight.shape
    found = pack.sums(node, graph, weight.reshape(channels, -1))
    multiplier, exponent = pack.factors(node, graph, channels)
    short = ends(asked_of(node, graph, found), found.largest)
    short.factor[_may_wrap(weight)] = 0
    whole = -(-channels // GROUP) * GROUP
    of_bytes = found.bias - 128 * weight.astype(np.int64).sum(axis=(1, 2))

    odd_ones = int((short.odd != NONE).any(axis=1).sum())
    rows = (short.factor.view(np.int32), short.addend.view(np.int32), *short.odd[:odd_ones].astype(np.int32))

    def array(role: str, ctype: CType, *some: NDArray[Any]) -> Constant:
        data = np.zeros((len(some), whole), some[0].dtype)
        data[:, :channels] = some
        return Constant(role, ctype, data, data.shape if len(some) > 1 else (whole,))

    return Struct(
        "nst_host_sums",
        {
            "runs": runs,
            "depth": depth,
            "channels": channels,
            "weights": laid(weight),
            "bias": array("bias", "int32_t", found.bias.astype(np.int32)),
            "bias_of_bytes": array("bias_of_bytes", "int32_t", of_bytes.astype(np.int32)),
            "ends": array("ends", "int32_t", *rows),
            "odd_ones": odd_ones,
            "long_ones": int((short.factor == 0).sum()),
            "multiplier": array("multiplier", "int32_t", multiplier.astype(np.int32)),
            "shift": array("shift", "int8_t", pack.shifts(multiplier, exponent, found.largest).astype(np.int8)),
            "output": pack.output(graph.tensors[node.name], clamp_of(node)),
        },
    )


def _may_wrap(weight: NDArray[np.int8]) -> NDArray[np.bool_]:
    """[O]: whether two products might leave the 16 bits in which NEON adds up two of SHARED: only two of -128 by -128 do.

    weight: int8 [O, runs, depth], or of a depthwise convolution [O, taps, 1].
    """
    lines = weight.reshape(len(weight), 1, -1) if weight.shape[2] == 1 else weight
    least = np.pad(lines == -128, ((0, 0), (0, 0), (0, -lines.shape[2] % SHARED)))
    return np.asarray((least.reshape(len(weight), -1, SHARED).sum(axis=2) > 1).any(axis=1))


def in_fours(weight: NDArray[np.int8]) -> Constant:
    """int8 [O, runs, depth] as [(O + 15) / 16][runs][(depth + 3) / 4][16][4], zeros where there are none."""
    channels, runs, depth = weight.shape
    groups, fours = -(-channels // GROUP), -(-depth // FOUR)
    whole = np.zeros((groups * GROUP, runs, fours * FOUR), np.int8)
    whole[:channels, :, :depth] = weight
    data = whole.reshape(groups, GROUP, runs, fours, FOUR).transpose(0, 2, 3, 1, 4)
    return Constant("weights", "int8_t", np.ascontiguousarray(data), data.shape)


def by_taps(weight: NDArray[np.int8]) -> Constant:
    """int8 [C, taps, 1] as [taps][C]."""
    data = np.ascontiguousarray(weight[:, :, 0].T)
    return Constant("weights", "int8_t", data, data.shape)


def _runs(node: Node, graph: Graph) -> int:
    """Of a window: numbers that lie side by side in the map are one."""
    attrs, _, weight, _ = windows.windowed(node, graph)
    return weight.shape[1] * (1 if attrs.dilation[1] == 1 else weight.shape[2])


# ---- scratch --------------------------------------------------------------------------------------------------------------------


def up(value: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-value // to) * to


def pixels(node: Node, graph: Graph) -> int:
    """nst_conv_1x1_host's."""
    return BLOCK + ROWS * ELEMENT * up(graph.tensors[node.inputs[1]].shape[3], FOUR)


def rows(node: Node, graph: Graph) -> int:
    """nst_conv_host's."""
    return BLOCK + _rows(node, graph, phases=1)


def weights_and_rows(node: Node, graph: Graph) -> int:
    """nst_depthwise_host's."""
    attrs, x, weight, _ = windows.windowed(node, graph)
    taps = up(math.prod(weight.shape[1:3]), FOUR)
    ready = math.lcm(x.shape[3], BLOCK) * (2 * taps + 4 * (3 + ODD_ONES))
    return BLOCK + up(ready, BLOCK) + _rows(node, graph, attrs.stride[1])


def _rows(node: Node, graph: Graph, phases: int) -> int:
    """Of nst_rows.h: the rows that a window reaches, one of zeros, and one that is not divided yet."""
    attrs, x, weight, y = windows.windowed(node, graph)
    kept, reach = ((weight.shape[1 + i] - 1) * attrs.dilation[i] for i in (0, 1))
    wide = y.shape[2] + reach // phases if phases > 1 else (y.shape[2] - 1) * attrs.stride[1] + reach + 1
    return (kept + 2) * phases * up(wide * x.shape[3] * ELEMENT + 2 * BLOCK, BLOCK) + x.shape[2] * x.shape[3] * ELEMENT


# ---- from sums to bytes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Ends:
    """Of each channel, [O]: see above. factor: 0 where nothing was found.

    odd: the sums for which it is one further from zero, [ODD_ONES, O]; NONE where there are fewer.
    """

    factor: FLOAT32
    addend: FLOAT32
    odd: Int


def ends(asked: Asked, largest: Int) -> Ends:
    """What gives the reference's byte for every sum. largest: int64 [O], of the absolute values of a channel's sums."""
    real = np.maximum(asked.multiplier * 2.0 ** (asked.exponent - 31.0), LEAST)
    true = real.astype(np.float32)
    best = Ends(np.zeros_like(true), np.zeros_like(true), np.full((ODD_ONES, len(true)), NONE, np.int64))
    begins = thresholds(asked)
    fits = (begins[1] != UNKNOWN).all(axis=1) & (largest * real < 2.0**30) & (largest < 2**31)
    for odd_ones in range(ODD_ONES + 1):
        for step in AROUND:
            left = np.flatnonzero(fits & (best.factor == 0))
            if not len(left):
                break
            tried = (true[left].view(np.int32) + np.int32(step)).view(np.float32)
            for addend, odd, good in _addends(asked, begins, left, tried, odd_ones):
                best.factor[left[good]], best.addend[left[good]] = tried[good], addend[good]
                best.odd[:, left[good]] = odd[:, good]
    return best


def _addends(
    asked: Asked, begins: tuple[Int, Int], some: Int, factor: FLOAT32, odd_ones: int
) -> Iterator[tuple[FLOAT32, Int, NDArray[np.bool_]]]:
    """For the channels `some`: addends, with each the odd sums, and whether all others are right. odd_ones: most of a channel."""
    values, sums = begins[0] - asked.zero, begins[1][some]
    lowest, highest = asked.lowest[some, None], asked.highest[some, None]
    first, before, after = (np.clip(sums + more, lowest, highest) for more in (0, -1, 1))
    is_first, is_before = sums <= highest, sums > lowest  # whether there are such sums
    wide = factor[:, None].astype(np.float64)

    def room(of: Int) -> NDArray[np.float64]:
        """What is missing from a sum's product to the middle before the byte, in the direction of the sum's sign."""
        return (values - 0.5 - of.astype(np.float32) * wide) * np.where(of < 0, -1, 1)

    # of sums from 0 on the first must reach the middle, and the one before it must not; of negative ones it is the other way round
    least = np.where(is_first & (first >= 0), room(first), np.where(is_before & (before < 0), room(before), 0)).max(
        axis=1, initial=0
    )
    most = np.where(is_before & (before >= 0), room(before), np.where(is_first & (first < 0), room(first), 1)).min(
        axis=1, initial=1
    )
    for part in PARTS:
        addend = np.maximum(least + (most - least) * part, 0).astype(np.float32)

        def nearest(of: Int, addend: FLOAT32 = addend) -> NDArray[np.float64]:
            # float64 holds a product of two float32, and all that matters of its sum with a third; float32 then rounds it once
            signed = np.where(of < 0, -addend[:, None], addend[:, None]).astype(np.float64)
            return np.rint((of.astype(np.float32).astype(np.float64) * wide + signed).astype(np.float32)).astype(np.float64)

        # where the addend is too small, the first from 0 on is one too low, and the last negative one before it one too high
        low, high = is_first & (first >= 0) & (nearest(first) < values), is_before & (before < 0) & (nearest(before) >= values)
        right = (nearest(first) >= values) | ~is_first | low & (nearest(first) == values - 1) & (nearest(after) >= values)
        right &= (nearest(before) < values) | ~is_before | high & (nearest(before) == values) & (nearest(before - 1) < values)
        odd = np.sort(np.where(low, first, np.where(high, before, NONE)), axis=1)[:, ::-1].T
        padded = np.concatenate([odd, np.full((ODD_ONES, len(some)), NONE)])[:ODD_ONES]
        yield addend, padded, right.all(axis=1) & ((low | high).sum(axis=1) <= odd_ones)
