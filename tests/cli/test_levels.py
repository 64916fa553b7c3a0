"""Photographs of 16 bits and colour profiles, as a user meets them."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nestling.bundle import load
from nestling.preprocess.pictures import Reading
from tests.helpers.commands import SMALL, Nestling
from tests.helpers.made_pictures import png

Values = NDArray[np.uint16]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 10 pictures of a 12-bit camera in files of 16 bits, dark and less dark, and one with a broken profile."""
    root = tmp_path_factory.mktemp("deep") / "parts"
    rng = np.random.default_rng(0)
    for name, colour in (("bad", (900, 1500, 700)), ("good", (2900, 1500, 2200))):
        (root / name).mkdir(parents=True)
        for i in range(10):
            values = np.clip(rng.normal(colour, 300, (60, 80, 3)), 16, 3968).astype(np.uint16)
            (root / name / f"{i}.png").write_bytes(png(values if i % 2 else values[:, :, :1]))
    (root / "good" / "1.png").write_bytes(png(np.full((60, 80, 3), 3968, np.uint16)))
    Image.new("RGB", (80, 60), (180, 90, 140)).save(root / "good" / "odd.jpg", icc_profile=b"not a profile")
    return root


@pytest.fixture(scope="module")
def fitted(nestling: Nestling, deep: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("bundles") / "deep.nest"
    return path, nestling("fit", deep, "-o", path, *SMALL).stderr


def test_fit_finds_the_bits_says_so_and_records_them(fitted: tuple[Path, str]) -> None:
    path, said = fitted
    assert load(path).preprocess.reading == Reading(4095, "srgb")
    assert said.count("largest value in them 3968: taken as 12 bits") == 1 and "20 pictures" in said
    assert "1 picture with a colour profile that cannot be used" in said and "odd.jpg" in said


def test_predict_scales_as_the_training_did(nestling: Nestling, fitted: tuple[Path, str], deep: Path, tmp_path: Path) -> None:
    path, _ = fitted
    nestling("export", path, "--to", "onnx", "--precision", "fp32", "-o", tmp_path / "out")
    values = np.random.default_rng(5).integers(0, 4096, (60, 80, 3)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png(values))
    Image.fromarray(np.floor(values.astype(float) * 255 / 4095 + 0.5).astype(np.uint8)).save(tmp_path / "eight.png")
    for model in (path, tmp_path / "out" / "deep-fp32.onnx"):
        done = nestling("predict", model, tmp_path / "deep.png", tmp_path / "eight.png", "--json")
        one, same = json.loads(done.stdout)
        assert one["top"] == same["top"] and done.stderr == ""


def test_what_does_not_fit_is_said_when_asked(
    nestling: Nestling, fitted: tuple[Path, str], bundle: Path, deep: Path, tmp_path: Path
) -> None:
    bright = tmp_path / "bright.png"
    bright.write_bytes(png(np.full((60, 80, 1), 9000, np.uint16)))
    said = nestling("predict", fitted[0], bright).stderr
    assert "above 4095" in said and "9000" in said and "bright.png" in said
    said = nestling("predict", bundle, deep / "good" / "1.png").stderr  # a network of photographs of 8 bits
    assert "nearly black" in said and "3968" in said and "--levels 12" in said
    (tmp_path / "set" / "good").mkdir(parents=True)
    bright.rename(tmp_path / "set" / "good" / "bright.png")
    assert "9000" in nestling("eval", fitted[0], tmp_path / "set").stderr
    assert nestling("predict", bundle, deep / "good" / "odd.jpg").stderr.count("odd.jpg") == 1


@pytest.mark.parametrize(("levels", "white"), [("16", 65535), ("3000", 3000)])
def test_levels_may_be_given(nestling: Nestling, deep: Path, tmp_path: Path, levels: str, white: int) -> None:
    done = nestling("fit", deep, "-o", tmp_path / "a.nest", *SMALL, "--levels", levels)
    assert load(tmp_path / "a.nest").preprocess.reading.levels == white
    assert ("above 3000" in done.stderr) == (levels == "3000") and "taken as" not in done.stderr


def test_a_bundle_as_backbone_keeps_its_levels_where_there_is_nothing_to_tell_others(
    nestling: Nestling, fitted: tuple[Path, str], photos: Path, tmp_path: Path
) -> None:
    nestling("fit", photos, "-o", tmp_path / "a.nest", "--backbone", fitted[0])
    assert load(tmp_path / "a.nest").preprocess.reading.levels == 4095


def test_a_set_of_dark_and_bright_files_is_told_of(nestling: Nestling, deep: Path, tmp_path: Path) -> None:
    bright = np.random.default_rng(1).integers(0, 65536, (60, 80, 3)).astype(np.uint16)
    for name in ("bad", "good"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for path in (deep / name).glob("?.png"):
            (tmp_path / "set" / name / path.name).write_bytes(path.read_bytes())
        (tmp_path / "set" / name / "bright.png").write_bytes(png(bright if name == "bad" else bright[::-1]))
    said = nestling("fit", tmp_path / "set", "-o", tmp_path / "a.nest", *SMALL).stderr
    assert "20 of 22 pictures" in said and "nearly black" in said
    assert load(tmp_path / "a.nest").preprocess.reading.levels == 65535


@pytest.mark.parametrize("levels", ["7", "17", "254", "65536", "-12", "twelve", ""])
def test_other_levels_are_a_mistake(nestling: Nestling, deep: Path, levels: str) -> None:
    assert "8 to 16" in nestling("fit", deep, "--levels", levels, status=2).stderr
