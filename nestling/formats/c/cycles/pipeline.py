"""Cores that start several instructions at once, or one before another has ended: in order, each as soon as it can.

An instruction starts when what it reads is there, its units are free, and all before it have started. How long anything takes is
the core's own; here is only what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nestling.formats.c.cycles.instructions import Block, Instruction


@dataclass(frozen=True)
class Use:
    """What an instruction takes. units: all of them; either: one of these. holds: cycles for which they are taken.

    alone: nothing else starts in these cycles. nothing: it takes no place at all.
    """

    units: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    holds: int = 1
    alone: bool = False
    nothing: bool = False


@dataclass(frozen=True)
class Pipeline:
    """units: how many there are of each. use: what an instruction takes.

    gap: cycles from the start of one instruction to that of another which reads a register that the first wrote. pairs: whether two
    neighbours may start in one cycle. turn: cycles that are lost behind a block's last instruction; it is told whether what is
    executed next lies elsewhere.
    """

    units: Mapping[str, int]
    use: Callable[[Instruction], Use]
    gap: Callable[[Instruction, Instruction, str], int]
    pairs: Callable[[Instruction, Instruction], bool]
    turn: Callable[[Instruction, bool], int]


@dataclass
class _Run:
    """Where a core stands. now: the first cycle in which another may start; together: those that start then already. last: when the
    latest started. free: when each unit is, by number. wrote: who wrote a register, and when that started."""

    core: Pipeline
    now: int = 0
    last: int = -1
    together: list[Instruction] = field(default_factory=list)
    free: dict[str, list[int]] = field(default_factory=dict)
    wrote: dict[str, tuple[Instruction, int]] = field(default_factory=dict)

    def step(self, instruction: Instruction) -> None:
        use = self.core.use(instruction)
        if use.nothing:
            return
        at = max(self.now, self._readable(instruction))
        if self.together and at == self.now:
            first = self.together[-1]
            if len(self.together) > 1 or use.alone or self.core.use(first).alone or not self.core.pairs(first, instruction):
                at += 1
        while (units := self._found(use, at)) is None:
            at += 1
        for name, number in units:
            self.free[name][number] = at + use.holds
        for register in instruction.writes | instruction.updated:
            self.wrote[register] = (instruction, at)
        self.together = [*(self.together if at == self.now else []), instruction]
        self.now = self.last = at + (use.holds - 1 if use.alone else 0)

    def turned(self, last: Instruction, target: Instruction) -> None:
        away = last.end != target.address
        lost = self.core.turn(last, away)
        if away or lost:
            self.now, self.together = self.last + 1 + lost, []

    def _readable(self, instruction: Instruction) -> int:
        """The first cycle in which all that it reads is there."""
        read = (instruction.reads | instruction.first | instruction.addresses) & self.wrote.keys()
        return max((at + self.core.gap(by, instruction, name) for name in read for by, at in (self.wrote[name],)), default=0)

    def _found(self, use: Use, at: int) -> list[tuple[str, int]] | None:
        """A free unit of each that it takes, as (name, number); None where one is missing."""
        found: list[tuple[str, int]] = []
        for names in (*((unit,) for unit in use.units), *((use.either,) if use.either else ())):
            free = [(name, i) for name in names for i, when in enumerate(self._all(name)) if when <= at and (name, i) not in found]
            if not free:
                return None
            found.append(free[0])
        return found

    def _all(self, name: str) -> list[int]:
        return self.free.setdefault(name, [0] * self.core.units[name])


def cycles(core: Pipeline, before: Block, block: Block) -> int:
    """Of a block that is entered from another: how much later the last of it starts than the last of the other."""
    run = _Run(core)
    for instruction in before:
        run.step(instruction)
    started = run.last
    if before:
        run.turned(before[-1], block[0])
    for instruction in block:
        run.step(instruction)
    return run.last - started
