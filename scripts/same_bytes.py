"""Says what the commands write, as one line a file, so that two commits can be compared: a house that is rebuilt changes no byte.

    python scripts/same_bytes.py > before.txt        (then, on the other commit, > after.txt, and: diff before.txt after.txt)

Of fit, quantize, export, pack and learn, of two small networks and photographs that are made here. C that was written by hand is
not compared as text, but by what it answers; the tables that are generated are.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"apple": (200, 40, 40), "lime": (60, 190, 60), "plum": (90, 40, 160)}
BACKBONES = {"two": ("--backbone", "mobilenetv2_050"), "three": ("--backbone", "mobilenetv3_small_050")}
GENERATED = ("nestling_model.c", "nestling_model.h", "nestling_weights.c", "nestling_weights.h", "head_nst.h")
WRITTEN = (".c", ".h", ".ld", ".mac", ".previous")  # by hand, under a key of this folder's, or with the time in it


def photographs(root: Path) -> None:
    """20 of each class."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(colour, 25, (70, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.bmp")


def nestling(*words: object) -> str:
    """What a command prints on stdout."""
    command = [sys.executable, "-m", "nestling", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8").stdout


def write(place: Path) -> None:
    """All that is compared."""
    photographs(place / "photos")
    os.chdir(place)
    for name, backbone in BACKBONES.items():
        nestling("fit", "photos", *backbone, "--weights", "none", "--size", 64, "-o", f"{name}.nest")
        nestling("quantize", f"{name}.nest", "-o", f"{name}8.nest")
        nestling("export", f"{name}.nest", "--to", "tflite,onnx", "--precision", "fp32,fp16,dynamic", "-o", "files", "--force")
        to = "tflite,onnx,c"
        machines = "host,cortex-m4,cortex-m55,rv32imc"
        nestling("export", f"{name}8.nest", "--to", to, "--machine", machines, "--precision", "int8", "-o", "files", "--force")
        agreed = nestling("agree", f"{name}8.nest", f"files/{name}8-c-host", "photos", "--json")
        Path(f"{name}-answers.json").write_text(agreed)
        Path(f"{name}-predicted.json").write_text(nestling("predict", f"files/{name}8-c-host", "photos/plum/03.bmp", "--json"))
    nestling("quantize", "two.nest", "--bits-weights", 4, "-o", "bits4.nest")
    nestling("pack", "two8.nest", "--for", "linux", "-o", "package")
    nestling("pack", "two8.nest", "--for", "mcu", "--machine", "cortex-m4", "-o", "firmware")
    nestling("learn", "package", "photos", "--cycles", 50)


def main() -> None:
    """See the module's text."""
    place = Path(tempfile.gettempdir()) / "same-bytes"  # always the same folder: bundles say where the photographs were
    place.mkdir()
    write(place)
    for file in sorted(path for path in place.rglob("*") if path.is_file() and "photos" not in path.parts):
        if file.name in GENERATED or (file.suffix not in WRITTEN and file.name not in ("manifest.json", "net_runner")):
            print(hashlib.sha256(file.read_bytes()).hexdigest()[:16], file.relative_to(place))


if __name__ == "__main__":
    main()
