"""Which instructions a program executed on a virtual machine, and in which order, layer by layer.

QEMU translates a program block by block, and can log each block as it translates it (`-d in_asm`) and each time that it executes
one (`exec`; with `nochain` every time). So the log says exactly what was executed; the instructions of a block are objdump's. It
comes through a pipe and is counted as it comes: for each block, from which other it was entered, how often.
"""

from __future__ import annotations

import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestling.errors import NestlingError
from nestling.formats.c.cycles.instructions import Block, Instruction, parse

SECONDS = 600  # that a program may take
CHUNK = 1 << 20
LOG = ("-d", "in_asm,exec,nochain")
CLOCK = ("-icount", "shift=0")  # is left out: where time is counted, blocks end where it ends
_LISTED = re.compile(r"^0x([0-9a-f]+):\s+((?:[0-9a-f]{2,8} ?)+)", re.MULTILINE)  # a translated instruction: its address, its bytes
_BLOCK = re.compile(rb"^IN:[^\n]*\n((?:0x[^\n]*\n)+)", re.MULTILINE)
_EXECUTED = re.compile(rb"^Trace \d+: \S+ \[[0-9a-f]+/([0-9a-f]+)/", re.MULTILINE)
_NOT_EXECUTED = re.compile(rb"^Trace [^\n]*\nStopped execution of TB chain[^\n]*\n", re.MULTILINE)  # the block will come again
_LABEL = re.compile(r"^([0-9a-f]+) <([^>]+)>:$")
_LINE = re.compile(r"^\s*([0-9a-f]+):\t((?:[0-9a-f]{4} ?|[0-9a-f]{8} ?)+)\s*\t(.+)$")

Walks = Mapping[tuple[Block, Block], int]  # (the block before, or (); a block) -> how often the one was entered from the other


@dataclass(frozen=True)
class Program:
    """A program as objdump shows it. instructions: by address; labels: address of each function."""

    instructions: Mapping[int, Instruction]
    labels: Mapping[str, int]


def disassembled(objdump: str, architecture: str, program: Path) -> Program:
    """architecture: as objdump's -m takes it."""
    command = [objdump, "-d", "-m", architecture, program.name]
    ended = subprocess.run(command, cwd=program.parent, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if ended.returncode:
        raise NestlingError(f"{objdump} did not show the program: {ended.stderr.strip()[-200:]}.")
    instructions, labels = {}, {}
    for line in ended.stdout.splitlines():
        if match := _LABEL.match(line):
            labels[match[2]] = int(match[1], 16)
        elif (match := _LINE.match(line)) and not match[3].startswith("."):
            address = int(match[1], 16)
            instructions[address] = parse(address, len(match[2].replace(" ", "")) // 2, match[3])
    return Program(instructions, labels)


def walks(program: Program, command: Sequence[str], place: Path, marker: str) -> list[Walks]:
    """Run it; what was executed between each call of the function `marker` and the next. What is before the first is left out.

    Raises NestlingError where it ends with another status than 0, or not within ten minutes.
    """
    line = [part for part in command if part not in CLOCK]
    ends: dict[int, int] = {}
    with subprocess.Popen([*line, *LOG], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        late = threading.Timer(SECONDS, running.kill)
        late.start()
        try:
            assert running.stderr is not None
            sections = _sections(_read(running.stderr.read, ends), program.labels[marker])
        except BaseException:
            running.kill()
            raise
        finally:
            late.cancel()
    if running.returncode:
        raise NestlingError(f"the program ended with status {running.returncode} when its instructions were to be seen.")
    if missing := {address for section in sections for edge in section for address in edge} - ends.keys() - {-1}:
        raise NestlingError(f"{line[0]} does not list what it executes at {min(missing):#x}.")
    known: dict[int, Block] = {address: _block(program, address, end) for address, end in ends.items()}
    known[-1] = ()
    return [{(known[before], known[after]): count for (before, after), count in section.items()} for section in sections]


def executed(section: Walks) -> Counter[Instruction]:
    """How often each instruction was."""
    found: Counter[Instruction] = Counter()
    for (_, block), count in section.items():
        for instruction in block:
            found[instruction] += count
    return found


def _read(read: Callable[[int], bytes], ends: dict[int, int]) -> Iterator[list[int]]:
    """Addresses of the blocks that were executed, many at a time; into `ends` goes where each of them ends."""
    rest = b""
    while chunk := read(CHUNK):
        text = rest + chunk
        cut = text.rfind(b"\nTrace ") + 1  # what comes behind the last one may say that it was not executed
        text, rest = text[:cut], text[cut:]
        yield _addresses(text, ends)
    yield _addresses(rest, ends)


def _addresses(text: bytes, ends: dict[int, int]) -> list[int]:
    for match in _BLOCK.finditer(text):
        listed = _LISTED.findall(match[1].decode())
        start, (last, content) = int(listed[0][0], 16), listed[-1]
        ends[start] = int(last, 16) + len(content.replace(" ", "")) // 2
    if b"\nStopped" in text:
        text = _NOT_EXECUTED.sub(b"", text)
    return [int(address, 16) for address in _EXECUTED.findall(text)]


def _sections(parts: Iterable[list[int]], marker: int) -> list[Counter[tuple[int, int]]]:
    """How often each block was entered from each other, (-1, first) at a section's beginning; sections end where the marker is."""
    sections: list[Counter[tuple[int, int]]] = []
    before = -1
    for part in parts:
        start = 0
        while start <= len(part):
            try:
                end = part.index(marker, start)
            except ValueError:
                end = len(part)
            inside = part[start:end]
            if sections and inside:
                sections[-1].update(zip([before, *inside], inside, strict=False))
                before = inside[-1]
            if end < len(part):
                sections.append(Counter())
                before = -1
            start = end + 1
    return sections[:-1]


def _block(program: Program, start: int, end: int) -> Block:
    found = []
    while start < end:
        instruction = program.instructions.get(start)
        if instruction is None:
            raise NestlingError(f"objdump shows no instruction at {start:#x}, where QEMU executed one.")
        found.append(instruction)
        start = instruction.end
    return tuple(found)
