"""What a package's network sees here: int8 embeddings of photographs, remembered by content; and that it stays the same file.

features.pte is run by ExecuTorch. Of a package that was made without it features.nest holds the integers; LiteRT runs them, as it
did when the package was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling import extras
from nestling.apart.runner import start
from nestling.bundle import int8_graph
from nestling.data.folders import Item, LeftOut
from nestling.device import manifest
from nestling.device.head_format import HeadFile
from nestling.device.parts import Parts
from nestling.embedding.cache import embed
from nestling.embedding.engine import Engine, Image, Vector, graph_engine
from nestling.errors import UnusableFile
from nestling.formats.executorch.format import FEATURES
from nestling.graph.file import digest
from nestling.outside import content
from nestling.preprocess.image import Preprocess
from nestling.progress import Progress

INTEGERS = "features.nest"
AGAIN = "pack the package again:  nestling pack my8.nest --for linux -o pkg/"


class Features(Protocol):
    """What gives embeddings: uint8 [N, H, W, C] -> float32 [N, D]."""

    def features(self, images: Image) -> Vector: ...  # noqa: D102  # said above


@dataclass(frozen=True, eq=False)
class CheckedFeatures:
    """A package's network, ready to embed; sha256: of its file, which was the manifest's. runtime: what makes the embeddings."""

    path: Path
    sha256: str
    runtime: str
    preprocess: Preprocess
    engine: Engine

    def require_unchanged(self) -> None:
        """Raises UnusableFile where the file is another one by now."""
        require_sum(self.path, content(self.path, AGAIN), self.sha256)


@dataclass(frozen=True, eq=False)
class Embedded:
    """items: photographs that could be read, in order; labels: int64 [N]; embeddings: int8 [N, D]; left_out: the others."""

    items: tuple[Item, ...]
    labels: NDArray[np.int64]
    embeddings: NDArray[np.int8]
    left_out: tuple[LeftOut, ...]


def checked_features(package: Path, head: HeadFile, apart: bool = False) -> CheckedFeatures:
    """The package's network. apart: run a program in another process, as a file that may be anybody's.

    Raises UnusableFile where it is missing, not the manifest's, or not of the head's network; NestlingError where it takes
    ExecuTorch, which is not there.
    """
    listed = manifest.read(package).files
    name = next((name for name in (FEATURES, INTEGERS) if name in listed), None)
    if name is None:
        raise UnusableFile(f"{package} has no {FEATURES}: it is not for a computer with Python.", AGAIN)
    path, expected = package / name, listed[name].sha256
    found = content(path, AGAIN)
    require_sum(path, found, expected)
    if name == INTEGERS:
        return _integers(path, expected, found, head)
    extras.require("executorch", f"learning with {path}")
    from nestling.formats.executorch import run

    program = start(path) if apart else run.load_bytes(found, str(path))
    if program.about.gives != "embedding":
        raise UnusableFile(f"{path} gives logits, not the embedding.", AGAIN)
    _require_network(path, program.about.graph, head)
    return CheckedFeatures(path, expected, "executorch", program.preprocess, _one_by_one(path, expected, program, head.inputs))


def _integers(path: Path, expected: str, found: bytes, head: HeadFile) -> CheckedFeatures:
    bundle = bundles.from_bytes(found, str(path))
    _require_network(path, digest(int8_graph(bundle)), head)
    return CheckedFeatures(path, expected, "litert", bundle.preprocess, graph_engine(int8_graph(bundle)))


def _require_network(path: Path, found: str, head: HeadFile) -> None:
    if found != head.graph:
        raise UnusableFile(f"{path} is of the network {found[:16] or 'without integers'}, the head of {head.graph[:16]}.", AGAIN)


def embedded(divided: Parts, features: CheckedFeatures, head: HeadFile, progress: Progress) -> dict[str, Embedded]:
    """Embeddings of each part: the integers that the network gave, for its real numbers are multiples of the head's scale."""
    wanted = [(part, item) for part in ("train", "val", "test") for item in getattr(divided, part)]
    found = embed([item for _, item in wanted], features.preprocess, features.engine, progress=progress)
    part_of = {item.path: part for part, item in wanted}
    steps = np.rint(found.x[0].reshape(len(found.items), head.inputs) / np.float32(head.embedding_scale)) + head.embedding_zero
    integers = np.clip(steps, -128, 127).astype(np.int8)
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for row, item in enumerate(found.items):
        rows[part_of[item.path]].append(row)
    left_out = {part: tuple(entry for entry in found.left_out if part_of[entry.path] == part) for part in rows}
    return {
        part: Embedded(
            tuple(found.items[row] for row in own),
            np.array([found.items[row].label for row in own], np.int64),
            integers[own],
            left_out[part],
        )
        for part, own in rows.items()
    }


def _one_by_one(path: Path, sha256: str, program: Features, width: int) -> Engine:
    """One image after the other: ExecuTorch spreads each over the cores."""

    def embed_all(images: Iterator[Image]) -> Iterator[Vector]:
        for image in images:
            (row,) = program.features(image[None])
            if row.shape != (width,):
                raise UnusableFile(f"{path} gives {row.size} numbers, the head takes {width}.", AGAIN)
            yield row

    return Engine(f"executorch-{version('executorch')} {sha256[:16]}", width, embed_all)


def require_sum(path: Path, file: bytes, expected: str) -> None:
    """Raises UnusableFile where the content is not what the manifest says."""
    if (found := sha256(file).hexdigest()) != expected:
        raise UnusableFile(f"{path} has the SHA-256 {found[:16]}..., the package's {manifest.NAME} says {expected[:16]}...", AGAIN)
