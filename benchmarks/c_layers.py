"""A network in C on virtual microcontrollers: instructions of every layer, an estimate of its cycles, RAM and flash.

    python benchmarks/c_layers.py vww_96_int8.tflite [--machines cortex-m4,rv32imc] [--image photo.jpg]

QEMU counts instructions, not cycles; the count is the same at every run. The image is made up where none is named: how many
instructions a layer takes depends on it in saturation only. The estimate's assumptions: docs/c.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats.about import about
from nestling.formats.c import folder, machines, virtual
from nestling.formats.c.fitting import needs, whole
from nestling.preprocess.image import load as load_image

ESTIMATED = " | cycles, estimated | cycles/MAC, estimated"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("network", type=Path, help="an int8 .tflite, or a quantised bundle")
    arguments.add_argument("--machines", default="cortex-m4,rv32imc")
    arguments.add_argument("--image", type=Path)
    chosen = arguments.parse_args()
    bundle = bundles.load(chosen.network) if chosen.network.suffix == ".nest" else import_model(chosen.network)
    names = chosen.machines.split(",")
    ran = {name: _ran(bundle, name, chosen.image) for name in names}
    titles = ", ".join(machines.machine(name).title for name in names)
    print(f"{chosen.network.name}; {titles}; arena {_arena(bundle, names[0]):,} bytes\n")
    headings = [f"{name}, instructions | MACs/instruction{ESTIMATED if machines.machine(name).cycles else ''}" for name in names]
    print(f"| | kind | shape | MACs | {' | '.join(headings)} |")
    print(f"|---:|---|---|---:|{'---:|' * sum(heading.count('|') + 1 for heading in headings)}")
    for index, layer in enumerate(ran[names[0]].layers):
        cells = [_cells(name, ran[name].layers[index : index + 1]) for name in names]
        shape = "x".join(map(str, layer.shape))
        print(f"| {index} | {layer.kind} | {shape} | {layer.macs:,} | {' | '.join(cells)} |")
    macs = sum(layer.macs for layer in ran[names[0]].layers)
    totals = [_cells(name, ran[name].layers) for name in names]
    print(f"| all | | | {macs:,} | {' | '.join(totals)} |\n")
    for name in names:
        one = ran[name]
        loop = one.calibration
        counted = f"; a loop of {loop.instructions:,} instructions was counted as {loop.counted:,}" if loop else ""
        noted = f"; {one.cycles_note}" if one.cycles_note else ""
        print(f"{name}: code {one.code:,}, constants {one.constants:,}, stack {one.stack:,} bytes{counted}{noted}")


def _ran(bundle: Bundle, name: str, image: Path | None) -> virtual.Ran:
    machine = machines.machine(name)
    pixels = load_image(bundle.preprocess, image) if image else made_up(bundle.preprocess, 1)[0]
    with TemporaryDirectory() as place:
        folder.write(folder.print_network(whole(bundle), about(bundle), machine), Path(place) / "network")
        return virtual.run(Path(place) / "network", machine, pixels, cycles=True)


def _arena(bundle: Bundle, name: str) -> int:
    return needs(whole(bundle), machines.machine(name)).plan.arena


def _cells(machine: str, layers: Sequence[virtual.LayerCount]) -> str:
    macs = sum(layer.macs for layer in layers)
    instructions = sum(layer.instructions or 0 for layer in layers)
    cells = [f"{instructions:,}", f"{macs / instructions:.2f}" if macs and instructions else ""]
    if machines.machine(machine).cycles:
        cycles = sum(layer.cycles_estimate or 0 for layer in layers)
        cells += [f"{cycles:,}", f"{cycles / macs:.2f}" if macs else ""]
    return " | ".join(cells)


if __name__ == "__main__":
    main()
