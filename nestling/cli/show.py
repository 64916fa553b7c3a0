"""What every command prints with: progress and warnings on stderr, results on stdout, JSON alone where it was asked for."""

from __future__ import annotations

import codecs
import io
import os
import select
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from nestling.cli import tables
from nestling.errors import NestlingError
from nestling.printable import json_text, shown
from nestling.progress import Advance

if TYPE_CHECKING:
    from nestling.data.folders import LeftOut
    from nestling.pages.advice import Advice
    from nestling.pages.page import Row
    from nestling.scores.evaluate import Evaluation, PerClass

WIDE = 132  # columns of a file, or of a pipe
PAUSE = 5.0  # seconds at least between two lines on how far something is
MOST_LEFT_OUT = 20  # files named one by one


class _Unheard(io.FileIO):
    """A stream that nobody may read any more: what cannot be written is lost, and the work goes on."""

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except OSError:
            return memoryview(content).nbytes


class ReaderGone(Exception):
    """Whoever read stdout has gone, as `head` does."""


def err() -> Console:
    """stderr by a handle of its own: a runtime that writes into the common one is hushed without hushing the bar."""
    return _stderr(_real())


@cache
def _stderr(real: bool) -> Console:
    if not real:
        return Console(stderr=True, highlight=False)
    own = io.BufferedWriter(_Unheard(os.dup(sys.stderr.fileno()), "w"))
    return Console(file=io.TextIOWrapper(own, sys.stderr.encoding, "backslashreplace", line_buffering=True), highlight=False)


def _real() -> bool:
    try:
        return sys.stderr.fileno() >= 0
    except (OSError, ValueError):
        return False


@contextmanager
def bars(what: str, total: int) -> Iterator[Advance]:
    """A progress bar on stderr; where stderr is not a terminal, plain lines, PAUSE seconds apart. See nestling.progress."""
    if not err().is_terminal:
        yield _lines(what, total)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        task = progress.add_task(shown(what, err().encoding), total=total)
        yield lambda steps: progress.advance(task, steps)


def _lines(what: str, total: int) -> Advance:
    """For a file or a pipe: what begins, and how far it is, now and then."""
    say(f"{what} ({total})" if total > 1 else what)
    done, said = 0, monotonic()

    def advance(steps: int) -> None:
        nonlocal done, said
        done += steps
        if done < total and monotonic() - said >= PAUSE:
            said = monotonic()
            say(f"{what}: {done} of {total}")

    return advance


def say(*lines: str) -> None:
    """Lines on stderr. Where nobody can read them, the work goes on."""
    for line in lines:
        err().print(Text(shown(line, err().encoding)), soft_wrap=True)


def tell(*lines: str) -> None:
    """Lines on stdout, whole however narrow the terminal is, so that what one should type next can be copied."""
    _write("".join(f"{shown(line, _encoding())}\n" for line in lines))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; the first column left, the others right. See tables.py for narrow terminals."""
    headings, *rows = _shown(headings, rows)
    width = columns()
    if title:
        tell(*textwrap.wrap(shown(title, _encoding()), width, break_long_words=False, break_on_hyphens=False))
    boxes = tables.pieces(headings, rows, width)
    if not boxes:
        tell(*tables.records(headings, rows, width))
        return
    console = Console(file=_stdout(), width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as drawn:
        for i, box in enumerate(boxes):
            console.print(*([""] if i else []), box, sep="\n")
    _write(drawn.get())


def fits(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the terminal has room for the table in one piece."""
    headings, *rows = _shown(headings, rows)
    return len(tables.pieces(headings, rows, columns())) == 1


def _shown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[shown(cell, _encoding()) for cell in row] for row in (headings, *rows)]


def columns() -> int:
    """The terminal's width, or COLUMNS; wide where neither is known, so that a file holds whole rows."""
    return shutil.get_terminal_size((WIDE, 24)).columns


def as_json(value: object) -> None:
    """One JSON value on stdout."""
    ascii_only = not codecs.lookup(_encoding()).name.startswith("utf")
    _write(json_text(value, ascii_only, default=str) + "\n")


def flush() -> None:
    """What was printed is out. Raises as printing does."""
    _write("")


def reader_gone() -> bool:
    """Whether stdout is a pipe that nobody reads from any more."""
    try:
        poll = select.poll()
        poll.register(_stdout(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, ValueError):  # no file
        return False


def _stdout() -> TextIO:
    return cast(TextIO, getattr(sys.stdout, "rich_proxied_file", sys.stdout))  # a bar puts itself in between


def _encoding() -> str:
    return getattr(_stdout(), "encoding", None) or "utf-8"


def _write(text: str) -> None:
    """Raises ReaderGone, or NestlingError where stdout takes no more."""
    try:
        _stdout().write(text)
        _stdout().flush()
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise NestlingError(f"standard output cannot be written: {error.strerror or error}.") from error


def left_out(entries: Sequence[LeftOut]) -> None:
    """Names every file that was not used, with the reason."""
    if not entries:
        return
    say(f"{len(entries)} files left out:")
    for entry in entries[:MOST_LEFT_OUT]:
        say(f"  {entry.path}: {entry.reason}")
    if len(entries) > MOST_LEFT_OUT:
        say(f"  and {len(entries) - MOST_LEFT_OUT} more")


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
    from nestling.scores import doubts

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
        headings, title = ["true \\ answered", *evaluation.labels], "confusions"
        if not fits(headings, counts):
            counts = [[f"{i} {row[0]}", *row[1:]] for i, row in enumerate(counts, 1)]
            headings, title = [headings[0], *map(str, range(1, len(headings)))], "confusions; answers by their class's number"
        table(headings, counts, title)
    if evaluation.mistakes:
        wrong = [[str(m.path), m.label, m.answer, share(m.probability)] for m in evaluation.mistakes]
        table(["file", "is", "answered", "sure"], wrong, "the most confident mistakes")


def _recall(row: PerClass) -> str:
    low, high = row.recall_interval
    return "-" if row.recall is None else f"{share(row.recall)} [{low * 100:.0f}, {high * 100:.0f}]"


def networks(rows: Sequence[Row], against: str = "the float network") -> None:
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
        f"{rows[0].images} test photographs; one image at a time, one thread; agreement with {against}",
    )
    from nestling.pages.words import fewer

    say(*fewer(rows))
    noisy([(row.file, row.runtime, row.noise_ratio) for row in rows])


def advised(advice: Advice) -> None:
    """What to ship, and why, on stdout."""
    from nestling.pages.advice import lines
    from nestling.pages.words import unisolated

    tell(*(unisolated(line) for line in lines(advice)))


def advice_plain(advice: Advice) -> dict[str, object]:
    """As --json prints it."""
    from nestling.pages.words import unisolated

    return {"ship": advice.chosen.file if advice.chosen else None, "advice": unisolated(advice.sentence)}


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
    return shlex.quote(str(path))
