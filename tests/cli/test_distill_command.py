"""nestling distill, as a user types it."""

import json
from pathlib import Path

import pytest

from nestling.bundle import load
from tests.helpers.commands import Done, Nestling

QUICK = ("--epochs", 2, "--batch", 8, "--variations", 2)


@pytest.fixture(scope="module")
def student(nestling: Nestling, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("student") / "student.nest"
    nestling("fit", photos, "--backbone", "mobilenetv3_small_050", "--weights", "none", "--size", 32, "-o", path)
    return path


@pytest.fixture(scope="module")
def first(nestling: Nestling, photos: Path, bundle: Path, student: Path) -> tuple[Done, Path]:
    out = student.with_name("distilled.nest")
    return nestling("distill", student, photos, "--teacher", bundle, "-o", out, *QUICK, "--json"), out


def test_json_is_one_object_and_nothing_else(nestling: Nestling, photos: Path, bundle: Path, first: tuple[Done, Path]) -> None:
    done, out = first
    result = json.loads(done.stdout)
    of_all = {"bundle", "images", "top1", "interval", "majority", "majority_class", "one_answer", "seconds"}
    assert set(result) == {*of_all, "teacher", "teacher_val_top1"}
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0} and result["teacher"] == str(bundle)
    assert "asking the teacher (72)" in done.stderr
    assert json.loads(nestling("eval", out, photos, "--json").stdout)["top1"] == result["top1"]
    settings = load(out).lineage[-1].settings
    # random weights: the settings that are not named are those for learning from scratch
    assert settings["backbone_rate"] == 1 and settings["epochs"] == 2 and settings["teacher_val_top1"] == result["teacher_val_top1"]


def test_a_second_run_asks_nothing_and_says_what_is_next(
    nestling: Nestling, bundle: Path, student: Path, first: tuple[Done, Path], tmp_path: Path
) -> None:
    """The answers are those of the run before; the folder is the one that the bundle names."""
    done = nestling("distill", student, "--teacher", bundle, "-o", tmp_path / "again.nest", *QUICK, "--temperature", 2)
    assert "asking the teacher" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["epoch", "loss", "val", "top-1", "val", "loss", "seconds"]
    assert any(line.startswith(f"teacher     {bundle}, val top-1 ") for line in lines)
    assert lines[-1].startswith("next:  nestling export ")


def test_mistakes(nestling: Nestling, photos: Path, bundle: Path, student: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "distilled.nest")
    assert "--teacher is missing" in nestling("distill", student, photos, *out, status=2).stderr
    assert "nowhere.nest does not exist" in nestling("distill", student, photos, "--teacher", "nowhere.nest", *out, status=1).stderr
    assert "resnet51" in nestling("distill", student, photos, "--teacher", "resnet51", *out, status=1).stderr
    assert "--alpha" in nestling("distill", student, photos, "--teacher", bundle, *out, "--alpha", 2, status=2).stderr
