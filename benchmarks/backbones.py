"""Small networks of timm's, one by one: captured, quantised and printed, or refused for what?

    python benchmarks/backbones.py --data cifar10_small.tar.gz [--names mixnet_s,rexnet_100] [--rows rows.jsonl] [--write PAGE]

Each in a process of its own: random weights with BatchNorm statistics of the data, a head learned on the data, integers, and the
int8 .tflite, .onnx, .pte and C, judged as export judges them. With --rows a line of JSON is kept of each, and what has one is not
tried again for the same format.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import timm
from photographs import folder
from settled import settled

from nestling import bundle as bundles
from nestling.artifacts.export import exported
from nestling.data.folders import scan
from nestling.errors import NestlingError
from nestling.files import write_atomically
from nestling.formats.format import INTEGERS
from nestling.graph.integers import QuantizeConfig
from nestling.models.known import created
from nestling.models.lacking import lacking
from nestling.processor import processor, versions
from nestling.quantization.quantize import quantize
from nestling.training.fit import FitConfig, fit

NAMES = (
    "mobilenetv1_100", "mobilenetv2_050", "mobilenetv2_100", "mobilenetv3_small_050", "mobilenetv3_large_100",
    "mobilenetv4_conv_small", "efficientnet_lite0", "tf_efficientnet_lite0", "efficientnet_b0", "tf_efficientnet_b0",
    "efficientnet_es", "tf_mobilenetv3_small_075", "mnasnet_050", "mnasnet_small", "semnasnet_075", "fbnetc_100", "fbnetv3_b",
    "spnasnet_100", "tinynet_e", "lcnet_050", "hardcorenas_a", "mixnet_s", "tf_mixnet_s", "rexnet_100", "ghostnet_050",
    "ghostnetv2_100", "ghostnetv3_050", "repghostnet_050", "mobileone_s0", "mobileone_s1", "repvgg_a0", "repvit_m0_9",
    "fastvit_t8", "starnet_s1", "resnet10t", "resnet14t", "resnet18", "resnet26", "seresnet18", "resnetv2_18", "regnetx_002",
    "regnety_002", "regnetz_005", "dla46_c", "densenet121", "hgnetv2_b0", "cs3darknet_s", "selecsls42b", "ese_vovnet19b_dw",
    "res2next50", "gernet_s", "hrnet_w18_small", "cspresnet50", "skresnet18", "ecaresnet26t", "mobilevit_xxs",
    "edgenext_xx_small", "convnext_atto", "efficientvit_b0", "efficientvit_m0", "tiny_vit_5m_224", "vit_tiny_patch16_224",
    "levit_128s", "poolformer_s12",
)  # fmt: skip
FORMATS = ("tflite", "onnx", "pte", "c-host")
HEADINGS = ("network", "parameters", "nodes", "tflite", "onnx", "pte", "C", "seconds")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="a folder of class folders, or a .tar.gz of one")
    arguments.add_argument("--names", default=",".join(NAMES), help="timm's")
    arguments.add_argument("--size", type=int, default=64, help="pixels, where a network takes them")
    arguments.add_argument("--images", type=int, default=30, help="photographs of each class")
    arguments.add_argument("--formats", default=",".join(FORMATS), help="int8 files; a .pte takes longest")
    arguments.add_argument("--minutes", type=float, default=15, help="that one network may take")
    arguments.add_argument("--rows", type=Path, help="a file of lines, to go on with")
    arguments.add_argument("--write", type=Path, help="a page of Markdown")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    chosen = arguments.parse_args()
    if chosen.one:
        print(json.dumps(tried(chosen.one, chosen.data, chosen.size, chosen.formats.split(","))))
        return
    lines = chosen.rows.read_text().splitlines() if chosen.rows and chosen.rows.exists() else []
    rows = {row["name"]: row for row in map(json.loads, lines)}
    names = chosen.names.split(",")
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as place:
        some = _some(data, Path(place) / "photographs", chosen.images)
        for name in names:
            row = rows.get(name, {})
            known = row.get("formats", {})
            formats = [form for form in chosen.formats.split(",") if form not in known and "refused" not in row]
            if formats:
                new = _apart(name, some, chosen.size, chosen.minutes, formats)
                rows[name] = row | new | ({"formats": known | new["formats"]} if "formats" in new else {})
                print(json.dumps(rows[name]), flush=True)
            if chosen.rows:
                write_atomically(chosen.rows, "".join(f"{json.dumps(row)}\n" for row in rows.values()).encode())
    lines = _page([rows[name] for name in names], chosen)
    print("\n".join(lines))
    if chosen.write:
        write_atomically(chosen.write, ("\n".join(lines) + "\n").encode())


def _some(data: Path, place: Path, images: int) -> Path:
    """A folder with the first photographs of each class, by their fingerprints."""
    dataset = scan(data)
    for label in range(len(dataset.labels)):
        items = sorted((item for item in dataset.items if item.label == label), key=lambda item: item.fingerprint)
        for item in items[:images]:
            to = place / dataset.labels[label] / item.path.name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(item.path, to)
    return place


def _apart(name: str, data: Path, size: int, minutes: float, formats: Sequence[str]) -> dict[str, Any]:
    """The row of a network, tried in a process whose end is not ours."""
    command = [sys.executable, __file__, "--one", name, "--data", str(data), "--size", str(size)]
    command += ["--formats", ",".join(formats)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"name": name, "failed": f"not done after {minutes:g} minutes"}
    if done.returncode:
        return {"name": name, "failed": (done.stderr.strip().splitlines() or ["it died"])[-1][:200]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


# ---- one network ---------------------------------------------------------------------------------------------------------------


def tried(name: str, data: Path, size: int, wanted: Sequence[str]) -> dict[str, Any]:
    """A row: name, parameters; then nodes and what each format's gates said; or what it was refused for."""
    start = perf_counter()
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    with tempfile.TemporaryDirectory() as place:
        weights = settled(name, None if fixed else size, data, Path(place))
        bare = created(name, weights, None if fixed else size)
        row = {"name": name, "parameters": sum(array.size for array in bare.arrays.values())}
        if lost := lacking(bare):
            return row | {"refused": lost.what}
        bundle = fit(data, config=FitConfig(name, weights, None if fixed else size)).bundle
        made = quantize(bundle, data, QuantizeConfig(equalize="off", bias_correction="off"))
        path = Path(place) / f"{name}.nest"
        bundles.save(made, path)
        formats = {form: _judged(path, Path(place) / "out", form, data) for form in wanted}
    assert made.graph is not None
    return row | {"nodes": len(made.graph.nodes), "formats": formats, "seconds": perf_counter() - start}


def _judged(path: Path, out: Path, form: str, data: Path) -> str:
    """A file's noise ratio, with (!) where its runtime is coarse here; else why it is none."""
    try:
        made = exported(path, out, [(form, INTEGERS)], data)
    except NestlingError as error:
        return f"refused: {error.message}"
    if made.refused:
        return f"refused: {made.refused[0].problems[0]}"
    (artifact,) = made.artifacts
    return f"{artifact.noise_ratio:.2f}{' (!)' if artifact.coarse else ''}"


# ---- the page ------------------------------------------------------------------------------------------------------------------


def _page(rows: Sequence[Mapping[str, Any]], chosen: argparse.Namespace) -> list[str]:
    printed = [row for row in rows if "formats" in row]
    said = [words for row in printed for words in row["formats"].values()]
    failed = sum(words.startswith("refused") for words in said)
    return [
        "# Which of timm's networks?",
        "",
        f"Printed by `benchmarks/backbones.py` on {processor()};",
        f"{', '.join(f'{package} {version}' for package, version in versions().items())}.",
        f"Data: {chosen.data.name}, {chosen.images} photographs of each class; {chosen.size} pixels, or a network's own",
        "where it takes no other. Weights are random, with BatchNorm statistics of the data. No equalisation, no bias correction.",
        "A format's number is its noise ratio, rms(file - int8 reference) / rms(float - int8 reference), on the validation part:",
        "1 is as much as quantisation made. (!): the file is right, its runtime is coarse on this processor (gates.py).",
        "nodes: of the int8 Graph, where branches that are summed have become one layer.",
        "",
        f"Of {len(rows)} networks {len(printed)} become a Graph and are quantised; of their {len(said)} int8 files that were",
        f"tried, {failed} did not pass their gates.",
        "",
        f"| {' | '.join(HEADINGS)} |",
        f"|---{'|---:' * (len(HEADINGS) - 1)}|",
        *(_line(row) for row in printed),
        "",
        "Refused:",
        "",
        "| network | parameters | for what |",
        "|---|---:|---|",
        *(f"| {row['name']} | {_millions(row)} | {row.get('refused') or row['failed']} |" for row in rows if row not in printed),
    ]


def _line(row: Mapping[str, Any]) -> str:
    said = [row["formats"].get(form, "not tried") for form in FORMATS]
    cells = [row["name"], _millions(row), str(row["nodes"]), *said, f"{row['seconds']:.0f}"]
    return f"| {' | '.join(cells)} |"


def _millions(row: Mapping[str, Any]) -> str:
    return f"{row['parameters'] / 1e6:.1f} M" if "parameters" in row else ""


if __name__ == "__main__":
    main()
