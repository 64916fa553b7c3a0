"""What features.pte of a package sees: int8 embeddings of photographs, remembered by content; and that it stays the same file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.apart.runner import ApartRunner, start
from nestling.data.folders import Item, LeftOut
from nestling.device import manifest
from nestling.device.head_format import HeadFile
from nestling.device.parts import Parts
from nestling.embedding.cache import embed
from nestling.embedding.engine import Engine, Image, Vector
from nestling.errors import UnusableFile
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.format import FEATURES
from nestling.formats.executorch.run import ExecutorchRunner
from nestling.outside import content
from nestling.progress import Progress

FILE = FEATURES
AGAIN = "pack the package again:  nestling pack my8.nest --for linux -o pkg/"


@dataclass(frozen=True, eq=False)
class CheckedFeatures:
    """A package's loaded features.pte, whose SHA-256 was the manifest's: an ExecutorchRunner, or an ApartRunner."""

    path: Path
    sha256: str
    program: ExecutorchRunner | ApartRunner

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
    """The package's features.pte. apart: run it in another process, as a file that may be anybody's.

    Raises UnusableFile where it is missing, not the manifest's, or not of the head's network.
    """
    path = package / FILE
    listed = manifest.read(package).files
    if FILE not in listed:
        raise UnusableFile(f"{package} has no {FILE}: it is not for a computer with Python.", AGAIN)
    expected, found = listed[FILE].sha256, content(path, AGAIN)
    require_sum(path, found, expected)
    program = start(path) if apart else executorch_run.load_bytes(found, str(path))
    if program.about.gives != "embedding":
        raise UnusableFile(f"{path} gives logits, not the embedding.", AGAIN)
    if program.about.graph != head.graph:
        raise UnusableFile(
            f"{path} is of the network {program.about.graph[:16] or 'without integers'}, the head of {head.graph[:16]}.", AGAIN
        )
    return CheckedFeatures(path, expected, program)


def embedded(divided: Parts, features: CheckedFeatures, head: HeadFile, progress: Progress) -> dict[str, Embedded]:
    """Embeddings of each part: the integers that the network gave, for its real numbers are multiples of the head's scale."""
    engine = _engine(features, head.inputs)
    wanted = [(part, item) for part in ("train", "val", "test") for item in getattr(divided, part)]
    found = embed([item for _, item in wanted], features.program.preprocess, engine, progress=progress)
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


def _engine(features: CheckedFeatures, width: int) -> Engine:
    """One image after the other: ExecuTorch spreads each over the cores."""

    def one_by_one(images: Iterator[Image]) -> Iterator[Vector]:
        for image in images:
            (row,) = features.program.features(image[None])
            if row.shape != (width,):
                raise UnusableFile(f"{features.path} gives {row.size} numbers, the head takes {width}.", AGAIN)
            yield row

    return Engine(f"executorch-{version('executorch')} {features.sha256[:16]}", width, one_by_one)


def require_sum(path: Path, file: bytes, expected: str) -> None:
    """Raises UnusableFile where the content is not what the manifest says."""
    if (found := sha256(file).hexdigest()) != expected:
        raise UnusableFile(f"{path} has the SHA-256 {found[:16]}..., the package's {manifest.NAME} says {expected[:16]}...", AGAIN)
