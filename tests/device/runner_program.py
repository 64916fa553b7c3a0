"""net_runner and its parts, compiled for the tests: as a library, as small programs under sanitizers, as the program itself."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nestling.device.head_file import made, save
from nestling.device.head_format import HeadFile, Training
from nestling.formats.about import About
from nestling.graph import ir
from nestling.graph.file import digest
from nestling.graph.ir import Graph
from nestling.preprocess.image import ImagePreprocess
from tests import ROOT
from tests.helpers.networks import Net, about_of, headed, printed

HERE = Path(__file__).parent
RUNTIME = ROOT / "nestling" / "device" / "runtime"
FLAGS = ("-std=c99", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wconversion", f"-I{RUNTIME}")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
PARTS = ("common.c", "images.c", "resize.c", "sha256.c", "folder.c", "layout.c", "walk.c", "split.c")
DEPTH = 24  # of the embedding
Images = NDArray[np.uint8]


def compiler(name: str = "cc") -> str:
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: sudo apt-get install gcc")
    return name


def library(place: Path) -> Any:
    """The parts of net_runner that know nothing of a network, loaded."""
    out = place / "parts.so"
    sources = [str(RUNTIME / part) for part in PARTS]
    subprocess.run([compiler(), *FLAGS, "-fPIC", "-shared", *sources, "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


class CImage(ctypes.Structure):
    _fields_ = (("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("channels", ctypes.c_uint32), ("pixels", ctypes.c_void_p))


def program(place: Path, source: str, extra: Iterable[str] = SANITIZED) -> Path:
    """A program of tests/device with those parts, by default under the address and undefined-behaviour sanitizers."""
    out = place / source.removesuffix(".c")
    sources = [str(HERE / source), *(str(RUNTIME / part) for part in PARTS)]
    subprocess.run([compiler(), *FLAGS, *extra, *sources, "-o", str(out)], check=True)
    return out


# ---- a small network and its head ------------------------------------------------------------------------------------------------


def network() -> Graph:
    """uint8 [1, 16, 16, 3] -> int8 [1, DEPTH]."""
    net = Net(side=16)
    net.conv("a", "x", 8, 3, stride=(2, 2), padding=(0, 1, 0, 1), clamp="relu")
    net.conv("b", "a", 8)
    net.node("add", ir.Add(), "s", "a", "b")
    net.node("concat", ir.Concat(1), "tall", "s", "b")  # in place: no layer of its own
    net.conv("c", "tall", 16)
    net.conv("d", "tall", 8, clamp="relu")
    net.node("concat", ir.Concat(3), "wide", "c", "d")
    net.node("mean", ir.Mean(), "e", "wide")
    return net.graph("e")


def about(graph: Graph) -> About:
    preprocess = ImagePreprocess((16, 16), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
    return replace(about_of(headed(graph)), graph=digest(graph), preprocess=preprocess)


def new_head(graph: Graph, labels: Sequence[str], path: Path, max_classes: int = 6, **training: Any) -> HeadFile:
    """A head without knowledge, saved."""
    said = about(graph)
    some = np.random.default_rng(3).integers(-60, 60, (50, DEPTH)).astype(np.int8)
    head = made(
        labels,
        max_classes,
        some,
        None,
        embedding_scale=0.02,
        embedding_zero=-3,
        preprocess=said.preprocess,
        graph=said.graph,
        training=replace(Training(rate=0.2, decay=1e-3, batch=8, seed=7), **training),
    )
    return save(head, path)


def built(place: Path, graph: Graph, make: Sequence[str] = (), replaced: dict[str, str] | None = None) -> Path:
    """net_runner, made by its Makefile from the network's printed C. replaced: files of the runtime with another content."""
    compiler()
    if shutil.which("make") is None:
        pytest.skip("needs make: sudo apt-get install make")
    printed(headed(graph), place / "network", about=about(graph))
    shutil.copytree(RUNTIME, place / "runtime", ignore=shutil.ignore_patterns("build", "net_runner"))
    for name, content in (replaced or {}).items():
        (place / "runtime" / name).write_text(content)
    strict = "CFLAGS=-O2 -Werror -Wconversion"
    subprocess.run(
        ["make", "-s", "-j2", "-C", str(place / "runtime"), "NETWORK=../network", strict, *make, "net_runner"], check=True
    )
    return place / "runtime" / "net_runner"


def run(*words: object, before: Sequence[str] = (), status: int = 0) -> subprocess.CompletedProcess[str]:
    """words: the program and what it is given."""
    ended = subprocess.run([*before, *map(str, words)], capture_output=True, text=True, check=False)
    assert ended.returncode == status, (ended.returncode, ended.stdout[-300:], ended.stderr[-1000:])
    return ended


# ---- photographs -----------------------------------------------------------------------------------------------------------------


def photograph(rng: np.random.Generator, colour: Sequence[int], spread: float = 70) -> Images:
    """Noise around a colour, of a random size."""
    shape = (int(rng.integers(9, 50)), int(rng.integers(9, 50)), 3)
    return np.clip(np.array(colour) + rng.normal(0, spread, shape), 0, 255).astype(np.uint8)


def photographs(place: Path, labels: Sequence[str], count: int, seed: int = 0, spread: float = 70) -> Path:
    """A folder a class, each of a colour of its own."""
    rng = np.random.default_rng(seed)
    for number, label in enumerate(labels):
        (place / label).mkdir(parents=True, exist_ok=True)
        colour = [120 + 25 * number * (band - 1) for band in range(3)]
        for i in range(count):
            Image.fromarray(photograph(rng, colour, spread)).save(place / label / f"{seed}-{i:03}.bmp")
    return place


def environment() -> dict[str, str]:
    return {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"}
