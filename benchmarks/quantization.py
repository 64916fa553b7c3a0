"""What quantisation costs in accuracy, with real weights and real photographs; and what equalisation and bias correction save.

    python benchmarks/quantization.py --data cifar10_small.tar.gz [--seeds 5] [--backbone tf_efficientnet_lite0]

--data: a folder (a folder a class, or train/ and test/ with those), or such a folder as .tar.gz. The ELPV set of the demo is
measured as well where its package is installed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from photographs import folder

from nestling.bundle import Bundle
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.embedding.cache import Features, embed
from nestling.embedding.engine import graph_engine
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Graph
from nestling.models.float_graph import float_graph
from nestling.models.known import DEFAULT
from nestling.processor import processor
from nestling.quantization.bias_correction import bias_corrected
from nestling.quantization.calibrate import choose_ranges, observe
from nestling.quantization.equalize import equalized, groups, scaled
from nestling.quantization.quantize import quantized
from nestling.training.fit import FitConfig, fit


def top1(head: Head, features: Features) -> float:
    logits = head.logits(features.x[0])
    return 100 * float((logits.argmax(1) == np.array([item.label for item in features.items])).mean())


def accuracy(data: Path, backbone: str, seeds: Sequence[int]) -> tuple[Bundle, list[tuple[float, float, bool, bool, float]]]:
    """For each split seed: float and int8 test top-1, whether equalisation and bias correction were kept, seconds of quantising."""
    rows = []
    for seed in seeds:
        fitted = fit(data, config=FitConfig(backbone=backbone, seed=seed))
        start = perf_counter()
        bundle = quantized(fitted.bundle).bundle
        seconds = perf_counter() - start
        assert bundle.graph is not None and bundle.head is not None
        test = part(training_data(bundle, None), bundle, "test")
        after = top1(bundle.head, embed(test, bundle.preprocess, graph_engine(bundle.graph)))
        settings = bundle.lineage[-1].settings
        rows.append((100 * fitted.test.top1, after, settings["equalized"], settings["bias_corrected"], seconds))
        say(f"{data.name} seed {seed}: {rows[-1]}")
    return fitted.bundle, rows


def disease(bundle: Bundle, spread: float = 3.0, most: int = 1000) -> list[tuple[str, float]]:
    """Test top-1 under the float network's own head, weights per tensor: well, ill, and with each cure.

    Ill: every channel of every residual stream and projection is multiplied by 2**uniform(-spread, spread), and divided again where
    it is read; the float answers are what they were.
    """
    dataset = training_data(bundle, None)
    calibration = images_of(part(dataset, bundle, "train", 100), bundle.preprocess)
    test = part(dataset, bundle, "test", most)
    assert bundle.head is not None
    head = bundle.head
    rng = np.random.default_rng(0)
    well = float_graph(bundle)
    ill = well
    for group in groups(well):
        if not group.bounded:
            ill = scaled(ill, group, 2.0 ** rng.uniform(-spread, spread, well.tensors[group.tensors[0]].shape[-1]))

    def answers(graph: Graph, per_layer: bool, cross: bool = False, bias: bool = False) -> float:
        config = QuantizeConfig(per_layer=per_layer)
        statistics = observe(graph, calibration)
        if cross:
            graph = equalized(graph, {name: found.channel_high for name, found in statistics.items()})
            statistics = observe(graph, calibration)
        ranges = choose_ranges(statistics, "auto", 8, False)
        integers = with_integers(graph, ranges, config)
        if bias:
            integers = with_integers(bias_corrected(graph, integers, calibration), ranges, config)
        return top1(head, embed(test, bundle.preprocess, graph_engine(integers)))

    rows = [
        ("float", top1(head, embed(test, bundle.preprocess, graph_engine(well)))),
        ("float, ill", top1(head, embed(test, bundle.preprocess, graph_engine(ill)))),
        ("int8 per channel", answers(well, False)),
        ("int8 per channel + bias correction", answers(well, False, bias=True)),
        ("int8 per tensor", answers(well, True)),
        ("int8 per tensor, ill", answers(ill, True)),
        ("int8 per tensor, ill + equalisation", answers(ill, True, cross=True)),
        ("int8 per tensor, ill + bias correction", answers(ill, True, bias=True)),
        ("int8 per tensor, ill + equalisation + bias correction", answers(ill, True, cross=True, bias=True)),
    ]
    for row in rows:
        say(str(row))
    return rows


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--backbone", default=DEFAULT)
    parser.add_argument("--no-demo", action="store_true", help="leave out the ELPV set")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "ai-edge-litert", "numpy"))
    print(f"{options.backbone}; {processor()}; {packages}; Python {platform.python_version()}\n")
    wanted = [options.data] if options.data else []
    with ExitStack() as stack:
        places = [stack.enter_context(folder(data)) for data in (*wanted, *([] if options.no_demo else [None]))]
        sets: list[tuple[Path, Sequence[int]]] = [(place, range(options.seeds)) for place in places]
        print("| photographs | split seed | float top-1 | int8 top-1 | difference | equalised | biases corrected | seconds |")
        print("|---|---:|---:|---:|---:|---|---|---:|")
        first: Bundle | None = None
        for data, seeds in sets:
            bundle, rows = accuracy(data, options.backbone, seeds)
            first = first or bundle
            for seed, (before, after, cross, bias, seconds) in zip(seeds, rows, strict=True):
                figures = f"{before:.2f} | {after:.2f} | {after - before:+.2f} | {cross} | {bias} | {seconds:.0f}"
                print(f"| {data.name} | {seed} | {figures} |")
            before, after = np.mean([row[0] for row in rows]), np.mean([row[1] for row in rows])
            print(f"| {data.name} | mean | {before:.2f} | {after:.2f} | {after - before:+.2f} | | | |", flush=True)
        if first is not None:
            print("\nWeights per tensor, channels rescaled by random factors (2^-3 to 2^3); the head is the float network's:\n")
            print("| network | top-1 |\n|---|---:|")
            for name, share in disease(first):
                print(f"| {name} | {share:.1f} |")


if __name__ == "__main__":
    main()
