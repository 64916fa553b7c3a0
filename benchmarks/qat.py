"""What quantisation-aware training wins back where post-training quantisation falls.

    python benchmarks/qat.py --bundle fine.nest [--data FOLDER_OR_TAR_GZ] [--bits-weights 4] [--bits-activations 8] [--epochs 15]
        [--seeds 3] [--methods pact,lsq,minmax] [--scales channel,layer] [--fold-after E] [--distill W] [--first-last-8]

--bundle: a fitted network, best a fine-tuned one; --data: what it learned from, if not where it was. A seed orders and varies the
photographs. Prints a row of Markdown for each method, kind of weight scale and seed: top-1 on val and test of the float network, of
post-training quantisation and of the training with the same bits (whichever of the two `quantize` would keep), then the means.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from photographs import folder, named

from nestling.bundle import Bundle, load
from nestling.data.choose import part, training_data
from nestling.data.folders import Item
from nestling.embedding.cache import embed
from nestling.embedding.engine import Engine, graph_engine
from nestling.embedding.of_bundle import bundle_engine
from nestling.graph.integers import QuantizeConfig
from nestling.processor import processor
from nestling.quantization.quantize import quantized
from nestling.training.config import QatConfig, usual_for_qat
from nestling.training.qat import qat

HEADER = (
    "| weights | method | seed | float: val, test | post-training: val, test | trained: val, test | trained less float, test | "
    "noise | minutes |\n|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bits-weights", type=int, default=4)
    parser.add_argument("--bits-activations", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=usual_for_qat().epochs)
    parser.add_argument("--rate", type=float, default=usual_for_qat().rate)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="pact,lsq,minmax")
    parser.add_argument("--scales", default="channel,layer")
    parser.add_argument("--fold-after", type=int, default=0)
    parser.add_argument("--distill", type=float, default=0.0)
    parser.add_argument("--first-last-8", action="store_true")
    options = parser.parse_args()
    bundle = load(options.bundle)
    bits = f"{options.bits_weights}-bit weights, {options.bits_activations}-bit activations, {options.epochs} epochs"
    with folder(options.data or named(bundle)) as data:
        print(
            f"{options.bundle.name}; {bits}; {processor()}; torch {version('torch')}, ai-edge-litert {version('ai-edge-litert')}\n"
        )
        dataset = training_data(bundle, data)
        parts = [part(dataset, bundle, "val"), part(dataset, bundle, "test")]
        floats = tops(bundle, bundle_engine(bundle, len(dataset.items)), parts)
        print(HEADER, flush=True)
        for scale in options.scales.split(","):
            config = QuantizeConfig(
                bits_weights=options.bits_weights,
                bits_activations=options.bits_activations,
                per_layer=scale == "layer",
                ends_at_8=options.first_last_8,
            )
            post = quantized(bundle, data, config).bundle
            assert post.graph is not None
            after = tops(post, graph_engine(post.graph), parts)
            for method in options.methods.split(","):
                rows(bundle, data, config, method, options, parts, floats, after)


def rows(
    bundle: Bundle,
    data: Path,
    config: QuantizeConfig,
    method: str,
    options: argparse.Namespace,
    parts: list[tuple[Item, ...]],
    floats: tuple[float, ...],
    post: tuple[float, ...],
) -> None:
    """A row for each seed, and the mean."""
    found = []
    scale = "per layer" if config.per_layer else "per channel"
    for seed in range(options.seeds):
        start = perf_counter()
        training = replace(usual_for_qat(), epochs=options.epochs, rate=options.rate, seed=seed)
        made = qat(bundle, data, QatConfig(method, config, training, options.fold_after, options.distill))
        minutes = (perf_counter() - start) / 60
        graph = made.trained.bundle.graph
        assert graph is not None
        trained = tops(made.trained.bundle, graph_engine(graph), parts)
        found.append(trained)
        gain = f"{trained[1] - floats[1]:+.1f}"
        cells = [scale, method, str(seed), *map(both, (floats, post, trained)), gain, f"{made.noise:.3f}", f"{minutes:.1f}"]
        print(f"| {' | '.join(cells)} |", flush=True)
    mean = np.mean(found, axis=0)
    print(
        f"| {scale} | {method} | mean | {both(floats)} | {both(post)} | {both(mean)} | {mean[1] - floats[1]:+.1f} | | |", flush=True
    )


def tops(bundle: Bundle, engine: Engine, parts: list[tuple[Item, ...]]) -> tuple[float, ...]:
    """Top-1 in points on each part, by the bundle's own head."""
    assert bundle.head is not None
    found = []
    for items in parts:
        features = embed(items, bundle.preprocess, engine)
        right = bundle.head.logits(features.x[0]).argmax(1) == [item.label for item in features.items]
        found.append(100 * float(right.mean()))
    return tuple(found)


def both(values: tuple[float, ...] | np.ndarray) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
