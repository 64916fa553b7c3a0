"""Every format of many networks: does it pass its gates, how far is it from the integers, how right is it?

    python benchmarks/formats.py --data cifar10_small.tar.gz [--imported mobilenet_v2.tflite] [--write docs/formats.md]

Backbones have random weights (but lite0) with BatchNorm statistics of the data, 128 pixels, a head learned on the data: answers
that mean something, no more. The noise ratio is rms(file - int8 reference) / rms(float - int8 reference), on up to 500 test images;
1 is as much as quantisation made.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from photographs import folder
from settled import settled

from nestling import bundle as bundles
from nestling.artifacts.export import exported
from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import expected_on
from nestling.data.choose import for_evaluation, scan_for
from nestling.data.folders import Item, scan
from nestling.files import write_atomically
from nestling.formats import load, printed, runtimes
from nestling.formats.format import INTEGERS, ExportConfig
from nestling.measure.answers import answers
from nestling.processor import processor, versions
from nestling.quantization.quantize import quantize
from nestling.scores.agree import rms
from nestling.training.fit import FitConfig, fit

NETWORKS = (
    "tf_efficientnet_lite0", "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_small_100@224", "mobilenetv4_conv_small",
    "efficientnet_b0", "resnet18",
)  # fmt: skip
WANTED = [pair for pair in printed() if pair[0] in ("pte", "tflite", "onnx")]
HEADINGS = ("network", "file", "runtime", "gates", "noise ratio", "top-1", "top-1 of what it was printed from", "kB")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="a folder of class folders, or a .tar.gz of one")
    arguments.add_argument("--networks", default=",".join(NETWORKS), help="timm names, NAME@SIZE for another size")
    arguments.add_argument("--size", type=int, default=128)
    arguments.add_argument("--imported", type=Path, help="an int8 .tflite of somebody else's")
    arguments.add_argument("--images", type=int, default=500)
    arguments.add_argument("--write", type=Path, help="a page of Markdown")
    chosen = arguments.parse_args()
    rows: list[tuple[str, ...]] = []
    pairs: list[str] = []
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as place:
        for words in filter(None, chosen.networks.split(",")):
            name, _, size = words.partition("@")
            print(f"{words} ...", flush=True)
            pixels = int(size or chosen.size)
            weights = None if name == "tf_efficientnet_lite0" else settled(name, pixels, data, Path(place))
            path = Path(place) / f"{name}.nest"
            bundles.save(quantize(fit(data, config=FitConfig(name, weights, pixels)).bundle, data), path)
            bundle = bundles.load(path)
            dataset = scan_for(bundle.labels, data)
            items = for_evaluation(dataset, bundle.split).items[: chosen.images]
            rows += _rows(words, path, Path(place) / name, WANTED, items, pairs, data)
        if chosen.imported:
            path = Path(place) / f"{chosen.imported.stem}.nest"
            bundles.save(import_model(chosen.imported), path)
            items = tuple(sorted(scan(data).items, key=lambda item: item.fingerprint))[: chosen.images]
            integers = [pair for pair in WANTED if pair[1] == INTEGERS]
            rows += _rows(path.stem, path, Path(place) / path.stem, integers, items, pairs, data)
    lines = _page(rows, pairs, chosen)
    print("\n".join(lines))
    if chosen.write:
        write_atomically(chosen.write, ("\n".join(lines) + "\n").encode())


def _rows(
    name: str, path: Path, out: Path, wanted: Sequence[tuple[str, str]], items: Sequence[Item], pairs: list[str], data: Path
) -> list[tuple[str, ...]]:
    bundle = bundles.load(path)
    made = exported(path, out, wanted, data, ExportConfig(force=True))
    networks = [(artifact, runtime) for artifact in made.artifacts for runtime in runtimes(out / artifact.file)]
    runners = [load(out / artifact.file, 1, runtime) for artifact, runtime in networks]
    used, logits, _ = answers(runners, items)
    truth = np.array([item.label for item in used]) if bundle.head is not None else None
    judged = {integers: expected_on(bundle, integers, used) for integers in {a.precision == INTEGERS for a in made.artifacts}}
    rows = []
    for (artifact, runtime), own in zip(networks, logits, strict=True):
        wanted_answers = judged[artifact.precision == INTEGERS]
        noise = "" if wanted_answers.floats is None else _ratio(own, wanted_answers.answers, wanted_answers.floats)
        right = ["" if truth is None else f"{100 * (some.argmax(1) == truth).mean():.1f}" for some in (own, wanted_answers.answers)]
        gates = "passed" if not artifact.failed else "; ".join(artifact.failed)
        rows.append((name, f"{artifact.precision} {artifact.format}", runtime, gates, noise, *right, f"{artifact.bytes / 1e3:.0f}"))
    own_names = [f"{artifact.format} in {runtime}" for artifact, runtime in networks if artifact.precision == INTEGERS]
    integers = [own for (artifact, _), own in zip(networks, logits, strict=True) if artifact.precision == INTEGERS]
    for (a, one), (b, two) in itertools.combinations(zip(own_names, integers, strict=True), 2):
        pairs.append(f"| {name} | {a} | {b} | {100 * (one.argmax(1) == two.argmax(1)).mean():.1f}% |")
    return rows


def _ratio(own: np.ndarray, reference: np.ndarray, floats: np.ndarray) -> str:
    return f"{rms(own, reference) / rms(floats, reference):.2f}"


def _page(rows: Sequence[tuple[str, ...]], pairs: Sequence[str], chosen: argparse.Namespace) -> list[str]:
    return [
        "# Every format of many networks",
        "",
        f"Printed by `benchmarks/formats.py` on {processor()};",
        f"{', '.join(f'{package} {version}' for package, version in versions().items())}.",
        f"Data: {chosen.data.name}, up to {chosen.images} test images, {chosen.size} pixels where no other is named; weights",
        "random but lite0's (BatchNorm statistics are the data's), so the top-1 says only that answers mean something. An imported",
        "network has no labels of this data. Random weights are a hard case: rounding grows on its way to the end, where a trained",
        "network forgets it.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * 4}{'---:|' * (len(HEADINGS) - 4)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "Raw agreement of the int8 files with each other (share of equal answers; two correct int8 runtimes differ on near ties):",
        "",
        "| network | one | other | agreement |",
        "|---|---|---|---:|",
        *pairs,
    ]


if __name__ == "__main__":
    main()
