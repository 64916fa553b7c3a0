"""Cortex-M7: two instructions at once, in order. Arm publishes no table of it.

Units and latencies are those of the scheduling model in LLVM (ARMScheduleM7.td); where that leaves something open, what others have
measured on STM32H7: https://www.quinapalus.com/cm7cycles.html and https://github.com/jnk0le/random (pipeline cycle tests). Code and
data are taken to be in caches or tightly coupled memories that never make it wait.
"""

from __future__ import annotations

from collections.abc import Mapping

from nestling.formats.c.cycles import pipeline
from nestling.formats.c.cycles.instructions import BRANCHES, STORES, Block, Instruction
from nestling.formats.c.cycles.pipeline import Pipeline, Use

UNITS: Mapping[str, int] = {"alu": 2, "shifter": 1, "dsp": 1, "mac": 1, "load": 2, "store": 1, "branch": 1, "float": 1}
# kind -> (cycles until another can use what it computes, the units that it takes)
TABLE: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "nothing": (0, ()),
    "if-then": (0, ()),
    "move": (1, ("alu",)),
    "arithmetic": (1, ("alu",)),
    "shift": (1, ("alu",)),
    "select": (1, ("alu", "dsp")),
    "extend": (1, ("alu", "dsp")),
    "extend and add": (1, ("alu", "dsp", "shifter")),
    "pack": (1, ("alu", "dsp", "shifter")),
    "bits": (1, ("alu", "dsp", "shifter")),
    "insert": (1, ("alu", "dsp", "shifter")),
    "lanes": (1, ("alu", "dsp")),
    "saturate": (2, ("alu", "dsp", "shifter")),
    "multiply": (2, ("mac",)),
    "multiply and add": (2, ("mac",)),
    "long multiply": (2, ("mac",)),
    "long multiply and add": (2, ("mac",)),
    "divide": (1, ("alu",)),
    "load": (1, ("load",)),
    "load narrow": (2, ("load",)),
    "load pair": (1, ("load", "load")),
    "load several": (1, ("load", "load")),
    "store": (1, ("store",)),
    "store pair": (1, ("store",)),
    "store several": (1, ("store",)),
    "branch": (1, ("branch",)),
    "branch to register": (1, ("branch",)),
    "table branch": (1, ("load", "branch")),
    "system": (3, ("alu",)),
    "float": (3, ("float",)),
    "float multiply and add": (5, ("float",)),
    "float divide": (16, ("float",)),
    "float move": (3, ("float",)),
    "float flags": (1, ("float",)),
    "float load": (1, ("load",)),
    "float load several": (1, ("load", "load")),
    "float store": (1, ("store",)),
    "float store several": (1, ("store",)),
}
BY_WORD = frozenset(
    ("load pair", "load several", "store pair", "store several", "float load several", "float store several")
)  # two words a cycle, and nothing beside them
HOLDS: Mapping[str, int] = {"divide": 7, "float divide": 14, "table branch": 2, "system": 3}  # and nothing beside them
MULTIPLY = frozenset(("multiply", "multiply and add", "long multiply", "long multiply and add"))
EARLY = frozenset(("extend and add", "pack", "bits", "insert", "saturate"))  # want what they read a cycle earlier
BANKS = 2  # of the data memory, a word wide each: two loads of one bank take turns
MISSED = 6  # cycles of a branch that went the other way than was foretold


def total(walks: Mapping[tuple[Block, Block], int]) -> int:
    """Of blocks that were entered one from another so often. A branch is taken to be foretold to go where it mostly goes."""
    summed = sum(count * pipeline.cycles(CORE, before, block) for (before, block), count in walks.items())
    ways: dict[int, list[int]] = {}
    for (before, block), count in walks.items():
        if before and before[-1].conditional and before[-1].kind == "branch":
            ways.setdefault(before[-1].address, [0, 0])[before[-1].end == block[0].address] += count
    return summed + MISSED * sum(min(pair) for pair in ways.values())


def use(instruction: Instruction) -> Use:
    """What it takes of the core."""
    kind = instruction.kind
    units = TABLE[kind][1] if kind in TABLE else ("alu",)
    if instruction.shifted and kind == "arithmetic":
        units = ("alu", "shifter")
    if kind in BY_WORD or (kind in ("float load", "float store") and instruction.words > 1):
        return Use(units, holds=-(-instruction.words // 2), alone=True)
    if kind in HOLDS or (kind == "float move" and instruction.moved > 1):
        return Use(units, holds=HOLDS.get(kind, 1), alone=True)
    return Use(units)


def gap(first: Instruction, then: Instruction, register: str) -> int:
    """From the start of what writes a register to that of what reads it: addresses early, what is stored or added to late."""
    ready = 0 if register in first.updated else TABLE.get(first.kind, (1, ()))[0]
    if first.kind == "float move" and not register.startswith("s"):
        ready = 1
    if first.kind in BY_WORD:
        ready += -(-first.words // 2) - 1
    if register in then.addresses:
        return ready + 1
    if register in then.first and register not in then.reads:
        return max(0, ready - 1) if "float" not in then.kind else ready
    if then.kind in EARLY or then.shifted:
        return ready + 1
    if then.kind in MULTIPLY and first.kind == "load":
        return ready + 1
    return ready


def pairs(first: Instruction, then: Instruction) -> bool:
    """Whether both may start at once, their units being free."""
    kinds = {first.kind, then.kind}
    if first.kind in BRANCHES or "dsp" in TABLE.get(then.kind, (1, ()))[1]:
        return False  # what is behind a branch waits; a DSP instruction has to be the first of the two
    if kinds & MULTIPLY and kinds & STORES:
        return False
    if first.offset is not None and then.offset is not None and first.addresses == then.addresses:
        return not kinds <= {"load", "load narrow"} or (first.offset // 4 - then.offset // 4) % BANKS != 0
    return True


def turn(last: Instruction, away: bool) -> int:
    """Nothing is lost at a branch that was foretold."""
    return 0


CORE = Pipeline(UNITS, use, gap, pairs, turn)
