import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestling.data.demo_set import ABOUT, elpv
from nestling.errors import NestlingError


def test_the_set_is_the_packages_own(tmp_path: Path) -> None:
    utils = pytest.importorskip("elpv_dataset.utils")
    folder = elpv(tmp_path)
    files = sorted(folder.glob("*/*.png"), key=lambda path: path.name)
    images, probabilities, _ = utils.load_dataset()
    assert len(files) == len(images) == 2624
    for path, image, probability in zip(files, images, probabilities, strict=True):
        assert path.parent.name == ("defective" if probability >= 0.5 else "good")
        if path.name.endswith("7.png"):
            np.testing.assert_array_equal(np.asarray(Image.open(path)), image)
    assert "CC BY-NC-SA 4.0" in ABOUT
    assert (folder / "README.txt").read_text(encoding="utf-8") == ABOUT
    assert [path.name for path in tmp_path.iterdir()] == ["elpv"]


def test_written_once_and_mended_where_files_are_missing(tmp_path: Path) -> None:
    pytest.importorskip("elpv_dataset")
    folder = elpv(tmp_path)
    first = folder.stat().st_ino
    assert elpv(tmp_path).stat().st_ino == first
    next(folder.glob("good/*.png")).unlink()
    assert len(list(elpv(tmp_path).glob("*/*.png"))) == 2624
    assert [path.name for path in tmp_path.iterdir()] == ["elpv"]


def test_interrupted_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("elpv_dataset")
    copied: list[object] = []

    def interrupted(*paths: object) -> None:
        copied.append(paths)
        if len(copied) == 100:
            raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        elpv(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NestlingError) as caught:
        elpv(tmp_path)
    assert "pip install 'nestling[demo]'" in caught.value.hint
