import threading
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest

from nestling.data import stream as module
from nestling.data.folders import Item, LeftOut
from nestling.data.stream import AHEAD, stream
from nestling.preprocess.image import ImagePreprocess, load
from nestling.preprocess.room import Turn
from tests.helpers.horrors import photograph

SMALL = ImagePreprocess((32, 48), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


def some(folder: Path, count: int) -> list[Item]:
    items = [Item(folder / f"{index}.png", 0, f"{index:016x}") for index in range(count)]
    for index, item in enumerate(items):
        photograph(index, 0).save(item.path)
    return items


def test_every_image_comes_once_and_in_order(tmp_path: Path) -> None:
    items = some(tmp_path, 50)
    for workers in (1, 3):
        streamed = list(stream(items, SMALL, workers))
        assert [index for index, _ in streamed] == list(range(50))
        for item, (_, image) in zip(items, streamed, strict=True):
            np.testing.assert_array_equal(image, load(SMALL, item.path))


def test_what_cannot_be_decoded_comes_as_left_out(tmp_path: Path) -> None:
    items = some(tmp_path, 5)
    items[1].path.write_bytes(items[1].path.read_bytes()[:-200])
    items[3].path.unlink()
    streamed = [image for _, image in stream(items, SMALL, 2)]
    assert streamed[1] == LeftOut(items[1].path, "truncated")
    assert isinstance(streamed[3], LeftOut)
    assert "No such file" in streamed[3].reason
    assert sum(isinstance(image, np.ndarray) for image in streamed) == 3


def test_nothing_in_nothing_out() -> None:
    assert list(stream([], SMALL, 2)) == []


def test_look_ahead_is_bounded_and_ends_with_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = some(tmp_path, 1) * 500
    begun: list[Path] = []

    def counted(preprocess: ImagePreprocess, path: Path, turn: Turn) -> object:
        begun.append(path)
        return load(preprocess, path)

    monkeypatch.setattr(module, "try_load", counted)
    threads = threading.active_count()
    images = stream(items, SMALL, 2)
    for _ in range(10):
        next(images)
    assert 10 <= len(begun) <= 10 + 2 * AHEAD
    assert isinstance(images, Generator)
    images.close()
    after = len(begun)
    assert after <= 10 + 2 * AHEAD
    assert threading.active_count() == threads
