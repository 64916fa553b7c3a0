"""Cortex-M4: one instruction after the other, as Arm's Technical Reference Manual (DDI 0439, 100166) lists and describes them.

CYCLES is its table of instructions; the functions below are what its "Load/store timings" say of neighbours. Where the manual
leaves a range, a comment says what is taken.
"""

from __future__ import annotations

from collections.abc import Mapping

from nestling.formats.c.cycles.instructions import BRANCHES, LOADS, Block, Instruction

CYCLES: Mapping[str, int] = {
    "nothing": 1,
    "if-then": 1,  # may be folded into the instruction before it, which is not counted on
    "move": 1,
    "arithmetic": 1,
    "select": 1,
    "shift": 1,
    "extend": 1,
    "extend and add": 1,
    "pack": 1,
    "bits": 1,
    "insert": 1,
    "lanes": 1,
    "saturate": 1,
    "multiply": 1,
    "multiply and add": 1,
    "long multiply": 1,
    "long multiply and add": 1,
    "divide": 12,  # 2 to 12, by the operands
    "load": 2,
    "load narrow": 2,
    "load pair": 1,  # and one for each word, as all that follow with several words
    "load several": 1,
    "store": 1,
    "store pair": 1,
    "store several": 1,
    "branch": 1,  # and the refill where it is taken
    "branch to register": 1,
    "table branch": 3,  # the load and the sum
    "system": 4,  # barriers wait for what is under way
    "float": 1,
    "float multiply and add": 3,
    "float divide": 14,
    "float move": 1,  # boards take one for one register, where the manual's line names one or two together; see below for two
    "float flags": 1,
    "float load": 1,
    "float load several": 1,
    "float store": 1,
    "float store several": 1,
}
BY_WORD = frozenset(
    (
        "load pair",
        "load several",
        "store pair",
        "store several",
        "float load",
        "float load several",
        "float store",
        "float store several",
    )
)
PIPELINED = frozenset(("load", "load narrow"))  # behind one another these take a cycle each
DATA = frozenset(CYCLES) - LOADS - BRANCHES  # whose results an address has to wait for
NEAR, FAR, ACROSS = (
    1,
    3,
    1,
)  # cycles of refill: to an address in the instruction, to one in a register; more for a target across words


def total(walks: Mapping[tuple[Block, Block], int]) -> int:
    """Of blocks that were entered one from another so often."""
    return sum(count * cycles(before, block) for (before, block), count in walks.items())


def cycles(before: Block, block: Block) -> int:
    """Of a block that is entered from another: what branching there took included, branching away not."""
    last = before[-1] if before else None
    refilled = last is not None and last.end != block[0].address
    total = _refill(last, block[0]) if last is not None and refilled else 0
    previous = None if refilled else last
    for instruction in block:
        total += _one(previous, instruction)
        previous = instruction
    return total


def _one(previous: Instruction | None, now: Instruction) -> int:
    taken = CYCLES.get(now.kind, 1)
    if now.kind in BY_WORD:
        taken += now.words
    elif now.kind == "float move" and now.moved > 1:
        taken = 2
    if now.kind == "store" and now.indexed:
        taken = 2
    if previous is None:
        return taken
    behind_load = previous.kind in PIPELINED and not (previous.writes | previous.updated) & now.addresses
    if behind_load and (now.kind in PIPELINED or now.kind == "store"):
        return 1
    waits = previous.kind in DATA and bool(previous.writes & now.addresses)
    return taken + waits


def _refill(branch: Instruction, target: Instruction) -> int:
    """The manual's P, 1 to 3, by the width and alignment of the target, and by whether its address is known early."""
    across = ACROSS if target.size == 4 and target.address % 4 else 0
    return min(3, (NEAR if branch.kind == "branch" else FAR) + across)
