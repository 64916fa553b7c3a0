"""Convolutions of one group for Arm's M-profile vector extension. The kernels' side of it is runtime/mve/nst_mve.h.

A sum's way to its byte needs no proof here: VQRDMULH and VRSHL are the reference's own two roundings, see nst_mve_scaled().
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import windows
from nestling.formats.c.kernels.constants import Sums
from nestling.formats.c.kernels.layers import Constant, Layer, Struct, Value
from nestling.formats.c.kernels.variant import Variant
from nestling.graph import packed
from nestling.graph.fixed_point import Int
from nestling.graph.ir import Graph, Node
from nestling.graph.reference_integer import output_multiplier

BLOCK = 16  # bytes of a vector
SIDE_BY_SIDE = 4  # channels
SHORT = 2**31 - 256  # sums below it cannot leave 32 bits when the zero point is added
CHANNELS = 2**15  # places of answers are 16 bits


def scaling(node: Node, graph: Graph, found: Sums) -> tuple[Int, Int]:
    """multiplier and exponent of every channel, int64 [O]. One that multiplies by 0 gets an exponent that all kernels take."""
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    multiplier, exponent = output_multiplier(x, weight, y, getattr(node.attrs, "unsigned", False))
    multiplier, exponent = (np.broadcast_to(values, found.bias.shape) for values in (multiplier, exponent))
    return multiplier, np.where(multiplier == 0, -1, exponent)


def negative(node: Node, graph: Graph) -> int:
    """1 where answers below the zero point are wanted."""
    output = pack.output(graph.tensors[node.name], node.attrs.clamp)  # type: ignore[union-attr]  # of layers that have one
    return int(output.fields["low"] < output.fields["zero"])  # type: ignore[operator]  # whole numbers


def rows(node: Node, graph: Graph) -> NDArray[np.int8]:
    """A convolution's weights as [O, K]."""
    weight = graph.tensors[node.inputs[1]]
    return np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1)


def scales(node: Node, graph: Graph, weight: NDArray[np.int8]) -> bool:
    """Whether the two instructions are the reference's roundings for all channels, and the weights are bytes without zero point."""
    if packed.bits_for(weight) in packed.FEW or len(weight) > CHANNELS:
        return False
    found = pack.sums(node, graph, weight)
    _, exponent = scaling(node, graph, found)
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
    fields = {**struct.fields, "sums": sums_struct(node, graph, rows(node, graph), stream)}
    return replace(made, arguments=(x, Struct(f"{made.function}_layer", fields), *rest))


def patches_and_places(node: Node, graph: Graph) -> int:
    """Scratch for two patches, and for where the bytes of a window's row find their tables."""
    _, _, width, depth = graph.tensors[node.inputs[1]].shape
    return patches(node, graph) + 2 * width * depth


def sums_struct(node: Node, graph: Graph, weight: NDArray[np.int8], packed_as: Callable[[Sums, Int, Int], Constant]) -> Struct:
    """nst_mve_sums. weight: int8 [O, K]."""
    found = pack.sums(node, graph, weight)
    fields: dict[str, Value] = {
        "depth": weight.shape[1],
        "channels": len(weight),
        "stream": packed_as(found, *scaling(node, graph, found)),
        "negative": negative(node, graph),
        "output": pack.output(graph.tensors[node.name], node.attrs.clamp),  # type: ignore[union-attr]  # of convolutions
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
