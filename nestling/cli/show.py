"""What every command prints with: progress and warnings on stderr, results on stdout, JSON alone where it was asked for."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nestling.data.folders import LeftOut
from nestling.progress import Advance
from nestling.report import doubts
from nestling.report.evaluate import Evaluation, PerClass

if TYPE_CHECKING:
    from nestling.report.page import Row

MOST_LEFT_OUT = 20  # files named one by one


def err() -> Console:
    """stderr by a handle of its own: a runtime that writes into the common one is hushed without hushing the bar."""
    return _stderr(_real())


@cache
def _stderr(real: bool) -> Console:
    return Console(file=os.fdopen(os.dup(sys.stderr.fileno()), "w"), highlight=False) if real else Console(stderr=True)


def _real() -> bool:
    try:
        return sys.stderr.fileno() >= 0
    except (OSError, ValueError):
        return False


@contextmanager
def bars(what: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr; one plain line where stderr is not a terminal. See nestling.progress."""
    if not err().is_terminal:
        err().print(f"{what} ({total})" if total > 1 else what)
        yield lambda _steps: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda steps: progress.advance(task, steps)


def say(text: str) -> None:
    """A line on stderr."""
    err().print(text, markup=False, soft_wrap=True)


def left_out(entries: Sequence[LeftOut]) -> None:
    """Names every file that was not used, with the reason."""
    if not entries:
        return
    say(f"{len(entries)} files left out:")
    for entry in entries[:MOST_LEFT_OUT]:
        say(f"  {entry.path}: {entry.reason}")
    if len(entries) > MOST_LEFT_OUT:
        say(f"  and {len(entries) - MOST_LEFT_OUT} more")


def as_json(value: object) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; the first column left, the others right."""
    shown = Table(title=title or None, title_justify="left")
    for i, heading in enumerate(headings):
        shown.add_column(heading, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        shown.add_row(*row)
    out().print(shown)


def out() -> Console:
    """stdout; wide where it is not a terminal, so that a file holds whole lines."""
    return Console(width=None if sys.stdout.isatty() else 132, highlight=False, markup=False)


def share(value: float) -> str:
    """0.8571 -> 85.7%."""
    return f"{value * 100:.1f}%"


def top1(evaluation: Evaluation) -> str:
    """85.7% [82.5, 88.4]."""
    low, high = evaluation.interval
    return f"{share(evaluation.top1)} [{low * 100:.1f}, {high * 100:.1f}]"


def top1_beside(evaluation: Evaluation) -> str:
    """85.7% [82.5, 88.4]; always answering good: 70.6%."""
    return f"{top1(evaluation)}; always answering {evaluation.majority_class}: {share(evaluation.majority)}"


def told_share(value: float | None) -> str:
    """A share, or "-" where it cannot be told."""
    return "-" if value is None else share(value)


def warnings(said: Sequence[str]) -> None:
    """Each on a line of stderr."""
    for text in said:
        say(f"warning: {text}")


def doubted(evaluation: Evaluation, part: str = "the test part") -> None:
    """Says where the answers are worth no more than none."""
    warnings(doubts.of_answers(evaluation, part))


def copies(groups: Sequence[Sequence[Path]]) -> None:
    """Names photographs that lie in their class more than once."""
    if not groups:
        return
    many = "1 photograph lies" if len(groups) == 1 else f"{len(groups)} photographs lie"
    say(f"{many} in the class more than once; each counts once, all its copies on one side:")
    for group in groups[:MOST_LEFT_OUT]:
        say(f"  {' = '.join(map(str, group[:4]))}{f' and {len(group) - 4} more' if len(group) > 4 else ''}")
    if len(groups) > MOST_LEFT_OUT:
        say(f"  and {len(groups) - MOST_LEFT_OUT} more")


def size(count: int) -> str:
    """Bytes in the unit that suits them (1 MB = 10^6 bytes)."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def evaluation_plain(evaluation: Evaluation) -> dict[str, object]:
    """As --json prints it."""
    return {
        "top1": evaluation.top1,
        "interval": list(evaluation.interval),
        **majority_plain(evaluation),
        "images": evaluation.images,
        "labels": list(evaluation.labels),
        "confusion": evaluation.confusion.tolist(),
        "per_class": [asdict(row) for row in evaluation.per_class],
        "mistakes": [asdict(mistake) | {"path": str(mistake.path)} for mistake in evaluation.mistakes],
    }


def majority_plain(evaluation: Evaluation) -> dict[str, object]:
    """As --json prints it beside every top-1 of a data set."""
    return {"majority": evaluation.majority, "majority_class": evaluation.majority_class}


def evaluation_tables(evaluation: Evaluation) -> None:
    """Per class, confusions, the most confident mistakes."""
    rows = [[row.label, told_share(row.precision), _recall(row), str(row.images)] for row in evaluation.per_class]
    table(["class", "precision", "recall [95%]", "images"], rows)
    if len(evaluation.labels) <= 12:
        counts = [[label, *map(str, row)] for label, row in zip(evaluation.labels, evaluation.confusion.tolist(), strict=True)]
        table(["true \\ answered", *evaluation.labels], counts, "confusions")
    if evaluation.mistakes:
        wrong = [[str(m.path), m.label, m.answer, share(m.probability)] for m in evaluation.mistakes]
        table(["file", "is", "answered", "sure"], wrong, "the most confident mistakes")


def _recall(row: PerClass) -> str:
    low, high = row.recall_interval
    return "-" if row.recall is None else f"{share(row.recall)} [{low * 100:.0f}, {high * 100:.0f}]"


def networks(rows: Sequence[Row]) -> None:
    """What a report says of each file, and a warning for each runtime that adds more noise than quantisation did."""
    table(
        ["network", "runtime", "test top-1 [95%]", "agreement", "noise ratio", "size", "median", "95th pct", "peak memory"],
        [
            [
                row.file,
                row.runtime,
                f"{share(row.top1)} [{row.interval[0] * 100:.1f}, {row.interval[1] * 100:.1f}]",
                share(row.agreement),
                "" if row.noise_ratio is None else f"{row.noise_ratio:.2f}",
                size(row.bytes),
                "" if row.ms_median is None else f"{row.ms_median:.2f} ms",
                "" if row.ms_p95 is None else f"{row.ms_p95:.2f} ms",
                "" if row.peak_memory_bytes is None else size(row.peak_memory_bytes),
            ]
            for row in rows
        ],
        f"{rows[0].images} test photographs; one image at a time, one thread; agreement with the float network",
    )
    noisy([(row.file, row.runtime, row.noise_ratio) for row in rows])


def noisy(ratios: Sequence[tuple[str, str, float | None]]) -> None:
    """(file, runtime, noise ratio): warns of those over 1."""
    for file, runtime, ratio in ratios:
        if ratio is not None and ratio > 1:
            times = f"{ratio:.1f} times the noise of quantisation"
            say(f"warning: {file} in {runtime} adds {times} on this processor; see docs/onnx-weights.md")


def seconds(phases: Mapping[str, float]) -> str:
    """scan 0.3 s, embeddings 12.1 s."""
    return ", ".join(f"{name} {value:.1f} s" for name, value in phases.items())


def path_hint(path: Path) -> str:
    """The path as one would type it."""
    return f"'{path}'" if " " in str(path) else str(path)
