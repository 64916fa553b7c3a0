"""The comparison as one self-contained page, in the manner of the report's, and its two pictures as one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from nestling.errors import NestlingError
from nestling.pages import pictures, words
from nestling.pages.compare import words as compare_words
from nestling.pages.compare.found import Compared, Comparison, File
from nestling.pages.page import MOST_LABELS, filled, legend, links, mark, story
from nestling.pages.pictures import Point, shorten

LONGEST = 18  # letters of a bundle's name in a picture
HEIGHT = 4.6  # inches of a picture
Cost = tuple[str, str, str, Callable[[File], float | None]]  # what, its unit, the picture's name, of a file
COSTS: tuple[Cost, ...] = (
    ("median of an image", "ms", "time", lambda file: file.ms_median),
    ("size of the file", "MB", "size", lambda file: file.bytes / 1e6),
)


def render(comparison: Comparison, at: Path | None = None) -> str:
    """The page as HTML5 text. The same comparison gives the same text. Raises NestlingError for one without bundles.

    at: where it will lie, so that it can link to the bundles; None: without links.
    """
    if not comparison.bundles:
        raise NestlingError(
            "a comparison needs at least one bundle; there is none.", "nestling report a.nest b.nest -o compare.html"
        )
    files = [(number, one, file) for number, one in comparison.numbered for file in one.files]
    advice = compare_words.advice(comparison)
    return filled(
        "compare.html.j2",
        comparison=comparison,
        title=" against ".join(one.name for one in comparison.bundles[:2]) + (" ..." if len(comparison.bundles) > 2 else ""),
        advice=advice,
        following=compare_words.following(comparison, advice),
        warnings=compare_words.warnings(comparison),
        links=links({one.name: Path(one.path) for one in comparison.bundles}, at),
        changes=compare_words.changes(comparison),
        against=[(f"Top-1 against {what}", Markup(svg)) for what, svg in _pictures(comparison)],
        numbered=_by_number(comparison),
        legend=_legend(comparison),
        headings=[(number, one.name, one) for number, one in comparison.numbered],
        lines=compare_words.lines(comparison),
        below=compare_words.below(comparison),
        files=[(number, one.name, file, mark(file.precision, file.format), _columns(file)) for number, one, file in files],
        stories=[(number, one.name, story(one.lineage, f"curves{number}-")) for number, one in comparison.numbered if one.lineage],
    )


def picture(comparison: Comparison) -> str:
    """Both pictures side by side with their legend, as an SVG file of its own. Raises NestlingError where there are no files."""
    drawn = _pictures(comparison)
    if not drawn:
        raise NestlingError("there is nothing to draw: no file of these bundles could be printed.")
    css = (resources.files("nestling.pages") / "templates" / "report.css.j2").read_text(encoding="utf-8")
    return filled(
        "compare.svg.j2",
        palette=Markup(css[: css.index("}") + 1]),
        panels=[(f"Top-1 against {what}", Markup(_inner(svg))) for what, svg in drawn],
        width=72 * pictures.WIDTH,
        height=72 * HEIGHT,
        legend=_legend(comparison),
        names=[f"{number} {shorten(one.name)}" for number, one in comparison.numbered] if _by_number(comparison) else [],
    )


# ---- pictures -------------------------------------------------------------------------------------------------------------------


def _pictures(comparison: Comparison) -> list[tuple[str, str]]:
    """(against what, SVG), for what was measured of at least one file."""
    found = []
    for what, unit, name, cost in COSTS:
        points = _points(comparison, cost)
        if points:
            found.append((f"{what}, {unit}", pictures.accuracy_against(points, what, unit, name, HEIGHT)))
    return found


def _points(comparison: Comparison, cost: Callable[[File], float | None]) -> list[Point]:
    """One a file and cost: a file that two runtimes ran has one size."""
    found: dict[tuple[Any, ...], Point] = {}
    for number, one in comparison.numbered:
        for file in one.files:
            x = cost(file)
            if x is not None:
                found.setdefault((number, file.file, x), _point(comparison, number, one, file, x))
    return list(found.values())


def _point(comparison: Comparison, number: int, one: Compared, file: File, x: float) -> Point:
    label = shorten(one.name, LONGEST)
    if len(comparison.bundles) == 1:
        label = f"{file.precision} {file.format}"
    elif _by_number(comparison):
        label = str(number)
    marker = pictures.MARKS.get(file.format, pictures.OTHER_FORMAT)[0]
    colour = pictures.PRECISIONS.get(file.precision, pictures.OTHER)
    name = f"{one.name}: {file.precision} {file.format}"
    return Point(name, label, x, file.top1, *file.interval, colour, marker, bool(file.failed))


def _by_number(comparison: Comparison) -> bool:
    """Whether the pictures name bundles by their numbers: there are too many files for names."""
    return len(comparison.bundles) > 1 and sum(len(one.files) for one in comparison.bundles) > MOST_LABELS


def _legend(comparison: Comparison) -> dict[str, dict[str, dict[str, str]]]:
    return legend([(file.precision, file.format) for one in comparison.bundles for file in one.files])


def _inner(svg: str) -> str:
    """A picture that stands inside another: with its own size, which on a page is the page's to give."""
    return re.sub(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', r'width="\1" height="\2" \g<0>', svg, count=1)


# ---- every file -----------------------------------------------------------------------------------------------------------------


def _columns(file: File) -> Sequence[tuple[str, str | None]]:
    """(heading, cell)."""

    def said(value: float | None, say: Callable[[float], str]) -> str | None:
        return None if value is None else say(value)

    return (
        ("size, MB", words.megabytes(file.bytes)),
        ("top-1 [95%]", compare_words.top1(file)),
        ("agrees with its network", words.share(file.agreement)),
        ("median, ms", said(file.ms_median, words.milliseconds)),
        ("95th pct, ms", said(file.ms_p95, words.milliseconds)),
        ("noise ratio", said(file.noise_ratio, lambda ratio: f"{ratio:.2f}")),
    )
