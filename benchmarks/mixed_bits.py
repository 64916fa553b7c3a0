"""What mixed precision saves: accuracy over bytes of weights, after post-training quantisation.

    python benchmarks/mixed_bits.py --bundle fine.nest --data cifar10_small [--averages 3 4 5 6] [--per-layer] [--ends-at-8]

--bundle: fitted or fine-tuned, in float. --data: the folder that it learned from, or that folder as .tar.gz.
Rows: float; 8, 4 and 2 bits in every layer; and for each average what `nestling quantize --bits auto` chooses for the bytes
that so many bits in every layer would take. Every network has its head learned again, as always. Prints Markdown.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
from photographs import folder

from nestling.bundle import Bundle
from nestling.data.choose import part, training_data
from nestling.data.folders import Item
from nestling.data.images import images_of
from nestling.embedding.cache import Embedder, Features, embed
from nestling.embedding.engine import graph_engine
from nestling.embedding.of_bundle import bundle_engine
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig
from nestling.models.float_graph import float_graph
from nestling.processor import processor
from nestling.quantization.bits import IMAGES, LayerBits, chosen, layer_bits, sensitivities
from nestling.quantization.quantize import quantize

Rows = tuple[tuple[LayerBits, ...], ...]


def top1(head: Head | None, features: Features) -> float:
    assert head is not None
    logits = head.logits(features.x[0])
    return 100 * float((logits.argmax(1) == np.array([item.label for item in features.items])).mean())


def judged(bundle: Bundle, engine: Embedder, items: tuple[Item, ...]) -> float:
    return top1(bundle.head, embed(items, bundle.preprocess, engine))


def uniform(found: Rows, bits: int) -> tuple[LayerBits, ...]:
    """So many bits everywhere, but where a layer has no choice."""
    return tuple(next((row for row in rows if row.bits == bits), rows[0]) for rows in found)


def budget(found: Rows, average: float) -> int:
    """Bytes of so many bits in every layer."""
    least, most = (sum(row.bytes for row in uniform(found, bits)) for bits in (2, 8))
    return int(least + (average - 2) / 6 * (most - least))


def counted(plan: tuple[LayerBits, ...]) -> str:
    return " + ".join(f"{sum(row.bits == bits for row in plan)} x {bits}" for bits in sorted({row.bits for row in plan}))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--averages", type=float, nargs="+", default=[3, 4, 5, 6])
    parser.add_argument("--bits-activations", type=int, default=8)
    parser.add_argument("--per-layer", action="store_true")
    parser.add_argument("--ends-at-8", action="store_true")
    parser.add_argument("--images", type=int, help="of each part, at most (to try the script)")
    wanted = parser.parse_args()

    from nestling import bundle as bundles

    bundle = bundles.load(wanted.bundle)
    config = QuantizeConfig(bits_activations=wanted.bits_activations, per_layer=wanted.per_layer, ends_at_8=wanted.ends_at_8)
    print(f"{wanted.bundle.name}, {bundle.preprocess.size}; {processor()}\n", flush=True)
    with folder(wanted.data) as data:
        dataset = training_data(bundle, data)
        val, test = part(dataset, bundle, "val", wanted.images), part(dataset, bundle, "test", wanted.images)
        start = perf_counter()
        assert bundle.head is not None
        found = sensitivities(float_graph(bundle), images_of(val[:IMAGES], bundle.preprocess), bundle.head, config)
        say(f"sensitivities of {len(found)} layers: {perf_counter() - start:.0f} s")
        plans = [(f"{bits} bits everywhere", uniform(found, bits)) for bits in (8, 4, 2)]
        plans += [(f"mixed, bytes of {average:g} bits", chosen(found, budget(found, average))) for average in wanted.averages]
        print("| weights | bytes | layers x bits | sum of costs, nats | val top-1 | test top-1 | seconds |")
        print("|---|---:|---|---:|---:|---:|---:|")
        engine = bundle_engine(bundle, len(dataset.items))
        print(f"| float | | | | {judged(bundle, engine, val):.2f} | {judged(bundle, engine, test):.2f} | |", flush=True)
        for name, plan in sorted(plans, key=lambda pair: -sum(row.bytes for row in pair[1])):
            start = perf_counter()
            made = quantize(bundle, data, replace(config, layer_bits=layer_bits(plan)))
            assert made.graph is not None
            own = graph_engine(made.graph)
            figures = f"{sum(row.cost for row in plan):.3g} | {judged(made, own, val):.2f} | {judged(made, own, test):.2f}"
            seconds = perf_counter() - start
            print(f"| {name} | {sum(r.bytes for r in plan):,} | {counted(plan)} | {figures} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
