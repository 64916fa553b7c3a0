"""Virtual platforms: a folder of C is built for a machine and run on one image, in QEMU or on this computer.

QEMU counts instructions, not cycles: with `-icount shift=0` every instruction takes one nanosecond of its virtual time, whatever it
is, so a timer around a layer counts instructions exactly. How many clock cycles a board takes for them depends on its memories and
its pipeline, about which this says nothing. Each run begins with the calibration of the timer on a loop of known length.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from nestling.errors import NestlingError
from nestling.formats.c import names
from nestling.formats.c.cycles.estimate import estimate
from nestling.formats.c.machines import FOLDER, Counts, Machine, files
from nestling.graph.ir import Array

SECONDS = 600  # that a program may take
RUNS = 15  # of a network where time is measured, not counted
BENCH, FOLLOWED = "main_bench", "main_cycles"
CODE, CONSTANTS = (".text", ".ARM.exidx", ".data"), (".rodata",)  # sections that a firmware would keep in flash
COMMON = ("-std=c99", "-Wall", "-Wextra")
CALLS: Mapping[Counts, tuple[str, ...]] = {  # for GCC: who calls whom, and how much stack each function takes
    "instructions": ("-fcallgraph-info=su",),
    "milliseconds": (),
    "none": (),
}
STACK_OF = ("features", "predict")  # of a network's functions
LARGEST_TICK = 16  # denominator of the instructions in a tick: 25 and 32 MHz give 40 and 31.25
NOTES: Mapping[Counts, str] = {
    "instructions": "instructions as QEMU counts them, one nanosecond each: not cycles",
    "milliseconds": "milliseconds on this computer, the median of several runs",
    "none": "answers only: this emulator counts nothing",
}


@dataclass(frozen=True)
class LayerCount:
    """A call of a kernel. shape: (height, width, channels) of its output. What is None was not measured."""

    name: str
    kind: str
    shape: tuple[int, int, int]
    macs: int
    instructions: int | None
    ms: float | None
    cycles_estimate: int | None = None


@dataclass(frozen=True)
class Calibration:
    """A loop of so many instructions was counted as so many; tick: instructions in a tick of the machine's timer."""

    instructions: int
    counted: int
    tick: float


@dataclass(frozen=True, eq=False)
class Ran:
    """What a machine answered and what it took.

    embedding: int8 [D]; logits: float32 [classes]. trace: each layer's bytes, in order, () where it was not asked for.
    calibration: None where instructions are not counted; note: what is counted, in words.
    code, constants: bytes of flash, without what only the measurement needs; None on hosted machines.
    stack: the most bytes seen in use below the caller, by a painted stack; stack_bound: by GCC's -fstack-usage along the calls,
    libraries not included. None where it can't be told. cycles_note: what the layers' estimates are, or why there are none; ""
    where none were asked for.
    """

    machine: str
    layers: tuple[LayerCount, ...]
    embedding: NDArray[np.int8]
    logits: NDArray[np.float32]
    trace: tuple[bytes, ...]
    calibration: Calibration | None
    note: str
    code: int | None
    constants: int | None
    stack: int | None
    stack_bound: int | None
    cycles_note: str = ""

    @property
    def activations(self) -> dict[str, Array]:
        """Of a trace, as host.CRunner's: int8 [height, width, channels] by tensor, the logits float32."""
        found: dict[str, Array] = {}
        for layer, content in zip(self.layers, self.trace, strict=True):
            dtype = np.int8 if len(content) == np.prod(layer.shape) else np.dtype("<f4")
            found[layer.name] = np.frombuffer(content, dtype).reshape(layer.shape)
        return found


@dataclass(frozen=True)
class Built:
    """Objects of a folder's C, in `place`, ready to be linked with one image after the other. The other fields are as in Ran."""

    machine: Machine
    place: Path
    objects: tuple[str, ...]
    flags: tuple[str, ...]
    trace: bool
    code: int | None = None
    constants: int | None = None
    stack_bound: int | None = None


def toolchain_missing(machine: Machine) -> str | None:
    """What to install before programs can be made for the machine and run, as one line; None where everything is there."""
    tools = [machine.compiler, *(tool for tool in machine.run[:1] if tool != "{elf}")]
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if machine.compiler not in missing:
        include = "#include <stdint.h>\n#include <string.h>\n"
        command = [machine.compiler, *machine.cflags, "-E", "-x", "c", "-"]
        if subprocess.run(command, input=include, capture_output=True, encoding="utf-8", errors="replace", check=False).returncode:
            missing.append("a C library for it")
    return f"{machine.name} lacks {', '.join(missing)}: sudo apt-get install {' '.join(machine.install)}" if missing else None


def run(
    folder: Path, machine: Machine, image: NDArray[np.uint8], trace: bool = False, flags: Sequence[str] = (), cycles: bool = False
) -> Ran:
    """Build a folder of C as `export --to c` makes it, beside it, and run it on one image, uint8 [H, W, C].

    flags: more for the compiler, after the machine's own. cycles: once more, to estimate them, where the machine's core is known.
    Raises NestlingError where tools are missing, the C does not compile, or the program ends with another status than 0.
    """
    with TemporaryDirectory() as place:
        built = build(folder, machine, Path(place), trace, flags)
        ran = answer(built, image)
        return with_cycles(built, ran) if cycles and machine.cycles else ran


def build(folder: Path, machine: Machine, place: Path, trace: bool = False, flags: Sequence[str] = ()) -> Built:
    """Compile all of a folder's C into `place`, an empty folder, with those of the machine's files that it lacks."""
    problem = toolchain_missing(machine)
    if problem:
        raise NestlingError(f"nothing can be built: {problem.split(': ')[0]}.", problem.split(": ", 1)[1])
    network = names.of(folder)
    if network is None:
        raise NestlingError(
            f"{folder} holds no {names.file(names.USUAL, 'model.h')}, nor one network of another name.",
            f"make it:  nestling export my8.nest --to c -o {folder}",
        )
    own = {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.suffix in (".c", ".h", ".ld")}
    sources = {name: names.renamed(file.read_bytes(), network) for name, file in files(machine).items()} | own
    for name, content in sources.items():
        (place / name).write_bytes(content)
    model = names.file(network, "model.c")
    parts = [name for name in sorted(sources) if name.endswith(".c") and name != f"{BENCH}.c"]
    jobs = [(part, f"{part}.o", ("-DNESTLING_TRACE" if trace else "-DNESTLING_PROFILE", *CALLS[machine.counts])) for part in parts]
    built = Built(machine, place, tuple(out for _, out, _ in jobs), (*COMMON, *machine.cflags, *flags), trace)
    firmware = [(model, f"plain.{model}.o", CALLS[machine.counts]), (f"{BENCH}.c", f"plain.{BENCH}.c.o", ())]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: _compile(built, *job), [*jobs, *firmware]))
    if machine.counts != "instructions":
        return built
    plain = [out for out in built.objects if out != f"{model}.o"] + [out for _, out, _ in firmware]
    sizes = _sections(built, _linked(built, plain, "plain.elf"))
    code, constants = (sum(sizes.get(name, 0) for name in names) for names in (CODE, CONSTANTS))
    graphs = ((place / out).with_suffix(".ci").read_text(encoding="utf-8") for out in plain if BENCH not in out)
    return replace(built, code=code, constants=constants, stack_bound=stack_bound(graphs, network))


def answer(built: Built, image: NDArray[np.uint8]) -> Ran:
    """Link with one image and run."""
    machine, place = built.machine, built.place
    (place / "bench_image.h").write_text(image_header(image), encoding="utf-8")
    runs = RUNS if machine.counts == "milliseconds" and not built.trace else 1
    mode = "-DNESTLING_TRACE" if built.trace else "-DNESTLING_PROFILE"
    _compile(built, f"{BENCH}.c", f"{BENCH}.c.o", ("-DBENCH_IMAGE", f"-DBENCH_RUNS={runs}", mode))
    lines = launch(machine, _linked(built, (*built.objects, f"{BENCH}.c.o"), "program.elf"))
    return _ran(built, lines, (place / "trace.bin").read_bytes() if built.trace else b"")


def with_cycles(built: Built, ran: Ran) -> Ran:
    """Each layer's cycles, as estimated from what the same network executes on the same image; why not, where that fails."""
    network = names.of(built.place) or names.USUAL
    source = (FOLDER / "shared" / f"{FOLLOWED}.c").read_bytes()
    (built.place / f"{FOLLOWED}.c").write_bytes(names.renamed(source, network))
    try:
        _compile(built, f"{FOLLOWED}.c", f"{FOLLOWED}.c.o", ("-DNESTLING_PROFILE",))
        program = _linked(built, (*built.objects, f"{FOLLOWED}.c.o"), "followed.elf")
        found = estimate(built.machine, program, f"{network}_layer_done", len(ran.layers))
    except NestlingError as error:
        return replace(ran, cycles_note=f"no cycles were estimated: {error.message}")
    layers = zip(ran.layers, found.cycles, strict=True)
    return replace(ran, layers=tuple(replace(layer, cycles_estimate=cycles) for layer, cycles in layers), cycles_note=found.note)


def launch(machine: Machine, program: Path) -> list[dict[str, Any]]:
    """Run a program where it lies; the objects that it printed, a line each.

    Raises NestlingError where it ends with another status than 0, or not within ten minutes.
    """
    command = [part.replace("{elf}", str(program)) for part in machine.run]
    try:
        ended = subprocess.run(command, cwd=program.parent, capture_output=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as late:
        raise NestlingError(f"{machine.name}: the program did not end within {SECONDS} seconds.") from late
    said = (ended.stdout + ended.stderr).decode("utf-8", "replace").strip()
    if ended.returncode:
        raise NestlingError(
            f"{machine.name}: the program ended with status {ended.returncode}: {said[-300:] or 'it said nothing'}."
        )
    try:
        return [json.loads(line) for line in ended.stdout.decode().splitlines()]
    except ValueError as error:
        raise NestlingError(f"{machine.name}: the program printed what is no JSON: {said[-300:]}.") from error


def image_header(image: NDArray[np.uint8]) -> str:
    """bench_image.h: an image, uint8 [H, W, C], as main_bench.c includes it."""
    templates = Environment(loader=PackageLoader("nestling.formats.c"), undefined=StrictUndefined, trim_blocks=True)
    rows = [row.reshape(-1).tolist() for row in image]
    return templates.get_template("bench_image.h.j2").render(shape=image.shape, rows=rows, count=image.size)


# ---- compiling ------------------------------------------------------------------------------------------------------------------


def _compile(built: Built, source: str, out: str, flags: Iterable[str]) -> None:
    _tool([built.machine.compiler, *built.flags, *flags, "-c", source, "-o", out], built.place, source)


def _linked(built: Built, objects: Iterable[str], name: str) -> Path:
    _tool([built.machine.compiler, *built.flags, *objects, *built.machine.ldflags, "-o", name], built.place, name)
    return built.place / name


def _tool(command: Sequence[str], place: Path, what: str) -> str:
    ended = subprocess.run(command, cwd=place, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if "error" in line or "undefined" in line] or ended.stderr.splitlines()
        raise NestlingError(f"{what} could not be built by {command[0]}: {lines[0] if lines else 'it said nothing'}.")
    return ended.stdout


def _sections(built: Built, program: Path) -> dict[str, int]:
    """Bytes by section."""
    said = _tool([f"{built.machine.prefix}size", "-A", program.name], built.place, program.name)
    return {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", said, re.MULTILINE)}


def stack_bound(graphs: Iterable[str], network: str = names.USUAL) -> int | None:
    """Bytes of stack that features and head may take, by GCC's call graphs (.ci files); functions of libraries count nothing.

    None where a function calls itself, calls through a pointer, or has a frame whose size is not known when it is compiled.
    """
    frames: dict[str, int] = {}
    calls: dict[str, set[str]] = {}
    for graph in graphs:
        for title, label in re.findall(r'node: \{ title: "([^"]*)" label: "([^"]*)"', graph):
            if size := re.search(r"(\d+) bytes \((static|dynamic,bounded)\)", label):
                frames[title] = int(size[1])
        for source, target in re.findall(r'edge: \{ sourcename: "([^"]*)" targetname: "([^"]*)"', graph):
            calls.setdefault(source, set()).add(target)

    def deepest(name: str, above: tuple[str, ...]) -> float:
        if name in above or name == "__indirect_call" or (name in calls and name not in frames):
            return float("inf")
        return frames.get(name, 0) + max((deepest(other, (*above, name)) for other in calls.get(name, ())), default=0)

    most = max(deepest(f"{network}_{function}", ()) for function in STACK_OF)
    return int(most) if most < float("inf") else None


# ---- what a program said --------------------------------------------------------------------------------------------------------


def _ran(built: Built, lines: Sequence[Mapping[str, Any]], written: bytes) -> Ran:
    machine = built.machine
    try:
        known = {key: value for line in lines if "layer" not in line for key, value in line.items()}
        calibration = _calibration(known["calibration"]) if machine.counts == "instructions" else None
        reading = known["calibration"]["reading"]
        listed = [line for line in lines if "layer" in line]
        layers = tuple(_layer(line, machine, calibration, reading) for line in listed)
        embedding = np.frombuffer(bytes.fromhex(known["embedding"]), np.int8)
        logits = np.frombuffer(bytes.fromhex(known["logits"]), "<f4")
        stack = known["stack"] or None
    except (KeyError, ValueError, TypeError) as error:
        raise NestlingError(f"{machine.name}: the program did not print all that {BENCH}.c does ({error}).") from error
    trace = []
    for line in listed if built.trace else ():
        trace.append(written[: line["bytes"]])
        written = written[line["bytes"] :]
    return Ran(
        machine=machine.name,
        layers=layers,
        embedding=embedding,
        logits=logits,
        trace=tuple(trace),
        calibration=calibration,
        note=NOTES[machine.counts],
        code=built.code,
        constants=built.constants,
        stack=stack,
        stack_bound=built.stack_bound,
    )


def _calibration(said: Mapping[str, int]) -> Calibration:
    tick = Fraction(said["instructions"], said["ticks"]).limit_denominator(LARGEST_TICK)
    return Calibration(said["instructions"], round(said["ticks"] * tick), float(tick))


def _layer(line: Mapping[str, Any], machine: Machine, calibration: Calibration | None, reading: int) -> LayerCount:
    """reading: ticks that it takes to read the timer."""
    ticks = max(0, median(line["ticks"]) - reading)
    return LayerCount(
        line["name"],
        line["kind"],
        (line["height"], line["width"], line["channels"]),
        line["macs"],
        round(ticks * calibration.tick) if calibration else None,
        ticks / 1e6 if machine.counts == "milliseconds" else None,
    )
