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
from functools import cache
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
from numpy.typing import NDArray

from nestling.formats import FORMATS
from nestling.printable import shown

WIDTH = 6.0  # inches
SIZE = 12.0  # points of a letter: 1 / 36 of the width
SIGN = 10.0  # points of a network's sign
SWEEPS = 3  # through all labels, which look for better places each time
NEVER = 200.0  # how much it matters that a label lies on a sign or another label; on a line it is 2 to 4
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
            edge = p.colour if p.hollow else CARD
            axes.plot(p.x, 100 * p.y, p.marker, ms=SIGN, mfc=face, mec=edge, mew=1.4, zorder=4, gid="sign")
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
    """Each label where it and its thin line, which far ones get, cover nothing, or least; the best of several orders."""
    scale = axes.figure.dpi / 72
    room = _Room(_drawn(axes, points, scale), np.array(axes.bbox.extents), _offsets(), scale)
    boxes = [_boxes(axes, p, room.offsets, scale) for p in points]
    lines = [_lines(axes, p, room.offsets, scale) for p in points]
    by_place = (lambda i: -points[i].x, lambda i: points[i].x, lambda i: -points[i].y, lambda i: points[i].y)
    tried = [_placed(sorted(range(len(points)), key=key), room, boxes, lines) for key in by_place]
    for p, at in zip(points, min(tried, key=lambda found: found[0])[1], strict=True):
        _label(axes, p, room.offsets[at])


@dataclass(frozen=True, eq=False)
class _Room:
    """Where labels may be. drawn: what they should not cover; inside: the picture, [4]; scale: pixels a point."""

    drawn: NDArray[np.float64]
    inside: NDArray[np.float64]
    offsets: NDArray[np.float64]
    scale: float


def _placed(
    order: Sequence[int], room: _Room, boxes: Sequence[NDArray[np.float64]], lines: Sequence[NDArray[np.float64]]
) -> tuple[float, list[int]]:
    """(what it costs, of each label which offset), one after another in that order; each looks again when all have places."""
    far, distance = _far(room.offsets), np.hypot(*room.offsets.T) / 200
    chosen: dict[int, int] = {}
    costs: dict[int, float] = {}
    for i in SWEEPS * list(order):
        others = [(boxes[j][at], lines[j][:, at], far[at]) for j, at in chosen.items() if j != i]
        labels = np.array([box for box, _, _ in others]).reshape(-1, 4)
        thin = [np.hstack([line - 2 * room.scale, line + 2 * room.scale]) for _, line, led in others if led]
        taken = np.vstack([room.drawn, _weighed(labels, NEVER), *(_weighed(line, 30.0) for line in thin)])
        every = _covered(boxes[i], taken, room.inside) + distance + np.where(far, 0.2 + 5 * _crossed(lines[i], labels), 0.0)
        chosen[i] = int(np.argmin(every))
        costs[i] = float(every[chosen[i]])
    return sum(costs.values()), [chosen[i] for i in range(len(order))]


def _weighed(boxes: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """[N, 4] -> [N, 5], as _drawn has them."""
    return np.hstack([boxes, np.full((len(boxes), 1), weight)])


def _lines(axes: Axes, p: Point, offsets: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Points of the thin lines to labels, [steps, N, 2], in pixels."""
    steps = np.linspace(0.2, 1.0, 13)[:, None, None]
    found: NDArray[np.float64] = axes.transData.transform((p.x, 100 * p.y)) + steps * offsets * scale
    return found


def _drawn(axes: Axes, points: Sequence[Point], scale: float) -> NDArray[np.float64]:
    """Boxes of what labels should not cover, and how much that matters: signs, the front, whiskers.

    [N, 5]: left, bottom, right and top in pixels, a weight.
    """

    def box(ends: Sequence[tuple[float, float]], margin: float, weight: float) -> tuple[float, ...]:
        (x0, y0), (x1, y1) = axes.transData.transform([(x, 100 * y) for x, y in ends])
        far = margin * scale
        return min(x0, x1) - far, min(y0, y1) - far, max(x0, x1) + far, max(y0, y1) + far, weight

    best = front(points)
    corners = [(p.x, p.y) for p in best] + [(axes.get_xlim()[1], best[-1].y)] if best else []
    flat = [box([a, (b[0], a[1])], 2, 4.0) for a, b in pairwise(corners)]
    steep = [box([(b[0], a[1]), b], 2, 4.0) for a, b in pairwise(corners)]
    signs = [box([(p.x, p.y)] * 2, SIGN / 2 + 1, NEVER) for p in points]
    return np.array([*signs, *flat, *steep, *(box([(p.x, p.low), (p.x, p.high)], 1, 2.0) for p in points)])


@cache
def _offsets() -> NDArray[np.float64]:
    """[N, 2], points right and up, the nearest first: around the sign, then line by line over the whole picture."""
    around = [(10, 0), (-10, 0), (0, 16), (0, -16), (8, 12.6), (-8, 12.6), (8, -12.6), (-8, -12.6)]
    sides = (20, 32, 46, 62, 80, 110, 150, 200, 260)
    far = [(sign * side, 15 * line) for side in sides for line in range(-16, 17) for sign in (1, -1)]
    return np.array([*around, *sorted(far, key=lambda place: np.hypot(*place))], np.float64)


def _label(axes: Axes, p: Point, offset: NDArray[np.float64]) -> None:
    far = bool(_far(offset[None])[0])
    axes.annotate(
        shorten(p.label), (p.x, 100 * p.y), tuple(offset), textcoords="offset points", gid="label", zorder=5,
        ha=SIDES[np.sign(offset[0])], va="center",
        arrowprops={"arrowstyle": "-", "color": MUTED, "lw": 0.8, "shrinkA": 1, "shrinkB": 6} if far else None,
    )  # fmt: skip


def _far(offsets: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which labels, [N], are so far from their signs that a line leads there."""
    far: NDArray[np.bool_] = abs(offsets).max(axis=1) > 20
    return far


def _crossed(lines: NDArray[np.float64], labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many labels, [M, 4], each of N lines crosses, by its points, [steps, N, 2]."""
    inside = (lines[..., None, :] > labels[:, :2]) & (lines[..., None, :] < labels[:, 2:])
    crossed: NDArray[np.float64] = inside.all(axis=-1).any(axis=0).sum(axis=1).astype(np.float64)
    return crossed


def _boxes(axes: Axes, p: Point, offsets: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Where a label's text would be, [N, 4], left, bottom, right and top in pixels."""
    probe = axes.text(0, 0, shorten(p.label))
    size = probe.get_window_extent()
    probe.remove()
    at = axes.transData.transform((p.x, 100 * p.y)) + offsets * scale
    left = at[:, 0] - size.width * (1 - np.sign(offsets[:, 0])) / 2
    low = at[:, 1] - size.height / 2
    return np.stack([left, low, left + size.width, low + size.height], axis=1) + np.multiply(scale, (-1, -1, 1, 1))


def _covered(boxes: NDArray[np.float64], taken: NDArray[np.float64], inside: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each box the weighed share that lies on something, and heavily what lies outside."""

    def shared(others: NDArray[np.float64]) -> NDArray[np.float64]:
        low = np.maximum(boxes[:, None, :2], others[None, :, :2])
        high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
        sides = np.maximum(high - low, 0.0)
        both: NDArray[np.float64] = sides[..., 0] * sides[..., 1]
        return both

    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    outside = 1 - shared(inside.reshape(1, 4))[:, 0] / area
    covered: NDArray[np.float64] = shared(taken[:, :4]) @ taken[:, 4] / area + NEVER * outside
    return covered


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
    tag = re.sub(r'\bid="(label|sign)"', r'class="\1"', tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;]*; ", "", tag).replace("xlink:href", "href")
    return re.sub(r"#0000[01][0-9]", lambda found: f"var({VARIABLES.get(found.group(), '--ink')})", tag)
