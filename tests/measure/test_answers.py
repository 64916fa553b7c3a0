"""Photographs are asked about once, whoever answers; a slow network answers for the first ones only."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from nestling.cli import show
from nestling.data.folders import scan
from nestling.measure import answers as module
from nestling.measure.answers import answers
from nestling.pages.page import Row
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.colour_photos import colour_photos

PREPROCESS = ImagePreprocess((8, 8), 3, 1.0, "bilinear", (0.0,) * 3, (1.0,) * 3)


class Clock:
    """Seconds that pass only while a network answers."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Mean:
    """Answers the mean of each colour."""

    clock: Clock
    seconds: float
    preprocess: ImagePreprocess = PREPROCESS
    labels: tuple[str, ...] = ("r", "g", "b")

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.clock.now += self.seconds * len(images)
        return images.mean((1, 2)).astype(np.float32)

    features = __call__


def test_a_slow_network_answers_for_the_first_photographs_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = scan(colour_photos(tmp_path, 16, 16)).items
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    monkeypatch.setattr(module, "CHUNK", 16)
    used, (quick, slow), left_out = answers([Mean(clock, 0.001), Mean(clock, 1.0)], items, most_seconds=17)
    assert used == items and not left_out and len(quick) == len(items) == 45
    np.testing.assert_array_equal(slow, quick[:32])  # one chunk takes 16 seconds, two are over


def test_the_table_says_on_how_many_a_slow_network_was_judged(capsys: pytest.CaptureFixture[str]) -> None:
    quick = Row("a.tflite", "tflite", "int8", "LiteRT", 1, 9, 0.9, (0.8, 1.0), 525, 1.0)
    show.networks([quick, replace(quick, file="a-c-host", images=192)])
    said = capsys.readouterr().err
    assert "a-c-host is slow here: it was judged on 192 of the 525 photographs" in said and "a.tflite is" not in said
