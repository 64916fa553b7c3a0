"""Calibration: run the float Graph on images, and find the range that serves each activation's integers best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.errors import NestlingError
from nestling.graph.integers import Range, RangeMethod, integer_range, quant_of
from nestling.graph.ir import Graph
from nestling.models.graph_module import GraphModule
from nestling.progress import Progress, silent

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

BATCH = 8  # images that torch runs at once: more of them no longer fit its caches
SAMPLE = 1024  # values of an activation that are kept of each image
SEARCH = 2**15  # values that a search for the least squared error looks at
PERCENTILES = (99.9, 99.99, 99.999)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What an activation did on the calibration images.

    low, high: the smallest and largest value of all; sample: float32 [M], values drawn from every image alike;
    channel_high: float32 [C], the largest value of each channel (the last axis).
    """

    low: float
    high: float
    sample: Floats
    channel_high: Floats


def observe(graph: Graph, images: Sequence[Image], seed: int = 0, progress: Progress = silent) -> dict[str, Statistics]:
    """Statistics of every float activation, inputs included.

    images: as the graph takes them, [H, W, C] each, uint8 (float32 where its input is). The graph is run in torch (GraphModule):
    it gives the same values as reference_float.py within float rounding, several times as fast.
    """
    if not len(images):
        raise NestlingError("calibration needs at least one image.")
    module = GraphModule(graph).eval()
    generator = torch.Generator().manual_seed(seed)
    samples: dict[str, list[torch.Tensor]] = {}
    lows: dict[str, float] = {}
    highs: dict[str, torch.Tensor] = {}

    def record(name: str, value: torch.Tensor) -> torch.Tensor:
        if value.dtype == torch.float32:
            flat = value.reshape(len(value), -1)
            if flat.shape[1] > SAMPLE:
                flat = flat[:, torch.randint(flat.shape[1], (SAMPLE,), generator=generator)]
            samples.setdefault(name, []).append(flat.flatten().clone())
            lows[name] = min(lows.get(name, np.inf), float(value.min()))
            high = value.amax(dim=tuple(range(value.ndim - 1)))
            highs[name] = torch.maximum(highs[name], high) if name in highs else high
        return value

    module.observe = record
    with progress("calibrating", len(images)) as advance, torch.inference_mode():
        for batch in batches(images):
            module(torch.from_numpy(batch))
            advance(len(batch))
    return {
        name: Statistics(lows[name], float(highs[name].max()), torch.cat(drawn).numpy(), highs[name].numpy())
        for name, drawn in samples.items()
    }


def batches(images: Sequence[Image], size: int = BATCH) -> Iterator[Image]:
    """The images in order, [N, H, W, C] with N up to `size`."""
    for start in range(0, len(images), size):
        yield np.stack(images[start : start + size])


# ---- ranges -------------------------------------------------------------------------------------------------------------------


def choose_ranges(statistics: Mapping[str, Statistics], method: RangeMethod, bits: int, symmetric: bool) -> dict[str, Range]:
    """choose_range for every activation."""
    return {name: choose_range(found, method, bits, symmetric) for name, found in statistics.items()}


def choose_range(statistics: Statistics, method: RangeMethod, bits: int = 8, symmetric: bool = False) -> Range:
    """The range by one of the METHODS, or with "auto" by the one whose integers keep the best SQNR on the sample."""
    names = tuple(METHODS) if method == "auto" else (method,)
    if not set(names) <= set(METHODS):
        raise NestlingError(f"a range is found by auto, {', '.join(METHODS)}; found {method!r}.")
    found = [span for name in names for span in METHODS[name](statistics, bits, symmetric)]
    return max(found, key=lambda span: sqnr(statistics.sample, simulated(statistics.sample, span, bits, symmetric)))


def simulated(values: Floats, span: Range, bits: int, symmetric: bool) -> Floats:
    """The values as their integers of that range would carry them."""
    quant, (low, high) = quant_of(span, bits, symmetric), integer_range(bits, symmetric)
    scale, zero = quant.scale[0], np.float32(quant.zero_point[0])
    carried: Floats = (np.clip(np.rint(values / scale) + zero, low, high) - zero) * scale
    return carried


def sqnr(signal: NDArray[np.floating], carried: NDArray[np.floating]) -> float:
    """Signal over quantisation noise, in decibels: 10 log10(sum x^2 / sum (x - q)^2); at most 200."""
    power = float(np.square(signal, dtype=np.float64).sum())
    noise = float(np.square(signal.astype(np.float64) - carried).sum())
    return 10 * float(np.log10(max(power, 1e-30) / max(noise, 1e-20 * power, 1e-50)))


def _minmax(statistics: Statistics, bits: int, symmetric: bool) -> list[Range]:
    return [Range(statistics.low, statistics.high)]


def _percentile(statistics: Statistics, bits: int, symmetric: bool) -> list[Range]:
    """As many values are cut off below as above; a relu's zeros below stay."""
    high = np.percentile(statistics.sample, PERCENTILES)
    low = np.percentile(statistics.sample, [100 - p for p in PERCENTILES])
    return [Range(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _least_squares(statistics: Statistics, bits: int, symmetric: bool) -> list[Range]:
    """The range with the least mean squared error: first the high end is pulled in step by step, then the low one."""
    some = statistics.sample[:: max(1, len(statistics.sample) // SEARCH)]

    def error(span: Range) -> float:
        return float(np.square(some - simulated(some, span, bits, symmetric)).sum())

    best = Range(statistics.low, statistics.high)
    shares = np.geomspace(1.0, 0.1, 40)
    best = min((Range(best.low, float(best.high * share)) for share in shares), key=error)
    return [min((Range(float(best.low * share), best.high) for share in shares), key=error)]


METHODS: Mapping[str, Callable[[Statistics, int, bool], list[Range]]] = {
    "minmax": _minmax,
    "percentile": _percentile,
    "mse": _least_squares,
}
