"""Cortex-M55: vectors of 128 bits in two beats, each of its units beside the others; short instructions in pairs.

Units, beats and latencies are those of the scheduling model in LLVM (ARMScheduleM55.td). Code and data are taken to be in tightly
coupled memories that never make it wait.
"""

from __future__ import annotations

from collections.abc import Mapping

from nestling.formats.c.cycles import pipeline
from nestling.formats.c.cycles.instructions import Block, Instruction
from nestling.formats.c.cycles.pipeline import Pipeline, Use

UNITS: Mapping[str, int] = {"scalar": 2, "memory": 1, "integer": 1, "multiply": 1, "control": 1}
SCALAR, MEMORY, MULTIPLY, CONTROL = ("scalar",), ("memory",), ("multiply",), ("control",)
# kind -> (cycles until another can use what it computes, the units that it takes)
TABLE: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "nothing": (0, SCALAR),
    "if-then": (0, SCALAR),
    "move": (1, SCALAR),
    "arithmetic": (1, SCALAR),  # 2 with a shifted operand
    "select": (1, SCALAR),
    "shift": (1, SCALAR),
    "long shift": (2, SCALAR),
    "extend": (1, SCALAR),
    "extend and add": (2, SCALAR),
    "pack": (2, SCALAR),
    "bits": (2, SCALAR),
    "insert": (1, SCALAR),
    "lanes": (2, SCALAR),
    "saturate": (2, SCALAR),
    "multiply": (2, SCALAR),
    "multiply and add": (2, SCALAR),
    "long multiply": (2, SCALAR),
    "long multiply and add": (2, SCALAR),
    "divide": (2, SCALAR),
    "load": (2, SCALAR),
    "load narrow": (2, SCALAR),
    "load pair": (2, SCALAR),
    "load several": (2, SCALAR),
    "store": (1, SCALAR),
    "store pair": (1, SCALAR),
    "store several": (1, SCALAR),
    "clear several": (1, SCALAR),
    "branch": (1, SCALAR),
    "branch to register": (1, SCALAR),
    "table branch": (1, SCALAR),
    "loop start": (1, SCALAR),
    "loop end": (0, ()),
    "system": (2, SCALAR),
    "float": (2, MULTIPLY),
    "float multiply and add": (4, MULTIPLY),
    "float divide": (16, MULTIPLY),
    "float move": (2, MULTIPLY),
    "float flags": (1, MULTIPLY),
    "float load": (2, MEMORY),
    "float load several": (2, MEMORY),
    "float store": (1, MEMORY),
    "float store several": (1, MEMORY),
    "vector load": (1, MEMORY),
    "vector store": (1, MEMORY),
    "vector integer": (1, ("integer",)),
    "vector rounding shift": (2, ("integer",)),
    "vector narrow": (3, ("integer",)),
    "vector across": (3, ("integer",)),
    "vector multiply": (2, MULTIPLY),
    "vector sum": (2, MULTIPLY),
    "vector long sum": (2, MULTIPLY),
    "vector compare": (1, MULTIPLY),
    "vector move": (1, MULTIPLY),  # into a vector: by whichever of two units is free
    "vector predicate": (1, CONTROL),
}
BEATS = 2  # a vector's cycles in its unit
BY_WORD = frozenset(
    ("load pair", "load several", "store pair", "store several", "float load several", "float store several", "clear several")
)  # two words a cycle
HOLDS: Mapping[str, int] = {"divide": 12, "float divide": 14, "table branch": 3, "system": 4}  # the first as on Cortex-M4
GATHERED = 4  # cycles from what computes a vector of places to what loads or stores there
TAKEN = 2  # cycles lost where a branch goes elsewhere; `le` goes back in none, and loses them once, at its loop's end
SECOND = frozenset(("nothing", "if-then", "extend", "branch"))  # beside any other 16-bit instruction; so are add, sub and mov


def total(walks: Mapping[tuple[Block, Block], int]) -> int:
    """Of blocks that were entered one from another so often."""
    return sum(count * pipeline.cycles(CORE, before, block) for (before, block), count in walks.items())


def use(instruction: Instruction) -> Use:
    """What it takes of the core."""
    kind = instruction.kind
    units = TABLE[kind][1] if kind in TABLE else SCALAR
    if kind == "loop end":
        return Use(nothing=True)
    if kind in BY_WORD or kind in HOLDS:
        return Use(units, holds=HOLDS.get(kind) or -(-max(1, instruction.words) // 2), alone=True)
    if kind in ("vector load", "vector store"):
        return Use(units, holds=max(BEATS, instruction.words // 2))
    if kind == "vector move" and not instruction.writes & {f"r{i}" for i in range(16)}:
        return Use(either=("integer", "multiply"), holds=BEATS)
    return Use(units, holds=BEATS if kind.startswith("vector") and units != CONTROL else 1)


def gap(first: Instruction, then: Instruction, register: str) -> int:
    """From the start of what writes a register to that of what reads it."""
    ready = 1 if register in first.updated else TABLE.get(first.kind, (1, ()))[0]
    if first.shifted and first.kind == "arithmetic":
        ready = 2
    if first.kind in ("load pair", "load several"):
        ready += -(-first.words // 2) - 1
    if register in then.addresses and register.startswith("s") and register != "sp":
        return ready + GATHERED
    if register in then.first and then.kind == "vector store" and first.kind != "vector narrow":
        return max(1, ready - 1)
    return ready


def pairs(first: Instruction, then: Instruction) -> bool:
    """Both of 16 bits, one of them among those that go beside another, and the second without what the first computes."""
    if first.size != 2 or then.size != 2 or first.writes & (then.reads | then.addresses | then.first):
        return False
    return first.kind not in ("branch", "branch to register") and (_second(first) or _second(then))


def _second(instruction: Instruction) -> bool:
    if instruction.kind in SECOND or instruction.name == "mov":
        return True
    return instruction.name in ("add", "sub") and "#" in instruction.text


def turn(last: Instruction, away: bool) -> int:
    """Cycles lost from one instruction to the next."""
    if last.kind == "loop end":
        return 0 if away else TAKEN + 1
    return TAKEN if away else 0


CORE = Pipeline(UNITS, use, gap, pairs, turn)
