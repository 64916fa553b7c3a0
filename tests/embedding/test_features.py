"""Embeddings that are remembered: what is not one of this network's is computed again, whoever wrote it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.data.folders import Item
from nestling.embedding.cache import embed
from nestling.errors import NestlingError
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.horrors import photograph

SMALL = ImagePreprocess((16, 16), 3, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)


@dataclass(frozen=True)
class Means:
    """An engine whose embedding is the image's mean colour, times a factor."""

    factor: float = 1.0
    name: str = "means"
    width: int = 3

    def embed(self, images: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        return ((image.mean((0, 1)) * np.float32(self.factor)).astype(np.float32) for image in images)


def entry(*numbers: float) -> bytes:
    content = np.array(numbers, "<f4").tobytes()
    return struct.pack("<I", zlib.crc32(content)) + content


@pytest.mark.parametrize(
    "content",
    [entry(1, 2), entry(1, 2, 3, 4), entry(1), entry(), b"", b"\0" * 16, entry(1, np.nan, 3), entry(1, 2, np.inf), bytes(2**20)],
    ids=["shorter", "longer", "one", "none", "empty", "another checksum", "no number", "infinite", "much longer"],
)
def test_an_entry_that_is_none_of_this_network_is_computed_again(content: bytes, tmp_path: Path) -> None:
    items = [Item(tmp_path / f"{i}.png", 0, f"{i:016x}") for i in range(2)]
    for i, item in enumerate(items):
        photograph(i, 0).save(item.path)
    cache = tmp_path / "cache"
    first = embed(items, SMALL, Means(), cache=cache)
    assert first.computed == 2 and embed(items, SMALL, Means(), cache=cache).computed == 0
    (kept,) = [path for path in cache.rglob("*-as-is") if path.name.startswith(items[1].fingerprint)]
    right = kept.read_bytes()
    kept.write_bytes(content)
    again = embed(items, SMALL, Means(), cache=cache)
    assert again.computed == 1 and kept.read_bytes() == right
    np.testing.assert_array_equal(again.x, first.x)


def test_an_embedding_that_is_not_finite_is_not_learned_from(tmp_path: Path) -> None:
    item = Item(tmp_path / "a.png", 0, "0" * 16)
    photograph(0, 0).save(item.path)
    with pytest.raises(NestlingError, match=r"a\.png is not finite"):
        embed([item], SMALL, Means(np.inf), cache=tmp_path / "cache")
