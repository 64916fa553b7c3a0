"""Kills commands before every single thing that they do to files, and at random moments: nothing is lost, nothing is left over.

    python -m tests.cli.kill_commands --kills 200 [COMMAND ...]

One process that has imported everything forks a child for each run. It SIGKILLs itself before its n-th operation (an open for
writing, mkdir, rename, exchange, unlink, link, flock, fsync), or is killed from outside, with all its children or without them.
After a kill each thing that the command replaces is the old or the new, whole; run again to its end it leaves what a run that was
never killed leaves, the same bytes and not one name more, in its own folder, the cache and the folder for temporary files.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256 as hash_of
from pathlib import Path
from typing import Any

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before torch: it forks
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from nestling import files
from nestling.cli.main import main
from nestling.device import package
from nestling.device.head_file import newest
from nestling.device.head_format import to_bytes
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch.training_program import print_training_program
from nestling.formats.onnx.openvino import import_openvino
from nestling.formats.quiet import quiet
from nestling.temporary import restored
from tests.helpers.killing import watched
from tests.helpers.small_backbone import save_backbone

COLOURS = {"apple": (200, 40, 40), "lime": (60, 190, 60), "plum": (90, 40, 160)}
Content = Mapping[str, bytes]  # of a file or a folder, by the path in it
Judge = Callable[[Path], Content]


@dataclass(frozen=True)
class Case:
    """A command, run in the folder `work`. units: what it replaces, each as a whole.

    old: words that made other results, which are there before. again: words more after a kill. executorch: it needs that.
    """

    name: str
    words: tuple[str, ...]
    units: tuple[str, ...]
    old: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    executorch: bool = False


LATE = ("nestling.training.finetune", "numpy.ctypeslib", "PIL.JpegImagePlugin", "rich._emoji_codes", "typer._adapters")
EXECUTORCH = (
    "executorch.backends.xnnpack.partition.xnnpack_partitioner",
    "executorch.devtools.backend_debug",
    "executorch.extension.pybindings.portable_lib",
    "executorch.extension.training",
    "executorch.runtime",
    "torch.export.experimental",
)
EXPORT = ("export", "int8.nest", "--precision", "int8", "-o", "out", "--force", "--to")  # force: such a network fails its gates
LIST = "out/manifest.json"
PACK = ("pack", "int8.nest", "-o", "pkg", "--force", "--for")
FINE = ("finetune", "fitted.nest", "-o", "fine.nest", "--epochs", "2", "--batch", "8")
LEARN = ("learn", "package", "../photos", "-o", "trained.nst", "--cycles", "12", "--save-every", "3")
CASES = (
    Case("fit", ("fit", "../photos", "--backbone", "../small.nest", "-o", "my.nest"), ("my.nest",), ("--seed", "1")),
    Case("quantize", ("quantize", "fitted.nest", "-o", "my8.nest"), ("my8.nest",), ("--symmetric",)),
    Case(
        "export", (*EXPORT, "tflite,onnx,c"), ("out/int8-int8.tflite", "out/int8-int8.onnx", "out/int8-c-host", "out/manifest.json")
    ),
    Case("export-pte", (*EXPORT, "pte"), ("out/int8-int8.pte", LIST), executorch=True),
    Case("pack-linux", (*PACK, "linux"), ("pkg",), executorch=True),
    Case("pack-mcu", (*PACK, "mcu"), ("pkg",)),
    Case("finetune", FINE, ("fine.nest",), ("--seed", "1"), ("--resume",)),
    Case("learn", LEARN, ("trained.nst",), ("--rate", "0.1"), ("--resume",), True),
)


# ---- runs ------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """root: holds the photographs, `work`, `cache` and `tmp`; log: what the commands say."""

    root: Path
    log: Path

    def run(self, words: Sequence[str], kill_at: int = 0, counted: Path | None = None, exchange: bool = True) -> int:
        """The number of a child that runs the command line; see watched for kill_at and counted."""
        child = os.fork()
        if child:
            return child
        status = 70
        try:
            os.setsid()
            said = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(said, stream)
            os.environ |= {"NESTLING_CACHE": str(self.root / "cache"), "TMPDIR": str(self.root / "tmp"), "COLUMNS": "200"}
            os.environ["PATH"] = f"{self.root / 'bin'}{os.pathsep}{os.environ['PATH']}"
            tempfile.tempdir = None
            os.chdir(self.root / "work")
            if not exchange:
                files._exchanged = lambda one, other: False
            count = watched(kill_at)
            main(list(words))
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 0
            if counted is not None:
                counted.write_text(str(count()))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def done(self, words: Sequence[str], exchange: bool = True) -> None:
        """Run to the end."""
        _, status = os.waitpid(self.run(words, exchange=exchange), 0)
        assert status == 0, f"{' '.join(words)}: {self.log.read_text()[-2000:]}"

    def names(self) -> list[str]:
        """All that lies in the three folders."""
        return sorted(
            str(path.relative_to(self.root)) for part in ("work", "cache", "tmp") for path in (self.root / part).rglob("*")
        )


# ---- what there is ---------------------------------------------------------------------------------------------------------------


def content(path: Path) -> Content:
    """A unit: of a manifest without the milliseconds, of a head without how often it was saved."""
    if path.suffix == ".nst":
        head, _, _ = newest(path)
        return {"": to_bytes(replace(head, progress=replace(head.progress, saves=0)))}
    if path.name == "manifest.json" and path.parent.name == "out":
        artifacts = json.loads(path.read_text())["artifacts"]
        return {artifact["file"]: json.dumps(artifact | {"ms": 0}).encode() for artifact in artifacts}
    if path.is_dir():
        return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {"": path.read_bytes()}


def require_old_or_new(case: Case, work: Path, old: Mapping[str, Content], new: Mapping[str, Content]) -> None:
    """Each unit is whole; a manifest's lines are each, and a learned head is one of those on the way."""
    for unit in case.units:
        found = content(restored(work / unit))  # as whoever reads it next does
        if unit.endswith(".nst"):
            continue
        if unit.endswith("manifest.json"):
            assert found.keys() == old[unit].keys() and all(line in (old[unit][n], new[unit][n]) for n, line in found.items()), unit
        else:
            assert found in (old[unit], new[unit]), f"{unit} is neither the old nor the new"
    for checkpoint in work.glob("*.checkpoint"):
        with safe_open(checkpoint, "pt") as file:
            assert file.keys()


def prepared(root: Path, cases: Sequence[Case]) -> Place:
    """Photographs of three colours, a network of seven layers, its bundles; a package, where one is wanted; a quick compiler."""
    for part in ("work", "cache", "tmp", "photos", "bin"):
        (root / part).mkdir(parents=True)
    compiler = root / "bin" / "cc"
    compiler.write_text(f'#!/bin/sh\nexec {shutil.which("cc")} "$@" -O0\n')
    compiler.chmod(0o755)
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "photos" / name).mkdir()
        for i in range(10):
            pixels = np.clip(rng.normal(colour, 40, (30, 34, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    child = os.fork()
    if child == 0:
        save_backbone(root / "small.nest")
        os._exit(0)
    os.waitpid(child, 0)
    place = Place(root, root / "log.txt")
    commands = [
        "fit ../photos --backbone ../small.nest -o fitted.nest --seed 2",
        "quantize fitted.nest -o int8.nest",
        "quantize fitted.nest -o ../other.nest --symmetric",
    ]
    if any("package" in case.words for case in cases):
        commands.append("pack int8.nest -o package --for linux --force")
    for words in commands:
        place.done(words.split())
    return place


# ---- kills -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kills:
    """operations: that an undisturbed run does; at: those before which it was killed; random: kills from outside."""

    operations: int
    at: int
    random: int
    seconds: float


def killed(case: Case, place: Place, base: Path, kills: int, seed: int = 0, exchange: bool = True) -> Kills:
    """Kill a command so many times. place's folder is set to base's content before each; at the end, too. Raises AssertionError."""
    began, chance, work = time.perf_counter(), random.Random(seed), place.root / "work"
    whole = work / "int8.nest"
    _reset(place, base)
    kept = whole.read_bytes()
    whole.write_bytes((place.root / "other.nest").read_bytes())
    place.done([*case.words, *case.old])
    whole.write_bytes(kept)
    shutil.rmtree(place.root / "cache")  # so that what is written there is killed, too
    (place.root / "cache").mkdir()
    start = base.with_name(f"{base.name}-{case.name}")
    _copy(place.root, start)
    old = {unit: content(work / unit) for unit in case.units}
    counted = base.with_name("count")
    if case.executorch:  # the first run remembers, which are operations, too
        place.done(case.words)
        _reset(place, start)
    ran = time.perf_counter()
    _, status = os.waitpid(place.run(case.words, counted=counted, exchange=exchange), 0)
    assert status == 0, place.log.read_text()
    ran = time.perf_counter() - ran
    operations = int(counted.read_text())
    new, names = {unit: content(work / unit) for unit in case.units}, place.names()
    assert all(new[unit] != old[unit] for unit in case.units), f"the new {case.name} is the old one"
    at = sorted(chance.sample(range(1, operations + 1), min(operations, kills * 3 // 4)))
    for number in (*at, *[0] * (kills - len(at))):
        said = f"{case.name} killed before operation {number} of {operations}" if number else f"{case.name} killed at random"
        _reset(place, start)
        died = _kill(place, case, number, ran, chance, exchange)
        while not number and (not died or chance.random() < 0.3):  # it had ended; or, now and then, the next is killed, too
            if not died:
                _reset(place, start)
            died = _kill(place, case, number, ran, chance, exchange)
        try:
            assert died, f"it ended before: {place.log.read_text()}"
            require_old_or_new(case, work, old, new)
            place.done([*case.words, *case.again], exchange)
            assert {unit: content(work / unit) for unit in case.units} == new, "run again it ends in another way"
            assert place.names() == names, f"left over or lost: {set(place.names()) ^ set(names)}"
        except Exception as error:
            raise AssertionError(f"{said}: {error}") from error
    shutil.rmtree(start)
    return Kills(operations, len(at), kills - len(at), time.perf_counter() - began)


def _kill(place: Place, case: Case, number: int, seconds: float, chance: random.Random, exchange: bool) -> bool:
    """Run a command that is killed before an operation, or within so many seconds; False where it had ended."""
    child = place.run(case.words, number, exchange=exchange)
    if not number:
        time.sleep(chance.uniform(0, seconds))
        with suppress(ProcessLookupError):  # it has no group yet
            (os.killpg if chance.random() < 0.5 else os.kill)(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return status == signal.SIGKILL


def _import_the_rest(cases: Sequence[Case]) -> None:
    """What the commands import late."""
    import_openvino()
    some = [*LATE, *(EXECUTORCH if any(case.executorch for case in cases) else ())]
    with quiet():
        for name in some:
            importlib.import_module(name)


def _remembered(function: Callable[..., Any], place: Path) -> Callable[..., Any]:
    """Its results are kept in a file each, by all arguments that are no module: lowering to ExecuTorch takes seconds."""

    def remembering(*arguments: Any) -> Any:
        key = hash_of(repr([a for a in arguments if not isinstance(a, torch.nn.Module)]).encode()).hexdigest()
        file = place / f"{function.__name__}-{key}"
        if not file.exists():
            made = function(*arguments)
            beside = file.with_suffix(f".{os.getpid()}")
            beside.write_bytes(pickle.dumps(made))
            beside.rename(file)
        return pickle.loads(file.read_bytes())  # noqa: S301  # our own

    return remembering


def _copy(root: Path, to: Path) -> None:
    for part in ("work", "cache", "tmp"):
        shutil.copytree(root / part, to / part)


def _reset(place: Place, base: Path) -> None:
    for part in ("work", "cache", "tmp"):
        shutil.rmtree(place.root / part)
    _copy(base, place.root)


def command() -> None:
    """As the first lines say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", metavar="COMMAND", help=f"of {', '.join(case.name for case in CASES)}; all")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lower", action="store_true", help="lower to ExecuTorch in each run, which takes seconds")
    parser.add_argument("--no-exchange", action="store_true", help="as on file systems where two folders cannot change places")
    chosen = parser.parse_args()
    cases = [case for case in CASES if not chosen.commands or case.name in chosen.commands]
    _import_the_rest(cases)
    gc.freeze()  # else each child's collector touches, and so copies, all that was imported
    with tempfile.TemporaryDirectory() as folder:
        if not chosen.lower:
            kept = Path(folder) / "kept"
            kept.mkdir()
            executorch.print_program = _remembered(executorch.print_program, kept)
            setattr(package, "print_training_program", _remembered(print_training_program, kept))  # noqa: B010  # it is imported there
        place, base = prepared(Path(folder) / "place", cases), Path(folder) / "base"
        _copy(place.root, base)
        for case in cases:
            made = killed(case, place, base, chosen.kills, chosen.seed, not chosen.no_exchange)
            print(
                f"{case.name}: {made.at} kills before its {made.operations} operations, {made.random} at random moments, "
                f"{made.seconds:.0f} s: nothing lost, nothing left over",
                flush=True,
            )


if __name__ == "__main__":
    command()
