"""Convolutions of one group for Arm's M-profile vector extension. The kernels' side of it is runtime/mve/nst_mve.h.

A sum's way to its byte needs no proof here: VQRDMULH and VRSHL are the reference's own two roundings, see nst_mve_scaled().
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import windows
from nestling.formats.c.kernels.constants import Sums
from nestling.formats.c.kernels.few_bits import Unpacked, packed_twin
from nestling.formats.c.kernels.layers import Constant, Layer, Struct, Value, clamp_of
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import packed
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node

BLOCK = 16  # bytes of a vector
SIDE_BY_SIDE = 4  # channels
SHORT = 2**31 - 256  # sums below it cannot leave 32 bits when the zero point is added
CHANNELS = 2**15  # places of answers are 16 bits
PACKED: Mapping[str, str] = {  # where the twins of kernels for packed weights are
    "nst_conv_1x1_mve": "mve/nst_conv_1x1_mve_packed.c",
    "nst_conv_mve": "mve/nst_conv_mve_packed.c",
    "nst_conv_image_mve": "mve/nst_conv_mve_packed.c",
}


def scaling(node: Node, graph: Graph, found: Sums) -> tuple[Int, Int]:
    """multiplier and exponent of every channel, int64 [O]. One that multiplies by 0 gets an exponent that all kernels take."""
    multiplier, exponent = pack.factors(node, graph, len(found.bias))
    return multiplier, np.where(multiplier == 0, -1, exponent)


def _scaled(node: Node, graph: Graph, weight: NDArray[np.int8], lift: bool) -> tuple[Sums, Int, Int]:
    """(sums, multiplier, exponent) of weights [O, K].

    lift: where sums grow on their way to a byte (exponents above 0), as those of few bits do, weights and biases are so many times
    as large instead, if the weights are bytes all the same: the reference shifts the sum before it multiplies, which is the same.
    """
    found = pack.sums(node, graph, weight)
    multiplier, exponent = scaling(node, graph, found)
    if not lift:
        return found, multiplier, exponent
    power = np.clip(exponent, 0, packed.FULL)
    larger = found.weight.astype(np.int64) << power[:, None]
    power = np.where((np.abs(larger) < 128).all(axis=1), power, 0)
    weights = np.asarray(found.weight << power[:, None], np.int8)
    sums = replace(found, weight=weights, bias=found.bias << power, largest=found.largest << power)
    return sums, multiplier, exponent - power


def negative(node: Node, graph: Graph) -> int:
    """1 where answers below the zero point are wanted."""
    return int(pack.below_zero(node, graph))


def rows(node: Node, graph: Graph) -> NDArray[np.int8]:
    """A convolution's weights as [O, K]."""
    weight = graph.tensors[node.inputs[1]]
    return np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1)


def scales(node: Node, graph: Graph, weight: NDArray[np.int8], lift: bool = False) -> bool:
    """Whether the two instructions are the reference's roundings for all channels, and the weights have no zero point.

    lift: see _scaled.
    """
    if len(weight) > CHANNELS:
        return False
    found, _, exponent = _scaled(node, graph, weight, lift)
    short = (exponent < 0) | (found.largest < SHORT)
    return bool(found.weight_zero == 0 and (short & (exponent <= -negative(node, graph))).all())


def one_group(node: Node, graph: Graph) -> bool:
    """Any convolution of one group."""
    return graph.tensors[node.inputs[0]].shape[3] == graph.tensors[node.inputs[1]].shape[3] and scales(
        node, graph, rows(node, graph)
    )


def takes_1x1(node: Node, graph: Graph) -> bool:
    """See windows.is_1x1."""
    return windows.is_1x1(node, graph) and scales(node, graph, rows(node, graph))


def patches(node: Node, graph: Graph) -> int:
    """Scratch for two."""
    return 2 * _whole(math.prod(graph.tensors[node.inputs[1]].shape[1:]))


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_1x1."""
    return _streamed(windows.conv_1x1(node, graph, variant), node, graph)


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See one_group."""
    return _streamed(windows.conv(node, graph, variant), node, graph)


def _streamed(made: Layer, node: Node, graph: Graph) -> Layer:
    """The portable kernel's call with nst_mve_sums for nst_sums."""
    x, struct, *rest = made.arguments
    assert isinstance(struct, Struct)
    weight = rows(node, graph)
    fields = {**struct.fields, "sums": sums_struct(node, graph, weight, stream)}
    bits = packed.bits_for(weight)
    packing = partial(_packed, depth=weight.shape[1], bits=bits) if bits in packed.FEW else None
    return replace(made, arguments=(x, Struct(f"{made.function}_layer", fields), *rest), packing=packing)


def _packed(made: Layer, smaller: int, depth: int, bits: int) -> Layer:
    """Its call with weights of so many bits: of a vector's bytes those that lie lowest are a vector of weights, and so on."""
    whole = next(constant for constant in made.constants if constant.role == "stream")
    weights, constants = np.split(np.asarray(whole.data, np.int8), [SIDE_BY_SIDE * _whole(depth)], axis=1)
    vectors = weights.reshape(len(weights), -1, packed.FULL // bits, BLOCK).transpose(0, 1, 3, 2)
    data = np.concatenate([packed.pack(vectors, bits).view(np.int8).reshape(len(weights), -1), constants], axis=1)
    stored = Constant("stream", "int8_t", data, data.shape)
    found = Unpacked(whole, stored, (bits,), whole.bytes, whole.data.shape[1], (PACKED[made.function], "mve/nst_packed_mve.c"))
    return packed_twin(made, smaller, found)


def patches_and_places(node: Node, graph: Graph) -> int:
    """Scratch for two patches, and for where the bytes of a window's row find their tables."""
    _, _, width, depth = graph.tensors[node.inputs[1]].shape
    return patches(node, graph) + 2 * width * depth


def sums_struct(
    node: Node, graph: Graph, weight: NDArray[np.int8], packed_as: Callable[[Sums, Int, Int], Constant], lift: bool = False
) -> Struct:
    """nst_mve_sums. weight: int8 [O, K]. lift: as in `scales`."""
    found, multiplier, exponent = _scaled(node, graph, weight, lift)
    fields: dict[str, Value] = {
        "depth": weight.shape[1],
        "channels": len(weight),
        "stream": packed_as(found, multiplier, exponent),
        "negative": negative(node, graph),
        "output": pack.output(graph.tensors[node.name], clamp_of(node)),
    }
    return Struct("nst_mve_sums", fields)


def stream(found: Sums, multiplier: Int, exponent: Int) -> Constant:
    """int8 [(O + 3) / 4][bytes]: see nst_mve.h."""
    channels, depth = found.weight.shape
    fours = -(-channels // SIDE_BY_SIDE)
    weight = np.zeros((fours * SIDE_BY_SIDE, _whole(depth)), np.int8)
    weight[:channels, :depth] = found.weight
    blocks = weight.reshape(fours, SIDE_BY_SIDE, -1, BLOCK).transpose(0, 2, 1, 3).reshape(fours, -1)
    numbers = np.zeros((3, fours * SIDE_BY_SIDE), "<i4")
    numbers[:, :channels] = found.bias, multiplier, exponent
    numbers[2, channels:] = -1
    constants = np.ascontiguousarray(numbers.reshape(3, fours, SIDE_BY_SIDE).transpose(1, 0, 2)).view(np.int8).reshape(fours, -1)
    data = np.concatenate([blocks, constants], axis=1)
    return Constant("stream", "int8_t", data, data.shape)


def _whole(count: int) -> int:
    return -(-count // BLOCK) * BLOCK
