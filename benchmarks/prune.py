"""What structured pruning saves and costs: MACs, size, accuracy, milliseconds of the printed files before and after.

    python benchmarks/prune.py --data cifar10_small.tar.gz [--macs 50%] [--size 128] [--importance taylor] [--finetune 5]
    python benchmarks/prune.py --data cifar10_small.tar.gz --bundle tuned.nest --finetune 10

--data: a folder (a folder a class, or train/ and test/ with those), or such a folder as .tar.gz. The files of both networks are
timed in one run, in turns, each in its own process, one thread. --finetune: epochs of fine-tuning before pruning and again after
it; without it only the head is learned again. --bundle: a fine-tuned bundle to begin with, at its own size, which is not trained
before pruning. A file that does not pass its gates is timed all the same, and marked.
"""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from photographs import folder

from nestling import bundle as bundles
from nestling.artifacts.export import exported
from nestling.compress.config import PruneConfig
from nestling.compress.prune import Measured, prune
from nestling.formats.format import ExportConfig
from nestling.measure.bench import bench
from nestling.models.known import DEFAULT
from nestling.processor import processor
from nestling.training.config import TrainingConfig
from nestling.training.finetune import finetune
from nestling.training.fit import FitConfig, fit

FORMATS = (("tflite", "fp32"), ("tflite", "int8"), ("pte", "fp32"), ("pte", "int8"))


def row(name: str, measured: Measured) -> str:
    low, high = measured.test.interval
    accuracy = f"{100 * measured.test.top1:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    costs = f"{measured.macs / 1e6:.1f} M | {measured.parameters / 1e6:.2f} M | {measured.bytes / 1e6:.2f} MB"
    return f"| {name} | {costs} | {100 * measured.val_top1:.1f} | {accuracy} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--backbone", default=DEFAULT)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--macs", default="50%")
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--finetune", type=int, default=0, metavar="EPOCHS")
    options = parser.parse_args()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torch-pruning", "ai-edge-litert", "executorch"))
    network = str(options.bundle) if options.bundle else f"{options.backbone} at {options.size} pixels"
    print(f"{network}; {processor()}; {packages}; Python {platform.python_version()}\n")
    with folder(options.data) as data, TemporaryDirectory() as place:
        before, after = Path(place) / "before.nest", Path(place) / "after.nest"
        tuning = TrainingConfig(epochs=options.finetune)
        if options.bundle:
            fitted = bundles.load(options.bundle)
        else:
            fitted = fit(data, config=FitConfig(backbone=options.backbone, size=options.size)).bundle
            fitted = finetune(fitted, data, tuning).bundle if options.finetune else fitted
        pruned = prune(fitted, data, PruneConfig(float(options.macs.removesuffix("%")) / 100, options.importance))
        bundles.save(fitted, before)
        tuned = finetune(pruned.bundle, data, tuning) if options.finetune else None
        bundles.save(tuned.bundle if tuned else pruned.bundle, after)
        print("| network | MACs | parameters | float size | val top-1 | test top-1 |\n|---|---:|---:|---:|---:|---:|")
        print(row("before", pruned.before))
        print(row(f"pruned by {options.importance}, head learned again", pruned.after), flush=True)
        if tuned:
            low, high = tuned.test.interval
            accuracy = f"{100 * tuned.best.val_top1:.1f} | {100 * tuned.test.top1:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            print(f"| and fine-tuned, {options.finetune} epochs | | | | {accuracy} |", flush=True)

        out = Path(place) / "out"
        config = ExportConfig(force=True)
        artifacts = [a for path in (before, after) for a in exported(path, out, FORMATS, data, config).artifacts]
        failed = {artifact.file for artifact in artifacts if artifact.failed}
        files = [f"{path.stem}-{precision}.{form}" for form, precision in FORMATS for path in (before, after)]
        ms = {timing.file: timing.ms_median for timing in bench([out / file for file in files])}
        print("\n| file | ms before | ms after | of before | bytes of before |\n|---|---:|---:|---:|---:|")
        for form, precision in FORMATS:
            old, new = (f"{path.stem}-{precision}.{form}" for path in (before, after))
            size = (out / new).stat().st_size / (out / old).stat().st_size
            mark = "".join(f" ({file} did not pass its gates)" for file in (old, new) if file in failed)
            print(f"| {precision} .{form}{mark} | {ms[old]:.2f} | {ms[new]:.2f} | {ms[new] / ms[old]:.2f} | {size:.2f} |")


if __name__ == "__main__":
    main()
