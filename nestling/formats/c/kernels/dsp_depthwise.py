"""Depthwise convolutions for Cortex-M4 and M7: runtime/dsp/nst_depthwise_dsp.h. (node, graph, variant) -> Layer; see table.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import rescaling, windows
from nestling.formats.c.kernels.few_bits import in_bits, with_bits
from nestling.formats.c.kernels.layers import Constant, Layer, Room, Struct, Value
from nestling.formats.c.kernels.rescaling import Short
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import packed
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node

BITS, FURTHER = 10, 4  # NST_DSP_BITS, NST_DSP_FURTHER
FINE, NEGATIVE = 16, 32  # NST_DSP_FINE, NST_DSP_NEGATIVE
LONG = -1  # the way of channels that are not proven
SIDE = 6  # NST_DSP_SIDE
SELDOM = 2  # one channel in so many may take the long way, which is a little slower than the portable kernel


def is_depthwise_of(size: int) -> Callable[[Node, Graph], bool]:
    """With a window of so many rows and columns, and what else the kernel wants.

    The borders and the width are such that a channel's answers never lie on rows that are yet to be read.
    """

    def takes(node: Node, graph: Graph) -> bool:
        attrs, x, weight, y = windows.windowed(node, graph)
        window = (*weight.shape[1:3], *attrs.dilation) == (size, size, 1, 1) and attrs.stride[1] <= 2
        borders = attrs.padding[0] < size and attrs.padding[2] < size and y.shape[2] <= x.shape[2]
        if not (window and borders and windows.is_depthwise(node, graph) and x.shape[3] == y.shape[3]):
            return False
        found = windows.depthwise_sums(node, graph)
        if found.weight_zero:
            return False
        long = ~_quick(node, graph, found).proven
        return bool(long.sum() * SELDOM <= len(long))

    return takes


def depthwise(node: Node, graph: Graph, variant: Variant) -> Layer:
    """As the portable one, with the constants of short rescaling in the place of nst_sums."""
    made = windows.depthwise(node, graph, variant)
    found = windows.depthwise_sums(node, graph)
    quick = _quick(node, graph, found)
    read, struct, *rest = made.arguments
    assert isinstance(struct, Struct)
    sums = struct.fields["sums"]
    assert isinstance(sums, Struct)
    bits, weights = packed.bits_for(found.weight), sums.fields["weights"]
    assert isinstance(weights, Constant)
    values: dict[str, Value] = {name: struct.fields[name] for name in ("in", "out", "window", "in_zero")}
    values |= {
        "bits": bits,
        "weights": in_bits(weights, bits),
        "bias": _constant("bias", found.bias + quick.start),
        "multiplier": _constant("multiplier", _either(quick, quick.multiplier, sums.fields["multiplier"])),
        "addend": _constant("addend", _either(quick, quick.addend, sums.fields["shift"])),
        "way": Constant("way", "int8_t", _ways(quick).astype(np.int8), quick.proven.shape),
        "output": sums.fields["output"],
    }
    return replace(
        made,
        kind=with_bits(made.kind, bits),
        arguments=(read, Struct("nst_depthwise_dsp_layer", values), *rest, Room()),
        scratch_most=_bytes(node, graph, graph.tensors[node.name].shape[1]),
        long=int((~quick.proven).sum()),
    )


def scratch(node: Node, graph: Graph) -> int:
    """No more than the portable kernel takes: the rows of one window at least, a whole plane at most."""
    whole = _bytes(node, graph, graph.tensors[node.name].shape[1])
    return min(max(windows.plane_bytes(node, graph), _bytes(node, graph, 1)), whole)


def _bytes(node: Node, graph: Graph, rows: int) -> int:
    """Scratch for so many rows of the answer at once: see nst_dsp_plane_in()."""
    attrs, _, weight, y = windows.windowed(node, graph)
    columns = -(-y.shape[2] // SIDE) * SIDE
    height = (rows - 1) * attrs.stride[0] + weight.shape[1]
    return 2 * (columns * attrs.stride[1] + weight.shape[2] - 1) * height + columns


@dataclass(frozen=True, eq=False)
class Quick(Short):
    """fine: in which channels FURTHER bits more are needed."""

    fine: NDArray[np.bool_]


def _quick(node: Node, graph: Graph, found: pack.Sums) -> Quick:
    """The short form, with few bits where it is proven with them; start is 0 in channels that take the long way.

    The fewer bits, the more channels have weights that fit into 16 bits with them; the more bits, the smaller may multipliers be.
    """
    few, many = (_fitting(rescaling.short(node, graph, found, bits), found) for bits in (BITS, BITS + FURTHER))
    merged = {field.name: np.where(few.proven, getattr(few, field.name), getattr(many, field.name)) for field in fields(Short)}
    quick = Quick(**merged, fine=many.proven & ~few.proven)
    return replace(quick, start=np.where(quick.proven, quick.start, 0))


def _fitting(short: Short, found: pack.Sums) -> Short:
    wide = found.weight.astype(np.int64) << short.left[:, None]
    fits = (wide.min(axis=1) >= -(2**15)) & (wide.max(axis=1) < 2**15) & (short.left < FINE)
    return replace(short, proven=short.proven & fits)


def _ways(quick: Quick) -> Int:
    power = np.left_shift(1, np.maximum(quick.left - 1, 0))
    assert ((quick.negative == 0) | (quick.negative == power)).all()
    return np.where(quick.proven, quick.left + FINE * quick.fine + NEGATIVE * (quick.negative > 0), LONG)


def _either(quick: Quick, short: Int, long: Value) -> Int:
    """The short form's number where it is taken, else what nst_scaled() wants."""
    assert isinstance(long, Constant)
    return np.where(quick.proven, short, long.data)


def _constant(role: str, values: Int) -> Constant:
    return Constant(role, "int32_t", values.astype(np.int32), values.shape)
