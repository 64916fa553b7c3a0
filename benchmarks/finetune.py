"""What fine-tuning brings over the frozen backbone's head, at the same size on the same division, and how long it takes.

    python benchmarks/finetune.py [--data FOLDER_OR_TAR_GZ] [--size 96] [--epochs 10] [--seeds 1] [--backbone NAME] [--weights W]

Photographs: the demo's (ELPV, CC BY-NC-SA 4.0), or --data. A seed divides the photographs and orders them. Settings are the
defaults but for --size and --epochs. Prints a row of Markdown for each seed, and the means.
"""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np
from photographs import folder

from nestling.models.known import DEFAULT
from nestling.processor import processor
from nestling.training.config import TrainingConfig
from nestling.training.finetune import finetune
from nestling.training.fit import FitConfig, fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=TrainingConfig.epochs)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--backbone", default=DEFAULT)
    parser.add_argument("--weights")
    arguments = parser.parse_args()
    with folder(arguments.data) as data:
        print(
            f"{processor()}; torch {version('torch')}, timm {version('timm')}; {arguments.data or 'ELPV'}, {arguments.backbone}\n"
        )
        print("| seed | size | epochs | frozen: val, test | fine-tuned: val, test | gain on test, points | minutes |")
        print("|---|---|---|---|---|---|---|")
        tops = [row(data, arguments, seed) for seed in range(arguments.seeds)]
    frozen, fine = np.mean(tops, axis=0)
    print(f"\nmean test top-1: frozen {frozen:.2%}, fine-tuned {fine:.2%}, {100 * (fine - frozen):+.1f} points")


def row(data: Path, arguments: argparse.Namespace, seed: int) -> tuple[float, float]:
    """(test top-1 of the frozen backbone's head, of the fine-tuned network)."""
    fitted = fit(data, config=FitConfig(arguments.backbone, arguments.weights, arguments.size, seed))
    start = perf_counter()
    made = finetune(fitted.bundle, data, TrainingConfig(epochs=arguments.epochs, seed=seed))
    cells = [
        str(seed),
        str(arguments.size),
        str(arguments.epochs),
        f"{made.val_top1_before:.1%}, {fitted.test.top1:.1%}",
        f"{made.best.val_top1:.1%}, {made.test.top1:.1%}",
        f"{100 * (made.test.top1 - fitted.test.top1):+.1f}",
        f"{(perf_counter() - start) / 60:.1f}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    return fitted.test.top1, made.test.top1


if __name__ == "__main__":
    main()
