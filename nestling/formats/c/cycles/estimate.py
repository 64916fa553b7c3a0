"""An estimate of clock cycles: what was executed, block by block, and what the core takes for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nestling.errors import NestlingError
from nestling.formats.c.cycles import cortex_m4, cortex_m7, cortex_m55
from nestling.formats.c.cycles.executed import Walks, disassembled, executed, walks
from nestling.formats.c.cycles.instructions import UNKNOWN
from nestling.formats.c.machines import Machine

NOTE = "cycles are an estimate, with memories that never make the core wait (docs/c.md)"


@dataclass(frozen=True)
class Core:
    """architecture: as objdump takes it. total: cycles of what was executed."""

    architecture: str
    total: Callable[[Walks], int]


CORES: Mapping[str, Core] = {
    "cortex-m4": Core("armv7e-m", cortex_m4.total),
    "cortex-m7": Core("armv7e-m", cortex_m7.total),
    "cortex-m55": Core("armv8.1-m.main", cortex_m55.total),
}


@dataclass(frozen=True)
class Estimate:
    """Of each layer, in running order. instructions: counted exactly. note: what the cycles are, and what they leave out."""

    cycles: tuple[int, ...]
    instructions: tuple[int, ...]
    note: str


def estimate(machine: Machine, program: Path, marker: str, layers: int) -> Estimate:
    """program: calls the function `marker` before the first layer and after each, once.

    Raises NestlingError where the program does not run, or objdump does not know what was executed.
    """
    core = CORES[machine.cycles]
    shown = disassembled(f"{machine.prefix}objdump", core.architecture, program)
    found = walks(shown, [part.replace("{elf}", str(program)) for part in machine.run], program.parent, marker)
    if len(found) != layers:
        raise NestlingError(f"{machine.name}: {len(found)} layers were executed, not {layers}.")
    counts = [executed(section) for section in found]
    unknown: Counter[str] = Counter()
    for count in counts:
        for instruction, times in count.items():
            if instruction.kind == UNKNOWN:
                unknown[instruction.name] += times
    missing = [f"{times:,} {name}" for name, times in unknown.most_common()]
    told = f"; of {', '.join(missing)} nothing is known, one cycle each was taken" if missing else ""
    return Estimate(tuple(core.total(section) for section in found), tuple(count.total() for count in counts), NOTE + told)
