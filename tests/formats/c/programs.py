"""Programs of one's own on a virtual machine's start-up."""

from __future__ import annotations

import subprocess
from pathlib import Path

from nestling.formats.c import machines
from nestling.formats.c.machines import Machine


def program(made: Machine, folder: Path, main: str, *flags: str) -> Path:
    """An ELF of one's own main() on the machine's start-up."""
    (folder / "own_main.c").write_text(main)
    for name, file in machines.files(made).items():
        if name != "main_bench.c":
            (folder / name).write_bytes(file.read_bytes())
    parts = [made.compiler, "-std=c99", *made.cflags, *flags, *(str(file.name) for file in folder.glob("*.c"))]
    subprocess.run([*parts, *made.ldflags, "-o", "own.elf"], cwd=folder, check=True)
    return folder / "own.elf"
