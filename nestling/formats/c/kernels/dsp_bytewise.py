"""Adds, pools and means for Cortex-M4 and M7. (node, graph, variant) -> Layer; see table.py."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nestling.formats.c.kernels import bytewise, sums
from nestling.formats.c.kernels.bytewise import EVERY
from nestling.formats.c.kernels.constants import quant_of, scale, zero_point
from nestling.formats.c.kernels.layers import Layer, Room, Scratch, Struct, Value, clamp_of
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import ir, reference
from nestling.graph.fixed_point import clamp_range, multiply, quantize_multiplier
from nestling.graph.ir import Graph, Node

BITS = 18  # of nst_add_dsp.c
MOST_LEFT = 3  # bits that sums of two terms, which stay below 2^28, may be moved up
TABLE = 4 * 256  # bytes
LEAST = 4  # of scratch, without a table
MOST = 255  # bytes that a sum of 16 bits holds
AT_ONCE = 4  # neighbours
PORTABLE_MEAN = Variant("nst_mean", sums.mean)


@dataclass(frozen=True)
class Ending:
    """How nst_add_dsp makes a byte of a sum of two terms."""

    left: int
    multiplier: int
    addend: int


def takes_add(node: Node, graph: Graph) -> bool:
    """Two operands of one shape, and the short way is proven for all bytes that they may have."""
    shapes = [graph.tensors[name].shape for name in (*node.inputs, node.name)]
    return shapes[0] == shapes[1] == shapes[2] and _ending(node, graph) is not None


def add(node: Node, graph: Graph, variant: Variant) -> Layer:
    """As the portable one, with its last rescaling the short way."""
    made, ending = bytewise.add(node, graph, variant), _ending(node, graph)
    *operands, struct, written = made.arguments
    assert ending is not None and isinstance(struct, Struct)
    fields: dict[str, Value] = {"count": math.prod(graph.tensors[node.name].shape)}
    fields |= {name: struct.fields[name] for name in ("a_zero", "b_zero", "b_left", "b_multiplier", "b_shift")}
    fields |= {"left": ending.left, "multiplier": ending.multiplier, "addend": ending.addend, "output": struct.fields["output"]}
    arguments = (*operands, Struct("nst_add_dsp_layer", fields), written, Scratch(), Room())
    return replace(made, arguments=arguments, scratch=LEAST, scratch_most=TABLE)


def takes_pool(node: Node, graph: Graph) -> bool:
    """Of few places, and of channels enough."""
    assert isinstance(node.attrs, ir.AveragePool | ir.MaxPool)
    return math.prod(node.attrs.size) <= MOST and graph.tensors[node.name].shape[3] >= AT_ONCE


def takes_mean(node: Node, graph: Graph) -> bool:
    """Of rows, as nst_mean_dsp has them."""
    struct = sums.mean(node, graph, PORTABLE_MEAN).arguments[1]
    assert isinstance(struct, Struct)
    size = struct.fields["size"]
    assert isinstance(size, tuple)
    return size[1] <= MOST and size[3] == 1 and size[2] * size[4] >= AT_ONCE


def _ending(node: Node, graph: Graph) -> Ending | None:
    """The first constants with which all 65,536 pairs of bytes give what the reference executor answers to them."""
    first, second = (graph.tensors[name] for name in node.inputs)
    a, b = sorted((first, second), key=scale, reverse=True)
    y = graph.tensors[node.name]
    pairs = np.broadcast_arrays(EVERY[:, None], EVERY[None, :])  # of a, of b
    wanted = np.asarray(reference.step(graph, node, tuple(pairs if first is a else pairs[::-1])), np.int64)
    twice = 2 * scale(a)
    of_b = multiply(EVERY.astype(np.int64) - zero_point(b) << 20, *quantize_multiplier(np.array([scale(b) / twice])))
    both = (EVERY.astype(np.int64) - zero_point(a) << 19)[:, None] + of_b
    real, exponent = (int(value[0]) for value in quantize_multiplier(np.array([twice / (2**20 * scale(y))])))
    left, right = max(exponent + BITS + 1, 0), max(-(exponent + BITS + 1), 0)
    if left > MOST_LEFT or right > 30:
        return None
    low, high = clamp_range(clamp_of(node), quant_of(y))
    for multiplier in (real >> right, min((real >> right) + 1, 2**31 - 1)):
        value, begins = (both << left) * multiplier >> 32, wanted << BITS
        least = max(int((begins - value).max(initial=-(2**31), where=wanted > low)), -(2**31) - int(value.min()))
        most = min(int((begins - value).min(initial=2**31, where=wanted < high)) + 2**BITS - 1, 2**31 - 1 - int(value.max()))
        if least <= most:
            return Ending(left, multiplier, (least + most) >> 1)
    return None
