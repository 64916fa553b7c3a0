"""The machines that C is made for: what machines/NAME/machine.json says, as a value.

    machines/NAME/      machine.json, and the files of this machine alone
    machines/shared/    files of several: start-up, timer, output, and main_bench.c, the program that measures

A new machine is a new folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nestling.errors import WrongOption

FOLDER = Path(__file__).with_name("machines")
FILE = "machine.json"
HOST = "host"  # the feature of processors with an operating system, and the runtime's folder for it
Counts = Literal["instructions", "milliseconds", "none"]


@dataclass(frozen=True)
class Machine:
    """prefix: of the compiler's name; cflags, ldflags: what it takes. sources: files that a program needs, relative to machines/.

    run: the command that runs a program, "{elf}" being the program's file. counts: what its timer tells of a layer.
    alignment: of tensors in the arena, bytes. install: Debian packages of compiler and emulator.
    cycles: the core of which an estimate of cycles is made (a key of cycles.estimate.CORES); "" where there is none.
    replaces: file of the portable runtime -> this machine's own, relative to machines/. features: what kernels may need of it:
    "dsp" (Armv7E-M's and later: SMLAD, SMMLA, SSAT), "mve" (Arm's vectors of the M profile), "rv32" (RV32IM), "host" (an
    operating system, of which kernels ask for the instructions that there are).
    """

    name: str
    title: str
    prefix: str
    cflags: tuple[str, ...]
    ldflags: tuple[str, ...]
    sources: tuple[str, ...]
    run: tuple[str, ...]
    counts: Counts
    alignment: int
    install: tuple[str, ...]
    cycles: str = ""
    replaces: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] = ()

    @property
    def compiler(self) -> str:
        """The C compiler, which also links."""
        return f"{self.prefix}gcc" if self.prefix else "cc"


def names() -> tuple[str, ...]:
    """Every machine, in order of the alphabet."""
    return tuple(sorted(file.parent.name for file in FOLDER.glob(f"*/{FILE}")))


def machine(name: str) -> Machine:
    """The machine of that name. Raises NestlingError, naming those that there are."""
    if name not in names():
        raise WrongOption(f"there is no machine {name!r}.", f"there are: {', '.join(names())}")
    plain: dict[str, Any] = json.loads((FOLDER / name / FILE).read_text(encoding="utf-8"))
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Machine(**fields)


def files(machine: Machine) -> dict[str, Path]:
    """What a folder of this machine holds beside the network: name in the folder -> file."""
    return {Path(source).name: FOLDER / source for source in machine.sources}
