"""The curves of a training as pictures: loss over the epochs, and validation top-1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nestling.bundle import Step
from nestling.pages.pictures import ACCENT, INT8, inline, style

SIZE = (4.2, 2.3)  # inches: narrower than the page's other pictures, for two of them stand side by side
Line = tuple[str, str, str]  # what a curve is called, its colour, matplotlib's word for its line
LOSS: Mapping[str, Line] = {"loss": ("training", ACCENT, "-"), "val_loss": ("validation", INT8, "--")}
TOP1: Mapping[str, Line] = {"val_top1": ("validation", ACCENT, "-")}


def pictures(step: Step, name: str) -> tuple[tuple[str, str], ...]:
    """(heading, SVG) of a training step's loss and validation top-1, what there is of these; () where it kept no curves.

    name: unique on the page, it goes before every id.
    """
    loss, top1 = _numbers(step.curves, LOSS, 1.0), _numbers(step.curves, TOP1, 100.0)
    drawn = (
        ("Loss over epochs", loss, LOSS, "loss", f"{name}-loss", ""),
        ("Validation top-1 over epochs", top1, TOP1, "top-1", f"{name}-top1", "%"),
    )
    return tuple(
        (heading, _picture(curves, lines, label, ids, f"{heading}, {step.name}", unit))
        for heading, curves, lines, label, ids, unit in drawn
        if curves
    )


def _picture(curves: Mapping[str, Sequence[float]], lines: Mapping[str, Line], label: str, name: str, title: str, unit: str) -> str:
    with style():
        figure = Figure(figsize=SIZE)
        axes = figure.add_axes((0.19, 0.235, 0.78, 0.64 if len(curves) > 1 else 0.71))
        for key, values in curves.items():
            called, colour, dashes = lines[key]
            sign = "o" if len(values) < 3 else ""  # a line of one epoch would not be seen
            axes.plot(range(1, len(values) + 1), values, dashes, color=colour, lw=2, label=called, marker=sign, ms=6)
        _draw_axes(axes, max(map(len, curves.values())), label, unit)
        if len(curves) > 1:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, borderpad=0, handlelength=1.5)
        return inline(figure, name, title, _words(curves, lines, label, unit))


def _draw_axes(axes: Axes, epochs: int, label: str, unit: str) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    margin = 0.5 if epochs < 3 else 0.04 * (epochs - 1)
    axes.set_xlim(1 - margin, epochs + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}{unit}"))
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)


def _numbers(curves: Any, lines: Mapping[str, Line], scale: float) -> dict[str, list[float]]:
    """The curves of these lines. A damaged bundle may hold anything here: what is not of numbers alone is left out."""
    found = {}
    for key in lines:
        values = curves.get(key) if isinstance(curves, Mapping) else None
        if isinstance(values, list | tuple) and values and all(isinstance(v, int | float) and math.isfinite(v) for v in values):
            found[key] = [scale * float(value) for value in values]
    return found


def _words(curves: Mapping[str, Sequence[float]], lines: Mapping[str, Line], label: str, unit: str) -> str:
    said = (
        f"{lines[key][0]} {label} from {values[0]:.3g}{unit} to {values[-1]:.3g}{unit}, "
        f"lowest {min(values):.3g}{unit}, highest {max(values):.3g}{unit}"
        for key, values in curves.items()
    )
    return f"{max(map(len, curves.values()))} epochs: {'; '.join(said)}."
