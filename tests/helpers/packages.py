"""A package as `nestling learn` needs it, of a tiny network, and photographs that it can tell apart by colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.device import manifest
from nestling.device.head_file import made
from nestling.device.head_format import HeadFile, Training, to_bytes
from nestling.device.manifest import Manifest, PackedFile
from nestling.device.whose import signed
from nestling.formats.about import About
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.executorch.printing import print_program
from nestling.formats.executorch.symmetric import symmetric_weights
from nestling.formats.executorch.training_program import print_training_program
from nestling.graph import ir
from nestling.graph.file import digest
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.preprocess.image import ImagePreprocess, to_plain
from tests.helpers.networks import Net

PREPROCESS = ImagePreprocess((12, 12), 3, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
COLOURS = {"apple": (200, 40, 40), "lime": (60, 190, 60), "plum": (90, 40, 160), "sky": (90, 160, 230), "coal": (40, 40, 40)}
TRAINING = Training(rate=0.5, decay=1e-4, seed=7, batch=8)
ROOM = 6  # classes


@cache
def network() -> Graph:
    """An embedding of 24 integers."""
    net = Net()
    net.conv("a", "x", 16, 3, stride=(2, 2), padding=(0, 1, 0, 1), clamp="relu")
    net.conv("b", "a", 24)
    net.node("mean", ir.Mean(), "e", "b")
    return net.graph("e")


@cache
def features_program(labels: tuple[str, ...]) -> bytes:
    about = About(labels, PREPROCESS, gives="embedding", graph=digest(network()))
    return print_program(GraphProgram(symmetric_weights(network())[0]).eval(), about).content


@cache
def training_program(inputs: int = 24, max_classes: int = ROOM) -> bytes:
    return print_training_program(inputs, max_classes)


def untrained(labels: Sequence[str], training: Training = TRAINING, replay: int = 0) -> HeadFile:
    quant = network().tensors["e"].quant
    assert quant is not None
    embeddings = np.random.default_rng(0).normal(0, 25, (50, 24)).astype(np.int8)
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    return made(
        labels, ROOM, embeddings, None, embedding_scale=scale, embedding_zero=zero, preprocess=PREPROCESS, graph=digest(network()),
        training=training, replay_capacity=replay,
    )  # fmt: skip


def integers(labels: tuple[str, ...]) -> bytes:
    """features.nest, the network where ExecuTorch is not."""
    head = Head(np.zeros((len(labels), 24), np.float32), np.zeros(len(labels), np.float32))
    return bundles.to_bytes(Bundle(None, {}, head, labels, PREPROCESS, graph=network()))


def package(folder: Path, head: HeadFile, executorch: bool = True) -> Path:
    """executorch: as it is packed where ExecuTorch is installed."""
    folder.mkdir()
    programs = {"features.pte": features_program(head.labels), "head_train.pte": training_program()} if executorch else {}
    files = (programs or {"features.nest": integers(head.labels)}) | {"head.nst": to_bytes(head)}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    said = Manifest(
        "linux", "x86-64", "c", head.labels, to_plain(PREPROCESS), head.graph, ROOM, {}, "", {},
        {name: PackedFile(len(content), sha256(content).hexdigest()) for name, content in files.items()},
    )  # fmt: skip
    for name, content in signed({manifest.NAME: manifest.to_bytes(said)}).items():
        (folder / name).write_bytes(content)
    return folder


@dataclass(frozen=True)
class Photos:
    """Makes folders of noisy pictures of one colour a class."""

    place: Path

    def __call__(self, name: str, counts: dict[str, int], seed: int = 0, spread: float = 25) -> Path:
        root = self.place / name
        for label, count in counts.items():
            rng = np.random.default_rng([seed, *label.encode()])
            (root / label).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(COLOURS[label], spread, (14, 14, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / label / f"{i:02}.png")
        return root
