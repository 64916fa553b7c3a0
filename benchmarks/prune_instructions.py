"""Instructions of the C on a Cortex-M4 before and after structured pruning: MobileNetV1 0.25 at 96 pixels.

    python benchmarks/prune_instructions.py vww_96_float.tflite --data cifar10_small.tar.gz [--macs 50%] [--machine cortex-m4]

The network: a float .tflite, imported as a backbone, or a fitted bundle. A head is fitted to the photographs (--data: a folder, or
such a folder as .tar.gz), the network fine-tuned for --finetune epochs (0: not) before and after pruning, both quantised and
printed in C. QEMU counts instructions, not cycles; the count is the same at every run.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from photographs import folder

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.cli import show
from nestling.compress.config import PruneConfig
from nestling.compress.prune import prune
from nestling.formats.about import about
from nestling.formats.c import folder as c_folder
from nestling.formats.c import machines, virtual
from nestling.formats.c.fitting import needs, whole
from nestling.quantization.quantize import quantize
from nestling.training.config import TrainingConfig
from nestling.training.finetune import finetune
from nestling.training.fit import FitConfig, fit
from nestling.training.session import Session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--macs", default="50%")
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--finetune", type=int, default=0, metavar="EPOCHS")
    parser.add_argument("--machine", default="cortex-m4")
    options = parser.parse_args()
    config = PruneConfig(float(options.macs.removesuffix("%")) / 100, options.importance)
    tuning = TrainingConfig(epochs=options.finetune)
    with folder(options.data) as data:
        before = _fitted(options.network, data)
        before = finetune(before, data, tuning, Session(show.bars)).bundle if options.finetune else before
        pruned = prune(before, data, config, show.bars)
        after = finetune(pruned.bundle, data, tuning, Session(show.bars)).bundle if options.finetune else pruned.bundle
        ran = [_ran(quantize(bundle, data, progress=show.bars), options.machine) for bundle in (before, after)]
    costs = pruned.before.macs, pruned.after.macs
    tops = [float(bundle.lineage[-1].metrics["test_top1"]) for bundle in (before, after)]
    print(f"{options.network.name}; {machines.machine(options.machine).title}; fine-tuned {options.finetune} epochs\n")
    print("| | MACs | instructions | code and constants | arena | float test top-1 |\n|---|---:|---:|---:|---:|---:|")
    for name, macs, (one, arena), top1 in zip(("before", "after"), costs, ran, tops, strict=True):
        flash = (one.code or 0) + (one.constants or 0)
        print(f"| {name} | {macs:,} | {_instructions(one):,} | {flash:,} | {arena:,} | {100 * top1:.1f} |")
    share = _instructions(ran[1][0]) / _instructions(ran[0][0])
    print(f"\ninstructions after over before: {share:.3f}; MACs: {costs[1] / costs[0]:.3f}")


def _fitted(network: Path, data: Path) -> Bundle:
    """A .tflite takes v / 255, as MLPerf Tiny's networks do."""
    bundle = bundles.load(network) if network.suffix == ".nest" else import_model(network, mean=(0.0,), std=(1.0,))
    if bundle.split is not None:
        return bundle
    with TemporaryDirectory() as place:
        path = Path(place) / "backbone.nest"
        bundles.save(bundle, path)
        return fit(data, config=FitConfig(backbone=str(path)), progress=show.bars).bundle


def _ran(bundle: Bundle, name: str) -> tuple[virtual.Ran, int]:
    """(what it took for one made-up image, bytes of the arena)."""
    machine, graph = machines.machine(name), whole(bundle)
    with TemporaryDirectory() as place:
        c_folder.write(c_folder.print_network(graph, about(bundle), machine), Path(place) / "network")
        ran = virtual.run(Path(place) / "network", machine, made_up(bundle.preprocess, 1)[0])
    return ran, needs(graph, machine).plan.arena


def _instructions(ran: virtual.Ran) -> int:
    return sum(layer.instructions or 0 for layer in ran.layers)


if __name__ == "__main__":
    main()
