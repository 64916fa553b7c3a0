"""The arena: at which byte each activation lies, so that what is needed at once lies side by side and everything else shares.

    steps            what runs, in order: which tensors it reads, which one it writes
    pieces           bytes of a tensor that live from one step to another (a view, or a part of a concat, lives in another's bytes)
    blocks           pieces at fixed distances: a tensor with its views, an output that takes over its input's bytes
    offsets          one a block (offsets.py)

The plan is checked by walking through it (see `verify`), which shares nothing with the way in which it was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from nestling.formats.c.plan.offsets import Block, Key, Piece, arena, down, meet, placed, taken, up

Views = Mapping[str, tuple[str, int]]


@dataclass(frozen=True)
class Step:
    """One call of a kernel.

    scratch: bytes that it needs while it runs. over: an input, or several, the best first, whose bytes the output may take over,
    beginning at the same byte: the kernel has then read what it overwrites. The plan does so where nothing reads that input later.
    The output may be smaller than that input, or larger.
    scratch_most: it is quicker with so many bytes of scratch, and gets of them what lies free in the arena anyway.
    lead: an output over an input begins so many bytes before it.
    """

    name: str
    reads: tuple[str, ...]
    writes: str
    scratch: int = 0
    over: str | tuple[str, ...] | None = None
    scratch_most: int = 0
    lead: int = 0


@dataclass(frozen=True)
class Buffer:
    """Bytes offset .. offset + size, taken from step `first` to step `last`, both included. scratch: the name is then a step's."""

    name: str
    offset: int
    size: int
    first: int
    last: int
    scratch: bool = False


@dataclass(frozen=True, eq=False)
class Plan:
    """offsets: of every tensor, views included. scratch: offsets by step name, for the steps that have some.

    arena: bytes, a multiple of the alignment. lower_bound: the most bytes alive at one step, each buffer rounded up to the
    alignment, what is taken over counted once: no arena is smaller. peak_step: the step where that is.
    steps: names in order; alive: bytes alive at each. buffers: what is written, for pictures. in_place: output -> the input whose
    bytes it takes over. room: bytes of scratch by step name, no fewer than the step asks for.
    """

    offsets: Mapping[str, int]
    scratch: Mapping[str, int]
    arena: int
    lower_bound: int
    peak_step: str
    steps: tuple[str, ...]
    alive: tuple[int, ...]
    buffers: tuple[Buffer, ...]
    in_place: Mapping[str, str]
    room: Mapping[str, int] = field(default_factory=dict)


def plan(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    aliases: Views | None = None,
    alignment: int = 4,
) -> Plan:
    """Offsets for every tensor and every scratch. The same arguments give the same plan.

    sizes: bytes by tensor. inputs: alive from the start until they were read for the last time; outputs: alive until the end.
    aliases: name -> (of, offset): `name` is `of`'s bytes from that offset on; `of` may be a view itself. A concat is the tensor of
    which its parts are views; it then has no step of its own.
    alignment: of every tensor that is no view, and of scratch.
    Raises ValueError for steps that read what nothing has written, views outside of their tensor and names that come twice.
    """
    views = _resolved(aliases or {}, sizes)
    _require_sound(steps, sizes, inputs, views)
    blocks = _blocks(steps, sizes, inputs, outputs, views, alignment)
    blocks, in_place = _merged(blocks, steps, sizes, views, alignment)
    alive = [sum(taken(block, now) for block in blocks) for now in range(len(steps))]
    bound = max(alive)
    places = placed(blocks, bound, alignment)
    starts: dict[Key, int] = {}
    for block, place in zip(blocks, places, strict=True):
        starts |= {key: place + inside for key, inside in block.places.items()}
    offsets = {name: starts["tensor", root] + inside for name, (root, inside) in views.items() if ("tensor", root) in starts}
    scratch = {name: offset for (kind, name), offset in starts.items() if kind == "scratch"}
    found = Plan(
        offsets=offsets,
        scratch=scratch,
        arena=arena(blocks, places),
        lower_bound=bound,
        peak_step=steps[alive.index(bound)].name,
        steps=tuple(step.name for step in steps),
        alive=tuple(alive),
        buffers=tuple(_buffers(blocks, places, steps, sizes, inputs, views)),
        in_place=in_place,
        room={step.name: step.scratch for step in steps if step.scratch},
    )
    found = _roomy(found, steps, alignment)
    granted = [replace(step, scratch=found.room.get(step.name, 0)) for step in steps]
    verify(found, granted, sizes, inputs, outputs, aliases or {})
    return found


def verify(
    found: Plan, steps: Sequence[Step], sizes: Mapping[str, int], inputs: Sequence[str], outputs: Sequence[str], aliases: Views
) -> None:
    """Walk through the steps with a memory that knows which write each byte comes from. AssertionError: plan() is wrong.

    Every read must find the bytes that were written for it, also after the step's scratch and output were written, save those that
    the output takes over from their start.
    """
    memory = np.full(found.arena, -1, np.int64)
    views = _resolved(aliases, sizes)
    written = {root: np.full(sizes[root], -2, np.int64) for root, _ in views.values()}

    def here(name: str) -> slice:
        return slice(found.offsets[name], found.offsets[name] + sizes[name])

    def write(name: str, number: int) -> None:
        root, inside = views[name]
        memory[here(name)] = written[root][inside : inside + sizes[name]] = number

    def intact(name: str) -> bool:
        root, inside = views[name]
        return np.array_equal(memory[here(name)], written[root][inside : inside + sizes[name]])

    for number, name in enumerate(inputs):
        write(name, number)
    for number, step in enumerate(steps, len(inputs)):
        assert all(map(intact, step.reads)), f"{step.name} reads what was overwritten"
        if step.scratch:
            place = found.scratch[step.name]
            memory[place : place + step.scratch] = -3
        assert all(map(intact, step.reads)), f"{step.name}'s scratch lies on what it reads"
        write(step.writes, number)
        free = {name for name in over_of(step) if found.in_place.get(step.writes) == name and _leads(found, step, name)}
        assert all(map(intact, set(step.reads) - free)), f"{step.name} writes over what it reads"
        if step.scratch:
            assert (memory[place : place + step.scratch] == -3).all(), f"{step.name} writes into its scratch"
    assert all(map(intact, outputs)), "an output was overwritten"


# ---- tensors, views, pieces -----------------------------------------------------------------------------------------------------


def over_of(step: Step) -> tuple[str, ...]:
    """The inputs whose bytes its output may take over, the best first."""
    return (step.over,) if isinstance(step.over, str) else step.over or ()


def _leads(found: Plan, step: Step, name: str) -> bool:
    """Whether the output begins as far before that input as it must."""
    return found.offsets[name] - found.offsets[step.writes] >= step.lead


def _resolved(aliases: Views, sizes: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Every tensor -> the tensor whose bytes it lies in, its own or another's, and where."""
    found = {}
    for name in sizes:
        root, inside = name, 0
        for _ in aliases:
            if root not in aliases:
                break
            root, further = aliases[root]
            inside += further
        if root in aliases or root not in sizes or not 0 <= inside <= sizes[root] - sizes[name]:
            raise ValueError(f"{name!r} is no part of {root!r}")
        found[name] = root, inside
    return found


def _require_sound(steps: Sequence[Step], sizes: Mapping[str, int], inputs: Sequence[str], views: Views) -> None:
    if not steps or len({step.name for step in steps}) < len(steps):
        raise ValueError("a plan needs steps, each with a name of its own")
    if any(size <= 0 for size in sizes.values()):
        raise ValueError(f"{min(sizes, key=lambda name: sizes[name])!r} has no bytes")
    ready = {root: np.zeros(sizes[root], bool) for root, _ in views.values()}
    for name in inputs:
        ready[views[name][0]][views[name][1] :][: sizes[name]] = True
    for step in steps:
        unknown = {step.writes, *step.reads, *over_of(step)} - sizes.keys()
        if unknown or not set(over_of(step)) <= set(step.reads):
            raise ValueError(f"{step.name!r}: {sorted(unknown) or step.over} is not known, or not read")
        for name in step.reads:
            if not ready[views[name][0]][views[name][1] :][: sizes[name]].all():
                raise ValueError(f"{step.name!r} reads {name!r} before all of it is written")
        ready[views[step.writes][0]][views[step.writes][1] :][: sizes[step.writes]] = True


def _blocks(
    steps: Sequence[Step], sizes: Mapping[str, int], inputs: Sequence[str], outputs: Sequence[str], views: Views, alignment: int
) -> list[Block]:
    """One a tensor that is no view, and one a scratch."""
    touched: dict[str, list[tuple[int, int, int]]] = {}  # root -> (low, high, step) of every write and read
    events = [(name, 0) for name in inputs] + [(name, len(steps)) for name in outputs]  # outputs outlive the last step
    events += [(name, now) for now, step in enumerate(steps) for name in (*step.reads, step.writes)]
    for name, now in events:
        root, inside = views[name]
        touched.setdefault(root, []).append((inside, inside + sizes[name], now))
    blocks = []
    for root, touches in touched.items():
        key = ("tensor", root)
        cuts = sorted({side for low, high, _ in touches for side in (low, high)})
        pieces = []
        for low, high in pairwise(cuts):
            times = [now for start, end, now in touches if start <= low and high <= end]
            if times:
                edges = down(low, alignment), up(high, alignment)
                pieces.append(Piece(key, *edges, min(times), max(times)))
        blocks.append(Block({key: 0}, tuple(pieces)))
    for now, step in enumerate(steps):
        if step.scratch:
            key = ("scratch", step.name)
            blocks.append(Block({key: 0}, (Piece(key, 0, up(step.scratch, alignment), now, now),)))
    return blocks


# ---- outputs that take over their input's bytes ---------------------------------------------------------------------------------


def _merged(
    blocks: Sequence[Block], steps: Sequence[Step], sizes: Mapping[str, int], views: Views, alignment: int
) -> tuple[list[Block], dict[str, str]]:
    """Blocks in which every output that may lies over its input, and which outputs those are: output -> input."""
    by_key = {key: block for block in blocks for key in block.places}
    in_place = {}
    for now, step in enumerate(steps):
        for name in over_of(step):
            old, new = by_key["tensor", views[name][0]], by_key["tensor", views[step.writes][0]]
            joined = _joined(old, new, name, step, now, sizes, views, alignment)
            if joined is not None:
                by_key |= dict.fromkeys(joined.places, joined)
                in_place[step.writes] = name
                break
    return list({id(block): block for block in by_key.values()}.values()), in_place


def _joined(
    old: Block, new: Block, name: str, step: Step, now: int, sizes: Mapping[str, int], views: Views, alignment: int
) -> Block | None:
    """One block in which the step's output begins where its input `name` does, or its lead before.

    None where something else lives on those bytes.
    """
    source, target = (_range(block, tensor, sizes, views) for block, tensor in ((old, name), (new, step.writes)))
    shift = source.start - up(step.lead, alignment) - target.start
    edges = (source.start, target.start, *_inner_ends(name, sizes, views), *_inner_ends(step.writes, sizes, views))
    others = (_range(old, read, sizes, views) for read in step.reads if read != name and ("tensor", views[read][0]) in old.places)
    if old is new or any(edge % alignment for edge in (shift, *edges)):
        return None
    begin = source.start - up(step.lead, alignment)
    if any(other.start < begin + len(target) and begin < other.stop for other in others):
        return None  # the step reads those bytes under another name, too
    moved = tuple(replace(piece, low=piece.low + shift, high=piece.high + shift) for piece in new.pieces)
    for there in old.pieces:
        for here in moved:
            handed = there.last == now == here.first and source.start <= there.low and there.high <= up(source.stop, alignment)
            handed = handed and target.start <= here.low - shift and here.high - shift <= up(target.stop, alignment)
            if not handed and meet(there, here) and there.low < here.high and here.low < there.high:
                return None
    places = {**old.places, **{key: place + shift for key, place in new.places.items()}}
    lowest = min(places.values())
    pieces = (replace(piece, low=piece.low - lowest, high=piece.high - lowest) for piece in (*old.pieces, *moved))
    return Block({key: place - lowest for key, place in places.items()}, tuple(pieces))


def _range(block: Block, name: str, sizes: Mapping[str, int], views: Views) -> range:
    """The tensor's bytes in its block."""
    root, inside = views[name]
    start = block.places["tensor", root] + inside
    return range(start, start + sizes[name])


def _inner_ends(name: str, sizes: Mapping[str, int], views: Views) -> tuple[int, ...]:
    """Where a view ends inside its tensor: what lies behind it must not share the last rounded-up bytes."""
    root, inside = views[name]
    end = inside + sizes[name]
    return (end,) if end < sizes[root] else ()


def _buffers(
    blocks: Sequence[Block],
    places: Sequence[int],
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    inputs: Sequence[str],
    views: Views,
) -> Iterator[Buffer]:
    """What is written, with the steps at which its bytes are taken."""
    where = {key: (place, block) for block, place in zip(blocks, places, strict=True) for key in block.places}
    writes = [*((name, 0) for name in inputs), *((step.writes, now) for now, step in enumerate(steps))]
    for name, first in writes:
        place, block = where["tensor", views[name][0]]
        own = _range(block, name, sizes, views)
        last = max(p.last for p in block.pieces if p.key[1] == views[name][0] and p.low < own.stop and own.start < p.high)
        yield Buffer(name, place + own.start, len(own), first, min(last, len(steps) - 1))
    for now, step in enumerate(steps):
        if step.scratch:
            place, block = where["scratch", step.name]
            yield Buffer(step.name, place + block.places["scratch", step.name], step.scratch, now, now, scratch=True)


# ---- scratch that may be larger -------------------------------------------------------------------------------------------------


def _roomy(found: Plan, steps: Sequence[Step], alignment: int) -> Plan:
    """The plan with each scratch that may be larger in the largest hole that the arena has at its step."""
    scratch, room = dict(found.scratch), dict(found.room)
    for now, step in enumerate(steps):
        if step.scratch_most > step.scratch > 0:
            place, size = _largest_hole(found, step.name, now, alignment)
            if size > step.scratch:
                scratch[step.name], room[step.name] = place, min(size, step.scratch_most)
    buffers = (replace(x, offset=scratch[x.name], size=room[x.name]) if x.scratch else x for x in found.buffers)
    return replace(found, scratch=scratch, room=room, buffers=tuple(buffers))


def _largest_hole(found: Plan, step: str, now: int, alignment: int) -> tuple[int, int]:
    """(offset, bytes) of what nothing but the step's own scratch takes."""
    others = (x for x in found.buffers if x.first <= now <= x.last and not (x.scratch and x.name == step))
    end, best = 0, (0, 0)
    for low, high in (*sorted((x.offset, x.offset + x.size) for x in others), (found.arena, found.arena)):
        best = max(best, (end, low - end), key=lambda hole: hole[1])
        end = max(end, up(high, alignment))
    return best
