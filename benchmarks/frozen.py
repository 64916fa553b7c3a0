"""What keeping the activations of the part that does not learn brings: seconds an epoch of `finetune --blocks N`, with and without.

    python benchmarks/frozen.py --data FOLDER [--size 96] [--blocks 3] [--variations 8] [--epochs 2] [--backbone NAME]

Both train the same network on the same images, validation included, one after the other in one process; the quickest epoch counts.
Prints a row of Markdown.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from photographs import folder

from nestling.data.choose import part, training_data
from nestling.models.backbones import build
from nestling.models.known import DEFAULT
from nestling.processor import processor
from nestling.training.augment import AUGMENTATIONS
from nestling.training.blocks import learning
from nestling.training.fit import FitConfig, fit
from nestling.training.frozen import Stage, without_front
from nestling.training.loop import LoopConfig, Task, train
from nestling.training.samples import read_samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--variations", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--backbone", default=DEFAULT)
    arguments = parser.parse_args()
    with folder(arguments.data) as data:
        print(f"{processor()}; torch {version('torch')}; {arguments.data or 'ELPV'}, {arguments.backbone}\n")
        row(data, arguments)


def row(data: Path, arguments: argparse.Namespace) -> None:
    bundle = fit(data, config=FitConfig(arguments.backbone, None, arguments.size)).bundle
    dataset = training_data(bundle, data)
    samples, _ = read_samples(part(dataset, bundle, "train"), bundle.preprocess, AUGMENTATIONS["light"])
    val, _ = read_samples(part(dataset, bundle, "val"), bundle.preprocess)
    whole = Stage(learning(build(bundle), arguments.blocks), samples, val)
    start = perf_counter()
    back = without_front(whole, bundle, arguments.variations, seed=0)
    once = perf_counter() - start
    config = LoopConfig(epochs=arguments.epochs, variations=arguments.variations)
    slow, quick = (
        min(epoch.seconds for epoch in train(stage.network, Task(stage.samples, stage.val, len(bundle.labels)), config).history)
        for stage in (whole, back)
    )
    print("| size | blocks | photographs | kept, MB | first, s | epoch, s | epoch without, s | times | ten epochs, times |")
    print("|---|---|---|---|---|---|---|---|---|")
    held = sum(stored.held.nbytes for stored in (back.samples, back.val)) / 1e6
    print(
        f"| {arguments.size} | {arguments.blocks} | {len(samples.labels)} + {len(val.labels)} | {held:.0f} | {once:.1f} "
        f"| {quick:.2f} | {slow:.2f} | {slow / quick:.1f} | {10 * slow / (once + 10 * quick):.1f} |"
    )


if __name__ == "__main__":
    main()
