"""Milliseconds and memory of artifacts, each in its own process, in rounds that take turns: the machine's drift falls on all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nestling.errors import NestlingError
from nestling.progress import Progress, silent

ROUNDS, RUNS = 7, 15


@dataclass(frozen=True)
class Timing:
    """Of one image at a time. peak_memory_bytes: of the process, above what Python and its imports had taken before."""

    file: str
    threads: int
    ms_median: float
    ms_p95: float
    peak_memory_bytes: int
    bytes: int


def bench(files: Sequence[Path], threads: Sequence[int] = (1,), progress: Progress = silent) -> tuple[Timing, ...]:
    """Time every file (bundle or artifact) with every number of threads. Raises NestlingError where one can't be run."""
    jobs = [(file, count) for count in threads for file in files]
    with ExitStack() as stack, progress("timing", ROUNDS * len(jobs)) as advance:
        workers = [stack.enter_context(_Worker(file, count)) for file, count in jobs]
        times: list[list[float]] = [[] for _ in jobs]
        for _ in range(ROUNDS):
            for worker, own in zip(workers, times, strict=True):
                own.extend(worker.ask(RUNS)["ms"])
                advance(1)
        peaks = [worker.ask(0)["peak"] for worker in workers]
    return tuple(
        Timing(file.name, count, float(np.median(own)), float(np.percentile(own, 95)), peak, file.stat().st_size)
        for (file, count), own, peak in zip(jobs, times, peaks, strict=True)
    )


class _Worker:
    """A process that has loaded one file and runs it when asked (see bench_worker.py)."""

    def __init__(self, file: Path, threads: int) -> None:
        self.file = file
        command = [sys.executable, "-m", "nestling.report.bench_worker", str(file), str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, runs: int) -> Any:
        assert self.process.stdin and self.process.stdout and self.process.stderr
        try:
            self.process.stdin.write(f"{runs}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            said = self.process.stderr.read().strip().splitlines()
            raise NestlingError(f"{self.file} could not be timed: {said[-1] if said else 'its process ended'}.")
        return json.loads(line)
