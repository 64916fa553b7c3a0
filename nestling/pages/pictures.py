"""The report's pictures: matplotlib to inline SVG, in the colours of the page that they stand in (light, dark or paper).

Text stays text. Every picture is 6 inches wide, so that its letters are still about 9 pixels high on a telephone.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from io import StringIO
from itertools import pairwise
from typing import Any, Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from nestling.formats import FORMATS
from nestling.printable import shown

WIDTH = 6.0  # inches
SIZE = 12.0  # points of a letter: 1 / 36 of the width
LONGEST = 24  # characters of a name in a picture

# What matplotlib draws with, and the page's variable that takes its place in the SVG.
INK, MUTED, LINE, CARD, ACCENT, WRONG = "#000001", "#000002", "#000003", "#000004", "#000005", "#000006"
FP32, FP16, INT8, DYNAMIC, OTHER = "#000011", "#000012", "#000013", "#000014", "#000015"
VARIABLES: Mapping[str, str] = {
    INK: "--ink", MUTED: "--muted", LINE: "--line", CARD: "--card", ACCENT: "--accent", WRONG: "--wrong",
    FP32: "--fp32", FP16: "--fp16", INT8: "--int8", DYNAMIC: "--dynamic", OTHER: "--other",
}  # fmt: skip

PRECISIONS: Mapping[str, str] = {"float": FP32, "fp32": FP32, "fp16": FP16, "int8": INT8, "dynamic": DYNAMIC}
MARKS = {form.name.partition("-")[0]: form.mark for form in FORMATS.values()}
OTHER_FORMAT = ("P", "✚")
SIDES: Mapping[float, Literal["left", "center", "right"]] = {1.0: "left", 0.0: "center", -1.0: "right"}  # by a label's offset

OURS: Mapping[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "nestling", "text.parse_math": False, "font.family": "DejaVu Sans", "font.size": SIZE,
    "figure.facecolor": "none", "axes.facecolor": "none", "axes.edgecolor": LINE, "axes.labelcolor": MUTED, "text.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.color": LINE, "xtick.labelcolor": MUTED, "ytick.color": LINE,
    "ytick.labelcolor": MUTED, "grid.color": LINE, "grid.linewidth": 0.8, "axes.axisbelow": True,
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A network in a picture: x, its cost; y, its top-1, between low and high. hollow: it failed its gate. name: of its file."""

    name: str
    label: str
    x: float
    y: float
    low: float
    high: float
    colour: str
    marker: str
    hollow: bool = False


@dataclass(frozen=True)
class Bars:
    """One column of bars: a heading, a colour (a key of VARIABLES), and for every row a value and its text; None where unknown."""

    heading: str
    colour: str
    values: tuple[float | None, ...]
    texts: tuple[str, ...]


# ---- accuracy against a cost -------------------------------------------------------------------------------------------------


def front(points: Sequence[Point]) -> tuple[Point, ...]:
    """Those that no other point beats (cheaper and as good, or better and as cheap), by cost. Hollow ones do not take part."""
    kept: list[Point] = []
    for point in sorted((p for p in points if not p.hollow), key=lambda p: (p.x, -p.y, p.name)):
        if not kept or point.y > kept[-1].y:
            kept.append(point)
    return tuple(kept)


def accuracy_against(points: Sequence[Point], what: str, unit: str, name: str, height: float = 4.0) -> str:
    """An SVG of top-1 against a cost. what: "size", unit: "MB" of x; name: unique on the page, it goes before every id."""
    with style():
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.115, 0.6 / height, 0.845, 1 - 0.72 / height))
        _cost_axis(axes, [p.x for p in points])
        _share_axis(axes, points)
        axes.set_xlabel(f"{what}, {unit}")
        best = front(points)
        xs, ys = [p.x for p in best], [100 * p.y for p in best]
        xs.append(axes.get_xlim()[1])  # the best goes on to the right: dearer ones do not beat it
        axes.plot(xs, [*ys, *ys[-1:]] or [np.nan], drawstyle="steps-post", color=ACCENT, lw=2.2, alpha=0.55, zorder=2)
        for p in points:
            axes.plot([p.x, p.x], [100 * p.low, 100 * p.high], color=p.colour, lw=1.6, alpha=0.45, zorder=3)
        for p in points:
            face = CARD if p.hollow else p.colour
            axes.plot(p.x, 100 * p.y, p.marker, ms=10, mfc=face, mec=p.colour if p.hollow else CARD, mew=1.4, zorder=4)
        _place_labels(axes, points)
        said = "; ".join(f"{p.name} ({p.label}): {p.x:.4g} {unit}, {_percent(p)}" for p in sorted(points, key=lambda p: p.x))
        text = f"{said}. On the Pareto front: {', '.join(dict.fromkeys(p.name for p in best)) or 'none'}."
        return inline(figure, name, f"Top-1 against {what}, {unit}", text)


def _percent(p: Point) -> str:
    return f"top-1 {100 * p.y:.1f}% [{100 * p.low:.1f}, {100 * p.high:.1f}]" + (", failed its gate" if p.hollow else "")


def _cost_axis(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic where the dearest costs three times the cheapest or more."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= 3:
        margin = (high / low) ** 0.12
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
        axes.xaxis.set_major_locator(FixedLocator(_round_numbers(low / margin, high * margin)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        margin = 0.15 * (high - low) or 0.2 * high or 1.0
        axes.set_xlim(low - margin, high + margin)
        axes.locator_params(axis="x", nbins=6)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))


def _round_numbers(low: float, high: float) -> list[float]:
    """Four or more numbers for a logarithmic axis, of the roundest kind that gives as many."""
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    found: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(found) >= 4:
            break
    return found


def _share_axis(axes: Axes, points: Sequence[Point]) -> None:
    low, high = 100 * min(p.low for p in points), 100 * max(p.high for p in points)
    margin = max(0.12 * (high - low), 0.5)
    axes.set_ylim(max(low - margin, -1), min(high + margin, 101))
    axes.locator_params(axis="y", nbins=6)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}%"))
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)


def _place_labels(axes: Axes, points: Sequence[Point]) -> None:
    """Each label at the nearest place around its point where it covers nothing, or least; far ones get a thin line."""
    scale = axes.figure.dpi / 72
    taken = _drawn(axes, points, scale)
    for p in sorted(points, key=lambda p: -p.x):
        offsets = [*_offsets()]
        size = _size(axes, p)
        boxes = [_box(axes, p, size, offset, scale) for offset in offsets]
        costs = [_covered(box, taken, axes.bbox) + 0.02 * i for i, box in enumerate(boxes)]
        best = int(np.argmin(costs))
        _label(axes, p, offsets[best])
        taken.append((boxes[best], 20.0))


def _drawn(axes: Axes, points: Sequence[Point], scale: float) -> list[tuple[Bbox, float]]:
    """Boxes of what labels should not cover, in pixels, and how much that matters: signs, the front, whiskers."""

    def box(ends: Sequence[tuple[float, float]], margin: float) -> Bbox:
        (x0, y0), (x1, y1) = axes.transData.transform([(x, 100 * y) for x, y in ends])
        return Bbox.from_extents(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).padded(margin * scale)

    best = front(points)
    corners = [(p.x, p.y) for p in best] + [(axes.get_xlim()[1], best[-1].y)] if best else []
    flat = [(box([a, (b[0], a[1])], 2), 4.0) for a, b in pairwise(corners)]
    steep = [(box([(b[0], a[1]), b], 2), 4.0) for a, b in pairwise(corners)]
    signs = [(box([(p.x, p.y)] * 2, 6), 8.0) for p in points]
    return [*signs, *flat, *steep, *((box([(p.x, p.low), (p.x, p.high)], 1), 2.0) for p in points)]


def _offsets() -> Iterator[tuple[float, float]]:
    """Points right and up, the nearest first."""
    for far in (1.0, 2.0, 3.2, 4.6, 6.2, 8.0):
        for right, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (0.8, 0.9), (-0.8, 0.9), (0.8, -0.9), (-0.8, -0.9)):
            yield 10 * right * far, 14 * up * far


def _label(axes: Axes, p: Point, offset: tuple[float, float]) -> None:
    far = max(map(abs, offset)) > 20
    axes.annotate(
        shorten(p.label), (p.x, 100 * p.y), offset, textcoords="offset points", gid="label", zorder=5,
        ha=SIDES[np.sign(offset[0])], va="center",
        arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.8, "shrinkA": 1, "shrinkB": 6} if far else None,
    )  # fmt: skip


def _size(axes: Axes, p: Point) -> tuple[float, float]:
    """Width and height of a label, in pixels."""
    probe = axes.text(0, 0, shorten(p.label))
    box = probe.get_window_extent()
    probe.remove()
    return box.width, box.height


def _box(axes: Axes, p: Point, size: tuple[float, float], offset: tuple[float, float], scale: float) -> Bbox:
    """Where a label's text would be, in pixels."""
    x, y = axes.transData.transform((p.x, 100 * p.y)) + np.multiply(offset, scale)
    left = x - size[0] * {"left": 0.0, "center": 0.5, "right": 1.0}[SIDES[np.sign(offset[0])]]
    return Bbox.from_bounds(left, y - size[1] / 2, *size).padded(scale)


def _covered(box: Bbox, taken: Sequence[tuple[Bbox, float]], inside: Bbox) -> float:
    """Weighed share of the box that lies on something, and heavily what lies outside."""
    area = box.width * box.height
    parts = ((Bbox.intersection(box, other), weight) for other, weight in taken)
    cost = sum(weight * part.width * part.height for part, weight in parts if part is not None)
    within = Bbox.intersection(box, inside)
    return float(cost + 50 * (area - (within.width * within.height if within is not None else 0.0))) / area


# ---- rows of bars ------------------------------------------------------------------------------------------------------------


def bars(names: Sequence[str], columns: Sequence[Bars], title: str, name: str) -> str:
    """An SVG of a row a name, with a bar for every column. name: unique on the page."""
    with style():
        height = 0.25 * len(names) + 0.45
        figure = Figure(figsize=(WIDTH, height))
        listed = [shorten(text) for text in names]
        left = min(max((_units(text) for text in listed), default=0) * 0.6 * SIZE / 72 / WIDTH + 0.02, 0.45)
        each = (1 - left) / len(columns)
        for i, column in enumerate(columns):
            room = (max(map(len, column.texts), default=0) + 1) * 0.64 * SIZE / 72 / WIDTH
            axes = figure.add_axes((left + i * each + 0.01, 0.05 / height, each - 0.02, (height - 0.4) / height))
            _draw_bars(axes, column, room / (each - 0.02))
            axes.text(0, 1.0, column.heading, transform=axes.transAxes, va="bottom", color=MUTED)
            axes.set_yticks(range(len(names)), listed if i == 0 else [""] * len(names), color=INK)
        said = (f"{row}: " + ", ".join(f"{c.texts[i]} ({c.heading})" for c in columns) for i, row in enumerate(names))
        return inline(figure, name, title, "; ".join(said) + ".")


def _draw_bars(axes: Axes, column: Bars, room: float) -> None:
    """room: share of the width that the longest text takes; the longest bar leaves as much."""
    values = [value or 0.0 for value in column.values]
    low, high = min(0.0, *values), max(0.0, *values) or 1.0
    span = (high - low) / max(1 - room, 0.2)
    axes.barh(range(len(values)), values, height=0.62, color=column.colour)
    for i, (value, text) in enumerate(zip(values, column.texts, strict=True)):
        axes.annotate(text, (max(value, 0.0), i), (4, 0), textcoords="offset points", va="center")
    axes.set_xlim(low, low + span)
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    for side in ("bottom", "left"):
        axes.spines[side].set_visible(False)
    axes.axvline(0, color=LINE, lw=1)


# ---- confusions of many classes ----------------------------------------------------------------------------------------------


def confusion(counts: NDArray[np.int64], description: str, name: str) -> str:
    """An SVG of a confusion matrix, row the true class, column the answer; the darker, the more of the row. name: unique."""
    with style():
        figure = Figure(figsize=(WIDTH, WIDTH))
        axes = figure.add_axes((0.1, 0.02, 0.87, 0.87))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        steps = np.ceil(shares * 5).astype(int)  # 0, where nothing was answered so, to 5
        diagonal = np.eye(len(counts), dtype=bool)
        for right, colour in ((True, ACCENT), (False, WRONG)):
            for step in range(1, 6):
                cells = np.argwhere((steps == step) & (diagonal == right))
                if len(cells):
                    axes.add_patch(_cells(cells, len(counts), colour, 0.25 + 0.15 * step))
        axes.set_xlim(-0.5, len(counts) - 0.5)
        axes.set_ylim(len(counts) - 0.5, -0.5)
        every = next(step for step in (5, 10, 20, 50, 100, 200, 500, 10**6) if len(counts) / step <= 10)
        ticks = [0, *range(every - 1, len(counts), every)]
        axes.set_xticks(ticks, [str(tick + 1) for tick in ticks])
        axes.set_yticks(ticks, [str(tick + 1) for tick in ticks])
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel("answered class")
        axes.set_ylabel("true class")
        for side in axes.spines.values():
            side.set_visible(True)
        return inline(figure, name, "Confusion matrix", description)


def _cells(cells: NDArray[np.int64], classes: int, colour: str, alpha: float) -> PathPatch:
    """All cells of one shade as one path; of a thousand classes they are drawn larger, or none would be seen."""
    half = max(0.46, classes / 400)
    square = np.array([(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)])
    vertices = (cells[:, None, ::-1] + square).reshape(-1, 2)
    codes = [Outline.MOVETO, Outline.LINETO, Outline.LINETO, Outline.LINETO, Outline.CLOSEPOLY] * len(cells)
    return PathPatch(Outline(vertices, codes), facecolor=colour, edgecolor="none", alpha=alpha)


# ---- matplotlib's SVG as a part of a page ------------------------------------------------------------------------------------


def shorten(text: str, most: int = LONGEST) -> str:
    """One line of at most so many columns of letters (wide ones, as of Chinese, take two), the middle left out."""
    text = shown(" ".join(text.split()))
    if _units(text) <= most:
        return text
    start = next(i for i in range(len(text) + 1) if _units(text[: i + 1]) > most // 2)
    end = next(i for i in range(len(text) + 1) if _units(text[i:]) < most - most // 2)
    return f"{text[:start]}…{text[end:]}"


def _units(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


@contextmanager
def style() -> Iterator[None]:
    """The same look whatever the user's matplotlibrc says. Letters that the measuring font lacks are the browser's to draw."""
    with matplotlib.style.context(["default", dict(OURS)]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def inline(figure: Figure, name: str, title: str, description: str) -> str:
    """The figure as an <svg> element with a name for those who hear it; the same figure gives the same bytes."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg")
    written = buffer.getvalue()
    head = re.search(r'viewBox="[^"]*"', written)
    assert head
    foreign = r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>"  # a date, and styles that would be the whole page's
    body = re.sub(foreign, "", written[written.index("<metadata>") :], flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _ours(tag.group(), name), body)
    return (
        f'<svg class="plot" {head.group()} role="img" aria-labelledby="{name}-title {name}-desc">'
        f'<title id="{name}-title">{escape(shown(title))}</title><desc id="{name}-desc">{escape(shown(description))}</desc>\n{body}'
    )


def _ours(tag: str, name: str) -> str:
    """One tag with ids of this picture, the page's colours and letters."""
    tag = re.sub(r'\bid="label"', 'class="label"', tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag).replace("xlink:href", "href")
    return re.sub(r"#0000[01][0-9]", lambda found: f"var({VARIABLES.get(found.group(), '--ink')})", tag)
