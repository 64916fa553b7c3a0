"""Convolutions and fully connected layers for processors with SMLAD (runtime/dsp). (node, graph, variant) -> Layer; see table.py.

What the kernels read lies in one stream, a group of four output channels after the other: where sums begin, weights, constants of
the way to a byte. Channels that answer one byte to whatever comes are left out where that saves a group: training with weight decay
leaves such channels, often most of a layer. Weights are narrow, a byte each, and are widened into scratch, as many groups as there
is room for; `wide` makes of a layer one whose weights take two bytes of flash each, and need no room. Weights of few bits lie there
several in a byte, and are widened in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.formats.c.kernels import constants as pack
from nestling.formats.c.kernels.constants import SIDE_BY_SIDE, Sums
from nestling.formats.c.kernels.few_bits import with_bits
from nestling.formats.c.kernels.layers import (
    Constant,
    Layer,
    Read,
    Room,
    Scratch,
    Struct,
    Value,
    Whole,
    Written,
    bytes_of,
    clamp_of,
    plane,
)
from nestling.formats.c.kernels.rescaling import SHIFT, Short, short
from nestling.formats.c.kernels.variant import Variant, layer
from nestling.formats.c.kernels.windows import behind, is_1x1, kind_of, map_fields, windowed, with_table
from nestling.graph import packed
from nestling.graph.fixed_point import Int, clamp_range
from nestling.graph.ir import Graph, Node, Tensor

WORD = 4
STARTS = 4  # of a group: one a channel; twice as many in a wide stream
WORTH = 4096  # bytes of flash that must be saved, about what the code that widens weights takes where no convolution needs it
WIDE = 16  # bits of a weight that the processor takes as it is


@dataclass(frozen=True, eq=False)
class Stream:
    """What nst_sums_dsp says of a layer.

    numbers: int32 [groups, size]. bits: of a weight, 8, 4 or 2. long_way: bool [groups]. known: None, or an answer of the channels
    that are left out.
    long: channels that go the long way: those that are not proven, and their groups.
    """

    numbers: NDArray[np.int32]
    bits: int
    steps: int
    after: int
    long_way: NDArray[np.bool_]
    known: Constant | None
    long: int

    @property
    def groups(self) -> int:
        """Of four channels, the last one may have fewer."""
        return len(self.numbers)

    @property
    def columns_bytes(self) -> int:
        """Of scratch, for two patches."""
        return 2 * WORD * self.steps

    @property
    def wide_bytes(self) -> int:
        """Of a group whose weights are widened."""
        return WORD * (2 * STARTS + 4 * self.steps + 4 * self.after)


def takes(node: Node, graph: Graph) -> bool:
    """Weights around 0."""
    return pack.zero_point(graph.tensors[node.inputs[1]]) == 0


def takes_1x1(node: Node, graph: Graph) -> bool:
    """See windows.is_1x1."""
    return is_1x1(node, graph) and takes(node, graph)


def conv_1x1(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See is_1x1."""
    return _pixels(node, graph, variant, "conv 1x1")


def _pixels(node: Node, graph: Graph, variant: Variant, kind: str) -> Layer:
    found, x = _rows(node, graph), node.inputs[0]
    stream = _stream(node, graph, found, fours(found.weight.shape[1]))
    fields: dict[str, Value] = {"out": plane(graph.tensors[node.name]), "sums": _sums(node, graph, found, stream)}
    arguments = (Read(x), Struct("nst_conv_1x1_dsp_layer", fields), Written(), Scratch(), Whole(), Room())
    made = layer(node, graph, with_bits(kind, stream.bits), variant, arguments, (x,))
    return _roomy(made, stream, stream.columns_bytes, graph)


def takes_conv(node: Node, graph: Graph) -> bool:
    """One group."""
    x, weight = graph.tensors[node.inputs[0]], graph.tensors[node.inputs[1]]
    return x.shape[3] == weight.shape[3] and takes(node, graph)


def conv(node: Node, graph: Graph, variant: Variant) -> Layer:
    """Any convolution of one group; behind the image's table it takes the image itself."""
    attrs, x, weight, y = windowed(node, graph)
    size = (weight.shape[1], weight.shape[2])
    found = _rows(node, graph)
    piece = x.shape[3] * (size[1] if attrs.dilation[1] == 1 else 1)
    stream = _stream(node, graph, found, pieces(found.weight.shape[1], piece))
    columns = (y.shape[2] - 1) * attrs.stride[1] + (size[1] - 1) * attrs.dilation[1] + 1
    strip = ((size[0] - 1) * attrs.dilation[0] + 1, columns * x.shape[3] // 2 * 2 + 2)
    sums = _sums(node, graph, found, stream)
    struct = Struct("nst_conv_dsp_layer", {**map_fields(attrs, size, x, y), "strip": strip, "sums": sums})
    arguments = (Read(x.name), struct, Written(), Scratch(), Whole(), Room())
    made = layer(node, graph, kind_of("conv", size, attrs.stride, attrs.dilation), variant, arguments)
    made = _roomy(behind(made, node, graph), stream, stream.columns_bytes + 2 * strip[0] * strip[1], graph)
    before = graph.producer(x.name)
    if before is not None and before.op == "table":
        made = with_table(replace(made, of_image="nst_conv_image_dsp"), before, graph)
    return replace(made, kind=with_bits(made.kind, stream.bits))


def takes_fully_connected(node: Node, graph: Graph) -> bool:
    """See takes_dense; with weights that would save little if they were packed."""
    weight = np.asarray(graph.tensors[node.inputs[1]].data)
    saved = weight.size - packed.packed_size(weight.size, packed.bits_for(weight))
    return saved < WORTH and takes_dense(node, graph)


def takes_dense(node: Node, graph: Graph) -> bool:
    """In integers, every channel by the short way."""
    if any(graph.tensors[name].dtype != "int8" for name in (*node.inputs[:2], node.name)) or not takes(node, graph):
        return False
    return bool(short(node, graph, _rows(node, graph)).proven.all())


def dense(node: Node, graph: Graph, variant: Variant) -> Layer:
    """A fully connected layer as a 1x1 convolution of one pixel, whose weights of few bits are widened as that one's are."""
    return _pixels(node, graph, variant, "fully connected")


def takes_pixel(node: Node, graph: Graph) -> bool:
    """A 1x1 convolution of one pixel, for which no weight is worth widening."""
    one = graph.tensors[node.inputs[0]].shape[1:3] == (1, 1)
    return one and is_1x1(node, graph) and takes_fully_connected(node, graph)


def fully_connected(node: Node, graph: Graph, variant: Variant) -> Layer:
    """See takes_fully_connected, takes_pixel."""
    found = _rows(node, graph)
    stream = _stream(node, graph, found, fours(found.weight.shape[1]), whole=True)
    struct = Struct("nst_fully_connected_dsp_layer", {"sums": _sums(node, graph, found, stream)})
    kind = "fully connected" if node.op == "fully_connected" else "conv 1x1"
    made = layer(node, graph, kind, variant, (Read(node.inputs[0]), struct, Written()))
    return replace(made, long=0)


def _rows(node: Node, graph: Graph) -> Sums:
    """A layer's weights as [O, K]."""
    weight = np.asarray(graph.tensors[node.inputs[1]].data, np.int8)
    return pack.sums(node, graph, weight.reshape(len(weight), -1))


def wide(narrow: Layer) -> Layer:
    """The same layer with its weights as two bytes each in flash, and no room for them in RAM.

    It takes a byte a weight more, with those that fill up groups of four, and 16 a group; of weights of few bits more than that.
    """
    struct, sums, stream = _found(narrow)
    steps, bits = (int(sums.fields[name]) for name in ("steps", "bits"))  # type: ignore[arg-type]  # whole numbers
    cuts = (STARTS, STARTS + numbers_of(steps, bits))
    starts, weights, after = np.split(np.asarray(stream.data, np.int32), cuts, axis=1)
    data = np.concatenate([starts, starts, _widened(weights, bits)[:, : 4 * steps], after], axis=1)
    made = replace(sums, fields={**sums.fields, "bits": WIDE, "stream": replace(stream, data=data, layout=data.shape)})
    arguments = tuple(_with_sums(struct, made) if argument is struct else argument for argument in narrow.arguments)
    own = narrow.scratch_most - WORD * data.size
    return replace(narrow, arguments=arguments, scratch=own, scratch_most=0, over=narrow.reads)


def _found(made: Layer) -> tuple[Struct, Struct, Constant]:
    """The layer's struct, the nst_sums_dsp within it, and its stream."""
    struct = next(argument for argument in made.arguments if isinstance(argument, Struct))
    sums = _inner(struct)
    stream = sums.fields["stream"]
    assert isinstance(stream, Constant)
    return struct, sums, stream


# ---- streams --------------------------------------------------------------------------------------------------------------------


def fours(depth: int) -> Int:
    """Which product stands where, int64 [2 * steps], -1 for none: of four neighbours the first and the third make a step."""
    whole = np.arange(-(-depth // 4) * 4)
    order = whole.reshape(-1, 2, 2).transpose(0, 2, 1).reshape(-1)
    return np.where(order < depth, order, -1)


def pieces(depth: int, piece: int) -> Int:
    """The same where products come in pieces, each of whole steps."""
    order = np.full((depth // piece, -(-piece // 2) * 2), -1)
    order[:, :piece] = np.arange(depth).reshape(-1, piece)
    return order.reshape(-1)


def _stream(node: Node, graph: Graph, found: Sums, order: Int, whole: bool = False) -> Stream:
    """order: see `fours`. whole: channels that answer one byte to everything are in it, too, and every weight takes a byte."""
    constants = short(node, graph, found)
    answers = None if whole else _one_byte(constants, graph.tensors[node.name], node)
    places = None if answers is None else _living(constants)
    bits = packed.FULL if whole else packed.bits_for(found.weight if places is None else found.weight[places])
    numbers, long_way = _numbers(node, graph, found, constants, order, places, bits)
    left_out = None if answers is None else Constant("known", "int8_t", answers, answers.shape)
    steps = len(order) // 2
    after = (numbers.shape[1] - STARTS - numbers_of(steps, bits)) // SIDE_BY_SIDE
    long = min(SIDE_BY_SIDE * int(long_way.sum()), len(found.weight))
    return Stream(numbers, bits, steps, after, long_way, left_out, long)


def _one_byte(constants: Short, y: Tensor, node: Node) -> NDArray[np.int8] | None:
    """The answers of channels that answer one byte to everything, int8 [O], whatever stands in the others; None where it is not
    worth it, or sums of both signs want a number more."""
    if _dead(constants).sum() < SIDE_BY_SIDE or constants.negative.any():
        return None
    low, high = clamp_range(clamp_of(node), pack.quant_of(y))
    return np.asarray(np.clip(np.clip(constants.addend >> SHIFT, -128, 127), low, high), np.int8)


def _dead(constants: Short) -> NDArray[np.bool_]:
    return np.asarray(constants.proven & (constants.multiplier == 0) & (constants.negative == 0))


def _living(constants: Short) -> Int:
    """The channels that are computed: groups of the others, filled up with some that need not be, those of the long way last."""
    dead = _dead(constants)
    living = np.concatenate([np.flatnonzero(~dead & constants.proven), np.flatnonzero(~constants.proven)])
    missing = -len(living) % SIDE_BY_SIDE if len(living) else SIDE_BY_SIDE
    return np.concatenate([np.flatnonzero(dead)[:missing], living])


def _numbers(
    node: Node, graph: Graph, found: Sums, constants: Short, order: Int, places: Int | None, bits: int
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """(stream int32 [groups, size], long_way bool [groups]). places: the channels in it, None for all as they are."""
    chosen = np.arange(len(found.weight)) if places is None else places
    groups = -(-len(chosen) // SIDE_BY_SIDE)

    def grouped(values: NDArray[np.generic]) -> NDArray[np.generic]:
        whole = np.zeros((groups * SIDE_BY_SIDE, *values.shape[1:]), values.dtype)
        whole[: len(chosen)] = values[chosen]
        return whole.reshape(groups, SIDE_BY_SIDE, *values.shape[1:])

    long_way = np.asarray(grouped(~constants.proven).any(axis=1))
    of_channels = np.zeros(len(found.weight), bool)
    of_channels[chosen] = np.repeat(long_way, SIDE_BY_SIDE)[: len(chosen)]
    weight = np.where(order >= 0, found.weight[:, order], 0).astype(np.int8)  # [O, 2 * steps]
    pairs = grouped(weight).reshape(groups, 2, 2, -1, 2).transpose(0, 3, 1, 4, 2)  # [groups, steps, pair, product, channel]
    starts = grouped(found.bias + np.where(of_channels, 0, constants.start))
    after = _after(node, graph, found, constants, of_channels)
    if places is not None:
        after = np.concatenate([after, np.arange(len(after))[:, None]], axis=1)
    weights = _narrowed(pairs.reshape(groups, -1).view("<i4"), bits)
    parts = (starts, weights, grouped(after).reshape(groups, -1))
    return np.concatenate([part.astype(np.int32) for part in parts], axis=1), long_way


def _after(node: Node, graph: Graph, found: Sums, constants: Short, long_way: NDArray[np.bool_]) -> Int:
    """[O, 3 or 4], see nst_sums_dsp."""
    multiplier, exponent = pack.factors(node, graph, len(found.bias))
    exact = (multiplier, pack.shifts(multiplier, exponent, found.largest), np.zeros_like(found.bias))
    if not constants.negative.any():
        return np.where(long_way, exact, (constants.left, constants.multiplier, constants.addend)).T
    short_ones = (constants.left, constants.negative, constants.addend, constants.multiplier)
    return np.where(long_way, (*exact, exact[2]), short_ones).T


# ---- numbers of weights, see nst_sums_dsp ---------------------------------------------------------------------------------------


def numbers_of(steps: int, bits: int) -> int:
    """How many hold a group's weights."""
    return -(-steps * bits // 4)


def _narrowed(numbers: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Of those of 8 bits, [groups, 2 * steps], those of `bits`."""
    if bits not in packed.FEW:
        return numbers
    halves = _widened(numbers, packed.FULL).view("<i2").reshape(len(numbers), -1, 2)
    fills = -halves.shape[1] % (WIDE // bits)
    whole = np.pad(halves, ((0, 0), (0, fills), (0, 0))).astype(np.int64) + 2 ** (bits - 1)
    pieces = whole.reshape(len(numbers), -1, WIDE // bits, 2) << bits * np.arange(WIDE // bits)[:, None]
    return np.asarray(pieces.sum(axis=2).astype("<u2").reshape(len(numbers), -1).view("<i4"))


def _widened(numbers: NDArray[np.int32], bits: int) -> NDArray[np.int32]:
    """Of those the ones of 16 bits, [groups, 4 * steps], and as many more as the last numbers of few bits have room for."""
    plain = np.ascontiguousarray(numbers)
    if bits in packed.FEW:
        halves = plain.view("<u2").reshape(len(plain), -1, 1, 2) >> bits * np.arange(WIDE // bits)[:, None]
        wide_ones = (halves & 2**bits - 1).astype("<i2") - np.int16(2 ** (bits - 1))
        return np.asarray(wide_ones.reshape(len(plain), -1).view("<i4"))
    bytes_ = plain.view(np.int8).reshape(len(plain), -1, 2, 2)  # [number, product, channel]
    return bytes_.transpose(0, 1, 3, 2).astype("<i2").reshape(len(plain), -1).view("<i4")


def _sums(node: Node, graph: Graph, found: Sums, stream: Stream) -> Struct:
    """nst_sums_dsp."""
    channels, depth = found.weight.shape
    ways = Constant("long_way", "int8_t", stream.long_way.astype(np.int8), (stream.groups,))
    fields: dict[str, Value] = {
        "depth": depth,
        "steps": stream.steps,
        "channels": channels,
        "groups": stream.groups,
        "bits": stream.bits,
        "stream": Constant("stream", "int32_t", stream.numbers, stream.numbers.shape),
        "after": stream.after,
        "long_way": ways if stream.long_way.any() else None,
        "known": stream.known,
        "output": pack.output(graph.tensors[node.name], clamp_of(node)),
    }
    return Struct("nst_sums_dsp", fields)


# ---- scratch --------------------------------------------------------------------------------------------------------------------


def _roomy(made: Layer, stream: Stream, own: int, graph: Graph) -> Layer:
    """The layer with its scratch: `own` bytes and the streams of four channels, or of all.

    Over its input it can only write with all of them. Where these take more than a place of its own for the answer does, it writes
    there, and takes as many at once as the arena has room for.
    """
    whole = own + stream.groups * stream.wide_bytes
    smaller = min(bytes_of(graph.tensors[name]) for name in (*made.reads, made.writes))
    over = made.over if whole <= smaller else ()
    least = whole if over else own + stream.wide_bytes
    return replace(made, scratch=least, scratch_most=whole, over=over, long=stream.long, widen=wide)


def _inner(struct: Struct) -> Struct:
    """nst_sums_dsp, wherever it lies."""
    found = struct.fields.get("sums")
    within = struct.fields.get("conv", found)
    assert isinstance(within, Struct)
    return within if within is found else _inner(within)


def _with_sums(struct: Struct, sums: Struct) -> Struct:
    """The struct with these in the place of its own."""

    def made(name: str, field: Value) -> Value:
        return sums if name == "sums" else _with_sums(field, sums) if name == "conv" and isinstance(field, Struct) else field

    return replace(struct, fields={name: made(name, field) for name, field in struct.fields.items()})
