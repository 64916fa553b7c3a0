"""Runs every command of the core on photographs made here, in an environment that holds the core alone (scripts/core_check.sh).

    ENVIRONMENT/bin/python -I tests/core_commands.py        (in a folder that is empty; a program, no test that pytest finds)

What works without torch has to work, and to import nothing that is heavy; what needs more has to say in two lines what to install,
and to write nothing.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import nestling

HEAVY = ("torch", "torchvision", "timm", "executorch", "torchao", "openvino", "modelopt", "triton", "tensorflow", "keras", "jax")
COLOURS = {"red": (170, 90, 90), "green": (90, 160, 90), "blue": (90, 90, 170)}
PHOTO = "photos/red/00.png"
WORKS = (
    "fit photos --size 64 -o my.nest",
    "eval my.nest photos",
    f"predict my.nest {PHOTO}",
    "quantize my.nest -o my8.nest",
    "quantize my.nest --explain -o explained.nest",
    "agree my.nest my8.nest photos",
    "export my8.nest --to tflite,onnx,c -o out",
    "eval out/my8-int8.tflite photos",
    "agree my8.nest out/my8-int8.onnx photos",
    f"predict out/my8-c-host {PHOTO}",
    "import out/my8-int8.tflite -o imported.nest",
    f"trace my8.nest {PHOTO} -o trace",
    "bench out",
    "plan my8.nest --ram 1M --flash 8M -o plan.svg",
    "report out -o report.html",
    "pack my8.nest --for mcu --machine cortex-m4 -o pkg",
    "data prepare photos --format bmp -o parts",
)
REFUSES = {  # what needs an extra, and which
    "finetune my.nest photos -o more.nest": "train",
    "distill my.nest photos --teacher my.nest -o more.nest": "train",
    "prune my.nest photos -o more.nest": "train",
    "search my.nest photos --macs 60% -o more.nest": "search",
    "quantize my.nest --qat lsq -o more.nest": "train",
    "fit photos --backbone resnet18 -o more.nest": "train",
    "export my8.nest --to pte -o more": "executorch",
}


NO_COMPILER = re.compile(r"(?m)^.*(?:apt-get install|my8-c-host does not exist).*$")


class Lacking(Exception):
    """What a command needs is not on this computer."""


@dataclass(frozen=True)
class Done:
    """said: its stderr. imported: the modules that its process imported."""

    status: int
    said: str
    imported: frozenset[str]


def nestling_does(words: Sequence[str]) -> Done:
    """Runs a command, its imports told by Python itself."""
    command = [sys.executable, "-I", "-X", "importtime", "-m", "nestling", *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    return Done(done.returncode, "\n".join(line for line in lines if not line.startswith("import time:")), frozenset(imported))


def written() -> dict[str, int]:
    """Every file here with the time when it was last written, and every folder."""
    found = [path for path in Path().rglob("*") if path.parts[0] != "cache"]
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in found}


def wrong_of_work(line: str) -> str:
    """What is wrong with a command that has to work, or "". Raises Lacking where there is no compiler for it."""
    done = nestling_does(line.split())
    if done.status and (lacks := NO_COMPILER.search(done.said)):
        raise Lacking(lacks[0].strip())
    if done.status or "Traceback" in done.said:
        return f"ends with {done.status}\n{done.said[-1000:]}"
    heavy = done.imported & set(HEAVY)
    return f"imports {', '.join(sorted(heavy))}" if heavy else ""


def wrong_of_refusal(line: str, extra: str) -> str:
    """What is wrong with a command that has to say what it needs, or ""."""
    before = written()
    done = nestling_does(line.split())
    error = done.said[done.said.rfind("error:") :].strip() if "error:" in done.said else ""
    if done.status != 1 or not 1 <= len(error.splitlines()) <= 2 or f"pip install 'nestling[{extra}]'" not in error:
        return f"ends with {done.status} and does not say pip install 'nestling[{extra}]' in two lines\n{done.said[-1000:]}"
    changed = sorted(dict(written().items() ^ before.items()))
    return f"writes {', '.join(changed)}" if changed else ""


def make_photographs() -> None:
    """60, in three classes."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        for i in range(20):
            Image.fromarray(np.clip(rng.normal(colour, 40, (72, 80, 3)), 0, 255).astype(np.uint8)).save(folder / f"{i:02}.png")


def main() -> int:
    """Prints a line a command; 1 where one does not do what it should."""
    if there := [name for name in HEAVY if find_spec(name)]:
        raise SystemExit(f"core: this environment has {', '.join(there)}")
    if not Path(nestling.__file__).is_relative_to(sys.prefix):
        raise SystemExit(f"core: nestling is imported from {nestling.__file__}, not from the environment")
    if any(Path().iterdir()):
        raise SystemExit(f"core: {Path.cwd()} is not empty")
    os.environ["NESTLING_CACHE"] = str(Path("cache").absolute())
    make_photographs()
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for line in (*WORKS, *REFUSES):
        began = time.monotonic()
        try:
            why = wrong_of_refusal(line, REFUSES[line]) if line in REFUSES else wrong_of_work(line)
            ending = "failed" if why else "passed"
        except Lacking as lacks:
            why, ending = str(lacks), "skipped"
        counts[ending] += 1
        print(f"{ending}: {line} ({time.monotonic() - began:.1f} s) {why}".rstrip(), flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} seconds of processor time")
    print(f"core: {', '.join(f'{count} {ending}' for ending, count in counts.items())}")
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
