"""Where -o must not write: over what is no file, and over somebody's other files. Asked before the work is done."""

import os
import stat
from pathlib import Path

import pytest

from tests.helpers.commands import SMALL, Nestling


@pytest.mark.parametrize("command", ["fit", "quantize", "report"])
def test_another_kind_of_file_is_not_overwritten(
    nestling: Nestling, photos: Path, bundle: Path, everything: Path, tmp_path: Path, command: str
) -> None:
    words = {"fit": (photos, *SMALL), "quantize": (bundle,), "report": (everything,)}[command]
    mine = tmp_path / "mine.jpg"
    mine.write_bytes((photos / "plum" / "00.jpg").read_bytes())
    done = nestling(command, *words, "-o", mine, status=1)
    assert "mine.jpg is there, and is not a" in done.stderr and "-o" in done.stderr
    assert "embedding" not in done.stderr and "calibrating" not in done.stderr
    assert mine.read_bytes() == (photos / "plum" / "00.jpg").read_bytes()


def test_a_pipe_or_a_device_stays_one(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.nest"
    os.mkfifo(pipe)
    for words in (("fit", photos, *SMALL), ("quantize", bundle)):
        assert "pipe.nest cannot be written: it is a pipe or a device" in nestling(*words, "-o", pipe, status=1).stderr
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_places_where_no_file_can_be(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    for place, why in ((tmp_path, "Is a directory"), (bundle / "x.nest", "Not a directory")):
        done = nestling("fit", photos, *SMALL, "-o", place, status=1)
        assert f"{place} cannot be written: {why}" in done.stderr and "embedding" not in done.stderr


def test_an_older_file_of_any_kind_is_replaced_where_its_name_says_bundle(
    nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.nest"
    old.write_bytes(b"damaged")
    nestling("fit", photos, *SMALL, "-o", old)
    assert old.read_bytes() == bundle.read_bytes()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 2**63])
def test_seeds_that_no_generator_takes_are_refused(nestling: Nestling, photos: Path, tmp_path: Path, seed: int) -> None:
    done = nestling("fit", photos, *SMALL, "--seed", seed, "-o", tmp_path / "x.nest", status=2)
    assert "--seed" in done.stderr and "report" not in done.stderr


def test_no_classes_are_not_all_of_them(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    assert "has no class ''" in nestling("fit", photos, *SMALL, "--classes", "", "-o", tmp_path / "x.nest", status=1).stderr
