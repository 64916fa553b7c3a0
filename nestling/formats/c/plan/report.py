"""What a plan looks like, as text and as a picture, and whether it fits a machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from itertools import cycle
from string import ascii_letters

from nestling.errors import WrongOption
from nestling.formats.c.plan.plan import Buffer, Plan
from nestling.printable import shown

COLUMNS, ROWS = 80, 24
STACK = 2048  # bytes that the generated code may take, see fits
UNITS = {"": 1, "K": 1024, "M": 1024**2}
NAMED = 6  # layers that a verdict names
ENDLESS = 2**40  # bytes: nobody said how many there are


def parse_size(text: str) -> int:
    """Bytes: "65536", "256K", "1M", "1.5 MB". K is 1,024. Raises NestlingError for anything else."""
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([KM]?)(?:I?B)?", text.strip().upper())
    if not found:
        raise WrongOption(f"{text!r} is no size.", "write bytes as 65536, 256K or 1M")
    return int(float(found[1]) * UNITS[found[2]])


# ---- does it fit? ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fit:
    """in_the_way: the steps at which more bytes are alive than there is RAM for, with those bytes. words: all of it, some lines."""

    fits: bool
    in_the_way: tuple[tuple[str, int], ...]
    words: str


def fits(plan: Plan, constants: int, code: int, ram: int, flash: int, stack: int = STACK) -> Fit:
    """Whether arena and stack fit the RAM, and constants and code the flash; all in bytes."""
    room = ram - stack
    needs = zip(plan.steps, plan.alive, strict=True)
    in_the_way = tuple((step, alive) for step, alive in needs if alive > room)
    lines = [
        _line("RAM", f"arena {plan.arena:,} + stack {stack:,}", plan.arena + stack, ram),
        _line("flash", f"constants {constants:,} + code {code:,}", constants + code, flash),
    ]
    if in_the_way:
        worst = sorted(in_the_way, key=lambda pair: -pair[1])[:NAMED]
        said = ", ".join(f"{_short(step, 40)} ({alive:,})" for step, alive in worst)
        more = f" and {len(in_the_way) - NAMED} more" if len(in_the_way) > NAMED else ""
        lines.append(f"in the way: {said}{more}; {max(room, 0):,} bytes are there for each.")
    elif plan.arena > room:
        lines.append("no layer needs as much by itself, but they were not brought to lie side by side in less.")
    good = plan.arena <= room and constants + code <= flash
    return Fit(good, in_the_way, "\n".join(lines))


def _line(what: str, parts: str, needed: int, there: int) -> str:
    if there >= ENDLESS:
        return f"{what}: {parts} = {needed:,} bytes."
    outcome = f"fits, {there - needed:,} to spare" if needed <= there else f"does not fit, {needed - there:,} too many"
    return f"{what}: {parts} = {needed:,} of {there:,} bytes: {outcome}."


# ---- as text --------------------------------------------------------------------------------------------------------------------


def draw(plan: Plan) -> str:
    """Rows of memory (the arena's end on top) against steps, in 80 columns, and under it what each letter stands for.

    A cell shows what takes most of it; what is too small to be seen is left out of the list.
    """
    margin = len(_kibi(plan.arena)) + 2
    columns = min(COLUMNS - margin, len(plan.steps))
    rows = min(ROWS, plan.arena)
    cells = [[_in_cell(plan, row, rows, column, columns) for column in range(columns)] for row in range(rows)]
    seen = [buffer for buffer in _in_order(plan.buffers) if any(buffer in line for line in cells)]
    letters = dict(zip((buffer for buffer in seen if not buffer.scratch), cycle(ascii_letters), strict=False))
    letters |= {buffer: "#" for buffer in seen if buffer.scratch}
    wide = max(1, (COLUMNS - margin) // columns)
    lines = [headline(plan)]
    for row in reversed(range(rows)):
        picture = "".join((letters[cell] if cell else ".") * wide for cell in cells[row])
        lines.append(f"{_kibi((row + 1) * plan.arena / rows):>{margin - 2}} |{picture}")
    ends = "step 0", str(len(plan.steps) - 1)
    lines.append(" " * margin + ends[0] + ends[1].rjust(columns * wide - len(ends[0])))
    return "\n".join([*lines, *(_legend(buffer, letters[buffer]) for buffer in seen)])


def headline(plan: Plan) -> str:
    """Arena and lower bound in one line."""
    over = 100 * (plan.arena / plan.lower_bound - 1)
    return f"arena {plan.arena:,} bytes, lower bound {plan.lower_bound:,} (+{over:.1f}%), at {_short(plan.peak_step, 24)}"


def _in_order(buffers: Sequence[Buffer]) -> Iterator[Buffer]:
    yield from sorted(buffers, key=lambda buffer: (buffer.first, buffer.scratch, buffer.offset))


def _in_cell(plan: Plan, row: int, rows: int, column: int, columns: int) -> Buffer | None:
    """The buffer that takes most of a cell's bytes and steps, the youngest of several; None where the cell is mostly free."""
    bottom, top = row * plan.arena / rows, (row + 1) * plan.arena / rows
    first, last = column * len(plan.steps) // columns, -(-(column + 1) * len(plan.steps) // columns) - 1

    def share(buffer: Buffer) -> float:
        bytes_ = min(top, buffer.offset + buffer.size) - max(bottom, buffer.offset)
        steps = 1 + min(last, buffer.last) - max(first, buffer.first)
        return max(bytes_, 0) * max(steps, 0) / ((top - bottom) * (1 + last - first))

    best = max(plan.buffers, key=lambda buffer: (round(share(buffer), 6), buffer.first))
    return best if share(best) > 1 / 3 else None


def _legend(buffer: Buffer, letter: str) -> str:
    steps = f"step {buffer.first}" if buffer.first == buffer.last else f"steps {buffer.first} to {buffer.last}"
    name = f"scratch of {buffer.name}" if buffer.scratch else buffer.name
    said = f"{buffer.size:,} bytes at {buffer.offset:,}, {steps}"
    return f"{letter} {_short(name, COLUMNS - 4 - len(said))}  {said}"


def _short(name: str, most: int) -> str:
    """On one line; the name's end is what tells layers apart."""
    name = shown(name)
    return name if len(name) <= most else "…" + name[len(name) - most + 1 :]


def _kibi(size: float) -> str:
    return f"{size / 1024:.1f}K"


# ---- as a picture ---------------------------------------------------------------------------------------------------------------

WIDTH = 9.0  # inches
COLOURS = ("#4c78a8", "#f2a541", "#5ba56c", "#c8553d", "#8e6bb0", "#3d9fa8", "#b8863b", "#d87ca0")
INK, LINE, SCRATCH = "#333333", "#ffffff", "#999999"


def picture(plan: Plan) -> str:
    """The arena over time as SVG: a rectangle a tensor, labelled where there is room. The same plan gives the same text."""
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    ours = {"svg.fonttype": "none", "svg.hashsalt": "nestling", "text.parse_math": False, "font.size": 9}
    with matplotlib.style.context(["default", ours]):
        figure = Figure(figsize=(WIDTH, 4.5))
        axes = figure.add_axes((0.09, 0.11, 0.89, 0.80))
        begins = {buffer.name: buffer.first for buffer in plan.buffers if not buffer.scratch}
        taken = {old: begins[new] for new, old in plan.in_place.items()}  # from that step on the output lies over it
        for number, buffer in enumerate(_in_order(plan.buffers)):
            steps, kibi, start = 1 + buffer.last - buffer.first, buffer.size / 1024, buffer.offset / 1024
            colour = SCRATCH if buffer.scratch else COLOURS[number % len(COLOURS)]
            axes.add_patch(Rectangle((buffer.first, start), steps, kibi, facecolor=colour, edgecolor=LINE, linewidth=0.8))
            seen = steps if buffer.scratch else taken.get(buffer.name, buffer.last + 1) - buffer.first
            label = _label(buffer, seen / len(plan.steps), buffer.size / plan.arena)
            if label:
                text, turned = label
                middle = buffer.first + seen / 2, start + kibi / 2
                axes.text(*middle, text, rotation=90 * turned, ha="center", va="center", color=LINE, fontsize=7)
        axes.axhline(plan.lower_bound / 1024, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xlim(0, len(plan.steps))
        axes.set_ylim(0, plan.arena / 1024 * 1.03)
        axes.set_xlabel("step")
        axes.set_ylabel("KiB")
        axes.set_title(headline(plan), fontsize=9, color=INK)
        written = StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()


def _label(buffer: Buffer, wide: float, high: float) -> tuple[str, bool] | None:
    """(text, whether it is turned upright) as far as it fits a rectangle of these shares of the axes; None where nothing does."""
    name = shown(buffer.name)
    across, upright = int(wide * 120), int(high * 54)  # letters of 7 points that fit
    least = min(len(name), 8)  # fewer say nothing
    if across >= least and high * 30 >= 1:
        return _short(name, across), False
    return (_short(name, upright), True) if upright >= least and wide * 70 >= 1 else None
