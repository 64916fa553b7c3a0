"""What zeros among the weights cost and save: accuracy, compressed size, milliseconds, for single weights and blocks of four.

    python benchmarks/sparse.py --bundle tuned.nest --data cifar10_small.tar.gz [--epochs 10] [--sparsity 80%] [--keep made/]

--bundle: a fine-tuned bundle. --data: the photographs that it learned from, a folder or such a folder as .tar.gz. --keep: where the
bundles that are made stay, as unstructured.nest and block1x4.nest. Each row is measured beside the bundle that it began with.
"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import get_args

from photographs import folder

from nestling import bundle as bundles
from nestling.cli import show
from nestling.compress.config import SparseConfig
from nestling.compress.measure import RUNTIME, Compared, Packed, compare_costs, packed
from nestling.compress.prune import sparsify
from nestling.data.choose import training_data
from nestling.models.float_graph import unfolded_graph
from nestling.processor import processor
from nestling.training.config import TrainingConfig
from nestling.training.session import Session
from nestling.words import Zeros

HEADINGS = "| network | zeros | MACs with weights not 0 | val top-1 | test top-1 | int8 weights, packed | of dense | ms | minutes |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(get_args(Zeros)))
    parser.add_argument("--sparsity", default="80%")
    parser.add_argument("--ranking", default="lamp")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    old = bundles.load(options.bundle)
    height, width = old.preprocess.size
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ai-edge-litert"))
    print(f"{options.bundle.name} at {height}x{width} pixels, {options.sparsity} by {options.ranking}, {options.epochs} epochs")
    print(f"{processor()}; {packages}; Python {platform.python_version()}; ms: {RUNTIME}\n")
    share = float(options.sparsity.removesuffix("%")) / 100
    dense_graph = unfolded_graph(old)
    dense = packed(dense_graph)
    with folder(options.data) as data:
        for place, method in enumerate(options.methods.split(",")):
            config = SparseConfig(method, share, options.ranking)
            began = perf_counter()
            made = sparsify(old, data, config, TrainingConfig(epochs=options.epochs), Session(show.bars)).bundle
            minutes = (perf_counter() - began) / 60
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                bundles.save(made, options.keep / f"{method}.nest")
            graph = unfolded_graph(made)
            compared = compare_costs(old, dense_graph, made, graph, training_data(old, data), refit=False)
            if place == 0:
                print(f"{HEADINGS}\n|---|{'---:|' * (HEADINGS.count('|') - 2)}")
                print(_row("before", compared, dense, dense, after=False))
            print(_row(f"{method}, {options.sparsity}", compared, packed(graph), dense, after=True, minutes=minutes), flush=True)


def _row(name: str, compared: Compared, own: Packed, dense: Packed, after: bool, minutes: float | None = None) -> str:
    measured = compared.after if after else compared.before
    low, high = measured.test.interval
    encoded = ", ".join(f"{encoding} {size / 1e6:.2f} MB" for encoding, size in own.encoded.items())
    cells = [
        f"{own.zeros:.1%}",
        f"{own.macs_left / 1e6:.1f} M of {own.macs / 1e6:.1f} M",
        f"{100 * measured.val_top1:.1f}",
        f"{100 * measured.test.top1:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        encoded,
        f"{own.best[1] / dense.best[1]:.3f} ({own.best[0]})",
        f"{measured.ms:.2f}",
        f"{minutes:.1f}" if minutes is not None else "",
    ]
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
