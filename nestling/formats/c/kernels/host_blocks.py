"""1x1 convolutions for 64-bit x86 and Arm whose weights are mostly zeros, in blocks of four neighbours. See blocks.py, table.py."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import host, windows
from nestling.formats.c.kernels.blocks import as_blocks
from nestling.formats.c.kernels.layers import Constant, Crew, Layer, Read, Scratch, Struct, Value, Written, plane
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph.ir import Graph, Node

# Products of the dense kernels that take as long as a block here, a channel, and an input of a pixel: about the most that any set
# of instructions takes (benchmarks/hosts_layers.py --zeros), since one file serves them all.
A_BLOCK, A_CHANNEL, AN_INPUT = 6, 96, 12
AT_ONCE = 16  # pixels
MOST = 2**15  # fours that a place says


def takes(node: Node, graph: Graph) -> bool:
    """Where skipping pays, and no channel goes the long way."""
    if not host.takes_1x1(node, graph):
        return False
    blocks = as_blocks(_weight(node, graph))
    count, products = int(blocks.any(axis=2).sum()), blocks.size
    pixels = math.prod(graph.tensors[node.name].shape[1:3])
    computed = host.up(pixels, AT_ONCE)
    cost = (A_BLOCK * count + A_CHANNEL * len(blocks)) * computed + AN_INPUT * pixels * blocks[0].size
    return (
        cost < products * pixels
        and blocks.shape[1] < MOST
        and host.sums_struct(node, graph, _weight(node, graph)[:, None], host.in_fours).fields["long_ones"] == 0
    )


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes."""
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.name]
    weight = _weight(node, graph)
    blocks = as_blocks(weight)
    alive = blocks.any(axis=2)
    begins = np.concatenate([[0], np.cumsum(alive.sum(axis=1))]).astype(np.int32)
    places = np.nonzero(alive)[1].astype(np.int16)
    fields: dict[str, Value] = {
        "out": plane(y),
        "sums": host.sums_struct(node, graph, weight[:, None], lambda _: _constant("weights", blocks[alive])),
        "begins": Constant("begins", "int32_t", begins, begins.shape),
        "places": Constant("places", "int16_t", np.resize(places, max(len(places), 1)), (max(len(places), 1),)),
    }
    kind = f"conv 1x1, {100 * (1 - alive.mean()):.0f}% zeros skipped"
    arguments = (Read(x.name), Struct("nst_conv_1x1_blocks_host_layer", fields), Written(), Scratch(), Crew())
    return layer(node, graph, kind, variant, arguments)


def _constant(role: str, some: NDArray[np.int8]) -> Constant:
    """Blocks [N, 4]; one of zeros where there are none."""
    data = some if len(some) else np.zeros((1, some.shape[1]), np.int8)
    return Constant(role, "int8_t", np.ascontiguousarray(data), data.shape)


def _weight(node: Node, graph: Graph) -> NDArray[np.int8]:
    weight = graph.tensors[node.inputs[1]]
    return np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1)


def numbers(node: Node, graph: Graph) -> int:
    """nst_conv_1x1_blocks_host's scratch."""
    depth = windows.windowed(node, graph)[1].shape[3]
    return host.BLOCK + host.BLOCK * (2 * host.ELEMENT * host.up(depth, host.FOUR) + host.GROUP)
