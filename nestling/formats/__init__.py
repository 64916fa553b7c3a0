"""The formats: a folder each, which holds whatever it has of reading, printing and running files. This is their table.

format.py       what a format is
job, about, runner, ...  what several formats share

A new format is a folder with a format.py, and a line below.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext, suppress
from pathlib import Path

from nestling import extras
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.c import trusted
from nestling.formats.c.format import FORMATS as OF_C
from nestling.formats.executorch.format import FORMATS as OF_EXECUTORCH
from nestling.formats.format import File, Format, Reader
from nestling.formats.layer_time import LayerTime
from nestling.formats.nest.format import FORMATS as OF_NEST
from nestling.formats.onnx.format import FORMATS as OF_ONNX
from nestling.formats.runner import Runner
from nestling.formats.tflite.format import FORMATS as OF_TFLITE
from nestling.temporary import restored

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        *OF_NEST,
        *OF_EXECUTORCH,
        *OF_TFLITE,
        *OF_ONNX,
        *OF_C,
    )
}


def printed() -> tuple[tuple[str, str], ...]:
    """(format, precision) of all that can be printed."""
    return tuple((form.name, precision) for form in FORMATS.values() for precision in form.printers)


def named(name: str) -> Format:
    """As --to and manifests call it. Raises UnusableFile for a name that is none's, a later nestling's perhaps."""
    if name not in FORMATS:
        raise UnusableFile(f"{name!r} is no format of this nestling.", "export again:  nestling export my.nest")
    return FORMATS[name]


def of(path: Path) -> Format:
    """The format of a file, by its suffix, or of a folder. Raises UnusableFile where there is none."""
    suffix = "" if path.is_dir() else path.suffix
    for form in FORMATS.values():
        if form.suffix == suffix and (suffix or path.is_dir()):
            return form
    known = ", ".join(dict.fromkeys(form.suffix or "folder of C" for form in FORMATS.values() if form.suffix.count(".") < 2))
    raise UnusableFile(f"{path} is none of {known}.", "make one:  nestling fit PHOTOS -o my.nest")


def reader(path: Path) -> Reader:
    """What reads a file of anybody's: its format by its suffix, else the first that reads, which will say what it expected."""
    readers = {form.suffix: form.read for form in FORMATS.values() if form.read is not None}
    return readers.get(path.suffix, next(iter(readers.values())))


def usual() -> str:
    """The format that is printed where none is named: a .pte, or where ExecuTorch is not installed a .tflite."""
    return "pte" if extras.has(FORMATS["pte"].extra) else "tflite"


def require_printable(names: Iterable[str]) -> None:
    """Raises NestlingError, with what to install, for the first of these formats whose printer is not there."""
    for form in (FORMATS[name] for name in names):
        extras.require(form.extra, f"printing {form.suffix}")


def runtimes(path: Path) -> tuple[str, ...]:
    """What can run a file here; the first does where none is named. Raises as `of`; NestlingError where none is installed."""
    every = of(path).runtimes
    there = tuple(name for name, runtime in every.items() if extras.has(runtime.extra))
    if not there:
        extras.require(next(iter(every.values())).extra, str(path))
    return there


def runtime_of(path: Path, runtime: str | None = None) -> str:
    """What will run a file: `runtime`, or the first of runtimes(path).

    Raises UnusableFile where there is no file, or nothing for it.
    """
    if not restored(path).exists():
        raise UnusableFile(f"{path} does not exist.", "make it:  nestling fit PHOTOS -o my.nest, nestling export my.nest")
    known = tuple(of(path).runtimes)
    if runtime is None:
        return runtimes(path)[0]
    if runtime not in known:
        raise NestlingError(f"{path} is run by {' or '.join(known)}, not by {runtime!r}.")
    extras.require(of(path).runtimes[runtime].extra, f"running {path} by {runtime}")
    return runtime


def prepare(path: Path, runtime: str) -> None:
    """Import what runs a file before it is opened; that it is not installed, `load` will say."""
    with suppress(ImportError):
        of(path).runtimes[runtime].prepare()


def load(path: Path, threads: int | None = None, runtime: str | None = None, trust: bool = False) -> Runner:
    """A bundle or an artifact, ready to answer in this process, which a damaged one may take with it (nestling.apart does not).

    threads: None leaves the runtime's own choice. runtime: one of runtimes(path). trust: compile a folder of C, whoever wrote it.
    Raises UnusableFile, naming the file and the reason; NotTrusted.
    """
    chosen = runtime_of(path, runtime)
    with trusted.copied(path, trust) if path.is_dir() else nullcontext(path) as place:
        return of(path).runtimes[chosen].load(File(place, path, threads))


def layer_times(path: Path, threads: int) -> tuple[LayerTime, ...]:
    """How long each operation of a file takes in its first runtime, in this process; of a format that can tell."""
    ask = of(path).layer_times
    return () if ask is None else ask(path.read_bytes(), threads)
