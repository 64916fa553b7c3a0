"""Whole networks in C on virtual microcontrollers, with portable kernels and with the machine's own: one row a network and machine.

    python benchmarks/boards.py vww_96_int8.tflite resnet8_cifar10_int8.tflite mobilenetv2_035@144 [--machines cortex-m4,rv32imc]
                                [--filled]

A network is an int8 .tflite, a quantised bundle, or NAME@PIXELS of timm with random weights, quantised on made-up photographs.
Instructions are what QEMU counts, the same at every run; cycles are an estimate (docs/c.md); RAM is the arena with the image in it;
flash is code and constants. `wide` is the same with all weights stored as two bytes, where the kernels would widen them in RAM.
--filled: each network a second time with its zeros filled up, so that nothing can be skipped.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from zeros import filled

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.formats.about import About
from nestling.formats.c import emit, folder, machines, virtual
from nestling.formats.c.arrange import arrange
from nestling.formats.c.fitting import whole
from nestling.formats.c.machines import Machine
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Graph
from nestling.graph.passes import prepare
from nestling.models.float_graph import float_graph
from nestling.models.known import created
from nestling.preprocess.image import ImagePreprocess
from nestling.quantization.calibrate import choose_ranges, observe

MACHINES = "cortex-m4,cortex-m7,cortex-m55,rv32imc"
ENDLESS = 2**30  # bytes of flash


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("networks", nargs="+")
    arguments.add_argument("--machines", default=MACHINES)
    arguments.add_argument("--filled", action="store_true")
    chosen = arguments.parse_args()
    print("| network | M MACs | machine | kernels | M instructions | a MAC | cycles a MAC, estimated | RAM | flash |")
    print("|---|---:|---|---|---:|---:|---:|---:|---:|")
    for network in chosen.networks:
        graph, title = _graph(network), Path(network).stem
        for said, one in ((title, graph), *(((f"{title}, filled", filled(graph)),) if chosen.filled else ())):
            for name in chosen.machines.split(","):
                for row in _rows(one, machines.machine(name)):
                    print(f"| {said} | {' | '.join(row)} |", flush=True)


def _graph(network: str) -> Graph:
    """int8, with its end."""
    if "@" in network:
        return _random(*network.split("@"))
    path = Path(network)
    return whole(bundles.load(path) if path.suffix == ".nest" else import_model(path))


def _random(name: str, pixels: str) -> Graph:
    """One of timm's networks. How many instructions it takes depends on its shapes, hardly on its weights."""
    rng, side = np.random.default_rng(0), int(pixels)
    graph = prepare(float_graph(created(name, "none", (side, side))))
    coarse = rng.integers(0, 256, (4, side // 8 + 1, side // 8 + 1, 3), dtype=np.uint8)
    images = list(coarse.repeat(8, 1).repeat(8, 2)[:, :side, :side])
    config = QuantizeConfig()
    ranges = choose_ranges(observe(graph, images), config.range, config.bits_activations, config.symmetric)
    depth = graph.tensors[graph.outputs[0]].shape[1]
    head = Head(rng.normal(size=(10, depth)).astype(np.float32), np.zeros(10, np.float32))
    return with_head(with_integers(graph, ranges, config), head)


def _rows(graph: Graph, machine: Machine) -> Iterator[Sequence[str]]:
    """With the portable kernels, with its own, and with all weights wide."""
    ways = (("portable", replace(machine, features=()), None), (", ".join(machine.features), machine, None))
    before = ""
    for kernels, target, flash in (*ways, ("wide weights", machine, ENDLESS)):
        program, plan = arrange(graph, target, flash)
        image = np.random.default_rng(0).integers(0, 256, graph.tensors[graph.inputs[0]].shape[1:], dtype=np.uint8)
        with TemporaryDirectory() as place:
            folder.write(emit.files(program, plan, target, _about(graph)), Path(place) / "network")
            ran = virtual.run(Path(place) / "network", target, image, cycles=bool(machine.cycles))
        macs, instructions = sum(x.macs for x in ran.layers), sum(x.instructions or 0 for x in ran.layers)
        cycles = sum(x.cycles_estimate or 0 for x in ran.layers)
        row = [f"{macs / 1e6:.2f}", machine.name, kernels, f"{instructions / 1e6:.2f}", f"{instructions / macs:.2f}"]
        row += [f"{cycles / macs:.2f}" if cycles else "", f"{plan.arena:,}", f"{(ran.code or 0) + (ran.constants or 0):,}"]
        if row[3:] != before:
            yield row
        before = row[3:]


def _about(graph: Graph) -> About:
    """What the folder says of the network, of which nothing counts here."""
    _, height, width, channels = graph.tensors[graph.inputs[0]].shape
    halves = (0.5,) * channels
    own = ImagePreprocess((height, width), 1 if channels == 1 else 3, 1.0, "bilinear", halves, halves)
    return About((), own)


if __name__ == "__main__":
    main()
