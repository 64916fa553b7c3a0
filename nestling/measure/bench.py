"""Milliseconds and memory of artifacts, each in its own process, in rounds that take turns: the machine's drift falls on all.

An .onnx is run by every runtime that is at hand. What was exported from an int8 Graph also shows its noise ratio on this very
processor: some runtimes' integer kernels are exact on one and not on another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestling import bundle as bundles
from nestling.apart.runner import ApartRunner, start
from nestling.artifacts import manifest
from nestling.artifacts.manifest import Artifact
from nestling.artifacts.yardstick import Expected, expected
from nestling.errors import UnusableFile
from nestling.formats import named, runtimes
from nestling.formats.c.trusted import require_trusted
from nestling.formats.format import INTEGERS
from nestling.progress import Progress, silent
from nestling.scores.agree import rms
from nestling.temporary import restored

ROUNDS, RUNS = 7, 15
MOST_NOISE_SECONDS, LEAST_NOISE_IMAGES = 5.0, 50


@dataclass(frozen=True)
class Timing:
    """Of one image at a time. peak_memory_bytes: of the process, above what Python and its imports had taken before.

    noise_ratio: rms(this runtime - int8 reference) / rms(float - int8 reference); None where the file was not printed from integers
    or its bundle is not there any more. isa: the processor's instructions that compute it, where the runtime tells (C).
    """

    file: str
    runtime: str
    threads: int
    ms_median: float
    ms_p95: float
    peak_memory_bytes: int
    bytes: int
    noise_ratio: float | None = None
    isa: str | None = None


def bench(
    files: Sequence[Path],
    threads: Sequence[int] = (1,),
    progress: Progress = silent,
    data: Path | None = None,
    rounds: int = ROUNDS,
    noise: bool = True,
    trust: bool = False,
) -> tuple[Timing, ...]:
    """Time every file (bundle or artifact) in every runtime that takes it, with every number of threads.

    data: photographs for the noise ratio; None for those that the bundles learned from (see yardstick.expected). noise: False
    leaves it out. trust: folders of C, whoever wrote them.
    Raises NestlingError where one can't be run; NotTrusted, before anything is.
    """
    if gone := next((file for file in files if not restored(file).exists()), None):
        raise UnusableFile(f"{gone} does not exist.", "make it:  nestling export my.nest -o out/, then  nestling bench out/")
    require_trusted(files, trust)
    jobs = [(file, runtime, count) for count in threads for file in files for runtime in runtimes(file)]
    workers: list[ApartRunner] = []
    try:
        with progress("starting", len(jobs)) as advance:
            for file, runtime, count in jobs:
                workers.append(start(file, count, runtime, trust, measured=True))
                for runs in (1, 2):  # the first one tells of a file that never ends
                    workers[-1].milliseconds(runs)
                advance(1)
        times: list[list[float]] = [[] for _ in jobs]
        with progress("timing", rounds * len(jobs)) as advance:
            for _ in range(rounds):
                for worker, own in zip(workers, times, strict=True):
                    own.extend(worker.milliseconds(RUNS))
                    advance(1)
        peaks = [worker.peak() for worker in workers]
        isas = [worker.isa() for worker in workers]
        ms = [float(np.median(own)) for own in times]
        ratios = _noise(files, workers, ms, data, progress) if noise else [None for _ in workers]
    finally:
        for worker in workers:
            worker.process.close()
    return tuple(
        Timing(file.name, runtime, count, median, float(np.percentile(own, 95)), peak, size_of(file), ratio, isa)
        for (file, runtime, count), median, own, peak, ratio, isa in zip(jobs, ms, times, peaks, ratios, isas, strict=True)
    )


def size_of(file: Path) -> int:
    """Bytes of a file; of a folder of C what the manifest says of its constants, else all of its text."""
    artifact = listed(file)
    if file.is_dir():
        return artifact.bytes if artifact else sum(part.stat().st_size for part in file.iterdir())
    return file.stat().st_size


# ---- noise ----------------------------------------------------------------------------------------------------------------------


def listed(file: Path) -> Artifact | None:
    """What the manifest beside a file says of it, if there is one."""
    try:
        return next((artifact for artifact in manifest.read(file.parent) if artifact.file == file.name), None)
    except UnusableFile:
        return None


def _noise(
    files: Sequence[Path], workers: Sequence[ApartRunner], ms: Sequence[float], data: Path | None, progress: Progress
) -> list[float | None]:
    """A ratio a worker. ms: that each takes for an image: slow ones are asked about fewer."""
    sources = {file: source for file in files if (source := _source(file)) is not None}
    found: dict[int, float] = {}
    for source in dict.fromkeys(sources.values()):
        wanted = expected(bundles.load(source), True, data, progress)
        own = {
            i: (worker, max(LEAST_NOISE_IMAGES, int(MOST_NOISE_SECONDS * 1e3 / ms[i])))
            for i, worker in enumerate(workers)
            if sources.get(worker.process.file) == source
        }
        found |= zip(own, _ratios(list(own.values()), wanted, progress), strict=True)
    return [found.get(i) for i in range(len(workers))]


def _source(file: Path) -> Path | None:
    """The bundle that an int8 file was printed from, where it is still there."""
    artifact = listed(file)
    if artifact is None or artifact.precision != INTEGERS or named(artifact.format).embedding == "alone":
        return None
    source = file.parent / artifact.bundle
    return source if source.is_file() else None


def _ratios(asked: Sequence[tuple[ApartRunner, int]], wanted: Expected, progress: Progress) -> Iterator[float]:
    """asked: runners, each with how many of the images it is to answer at the most."""
    assert wanted.floats is not None
    with progress("measuring noise", len(asked)) as advance:
        for worker, most in asked:
            answers = worker(wanted.images[:most])
            advance(1)
            reference, floats = wanted.answers[:most], wanted.floats[:most]
            yield rms(answers, reference) / max(rms(floats, reference), 1e-12)


# ---- results as plain values ----------------------------------------------------------------------------------------------------


def to_plain(timings: Sequence[Timing], artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """As --json prints them; the manifest's word for format and precision."""
    known = {artifact.file: artifact for artifact in artifacts}
    return [
        {
            "file": timing.file,
            "format": known[timing.file].format if timing.file in known else Path(timing.file).suffix.removeprefix("."),
            "precision": known[timing.file].precision if timing.file in known else None,
            "runtime": timing.runtime,
            "threads": timing.threads,
            "ms_median": timing.ms_median,
            "ms_p95": timing.ms_p95,
            "images_per_second": 1e3 / timing.ms_median,
            "peak_memory_bytes": timing.peak_memory_bytes,
            "bytes": timing.bytes,
            "noise_ratio": timing.noise_ratio,
            "isa": timing.isa,
        }
        for timing in timings
    ]
