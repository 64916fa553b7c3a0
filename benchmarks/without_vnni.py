"""Our int8 .onnx against the stock quantizer's as a processor without 8-bit dot products (VNNI) runs them in ONNX Runtime.

    python benchmarks/without_vnni.py [--data PHOTOS] [--bundle my8.nest] [--images 60]

Valgrind shows programs such a processor (AVX2, no VNNI) on any x86-64, counts instructions exactly, and gives the answers that it
would. Instructions are not milliseconds: benchmarks/others.py has those of this processor. One thread; the instructions of an image
are what five images more add. Distances are rms over what our int8 reference has, see others.py. Wants valgrind installed.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from others import CALIBRATION, normalised, stock_int8_onnx
from photographs import folder

from nestling import bundle as bundles
from nestling.artifacts.yardstick import expected
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.formats import FORMATS
from nestling.formats.format import ExportConfig, Job
from nestling.processor import versions
from nestling.quantization.quantize import quantize
from nestling.scores.agree import rms
from nestling.training.fit import FitConfig, fit

FEW, MORE = 2, 7  # images
FILES = (  # (file, its input, in words)
    ("ours-uint8", "bytes", "our int8 .onnx (uint8 weights, the default)"),
    ("ours-int8", "bytes", "our int8 .onnx, int8 weights"),
    ("stock", "floats", "onnx of the stock quantizer"),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, help="photographs, a folder or a .tar.gz; the demo's by default")
    arguments.add_argument("--bundle", type=Path, help="a quantised bundle of these photographs; by default one is made")
    arguments.add_argument("--images", type=int, default=60)
    chosen = arguments.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("this needs valgrind:  sudo apt-get install valgrind")
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bundle = bundles.load(chosen.bundle) if chosen.bundle else quantize(fit(data, config=FitConfig()).bundle, data)
        dataset = training_data(bundle, data)
        wanted = expected(bundle, True, data)
        assert wanted.floats is not None
        images = wanted.images[: chosen.images]
        answers, floats = wanted.answers[: len(images)], wanted.floats[: len(images)]
        np.save(place / "bytes.npy", images)
        np.save(place / "floats.npy", normalised(bundle, images))
        for weights in ("uint8", "int8"):
            printed = FORMATS["onnx"].printers["int8"](Job(bundle, ExportConfig(onnx_weights=weights)))
            (place / f"ours-{weights}.onnx").write_bytes(printed.content)
        calibration = np.stack(images_of(part(dataset, bundle, "train", CALIBRATION), bundle.preprocess))
        stock_int8_onnx(bundle, place / "stock.onnx", normalised(bundle, calibration))
        print(f"{', '.join(f'{package} {version}' for package, version in versions().items())}; {len(images)} photographs\n")
        print("| file | instructions an image | over the stock quantizer's | distance from float | noise ratio |")
        print("|---|---:|---:|---:|---:|")
        counts = {
            file: (_count(place, file, inputs, MORE) - _count(place, file, inputs, FEW)) / (MORE - FEW) for file, inputs, _ in FILES
        }
        quantised = rms(floats, answers)
        for file, inputs, said in FILES:
            own = _answers(place, file, inputs, len(images))
            noise = f"{rms(own, answers) / quantised:.2f}" if inputs == "bytes" else ""
            ratio, distance = counts[file] / counts["stock"], rms(own, floats) / quantised
            print(f"| {said} | {counts[file] / 1e6:.1f} M | {ratio:.2f} | {distance:.2f} | {noise} |")


def _count(place: Path, file: str, inputs: str, images: int) -> int:
    """Instructions of a whole process that loads the file and runs so many images."""
    said = _valgrind(["--tool=callgrind", "--callgrind-out-file=/dev/null"], place, file, inputs, images)
    found = re.search(r"Collected : (\d+)", said)
    if found is None:
        raise SystemExit(f"valgrind did not run {file}: {said[-300:]}")
    return int(found[1])


def _answers(place: Path, file: str, inputs: str, images: int) -> np.ndarray:
    _valgrind(["--tool=none"], place, file, inputs, images)
    return np.load(place / f"{file}.onnx.answers.npy")


def _valgrind(tool: list[str], place: Path, file: str, inputs: str, images: int) -> str:
    worker = Path(__file__).with_name("raw_worker.py")
    small = place / f"{images}-{inputs}.npy"
    np.save(small, np.load(place / f"{inputs}.npy")[:images])
    command = ["valgrind", *tool, sys.executable, str(worker), str(place / f"{file}.onnx"), str(small)]
    return subprocess.run(command, input="0\n", capture_output=True, text=True, check=False).stderr


if __name__ == "__main__":
    main()
