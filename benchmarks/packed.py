"""What weights of few bits cost and save in C: flash, arena and instructions of one network at 8, 4 and 2 bits.

    python benchmarks/packed.py vww_96_float.tflite [--bits 8,4,2] [--machine cortex-m4] [--layers]
    python benchmarks/packed.py --bundle fine.nest

The network, a float .tflite or a fitted bundle, is quantised after training, on made-up images: what an answer costs does not
depend on how good it is, but for answers whose scale needs the longer way of rounding (more of them with 2 bits). Each folder
passes the gates of every export: the C's embeddings are the reference's, byte for byte. QEMU counts instructions, not cycles.
Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling import bundle as bundles
from nestling.artifacts.export import export
from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats.c import machines
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.measure.counted import Counted, counted
from nestling.models.float_graph import float_graph
from nestling.quantization.calibrate import choose_ranges, observe

CALIBRATION = 8  # images


def quantised(bundle: Bundle, bits: int) -> Bundle:
    """In integers, weights of so many bits."""
    config = QuantizeConfig(bits_weights=bits)
    graph = float_graph(bundle)
    statistics = observe(graph, list(made_up(bundle.preprocess, CALIBRATION)))
    ranges = choose_ranges(statistics, config.range, config.bits_activations, config.symmetric)
    return replace(bundle, graph=with_integers(graph, ranges, config), yardstick=None)


def ran(bundle: Bundle, bits: int, machine: str) -> tuple[int, Counted]:
    """(bytes of the bundle's file, what its C took)."""
    with TemporaryDirectory() as place:
        path = Path(place) / f"network{bits}.nest"
        bundles.save(quantised(bundle, bits), path)
        (artifact,) = export(path, Path(place) / "out", ((f"c-{machine}", "int8"),))
        (found,) = counted((Path(place) / "out" / artifact.file,))
        return path.stat().st_size, found


def change(value: int | None, whole: int | None) -> str:
    return f"{value:,} | {100 * (value / whole - 1):+.1f}%" if value and whole else "? | "


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("network", type=Path, nargs="?", help="a float .tflite that takes v / 255")
    arguments.add_argument("--bundle", type=Path, help="a fitted or fine-tuned bundle instead")
    arguments.add_argument("--bits", default="8,4,2", help="the first one is what the others are held against")
    arguments.add_argument("--machine", default="cortex-m4")
    arguments.add_argument("--layers", action="store_true", help="instructions of every layer, too")
    chosen = arguments.parse_args()
    if (chosen.network is None) == (chosen.bundle is None):
        arguments.error("name a float .tflite, or a bundle with --bundle")
    bundle = bundles.load(chosen.bundle) if chosen.bundle else import_model(chosen.network, mean=(0.0,), std=(1.0,))
    found = {bits: ran(bundle, bits, chosen.machine) for bits in map(int, chosen.bits.split(","))}
    _, first = next(iter(found.values()))
    print(f"{(chosen.bundle or chosen.network).name}, {machines.machine(chosen.machine).title}\n")
    print("| bits of weights | flash, bytes | | arena, bytes | stack | instructions | | bundle, bytes |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for bits, (size, one) in found.items():
        costs = f"{change(one.flash_bytes, first.flash_bytes)} | {one.arena_bytes or 0:,} | {one.stack_bytes or 0:,}"
        print(f"| {bits} | {costs} | {change(one.instructions, first.instructions)} | {size:,} |")
    if chosen.layers:
        print(f"\n| | layer | MACs | {' | '.join(f'instructions, {bits} bits' for bits in found)} |")
        print(f"|---:|---|---:|{'---:|' * len(found)}")
        for index, layer in enumerate(first.layers):
            cells = " | ".join(f"{one.layers[index].instructions or 0:,}" for _, one in found.values())
            print(f"| {index} | {layer.kind} | {layer.macs:,} | {cells} |")


if __name__ == "__main__":
    main()
