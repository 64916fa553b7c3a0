"""Instructions of the C on emulated processors, layer by layer: 64-bit Arm with dot product and with NEON alone, x86-64 with AVX2.

    python benchmarks/hosts_layers.py [--networks lite0,vww] [--processors dotprod,neon,avx2] [--data shared/data] [--layers]
        [--zeros 80%]

The program is main_bench.c with the printed network; it asks the processor which instructions it may use, as it would on any. A
plugin of QEMU's (calls_counted.c) counts exactly, in the second of two images; each layer has some hundred instructions of the
program's own bookkeeping on top. Instructions are not cycles. --layers: every layer, too. --zeros: so many of each 1x1
convolution's blocks of four weights zero, beside the same network without zeros. Wants qemu-user with plugins, as Debian
has it, and for Arm gcc-aarch64-linux-gnu.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from networks import DATA, network
from zeros import filled, pruned

from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats.about import about
from nestling.formats.c import folder, machines, virtual
from nestling.formats.c.fitting import whole
from nestling.formats.c.virtual import LayerCount
from nestling.graph.ir import Graph

MARKER = "nestling_layer_done"  # called before the first layer, and after each
GROUPS = ("1x1", "depthwise", "other convolutions", "the rest")
HEADINGS = "M MACs | M instructions | a MAC |\n|---|---|---|---:|---:|---:|"


@dataclass(frozen=True)
class Processor:
    """One of QEMU's: its user-mode emulator, what it calls the processor, and the machine that C is printed for."""

    said: str
    emulator: str
    cpu: str
    machine: str


PROCESSORS: Mapping[str, Processor] = {
    "dotprod": Processor("Arm with dot product", "qemu-aarch64", "max", "linux-arm64"),
    "neon": Processor("Arm, NEON alone", "qemu-aarch64", "cortex-a53", "linux-arm64"),
    "avx2": Processor("x86-64 with AVX2", "qemu-x86_64", "max", "host"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--networks", default="lite0", help="of lite0, vww, resnet8, ds-cnn")
    arguments.add_argument("--processors", default=",".join(PROCESSORS))
    arguments.add_argument("--data", type=Path, default=DATA, help="where vww_96_int8.tflite and resnet8_cifar10_int8.tflite lie")
    arguments.add_argument("--layers", action="store_true")
    arguments.add_argument("--zeros", default="", help="a share, as 80%%")
    chosen = arguments.parse_args()
    processors = [PROCESSORS[name] for name in chosen.processors.split(",")]
    tools = dict.fromkeys(tool for one in processors for tool in (one.emulator, machine_of(one).compiler))
    print(f"{'; '.join(map(_version, tools))}\n\n| network | processor | layers | {HEADINGS}")
    listed: list[str] = []
    with TemporaryDirectory() as place:
        plugin = Path(place) / "calls_counted.so"
        source = Path(__file__).with_name("calls_counted.c")
        subprocess.run(["cc", "-O2", "-fPIC", "-shared", str(source), "-o", str(plugin)], check=True)
        for name in chosen.networks.split(","):
            bundle = network(name, chosen.data)
            if bundle is None:
                print(f"| {name} | its file is not in {chosen.data} | | | | |")
                continue
            for processor in processors:
                for said, graph in graphs(bundle, chosen.zeros):
                    layers = counted(bundle, graph, processor, plugin)
                    for group in (*GROUPS, "all"):
                        own = [layer for layer in layers if group in ("all", group_of(layer))]
                        print(f"| {name}{said} | {processor.said} | {group} | {_cells(own)} |", flush=True)
                    listed += [f"| {name}{said} | {processor.said} | {_words(layer)} | {_cells([layer])} |" for layer in layers]
    if chosen.layers:
        print("\n".join(["", f"| network | processor | layer | {HEADINGS}", *listed]))


def machine_of(processor: Processor) -> machines.Machine:
    """Its programs are static, so that a function lies where the file says."""
    return replace(machines.machine(processor.machine), ldflags=("-static",), counts="none")


def group_of(layer: LayerCount) -> str:
    """One of GROUPS."""
    if re.match("conv 1x1(,|$)", layer.kind):
        return GROUPS[0]
    return GROUPS[1] if layer.kind.startswith("depthwise") else GROUPS[2] if layer.kind.startswith("conv") else GROUPS[3]


def graphs(bundle: Bundle, zeros: str) -> list[tuple[str, Graph]]:
    """The network; with `zeros` that without any zeros, and with so many, as zeros.py makes them."""
    if not zeros:
        return [("", whole(bundle))]
    dense = filled(whole(bundle))
    return [(", dense", dense), (f", {zeros} zeros", pruned(dense, float(zeros.removesuffix("%")) / 100))]


def counted(bundle: Bundle, graph: Graph, processor: Processor, plugin: Path) -> list[LayerCount]:
    """Every layer with its instructions, for one image."""
    machine = machine_of(processor)
    with TemporaryDirectory() as name:
        place, image = Path(name), made_up(bundle.preprocess, 1)[0]
        folder.write(folder.print_network(graph, about(bundle), machine), place / "network")
        (place / "built").mkdir()
        watching = ("-cpu", processor.cpu, "-plugin", f"{plugin},at={MARKER},out={place / 'counts'}", "{elf}")
        built = virtual.build(place / "network", replace(machine, run=(processor.emulator, *watching)), place / "built")
        ran = virtual.answer(built, image)
        counts = [int(line) for line in (place / "counts").read_text().splitlines()]
    last = counts[len(counts) - len(ran.layers) - 1 :]  # predict's; features' were before
    return [replace(layer, instructions=after - before) for layer, (before, after) in zip(ran.layers, pairwise(last), strict=True)]


def _words(layer: LayerCount) -> str:
    return f"{layer.kind}, {'x'.join(map(str, layer.shape))}"


def _cells(layers: Sequence[LayerCount]) -> str:
    macs, instructions = sum(layer.macs for layer in layers), sum(layer.instructions or 0 for layer in layers)
    return f"{macs / 1e6:.2f} | {instructions / 1e6:.2f} | {f'{instructions / macs:.3f}' if macs else ''}"


def _version(tool: str) -> str:
    return subprocess.run([tool, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


if __name__ == "__main__":
    main()
