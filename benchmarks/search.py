"""What a FastNAS search saves and costs: MACs, parameters, accuracy before, after, and after fine-tuning; minutes.

    python benchmarks/search.py --bundle my.nest --data cifar10_small.tar.gz [--macs 60%] [--params 50%] [--finetune 5]

--bundle: one that learned from the data, best fine-tuned. --data: its folder, or such a folder as .tar.gz. --finetune: epochs of
fine-tuning after the search; without it only the head is learned again. -o: where the last bundle is written.
"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from photographs import folder

from nestling import bundle as bundles
from nestling.compress.config import SearchConfig
from nestling.compress.measure import Measured
from nestling.compress.search import search
from nestling.processor import processor
from nestling.scores.evaluate import Evaluation
from nestling.training.config import TrainingConfig
from nestling.training.finetune import finetune


def share(text: str) -> float:
    return float(text.removesuffix("%")) / 100


def accuracy(val_top1: float, test: Evaluation) -> str:
    low, high = test.interval
    return f"{100 * val_top1:.1f} | {100 * test.top1:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def row(name: str, measured: Measured, minutes: str) -> str:
    costs = f"{measured.macs / 1e6:.1f} M | {measured.parameters / 1e6:.2f} M | {measured.bytes / 1e6:.2f} MB | {measured.ms:.2f}"
    return f"| {name} | {costs} | {accuracy(measured.val_top1, measured.test)} | {minutes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--macs", default="60%")
    parser.add_argument("--params")
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--finetune", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "nvidia-modelopt", "torchprofile", "ai-edge-litert"))
    bundle = bundles.load(options.bundle)
    height, width = bundle.preprocess.size
    print(f"{options.bundle.stem} at {height} x {width} pixels; {processor()}; {packages}; Python {platform.python_version()}\n")
    limits = SearchConfig(
        share(options.macs), share(options.params) if options.params else None, options.candidates, options.images
    )
    with folder(options.data) as data:
        searched = search(bundle, data, limits)
        print("| network | MACs | parameters | float size | ms | val top-1 | test top-1 | minutes |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        print(row("before", searched.before, ""))
        minutes = f"{searched.seconds['search'] / 60:.1f}"
        print(row(f"searched, {searched.tried} candidates, head learned again", searched.after, minutes), flush=True)
        made = searched.bundle
        if options.finetune:
            start = perf_counter()
            tuned = finetune(made, data, TrainingConfig(epochs=options.finetune))
            made = tuned.bundle
            minutes = f"{(perf_counter() - start) / 60:.1f}"
            print(
                f"| and fine-tuned, {options.finetune} epochs | | | | | {accuracy(tuned.best.val_top1, tuned.test)} | {minutes} |"
            )
    narrower = ", ".join(f"{name} {width} of {whole}" for name, (width, whole) in searched.widths.items() if width < whole)
    print(f"\nmilliseconds: {searched.runtime}\nnarrower: {narrower}")
    for line in searched.gained_nothing:
        print(f"no gain: {line}")
    if options.output:
        bundles.save(made, options.output)


if __name__ == "__main__":
    main()
