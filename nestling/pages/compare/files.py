"""The files of bundles that are compared: quantised where they are not, printed, asked, and timed in turns in one run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestling import __version__
from nestling import bundle as bundles
from nestling.apart.runner import load
from nestling.artifacts import manifest
from nestling.artifacts.export import exported, quantized_first
from nestling.artifacts.manifest import Artifact
from nestling.bundle import Bundle
from nestling.data.folders import Item, labels_of
from nestling.errors import NestlingError, UnusableFile
from nestling.formats import FORMATS, named, runtimes
from nestling.formats.c import machines, trusted
from nestling.formats.c.format import of_machine
from nestling.formats.format import INTEGERS, ExportConfig
from nestling.measure.answers import answers
from nestling.measure.bench import bench
from nestling.measure.counted import counted
from nestling.pages.compare.found import Board, File
from nestling.progress import Progress
from nestling.scores.chance import Right, changed
from nestling.scores.evaluate import judge
from nestling.trust import MAC


@dataclass(frozen=True, eq=False)
class Made:
    """A bundle on its way. place: the folder of its files. data: the folder it learned from, None for the one its lineage names.

    integers: where the bundle with its int8 graph is; artifacts: its files; board: its C for a machine. notes: what failed and why.
    """

    name: str
    path: Path
    bundle: Bundle
    place: Path
    data: Path | None
    integers: Path | None = None
    artifacts: tuple[Artifact, ...] = ()
    board: Artifact | None = None
    notes: tuple[str, ...] = ()

    def noted(self, note: str) -> Made:
        """With one note more."""
        return replace(self, notes=(*self.notes, note))


def begun(name: str, path: Path, bundle: Bundle, parent: Path, data: Path | None) -> Made:
    """A folder of its own below `parent`, named by what its files depend on, so that they are found there again."""
    digest = hashlib.sha256(__version__.encode() + path.read_bytes()).hexdigest()[:12]
    place = parent / f"{path.stem}-{digest}"
    place.mkdir(parents=True, exist_ok=True)
    return Made(name, path, bundle, place, data)


def with_integers(made: Made, allowed: bool, progress: Progress) -> Made:
    """With the bundle that holds its integers: itself, one from before, or one that is quantised now, where that is allowed."""
    if made.bundle.graph is not None:
        return replace(made, integers=made.path)
    if not allowed:
        return made.noted("no int8, since it holds none and none was to be made.")
    kept = made.place / f"{made.path.stem}-{INTEGERS}.nest"
    try:
        if not _whole(kept):
            quantized_first(made.bundle, kept, made.data, progress)
    except NestlingError as error:
        return made.noted(f"no int8: {error.message}")
    return replace(made, integers=kept)


def with_files(made: Made, wanted: Sequence[tuple[str, str]], machine: str | None, progress: Progress) -> Made:
    """With its files, those that failed a gate among them, and the C for the machine."""
    for form, precision in (*wanted, *([(of_machine(machine), INTEGERS)] if machine else [])):
        source = made.integers if precision == INTEGERS else made.path
        if source is None:
            continue  # that there are no integers has been noted
        file = FORMATS[form].file(source.stem.removesuffix(f"-{INTEGERS}"), precision)
        try:
            artifact = _known(made.place, file) or _exported(source, made, form, precision, progress)
        except NestlingError as error:
            made = made.noted(f"no {precision} {form}: {error.message}")
            continue
        made = replace(made, board=artifact) if FORMATS[form].machine else replace(made, artifacts=(*made.artifacts, artifact))
    return made


def asked(made: Made, items: Sequence[Item], best: Right, progress: Progress) -> tuple[Made, tuple[File, ...]]:
    """Every file in every runtime, with its own answers on the photographs; not timed yet.

    best: which of them the best network answers rightly.
    """
    files: list[File] = []
    truth = labels_of(items)
    for artifact in made.artifacts:
        path = made.place / artifact.file
        for runtime in runtimes(path):
            try:
                _, (logits,), _ = answers([load(path, 1, runtime)], items, progress)
            except NestlingError as error:
                made = made.noted(f"{artifact.file} was not run by {runtime}: {error.message}")
                continue
            found = judge(logits, truth, [item.path for item in items], made.bundle.labels)
            beside = changed(best, logits.argmax(1) == truth)
            files.append(
                File(
                    artifact.file, artifact.format, artifact.precision, runtime, artifact.bytes, found.top1, found.interval,
                    artifact.agreement, artifact.noise_ratio, failed=artifact.failed, lost=beside.lost, won=beside.won,
                )
            )  # fmt: skip
    return made, tuple(files)


def timed(
    made: Sequence[Made], files: Sequence[tuple[File, ...]], rounds: int, progress: Progress
) -> tuple[list[Made], list[tuple[File, ...]]]:
    """All files of all bundles, in turns in one run, one thread, one image at a time."""
    jobs = [(one.place / file.file, file.runtime) for one, own in zip(made, files, strict=True) for file in own]
    paths = list(dict.fromkeys(path for path, _ in jobs))
    try:
        timings = bench(paths, (1,), progress, rounds=rounds, noise=False) if paths else ()
    except NestlingError as error:
        return [one.noted(f"nothing was timed: {error.message}") for one in made], list(files)
    keys = [(path, runtime) for path in paths for runtime in runtimes(path)]
    found = dict(zip(keys, timings, strict=True))
    return list(made), [
        tuple(
            replace(file, ms_median=found[key].ms_median, ms_p95=found[key].ms_p95)
            for file in own
            for key in [(one.place / file.file, file.runtime)]
        )
        for one, own in zip(made, files, strict=True)
    ]


def on_board(made: Made, progress: Progress) -> tuple[Made, Board | None]:
    """The C on its machine, in QEMU; the arena, which is known before, where that cannot be."""
    artifact = made.board
    if artifact is None:
        return made, None
    machine = machines.machine(named(artifact.format).machine)
    known = Board(machine.name, machine.title, artifact.arena, None, None, None, artifact.failed)
    try:
        (ran,) = counted([made.place / artifact.file], made.data, progress)
    except NestlingError as error:
        return made.noted(f"not run on {machine.name}: {error.message}{f' ({error.hint})' if error.hint else ''}"), known
    return made, replace(known, flash_bytes=ran.flash_bytes, stack_bytes=ran.stack_bytes, instructions=ran.instructions)


# ---- what is there from before --------------------------------------------------------------------------------------------------


def _whole(path: Path) -> bool:
    """Whether it is a bundle with integers."""
    try:
        return path.exists() and bundles.load(path).graph is not None
    except UnusableFile:
        return False


def _known(place: Path, file: str) -> Artifact | None:
    """A file from before whose bytes are what the manifest says; a folder of C also has to be known as this user's."""
    try:
        listed = next((artifact for artifact in manifest.read(place) if artifact.file == file), None)
    except UnusableFile:
        return None
    path = place / file
    if listed is None or not path.exists() or (path.is_dir() and not trusted.is_known(path)):
        return None
    parts = [path] if path.is_file() else sorted(part for part in path.iterdir() if part.is_file() and part.name != MAC)
    digest = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    return listed if digest == listed.sha256 else None


def _exported(source: Path, made: Made, form: str, precision: str, progress: Progress) -> Artifact:
    done = exported(source, made.place, [(form, precision)], made.data, ExportConfig(force=True), progress)
    return done.artifacts[0]
