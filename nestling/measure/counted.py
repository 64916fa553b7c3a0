"""A folder of C on its virtual platform: instructions of every layer, RAM and flash.

QEMU counts instructions, not cycles; for those there is an estimate where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nestling import bundle as bundles
from nestling.artifacts.yardstick import expected
from nestling.errors import NestlingError
from nestling.formats import named
from nestling.formats.c import machines, virtual
from nestling.formats.c.trusted import copied, require_trusted
from nestling.measure.bench import listed
from nestling.progress import Progress, silent

HOST = "host"  # is timed like every other file


@dataclass(frozen=True)
class Counted:
    """One image through a folder of C. instructions: of all layers; None where its emulator counts nothing, as for linux-arm64.

    flash_bytes: code and constants. cycles_estimate: of all layers; None where none was asked for or can be made, cycles_note says
    why. What is None can't be told.
    """

    file: str
    machine: str
    title: str
    layers: tuple[virtual.LayerCount, ...]
    instructions: int | None
    macs: int
    arena_bytes: int | None
    flash_bytes: int | None
    stack_bytes: int | None
    calibration: virtual.Calibration | None
    note: str
    cycles_estimate: int | None
    cycles_note: str


def machine_of(path: Path) -> str | None:
    """The machine that a folder of C was made for, where that is not this computer and its manifest tells; None for all else."""
    artifact = listed(path) if path.is_dir() else None
    name = named(artifact.format).machine if artifact else ""
    return None if name in ("", HOST) else name


def counted(
    folders: Sequence[Path], data: Path | None = None, progress: Progress = silent, trust: bool = False, cycles: bool = False
) -> tuple[Counted, ...]:
    """Build each folder for its machine and run it there on one photograph (see yardstick.expected).

    cycles: estimated, too, which takes some seconds. trust: whoever wrote them. What an emulator runs can write files here, too.
    Raises NotTrusted; NestlingError where a compiler or emulator is missing, naming what to install.
    """
    require_trusted(folders, trust)
    if not folders:
        return ()
    found = []
    with progress("running on virtual machines", len(folders)) as advance:
        for folder in folders:
            found.append(_one(folder, data, trust, cycles))
            advance(1)
    return tuple(found)


def _one(folder: Path, data: Path | None, trust: bool, cycles: bool) -> Counted:
    artifact, name = listed(folder), machine_of(folder)
    if artifact is None or name is None or not (folder.parent / artifact.bundle).is_file():
        raise NestlingError(f"{folder} lacks its manifest or the bundle that it was printed from.", "export it again")
    machine = machines.machine(name)
    image = expected(bundles.load(folder.parent / artifact.bundle), True, data).images[0]
    with copied(folder, trust) as place:
        ran = virtual.run(place, machine, image, cycles=cycles)
    instructions = [layer.instructions for layer in ran.layers if layer.instructions is not None]
    estimates = [layer.cycles_estimate for layer in ran.layers if layer.cycles_estimate is not None]
    return Counted(
        file=folder.name,
        machine=name,
        title=machine.title,
        layers=ran.layers,
        instructions=sum(instructions) if instructions else None,
        macs=sum(layer.macs for layer in ran.layers),
        arena_bytes=artifact.arena,
        flash_bytes=ran.code + ran.constants if ran.code is not None and ran.constants is not None else None,
        stack_bytes=ran.stack,
        calibration=ran.calibration,
        note=ran.note,
        cycles_estimate=sum(estimates) if estimates else None,
        cycles_note=ran.cycles_note,
    )
