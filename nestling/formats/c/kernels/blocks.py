"""1x1 convolutions whose weights are mostly zeros, in blocks of four neighbours: only the blocks that are not zero are kept.

`prune --method block1x4` makes such weights. A channel's blocks lie one after the other, each with its distance from the one before
(nst_conv_1x1_blocks_layer in runtime/nst_kernels.h). Whether that pays is told by how many blocks a layer has: WAYS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels import rescaling, windows
from nestling.formats.c.kernels.constants import SIDE_BY_SIDE
from nestling.formats.c.kernels.layers import Constant, Layer, Read, Room, Scratch, Struct, Whole, Written, clamp_of, plane
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.graph import packed
from nestling.graph.ir import Graph, Node

WIDTH = 4  # weights of a block
PIXELS = 4  # that pass through scratch at once
FARTHEST = 255  # blocks from one to the next, in a byte
LONG_FROM = 192  # what the exponent of a channel that goes the long way is counted from


@dataclass(frozen=True)
class Way:
    """How a kernel skips zeros. cost: products of the dense kernel that take as long as a block here; docs/c.md says how it was
    measured ("Zeros skipped").

    most: of a block's weights together, without their signs. at_once: a channel's blocks are a multiple of that. wide: bytes that a
    number of a pixel takes in scratch. absolute: places are counted from the channel's first block, not from the block before.
    doubled: its product is doubled, so that sums go one bit less to the left. from_low: it counts bytes from the lowest one; its
    channels that give one answer to everything have no blocks. twice: given twice the scratch it computes eight pixels at once.
    leaves_out: the dense kernel leaves channels of zeros out where that saves a group of them.
    """

    cost: float
    most: int = WIDTH * 128
    at_once: int = 1
    wide: int = 2
    absolute: bool = False
    doubled: bool = False
    from_low: bool = False
    twice: bool = False
    leaves_out: bool = False


WAYS: Mapping[str, Way] = {  # by the feature that the kernel needs
    "": Way(6.0, most=255, from_low=True, twice=True),  # two pixels share a product of 32 bits
    "dsp": Way(6.0, leaves_out=True),
    "mve": Way(9.0, at_once=4, wide=1, absolute=True, doubled=True),
}


def pays(feature: str) -> Callable[[Node, Graph], bool]:
    """Whether a node is a 1x1 convolution whose zeros are worth skipping: it takes less time so, and no more flash.

    Both in comparison with all products of the dense kernel, whose weights may be packed.
    """
    way = WAYS[feature]

    def takes(node: Node, graph: Graph) -> bool:
        weight = graph.tensors[node.inputs[1]]
        if not windows.is_1x1(node, graph) or pack.zero_point(weight) != 0:
            return False
        if way.absolute and weight.shape[3] > WIDTH * (FARTHEST + 1):
            return False
        values = np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1)
        pieces = -(-np.abs(as_blocks(values).astype(np.int64)).sum(axis=2) // way.most)
        some = np.maximum(pieces.sum(axis=1), 0 if way.from_low else 1)
        count = int((-(-some // way.at_once) * way.at_once).sum())
        products = (len(values) - (_left_out(values, node, graph) if way.leaves_out else 0)) * values.shape[1]
        dense = packed.packed_size(products, packed.bits_for(values))
        return way.cost * count < products and (WIDTH + 1) * count <= dense

    return takes


def _left_out(values: NDArray[np.int8], node: Node, graph: Graph) -> int:
    """Channels of zeros that dsp_convolutions.py leaves out: with a relu, which answers one byte there, and in whole groups."""
    groups, living = -(-len(values) // SIDE_BY_SIDE), -(-int(values.any(axis=1).sum()) // SIDE_BY_SIDE)
    return len(values) * (groups - living) // groups if not pack.below_zero(node, graph) else 0


def tile_bytes(node: Node, graph: Graph) -> int:
    """Scratch of the pixels that are computed at once."""
    return WAYS[""].wide * _numbers(node, graph)


def tile_bytes_mve(node: Node, graph: Graph) -> int:
    """The same on Arm's vectors."""
    return WAYS["mve"].wide * _numbers(node, graph)


def _numbers(node: Node, graph: Graph) -> int:
    return PIXELS * WIDTH * -(-graph.tensors[node.inputs[1]].shape[3] // WIDTH)


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See nst_conv_1x1_blocks in runtime/nst_kernels.h."""
    way = WAYS[variant.needs]
    x, weight, y = (graph.tensors[name] for name in (*node.inputs[:2], node.name))
    found = pack.sums(node, graph, np.asarray(weight.data, np.int8).reshape(weight.shape[0], -1))
    short = rescaling.short(node, graph, found)
    output, below = pack.output(y, clamp_of(node)), pack.below_zero(node, graph)
    short = _doubled(short) if way.doubled else short
    if way.from_low:
        short = _only(short, rescaling.counted_from(pack.ends(node, graph)[0], short, found))
    same = short.proven & (short.multiplier == 0) & (short.negative == 0) & way.from_low  # one byte is the answer to everything
    kept = [_channel(channel, way, none) for channel, none in zip(as_blocks(found.weight), same.tolist(), strict=True)]
    places = np.array([place for channel in kept for place, _ in channel], np.uint8).view(np.int8)
    long = int((~short.proven).sum())
    stream = np.concatenate([_words(*one) for one in zip(kept, *_constants(node, graph, found, short, below), strict=True)])
    sums = {
        "depth": found.weight.shape[1],
        "channels": len(found.weight),
        "stream": Constant("stream", "int32_t", stream, stream.shape),
        "places": Constant("places", "int8_t", places, places.shape),
        "long_ones": long,
        "below": int(below),
        "output": output,
    }
    struct = Struct("nst_conv_1x1_blocks_layer", {"out": plane(y), "sums": Struct("nst_block_sums", sums)})
    kind = f"conv 1x1, {100 * (1 - len(places) / as_blocks(found.weight)[..., 0].size):.0f}% zeros skipped"
    room = (Room(),) if way.twice else ()
    made = layer(node, graph, kind, variant, (Read(x.name), struct, Written(), Scratch(), Whole(), *room), (x.name,))
    return replace(made, long=long, scratch_most=2 * made.scratch if way.twice else 0)


def as_blocks(weight: NDArray[np.int8]) -> NDArray[np.int8]:
    """int8 [O, K] as [O, blocks, 4]."""
    rest = -weight.shape[1] % WIDTH
    return np.pad(weight, ((0, 0), (0, rest))).reshape(len(weight), -1, WIDTH)


def _channel(channel: NDArray[np.int8], way: Way, none: bool) -> list[tuple[int, NDArray[np.int8]]]:
    """What is stored of a channel's blocks [blocks, 4]."""
    if none:
        return []
    return list(_counted(channel, way.at_once) if way.absolute else _kept(channel, way.most))


def _kept(channel: NDArray[np.int8], most: int) -> Iterator[tuple[int, NDArray[np.int8]]]:
    """(distance, four weights), in order, of a channel's blocks [blocks, 4]. Zeros where the next is too far away, or none is."""
    before = 0
    alive = np.flatnonzero(channel.any(axis=1)).tolist() or [0]
    for place in alive:
        for _ in range((place - before - 1) // FARTHEST):
            yield FARTHEST, np.zeros(WIDTH, np.int8)
            before += FARTHEST
        for piece in _pieces(channel[place].astype(np.int64), most):
            yield place - before, piece.astype(np.int8)
            before = place


def _counted(channel: NDArray[np.int8], at_once: int) -> Iterator[tuple[int, NDArray[np.int8]]]:
    """(place, four weights), in order, with zeros behind them up to a multiple."""
    alive = np.flatnonzero(channel.any(axis=1)).tolist() or [0]
    yield from ((place, channel[place]) for place in alive)
    yield from ((0, np.zeros(WIDTH, np.int8)) for _ in range(-len(alive) % at_once))


def _doubled(short: rescaling.Short) -> rescaling.Short:
    """The same for an instruction that doubles its product: left is one less, so there must be one."""
    fits = (short.left > 0) | (short.multiplier == 0)
    return _only(replace(short, left=np.maximum(short.left - 1, 0)), fits)


def _only(short: rescaling.Short, where: NDArray[np.bool_]) -> rescaling.Short:
    """The same, proven in fewer channels."""
    proven = short.proven & where
    start, addend, negative = (np.where(proven, values, 0) for values in (short.start, short.addend, short.negative))
    return rescaling.Short(start, short.left, short.multiplier, addend, negative, proven)


def _pieces(block: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
    """Blocks that add up to this one, in none of which the weights are more than `most` together, without their signs."""
    for count in range(1, WIDTH * 128):
        cuts = [block * i // count for i in range(count + 1)]
        pieces = [end - begin for begin, end in pairwise(cuts)]
        if all(np.abs(piece).sum() <= most for piece in pieces):
            return pieces
    raise AssertionError("every whole number is a sum of ones")


def _constants(
    node: Node, graph: Graph, found: pack.Sums, short: rescaling.Short, below: bool
) -> tuple[list[int], list[int], list[list[int]]]:
    """(bias, left, what follows the blocks), a channel each."""
    multiplier, exponent = pack.factors(node, graph, len(found.bias))
    bias = found.bias + short.start  # start is 0 where nothing is proven
    left = np.where(short.proven, short.left, exponent + LONG_FROM)
    ends = np.stack([np.where(short.proven, short.multiplier, multiplier), short.addend, short.negative], axis=1)
    return bias.tolist(), left.tolist(), ends[:, : 3 if below else 2].tolist()


def _words(kept: list[tuple[int, NDArray[np.int8]]], bias: int, left: int, end: list[int]) -> NDArray[np.int32]:
    """A channel of the stream."""
    weights = np.array([block for _, block in kept], np.int8).reshape(-1).view("<i4").astype(np.int32)
    return np.concatenate([np.array([bias, (len(kept) - 1) * 256 + left]), weights, np.array(end)]).astype(np.int32)
