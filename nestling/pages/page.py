"""The report: one self-contained HTML page that needs no script and asks nobody for anything.

    advice.py      what to ship, and why
    words.py       the lineage, numbers
    pictures.py    inline SVG
    curves.py      of trainings
    templates/     the page itself, and its style sheet

Nothing here loads or runs a network: what is on the page comes in a Page.
"""

from __future__ import annotations

import base64
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from nestling.brief import as_table, in_short
from nestling.bundle import Step
from nestling.errors import NestlingError
from nestling.measure.layers import LayerTable
from nestling.pages import curves, pictures, words
from nestling.pages.advice import ONE_FLOAT, Advice, Candidate, advise, called
from nestling.pages.pictures import Bars, Point
from nestling.printable import shown
from nestling.scores import doubts
from nestling.scores.chance import Changed
from nestling.scores.evaluate import LEAST_TOLD, Evaluation

if TYPE_CHECKING:
    from nestling.quantization.explain import LayerCost

MOST_CELLS = 20  # classes of a confusion matrix that is a table; more are a picture
MOST_BARS = 20  # layers in a picture
MOST_LABELS = 10  # networks that a picture names; more are numbered
BUNDLE = "nest"  # the format of what files are printed from
IMAGES: Mapping[bytes, str] = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG\r\n\x1a\n": "image/png"}  # by how a file begins


@dataclass(frozen=True)
class Row:
    """One network as it was run: a file, on a runtime, with so many threads.

    bytes: of the file. top1 with its interval, of `images` test photographs. agreement: share of answers equal to float's.
    noise_ratio: rms(this runtime - int8 reference) / rms(float - int8 reference). ms: of one image. What is None was not measured.
    forced: it failed its gate and was kept. lost: right answers of float's that became wrong; won: the reverse.
    """

    file: str
    format: str
    precision: str
    runtime: str
    threads: int
    bytes: int
    top1: float
    interval: tuple[float, float]
    images: int
    agreement: float
    noise_ratio: float | None = None
    max_logit_difference: float | None = None
    ms_median: float | None = None
    ms_p95: float | None = None
    peak_memory_bytes: int | None = None
    forced: bool = False
    lost: int | None = None
    won: int | None = None


@dataclass(frozen=True)
class Example:
    """A photograph, JPEG or PNG and already small, with what it is and what the network said, with which probability.

    file: where it lies in its set.
    """

    image: bytes
    label: str
    answer: str
    probability: float
    file: str = ""


@dataclass(frozen=True)
class Page:
    """All that a report shows; a part that is empty is not on the page. rows: one or more.

    evaluation and examples: of the file `evaluated`. costs: what quantisation does to each layer. machine: its processor. versions:
    of packages. data: which photographs. notes: what could not be told and why. against: the network that agreement, lost and won
    are about. paths: of the rows' files and the folders of C, by name, as one would type them. bundle: what they were printed from.
    """

    __repr__, _repr_html_ = in_short, as_table

    title: str
    rows: tuple[Row, ...]
    layers: tuple[LayerTable, ...] = ()
    costs: tuple[LayerCost, ...] = ()
    evaluation: Evaluation | None = None
    evaluated: str = ""
    examples: tuple[Example, ...] = ()
    lineage: tuple[Step, ...] = ()
    labels: tuple[str, ...] = ()
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    data: str = ""
    notes: tuple[str, ...] = ()
    against: str = ONE_FLOAT
    paths: Mapping[str, Path] = field(default_factory=dict)
    bundle: Path | None = None


def render(page: Page, at: Path | None = None) -> str:
    """The page as HTML5 text (UTF-8 when written). The same page gives the same text.

    at: where it will lie, so that it can link to the files; None: without links.
    Raises NestlingError for a page without rows, and for an example that is neither JPEG nor PNG.
    """
    if not page.rows:
        raise NestlingError("a report needs at least one network; there is none.", "make one:  nestling export my.nest -o out/")
    evaluation = page.evaluation
    advice = advice_of(page)
    return filled(
        "report.html.j2",
        page=page,
        advice=advice,
        following=following(page, advice),
        links=links(page.paths, at),
        numbered=len(page.rows) > MOST_LABELS,
        most_bars=MOST_BARS,
        marks=[mark(row.precision, row.format) for row in page.rows],
        legend=legend([(row.precision, row.format) for row in page.rows]),
        against=_against(page.rows),
        columns=_columns(page.rows),
        layers=[(table, layer_picture(table, f"layers{i}")) for i, table in enumerate(page.layers) if table.layers],
        costs_picture=_cost_picture(page.costs),
        least_told=LEAST_TOLD,
        cells=_cells(evaluation) if evaluation and len(evaluation.labels) <= MOST_CELLS else [],
        confusion_picture=_confusion_picture(evaluation) if evaluation and len(evaluation.labels) > MOST_CELLS else "",
        confusions=_confusions(evaluation) if evaluation else [],
        examples=[(said, some) for said, some in _examples(page.examples) if some],
        chapters=story(page.lineage, "curves"),
    )


def advice_of(page: Page) -> Advice:
    """What to ship of the page's files; none where the network's answers are worth no more than none."""
    return advise_rows(page.rows, page.against, doubts.of_answers(page.evaluation) if page.evaluation else ())


def advise_rows(rows: Sequence[Row], against: str = ONE_FLOAT, doubted: Sequence[str] = ()) -> Advice:
    """rows: files, and bundles, which are not weighed. doubted: why the network itself is not worth shipping."""
    names = called([(row.file, row.runtime) for row in rows])
    every = [(row, _candidate(row, name)) for row, name in zip(rows, names, strict=True)]
    floats = [one for row, one in every if row.precision in words.FLOAT]
    return advise([one for row, one in every if row.format != BUNDLE], floats, against, doubted)


def _candidate(row: Row, name: str) -> Candidate:
    known = row.lost is not None and row.won is not None
    changed = Changed(row.lost or 0, row.won or 0, row.images) if known else None
    return Candidate(
        name, row.file, row.precision, row.format, row.runtime, row.threads, row.bytes, row.ms_median, row.top1, row.noise_ratio,
        changed, row.forced,
    )  # fmt: skip


def following(page: Page, advice: Advice) -> tuple[str, ...]:
    """What to type next: ask the file that is to be shipped; where nothing is smaller than float, make it smaller."""
    said = []
    if advice.chosen is not None:
        said.append(f"nestling predict {shlex.quote(str(page.paths.get(advice.chosen.file, advice.chosen.file)))} PHOTO.jpg")
    if page.bundle is not None and all(row.precision in words.FLOAT for row in page.rows):
        folder = next((path.parent for path in page.paths.values() if path != page.bundle), Path("out"))
        files = f"--to tflite --precision int8 -o {shlex.quote(str(folder))}"
        said.append(f"nestling export {shlex.quote(str(page.bundle))} {files}")
    if advice.chosen is None and page.bundle is not None:
        said.append("nestling fit MORE_PHOTOS -o more.nest")
    return tuple(said)


def links(paths: Mapping[str, Path], at: Path | None) -> dict[str, str]:
    """name -> a link to that path from the page at `at`; without those that no relative path leads to, as to another drive."""
    if at is None:
        return {}
    found = {}
    for name, path in paths.items():
        try:
            relative = os.path.relpath(path, at.parent)  # as a browser goes: what is a link on the disk stays one
        except ValueError:
            continue
        found[name] = "./" + quote(Path(relative).as_posix()) + ("/" if path.is_dir() else "")
    return found


def filled(template: str, **values: Any) -> str:
    """A template of this package with its values, as HTML5 text."""
    environment = Environment(
        loader=PackageLoader("nestling.pages"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
    )  # fmt: skip
    environment.filters |= {
        "share": words.share, "ms": words.milliseconds, "millions": words.millions, "data_uri": _data_uri,
        "sentence": lambda text: escape(shown(text, keep=words.ISOLATES)),
        "path": lambda text: escape(shown(text)).replace("/", Markup("/<wbr>")),
    }  # fmt: skip
    return shown(environment.get_template(template).render(**values), keep=f"\n\t{words.ISOLATES}")  # once more, for the pictures


def story(lineage: Sequence[Step], name: str) -> list[tuple[words.Chapter, list[tuple[str, Markup]]]]:
    """Each step as told, with (heading, picture) of its curves. name: goes before the pictures' ids."""
    return [
        (words.chapter(step), [(heading, Markup(svg)) for heading, svg in curves.pictures(step, f"{name}{i}")])
        for i, step in enumerate(lineage)
    ]


# ---- the networks ------------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, Callable[[Row], str | None]] = {
    "size, MB": lambda row: words.megabytes(row.bytes),
    "top-1 [95%]": lambda row: f"{words.share(row.top1)} {words.interval(row.interval)}",
    "agrees with float": lambda row: words.share(row.agreement),
    "median, ms": lambda row: _maybe(row.ms_median, words.milliseconds),
    "95th pct, ms": lambda row: _maybe(row.ms_p95, words.milliseconds),
    "peak memory, MB": lambda row: _maybe(row.peak_memory_bytes, words.megabytes),
    "noise ratio": lambda row: _maybe(row.noise_ratio, lambda ratio: f"{ratio:.2f}"),
    "largest logit difference": lambda row: _maybe(row.max_logit_difference, lambda difference: f"{difference:.2g}"),
}


def _maybe(value: Any, say: Callable[[Any], str]) -> str | None:
    return None if value is None else say(value)


def _columns(rows: Sequence[Row]) -> dict[str, list[str | None]]:
    """heading -> a cell a row; without the columns that nobody measured."""
    cells = {heading: [say(row) for row in rows] for heading, say in COLUMNS.items()}
    return {heading: column for heading, column in cells.items() if any(cell is not None for cell in column)}


def _names(rows: Sequence[Row]) -> list[str]:
    """What a picture calls each row: as short as tells them apart, numbers where there are many."""
    if len(rows) > MOST_LABELS:
        return [str(i + 1) for i in range(len(rows))]
    parts: tuple[Callable[[Row], str], ...] = (
        lambda row: f"{row.precision} {row.format}",
        lambda row: row.runtime,
        lambda row: words.threads(row.threads),
        lambda row: row.file,
    )
    names = [parts[0](row) for row in rows]
    for part in parts[1:]:
        twice = {name for name, count in Counter(names).items() if count > 1}
        values = {name: {part(row) for row, own in zip(rows, names, strict=True) if own == name} for name in twice}
        names = [f"{n}, {part(row)}" if len(values.get(n, ())) > 1 else n for row, n in zip(rows, names, strict=True)]
    return names


def mark(precision: str, form: str) -> dict[str, str]:
    """The sign that stands for a file in text: its character, the variable of its colour."""
    colour = pictures.PRECISIONS.get(precision, pictures.OTHER)
    return {"sign": pictures.MARKS.get(form, pictures.OTHER_FORMAT)[1], "colour": pictures.VARIABLES[colour]}


def legend(kinds: Sequence[tuple[str, str]]) -> dict[str, dict[str, dict[str, str]]]:
    """kinds: (precision, format) of files. {"colour" and "shape": {a precision or a format: its sign}}."""
    by_colour = {precision: mark(precision, form) | {"sign": "●"} for precision, form in kinds}
    return {"colour": by_colour, "shape": {form: mark(precision, form) | {"colour": "--muted"} for precision, form in kinds}}


def _against(rows: Sequence[Row]) -> list[Markup]:
    """Top-1 against size, and against milliseconds where there are any. A file that was run twice has one size."""
    once = {(row.file, row.bytes, row.top1): i for i, row in reversed([*enumerate(rows)])}
    sized = sorted(once.values())
    short = _names([rows[i] for i in sized]) if len(rows) <= MOST_LABELS else [str(i + 1) for i in sized]
    sizes = [_point(rows[i], name, rows[i].bytes / 1e6) for i, name in zip(sized, short, strict=True)]
    times = [_point(r, name, r.ms_median) for r, name in zip(rows, _names(rows), strict=True) if r.ms_median is not None]
    drawn = [pictures.accuracy_against(sizes, "size", "MB", "size")]
    if times:
        drawn.append(pictures.accuracy_against(times, "median of an image", "ms", "time"))
    return [Markup(svg) for svg in drawn]


def _point(row: Row, label: str, x: float) -> Point:
    marker = pictures.MARKS.get(row.format, pictures.OTHER_FORMAT)[0]
    colour = pictures.PRECISIONS.get(row.precision, pictures.OTHER)
    return Point(row.file, label, x, row.top1, *row.interval, colour, marker, row.forced)


# ---- layers ------------------------------------------------------------------------------------------------------------------


def layer_picture(table: LayerTable, name: str) -> Markup:
    """The costliest layers: by time where it is known, else by MACs. name: unique on the page."""
    timed = any(layer.ms is not None for layer in table.layers)
    known = timed or table.counted
    listed = sorted(table.layers, key=lambda layer: -(layer.ms or layer.instructions or (0 if known else layer.macs)))[:MOST_BARS]
    columns = [Bars("MACs", pictures.OTHER, tuple(s.macs for s in listed), tuple(words.millions(s.macs) for s in listed))]
    if timed:
        texts = tuple(f"{words.milliseconds(s.ms)} ms" if s.ms is not None else "not told" for s in listed)
        columns.insert(0, Bars("time", pictures.ACCENT, tuple(s.ms for s in listed), texts))
    if table.counted:
        texts = tuple(words.millions(s.instructions or 0) for s in listed)
        columns.insert(0, Bars("instructions", pictures.ACCENT, tuple(s.instructions for s in listed), texts))
    if any(layer.cycles_estimate is not None for layer in listed):
        texts = tuple(words.millions(s.cycles_estimate or 0) for s in listed)
        columns.insert(1, Bars("cycles, estimated", pictures.ACCENT, tuple(s.cycles_estimate for s in listed), texts))
    return Markup(pictures.bars([s.name for s in listed], columns, f"The costliest layers of {table.file}", name))


def standalone(picture: str) -> str:
    """A picture of the page as an SVG file of its own, in the page's colours."""
    css = (resources.files("nestling.pages") / "templates" / "report.css.j2").read_text(encoding="utf-8")
    palette = css[: css.index("}") + 1]
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    opened = str.replace(picture, "<svg ", f"<svg {spaces} ", 1)  # not Markup's own, which would escape
    return str.replace(
        opened, ">", f"><style>{palette} svg {{ background: var(--card) }} text {{ font-family: sans-serif }}</style>", 1
    )


def _cost_picture(costs: Sequence[LayerCost]) -> Markup:
    if not costs:
        return Markup("")
    listed = sorted(costs, key=lambda cost: -cost.error_gain)[:MOST_BARS]
    columns = [
        Bars("of the error", pictures.WRONG, tuple(c.error_gain for c in listed), tuple(words.share(c.error_gain) for c in listed)),
        Bars("signal to noise", pictures.OTHER, tuple(c.sqnr for c in listed), tuple(f"{c.sqnr:.1f} dB" for c in listed)),
    ]
    return Markup(pictures.bars([c.layer for c in listed], columns, "The layers that quantisation hurts most", "costs"))


# ---- answers -----------------------------------------------------------------------------------------------------------------


def _cells(evaluation: Evaluation) -> list[list[tuple[int, float]]]:
    """(photographs, share of the true class), a row a true class."""
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return [[*zip(row, some, strict=True)] for row, some in zip(counts.tolist(), shares.tolist(), strict=True)]


def _confusions(evaluation: Evaluation) -> list[tuple[str, str, int, float]]:
    """(true class, answer, photographs, share of the true class), the fifteen that happen most."""
    wrong = evaluation.confusion * ~np.eye(len(evaluation.labels), dtype=bool)
    worst = np.argsort(-wrong, axis=None, kind="stable")[:15]
    places = [divmod(int(i), len(evaluation.labels)) for i in worst if wrong.flat[i]]
    total, labels = evaluation.confusion.sum(axis=1), evaluation.labels
    return [(labels[t], labels[a], int(wrong[t, a]), float(wrong[t, a] / total[t])) for t, a in places]


def _confusion_picture(evaluation: Evaluation) -> Markup:
    right = int(np.diagonal(evaluation.confusion).sum())
    told = [f"{count} of {label} answered {answer}" for label, answer, count, _ in _confusions(evaluation)[:5]]
    said = f"{right} of {evaluation.images} photographs of {len(evaluation.labels)} classes lie on the diagonal: they are right."
    return Markup(pictures.confusion(evaluation.confusion, f"{said} Most often wrong: {'; '.join(told) or 'none'}.", "confusion"))


def _examples(examples: Sequence[Example]) -> tuple[tuple[str, list[Example]], ...]:
    return (
        ("Right", [example for example in examples if example.answer == example.label]),
        ("Wrong", [example for example in examples if example.answer != example.label]),
    )


def _data_uri(image: bytes) -> str:
    kind = next((kind for start, kind in IMAGES.items() if image.startswith(start)), None)
    if kind is None:
        raise NestlingError(f"an example of the report is neither JPEG nor PNG: it begins with {image[:8].hex(' ')}.")
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"
