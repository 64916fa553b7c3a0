"""export: from a bundle to files for a target, each judged (gates.py) before it is put in place.

printers.py    bundle -> bytes, one printer a format and precision
yardstick.py   what the files are judged on
gates.py       the judgement
manifest.py    what is kept of it
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestling import bundle as bundles
from nestling.artifacts import manifest
from nestling.artifacts.gates import Judgement, judge
from nestling.artifacts.manifest import Artifact
from nestling.artifacts.yardstick import Expected, expected
from nestling.bundle import Bundle, save
from nestling.data.folders import Source
from nestling.data.walk import images_in
from nestling.errors import GateFailed, NestlingError
from nestling.files import write_atomically
from nestling.formats import FORMATS, require_printable, usual
from nestling.formats import printed as all_printed
from nestling.formats.c import folder, machines, names
from nestling.formats.c.fitting import require_fitting
from nestling.formats.c.plan.report import ENDLESS
from nestling.formats.format import INTEGERS, ExportConfig, Format, Job, Printed
from nestling.preprocess.image import ImagePreprocess
from nestling.progress import Progress, silent
from nestling.quantization.quantize import quantize
from nestling.scores import doubts


@dataclass(frozen=True)
class Refused:
    """A file that was not put in place, and why."""

    file: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """artifacts: the files that are in place. said: the images that they were judged on, in words. why: of refusals, where it is
    the network's own. photographs: whether it takes any."""

    artifacts: tuple[Artifact, ...]
    refused: tuple[Refused, ...]
    said: str
    why: str = ""
    photographs: bool = True


@dataclass(frozen=True, eq=False)
class _Source:
    """What files of one kind (float, or int8) are printed from and judged on."""

    path: Path
    job: Job
    expected: Expected


def export(
    path: Path,
    out: Path,
    wanted: Sequence[tuple[str, str]] | None = None,
    data: Source | None = None,
    config: ExportConfig | None = None,
    progress: Progress = silent,
) -> tuple[Artifact, ...]:
    """Print out/NAME-PRECISION.FORMAT for each (format, precision) and note them in out/manifest.json. NAME: the bundle's file's.

    wanted: None for float and integers of the usual format (formats.usual).

    C is a folder, out/NAME-c-MACHINE.

    A bundle without integers is quantised first where int8 is wanted, as `quantize` would, and kept as out/NAME-int8.nest.
    data: the folder that the bundle learned from; None for the one that its lineage names (see yardstick.expected).
    Raises UnsupportedOp, before any file is judged, where there is no C of the network; GateFailed, when all else is done, where a
    file does not pass its gates (unless config.force); UnusableData.
    """
    every = wanted if wanted is not None else tuple((usual(), precision) for precision in ("fp32", INTEGERS))
    made = exported(path, out, every, data, config, progress)
    require_passed(made)
    return made.artifacts


def exported(
    path: Path,
    out: Path,
    wanted: Sequence[tuple[str, str]],
    data: Source | None = None,
    config: ExportConfig | None = None,
    progress: Progress = silent,
) -> Exported:
    """As export; files that did not pass are told, not raised."""
    config = config or ExportConfig()
    names.require_name(config.name)
    if unknown := [pair for pair in wanted if pair not in all_printed()]:
        possible = ", ".join(f"{form} {precision}" for form, precision in all_printed())
        raise NestlingError(f"{' '.join(unknown[0])} is not printed; there is: {possible}.")
    require_printable(name for name, _ in wanted)
    _require_no_photographs(out)
    loaded = bundles.load(path)
    stem = path.stem.removesuffix(f"-{INTEGERS}")
    kept = out / f"{stem}-{INTEGERS}.nest"
    kinds = dict.fromkeys(precision == INTEGERS for _, precision in wanted)
    jobs = {kind: Job(quantized_first(loaded, kept, data, progress) if kind else loaded, config) for kind in kinds}
    for name, precision in wanted:
        _require_possible(FORMATS[name], jobs[precision == INTEGERS])
    sources = {
        integers: _Source(path if job.bundle is loaded else kept, job, expected(job.bundle, integers, data, progress))
        for integers, job in jobs.items()
    }
    artifacts: list[Artifact] = []
    refused: list[Refused] = []
    why = ""
    for name, precision in wanted:
        source, form = sources[precision == INTEGERS], FORMATS[name]
        file = form.file(stem, precision)
        with progress(f"printing {file}", 1) as advance:
            printed = form.printers[precision](source.job)
            advance(1)
        inside = source.job.inside(form, precision) if precision == INTEGERS else None
        with progress(f"judging {file}", 1) as advance:
            judgement = judge(printed, file, form, precision, source.job.bundle, inside, source.expected)
            advance(1)
        if judgement.problems and not config.force:
            refused.append(Refused(file, judgement.problems))
            why = doubts.of_random_weights(loaded) if judgement.rounded else why
            continue
        _put(printed.content, out / file)
        artifacts.append(_artifact(file, name, precision, printed, judgement, Path(os.path.relpath(source.path, out))))
        manifest.note(out, artifacts[-1:])
    said, photographs = next(iter(sources.values())).expected.said, isinstance(loaded.preprocess, ImagePreprocess)
    return Exported(tuple(artifacts), tuple(refused), said, why, photographs)


def _put(content: bytes | Mapping[str, bytes], path: Path) -> None:
    if isinstance(content, bytes):
        write_atomically(path, content)
    else:
        folder.write(content, path)


def require_passed(made: Exported) -> None:
    """Raises GateFailed, naming every refused file and why."""
    if made.refused:
        lines = [f"{one.file}: {problem}." for one in made.refused for problem in one.problems]
        lines += [f"{made.why}."] if made.why else []
        raise GateFailed(
            "not put in place, since they did not pass their gates:\n  " + "\n  ".join(lines), "keep them all the same with --force"
        )


def quantized_first(bundle: Bundle, kept: Path, data: Source | None = None, progress: Progress = silent) -> Bundle:
    """The bundle with integers: itself where it has them, else as `quantize` makes it, kept at `kept`."""
    if bundle.graph is not None:
        return bundle
    made = quantize(bundle, data, progress=progress)
    if (label := doubts.int8_answer(made)) is not None:
        warnings.warn(doubts.of_int8_answer(label), stacklevel=2)
    save(made, kept)
    return made


def _require_no_photographs(folder: Path) -> None:
    """Files are not put among photographs, whose folder was named by mistake. Raises NestlingError."""
    if not folder.is_dir() or (folder / manifest.NAME).exists():
        return
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        if found := next(images_in(place), None):
            raise NestlingError(
                f"{folder} holds photographs, {found} for one: no files are put among them.", "name another with -o"
            )


def _require_possible(form: Format, job: Job) -> None:
    """That there is a file of the network, and where that is asked for that it fits. Before any is judged, which takes longest."""
    form.require(job)
    ram, flash = job.config.ram, job.config.flash
    if form.machine and (ram is not None or flash is not None):
        require_fitting(job.bundle, machines.machine(form.machine), ram or ENDLESS, flash or ENDLESS)


def _artifact(file: str, form: str, precision: str, printed: Printed, judged: Judgement, bundle: Path) -> Artifact:
    content = printed.content
    whole = content if isinstance(content, bytes) else b"".join(content[name] for name in sorted(content))
    return Artifact(
        file=file,
        format=form,
        precision=precision,
        bytes=printed.size,
        sha256=hashlib.sha256(whole).hexdigest(),
        agreement=judged.agreement,
        noise_ratio=judged.noise_ratio,
        max_logit_difference=judged.max_logit_difference,
        max_relative_difference=judged.max_relative_difference,
        rms_logit_difference=judged.rms_logit_difference,
        images=judged.images,
        ms=judged.ms,
        bundle=str(bundle),
        delegated=printed.delegated,
        arena=printed.arena,
        requantised=printed.requantised,
        failed=judged.problems,
        coarse=judged.coarse,
        notes=printed.notes,
    )
