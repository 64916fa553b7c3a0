"""Writes the files that every later nestling has to read: one of each kind, small, and what they answered when they were written.

    python -m tests.golden.write tests/golden/2026-11.tar.gz

Run once, by the nestling whose files are to be kept; never again under the same name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from nestling.apart.runner import load
from nestling.formats.tflite import printing as tflite
from nestling.preprocess.image import ImagePreprocess, to_plain
from nestling.preprocess.image import load as load_image
from tests.helpers.quantization_cases import Everything, captured, seeded
from tests.helpers.torch_networks import randomised

SIDE = 16
COLOURS = {"good": (200, 60, 40), "bad ü": (60, 180, 70)}
PREPROCESS = ImagePreprocess((SIDE, SIDE), 3, 1.0, "bilinear", (0.5, 0.4, 0.45), (0.25, 0.2, 0.3))
NAMED = "mobilenetv3_small_050"
ALL = "pte,tflite,onnx,c"
ANSWERING = (".nest", ".pte", ".tflite", ".onnx")


def photographs(root: Path) -> None:
    """12 of each class."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(12):
            pixels = np.clip(rng.normal(colour, 40, (4, 4, 3)), 0, 255).astype(np.uint8).repeat(5, 0).repeat(5, 1)
            Image.fromarray(pixels).save(root / name / f"{i:02}.bmp")


def network() -> bytes:
    """A .tflite that holds nearly every operation."""
    return tflite.print_graph(
        captured(seeded(Everything), SIDE), labels=[str(i) for i in range(12)], preprocess=to_plain(PREPROCESS)
    )


def weights(file: Path) -> None:
    """Of a timm network, drawn from few numbers, so that they pack well."""
    state = randomised(timm.create_model(NAMED, num_classes=0)).state_dict()
    small = {
        name: torch.from_numpy(np.resize(value.numpy().reshape(-1)[:61], tuple(value.shape)).copy())
        for name, value in state.items()
        if value.dtype == torch.float32
    }
    save_file(small, file)


def nestling(*words: object) -> None:
    """The command line."""
    subprocess.run([sys.executable, "-m", "nestling", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def main(out: Path) -> None:
    """See the module's text."""
    out.mkdir(parents=True)
    photographs(out / "photos")
    (out / "network.tflite").write_bytes(network())
    os.chdir(out)
    nestling("import", "network.tflite", "-o", "imported.nest")
    nestling("fit", "photos", "--backbone", "imported.nest", "-o", "fitted.nest")
    weights(Path("named.safetensors"))
    nestling("fit", "photos", "--backbone", NAMED, "--weights", "named.safetensors", "--size", "32", "-o", "named.nest")
    nestling("quantize", "fitted.nest", "-o", "integers.nest")
    nestling("quantize", "fitted.nest", "--bits-weights", "4", "-o", "bits4.nest")
    nestling("export", "fitted.nest", "--to", "pte,tflite,onnx", "--precision", "fp32,fp16,dynamic", "-o", "files")
    nestling("export", "integers.nest", "--to", ALL, "--precision", "int8", "--features", "-o", "files", "--force")
    nestling("pack", "integers.nest", "--for", "linux", "-o", "package")
    nestling("pack", "integers.nest", "--for", "mcu", "--machine", "cortex-m4", "-o", "firmware")
    Path("package/net_runner").unlink()  # it is large, and for one machine
    nestling("learn", "package", "photos", "--cycles", "30")
    answers = {}
    pictures = sorted(Path("photos").rglob("*.bmp"))[::6]
    for file in sorted(path for path in Path().rglob("*") if path.suffix in ANSWERING and path.name != "head_train.pte"):
        runner = load(file)
        ask = runner.features if "features" in file.name or file.name == "imported.nest" else runner
        answers[file.as_posix()] = ask(np.stack([load_image(runner.preprocess, path) for path in pictures])).tolist()
    Path("answers.json").write_text(json.dumps(answers))
    Path("named.safetensors").unlink()


if __name__ == "__main__":
    written, wanted = Path("/tmp/nestling-golden"), Path(sys.argv[1]).resolve()  # the folder stands in the bundles' lineages
    main(written)
    with tarfile.open(wanted, "w:gz") as packed:
        packed.add(written, ".")
    os.chdir("/")
    shutil.rmtree(written)
