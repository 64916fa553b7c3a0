"""Calibration: run the float Graph on images, and find the range that serves each activation's integers best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.errors import NestlingError
from nestling.formats.tflite.floats import every_value
from nestling.graph.integers import Range, RangeMethod, integer_range, quant_of
from nestling.graph.ir import Graph, Quant
from nestling.pool import in_order
from nestling.progress import Progress, silent

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

BATCH = 8  # images that go through together where each layer's answers are looked at
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

    images: as the graph takes them, [H, W, C] each, uint8 (float32 where its input is). LiteRT computes every value of an image in
    one pass, the images on all cores: the same values as reference_float.py within float rounding.
    """
    if not len(images):
        raise NestlingError("calibration needs at least one image.")

    def make() -> Callable[[tuple[int, Image]], dict[str, _Seen]]:
        values = every_value(graph)

        def seen(numbered: tuple[int, Image]) -> dict[str, _Seen]:
            index, image = numbered
            rng = np.random.default_rng((seed, index))
            return {name: _seen(value, rng) for name, value in values(image[None]).items() if value.dtype == np.float32}

        return seen

    found: list[dict[str, _Seen]] = []
    with progress("calibrating", len(images)) as advance:
        for seen in in_order(make, enumerate(images)):
            found.append(seen)
            advance(1)
    return {name: _merged([seen[name] for seen in found]) for name in found[0]}


@dataclass(frozen=True, eq=False)
class _Seen:
    """Of one image: as Statistics."""

    low: float
    channel_high: Floats
    sample: Floats


def _seen(value: Floats, rng: np.random.Generator) -> _Seen:
    flat = value.reshape(-1)
    sample = flat[rng.integers(flat.size, size=SAMPLE)] if flat.size > SAMPLE else flat.copy()
    return _Seen(float(flat.min()), value.reshape(-1, value.shape[-1]).max(axis=0), sample)


def _merged(seen: Sequence[_Seen]) -> Statistics:
    high = np.max([one.channel_high for one in seen], axis=0)
    return Statistics(min(one.low for one in seen), float(high.max()), np.concatenate([one.sample for one in seen]), high)


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
    return carried(values, quant_of(span, bits, symmetric), integer_range(bits, symmetric))


def carried(values: Floats, quant: Quant, limits: tuple[int, int] = (-128, 127)) -> Floats:
    """The values, each the nearest that an integer of this quant (per tensor), within limits, can hold."""
    scale, zero = quant.scale[0], np.float32(quant.zero_point[0])
    steps: Floats = values / scale
    np.rint(steps, out=steps)
    steps += zero
    np.clip(steps, *limits, out=steps)
    steps -= zero
    steps *= scale
    return steps


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
