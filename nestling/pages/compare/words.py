"""A comparison in words: what to ship, and its one table, a column a bundle, for the page, the terminal and Markdown."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from nestling.pages.advice import Advice, Candidate, advise
from nestling.pages.compare.found import Compared, Comparison, File, Score
from nestling.pages.words import FLOAT, interval, isolated, megabytes, milliseconds, points, probability, share
from nestling.printable import shown
from nestling.scores.chance import LIKELY, Changed

Key = tuple[str, str, str]  # format, precision, runtime
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Line:
    """A row of the table: what, and of each bundle the text, None where it was not measured. begins: a group of rows."""

    what: str
    cells: tuple[str | None, ...]
    begins: bool = False


# ---- numbers ------------------------------------------------------------------------------------------------------------------


def top1(score: Score | File) -> str:
    """85.7% [82.5, 88.4]."""
    return f"{share(score.top1)} {interval(score.interval)}"


# ---- the table ----------------------------------------------------------------------------------------------------------------


def lines(comparison: Comparison) -> tuple[Line, ...]:
    """The rows; without those that nobody measured."""
    every = comparison.bundles
    first = every[0]
    groups: list[list[tuple[str, Callable[[Compared], str | None]]]] = [
        [
            ("float, top-1 [95%]", lambda one: top1(one.floats) if one.floats else None),
            ("float, against 1", lambda one: _against(one.floats, first.floats)),
            ("int8, top-1 [95%]", lambda one: top1(one.integers) if one.integers else None),
            ("int8 − float", lambda one: _difference(one.difference, one.difference_p)),
            ("int8, against 1", lambda one: _against(one.integers, first.integers)),
        ],
        [
            ("MACs", lambda one: _said(one.weights.macs, _millions)),
            ("parameters", lambda one: _said(one.weights.parameters, _millions)),
            ("float weights, MB", lambda one: _said(one.weights.float_bytes, megabytes)),
            ("int8 weights, MB", lambda one: _said(one.weights.int8_bytes, megabytes)),
            ("compressed, MB", lambda one: _said(one.weights.compressed_bytes, megabytes)),
            ("zero weights, float", lambda one: _said(one.weights.zeros, share)),
            ("zero weights, int8", lambda one: _said(one.weights.int8_zeros, share)),
        ],
    ]
    titles = kinds(comparison)
    sizes: dict[str, Key] = {}
    for key, title in titles.items():
        sizes.setdefault(title.partition(" in ")[0], key)
    groups.append([(f"{title}, MB", _of_file(key, lambda file: megabytes(file.bytes))) for title, key in sizes.items()])
    groups.append(
        [(f"{title}, ms", _of_file(key, lambda file: _said(file.ms_median, milliseconds))) for key, title in titles.items()]
    )
    groups.append(
        [
            ("C: arena, kB", lambda one: _said(one.board.arena_bytes, _kilobytes) if one.board else None),
            ("C: flash, kB", lambda one: _said(one.board.flash_bytes, _kilobytes) if one.board else None),
            ("C: instructions", lambda one: _said(one.board.instructions, _millions) if one.board else None),
        ]
    )
    found: list[Line] = []
    for group in groups:
        told = [(what, tuple(say(one) for one in every)) for what, say in group]
        told = [(what, cells) for what, cells in told if any(cell is not None for cell in cells)]
        found += [Line(what, cells, i == 0 and bool(found)) for i, (what, cells) in enumerate(told)]
    return tuple(found)


def kinds(comparison: Comparison) -> Mapping[Key, str]:
    """What each kind of file is called, in order: int8 .tflite; with its runtime where one format has several."""
    keys = dict.fromkeys(_key(file) for one in comparison.bundles for file in one.files)
    forms = {(form, precision): sum(key[:2] == (form, precision) for key in keys) for form, precision, _ in keys}
    return {
        (form, precision, runtime): f"{precision} .{form}" + (f" in {runtime}" if forms[form, precision] > 1 else "")
        for form, precision, runtime in keys
    }


def headings(comparison: Comparison) -> tuple[str, ...]:
    """1 base, 2 pruned."""
    return tuple(f"{number} {one.name}" for number, one in comparison.numbered)


def markdown(comparison: Comparison) -> str:
    """The table as GitHub's Markdown, with what it is of below."""
    rows = [["", *headings(comparison)], ["---", *("---:" for _ in comparison.bundles)]]
    rows += [[line.what, *("–" if cell is None else cell for cell in line.cells)] for line in lines(comparison)]
    table = "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows)
    notes = "".join(f"- {shown(' '.join(note.split()))}\n" for note in (*warnings(comparison), *comparison.notes))
    return f"{table}\n\n{below(comparison)}\n" + (f"\n{notes}" if notes else "")


def below(comparison: Comparison) -> str:
    """What the figures are of."""
    boards = [one.board.title for one in comparison.bundles if one.board]
    counted = f" C: {boards[0]}; instructions as QEMU counts them, not cycles." if boards else ""
    return (
        f"{comparison.images} photographs, the same for all ({comparison.data}). Milliseconds: the median of one image on one "
        f"thread, all files in turns in one run, on {comparison.machine or 'one computer'}. p: McNemar's, how often chance alone "
        f"sets two networks so far apart. Compressed: the int8 weights by zlib at level 9.{counted}"
    )


def _cell(text: str) -> str:
    return shown(" ".join(text.split())).replace("|", "\\|")


def _said(value: Number | None, say: Callable[[Number], str]) -> str | None:
    return None if value is None else say(value)


def _kilobytes(count: int) -> str:
    return f"{count / 1e3:,.1f}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.2f} M"


def _of_file(key: Key, say: Callable[[File], str | None]) -> Callable[[Compared], str | None]:
    """Of the bundle's file of that kind; one that failed its gate says so."""

    def cell(one: Compared) -> str | None:
        file = next((file for file in one.files if _key(file) == key), None)
        text = say(file) if file else None
        return f"{text}, failed its gate" if text and file and file.failed else text

    return cell


def _key(file: File) -> Key:
    return file.format, file.precision, file.runtime


def _against(score: Score | None, first: Score | None) -> str | None:
    if score is not None and score is first:
        return "baseline"
    if score is None or first is None or score.p is None:
        return None
    return _difference(score.top1 - first.top1, score.p)


def _difference(difference: float | None, p: float | None) -> str | None:
    return None if difference is None or p is None else f"{points(difference)} ({probability(p)})"


# ---- what to ship -------------------------------------------------------------------------------------------------------------


def advice(comparison: Comparison) -> Advice:
    """The small and quick one of all files whose answers do not differ from those of the best network here by more than chance.

    Beside it stands who is right most often, smallest, quickest.
    """
    every = [(one, file, _candidate(one, file, comparison)) for one in comparison.bundles for file in one.files]
    if not every:
        return Advice(None, "No file of these bundles could be made: nothing can be advised.", (_sentence(comparison),))
    name, kind = comparison.best or ("", "")
    wholes = [(one, candidate) for one, file, candidate in every if file.precision in FLOAT]
    floats = [candidate for one, candidate in wholes if one.name == name] or [candidate for _, candidate in wholes]
    passed = [candidate for _, file, candidate in every if not file.failed]  # warnings name the others, with what was wrong
    found = advise(passed, floats, f"the best here ({isolated(name)} in {kind})")
    return replace(found, beside=(_sentence(comparison), *found.beside))


def following(comparison: Comparison, found: Advice) -> tuple[str, ...]:
    """What to type next: print the file that is to be shipped."""
    for one in comparison.bundles:
        for file in one.files:
            if found.chosen is not None and _candidate(one, file, comparison) == found.chosen:
                return (f"nestling export {shlex.quote(one.path)} --to {file.format} --precision {file.precision} -o out/",)
    return ()


def warnings(comparison: Comparison) -> tuple[str, ...]:
    """Gates, and what the photographs leave open."""
    return (*comparison.warnings, *_failures(comparison))


def _candidate(one: Compared, file: File, comparison: Comparison) -> Candidate:
    several = sum(other.file == file.file for other in one.files) > 1
    name = _whose(one, file, len(comparison.bundles)) + (f" in {file.runtime}" if several else "")
    known = file.lost is not None and file.won is not None
    changed = Changed(file.lost or 0, file.won or 0, comparison.images) if known else None
    return Candidate(
        name, name, file.precision, file.format, file.runtime, 1, file.bytes, file.ms_median, file.top1, file.noise_ratio, changed,
        bool(file.failed),
    )  # fmt: skip


def changes(comparison: Comparison) -> tuple[str, ...]:
    """A sentence for each bundle after the first: what it costs beside the first, and what its answers lost or gained."""
    first = comparison.bundles[0]
    return tuple(f"{isolated(one.name)}: {_change(one, first)}." for one in comparison.bundles[1:])


def _sentence(comparison: Comparison) -> str:
    every = comparison.bundles
    scored = [(one, score) for one in every if (score := one.floats or one.integers)]
    best, score = max(scored, key=lambda pair: pair[1].top1)
    kind = "" if best.floats else " in int8"
    right = f"{isolated(best.name)} gives {share(score.top1)} of {score.images} photographs their class{kind}"
    right = f"{right} {interval(score.interval)}"
    files = [(one, file) for one in every for file in one.files if not file.failed]
    # of sizes that are written alike, the better network's
    smallest = min(files, key=lambda pair: (float(megabytes(pair[1].bytes)), -pair[1].top1), default=None)
    times = [(file.ms_median, one, file) for one, file in files if file.ms_median is not None]
    quickest = min(times, key=lambda some: some[0], default=None)
    said = [f"Of {len(every)} bundles {right}, the most" if len(every) > 1 else right]
    if smallest is not None:
        one, file = smallest
        said.append(f"the smallest file is {_whose(one, file, len(every))}, {megabytes(file.bytes)} MB at {share(file.top1)}")
    if quickest is not None:
        ms, one, file = quickest
        said.append(f"the quickest {_whose(one, file, len(every))}, {milliseconds(ms)} ms at {share(file.top1)}")
    return "; ".join(said) + "."


def _whose(one: Compared, file: File, of: int) -> str:
    kind = f"{file.precision} .{file.format}"
    return f"{isolated(one.name)}’s {kind}" if of > 1 else f"the {kind}"


def _change(one: Compared, first: Compared) -> str:
    a, b = first.weights, one.weights
    said = [
        f"{share(new / old)} of {what}"
        for what, new, old in (
            ("the MACs", b.macs, a.macs),
            ("the parameters", b.parameters, a.parameters),
            ("the compressed weights", b.compressed_bytes, a.compressed_bytes),
        )
        if new is not None and old
    ]
    pair = _timed_alike(one, first)
    if pair is not None:
        new_file, old_file = pair
        said.append(
            f"{share((new_file.ms_median or 0) / (old_file.ms_median or 1))} of the time ({new_file.precision} .{new_file.format})"
        )
    if one.board and first.board and one.board.instructions and first.board.instructions:
        said.append(f"{share(one.board.instructions / first.board.instructions)} of the instructions")
    scores = [("float", one.floats, first.floats), ("int8", one.integers, first.integers)]
    said += [f"{points(n.top1 - o.top1)} points in {kind}, {_chance(n.p)}" for kind, n, o in scores if n and o and n.p is not None]
    return "; ".join(said) or "nothing was measured of both"


def _timed_alike(one: Compared, first: Compared) -> tuple[File, File] | None:
    """The first kind of file that both have, int8 before others, and were timed in."""
    theirs = {_key(file): file for file in first.files if file.ms_median}
    both = [(file, theirs[_key(file)]) for file in one.files if file.ms_median and _key(file) in theirs]
    return min(both, key=lambda pair: pair[0].precision != "int8", default=None)


def _chance(p: float | None) -> str:
    if p is None:
        return ""
    return f"more than chance ({probability(p)})" if p < LIKELY else f"which chance alone may bring about ({probability(p)})"


def _failures(comparison: Comparison) -> tuple[str, ...]:
    files = [(f"{isolated(one.name)}: {isolated(file.file)}", file.failed) for one in comparison.bundles for file in one.files]
    boards = [(f"{isolated(one.name)}: the C for {one.board.machine}", one.board.failed) for one in comparison.bundles if one.board]
    return tuple(f"{what} failed its gate: {'; '.join(why)}." for what, why in dict.fromkeys([*files, *boards]) if why)


def table(comparison: Comparison) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """(headings, rows) of plain text."""
    return ["", *headings(comparison)], [[line.what, *(cell or "–" for cell in line.cells)] for line in lines(comparison)]
