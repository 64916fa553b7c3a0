"""nestling fit, as a user types it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import SMALL, Nestling
from tests.helpers.horrors import CLASSES, make_horrors


def test_json_is_one_object_and_nothing_else(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    done = nestling("fit", photos, "-o", tmp_path / "a.nest", *SMALL, "--json", process=True)
    result = json.loads(done.stdout)
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0}
    assert result["top1"] > 0.8 and result["interval"][0] <= result["top1"] <= result["interval"][1]
    assert set(result["seconds"]) == {"scan", "embeddings", "head"}


def test_same_seed_same_bundle_byte_for_byte(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    """Also without the cache, so that what was embedded before cannot be what makes them equal."""
    again, fresh, other = (tmp_path / name for name in ("again.nest", "fresh.nest", "other.nest"))
    nestling("fit", photos, "-o", again, *SMALL)
    nestling("fit", photos, "-o", fresh, *SMALL, NESTLING_CACHE=str(tmp_path / "cache"), process=True)
    nestling("fit", photos, "-o", other, *SMALL, "--seed", 1)
    assert again.read_bytes() == bundle.read_bytes() == fresh.read_bytes()
    assert other.read_bytes() != bundle.read_bytes()


def test_a_folder_of_horrors(nestling: Nestling, tmp_path: Path) -> None:
    reasons = make_horrors(tmp_path / "photos")
    done = nestling("fit", tmp_path / "photos", "-o", tmp_path / "a.nest", *SMALL)
    for file, reason in reasons.items():
        line = next((line for line in done.stderr.splitlines() if file in line), None)
        assert line and reason in line, f"{file} is not named with its reason:\n{done.stderr}"
    assert CLASSES[1] in done.stdout
    strict = nestling("fit", tmp_path / "photos", "-o", tmp_path / "b.nest", *SMALL, "--strict", status=1)
    assert "truncated.jpg" in strict.stderr and "--strict" in strict.stderr and not (tmp_path / "b.nest").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("fit", "nowhere"), 1, "nowhere does not exist"),
        (("fit", ".", "--backbone", "mobilenetv9"), 1, "mobilenetv9"),
        (("fit",), 2, "'data'"),
        (("fit", ".", "--size", "big"), 2, "--size is pixels, 96, or"),
        (("fit", ".", "--views", "sideways"), 2, "none, mirror, flips"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_mistakes_on_the_command_line(nestling: Nestling, photos: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = nestling(*(str(photos) if word == "." else word for word in arguments), status=status)
    assert said in done.stderr and not done.stdout


def test_few_images_say_what_to_do(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in ("apple", "plum"):
        (few / name).mkdir(parents=True)
        for i in range(3 if name == "apple" else 9):
            (few / name / f"{i}.jpg").write_bytes((photos / name / f"{i:02}.jpg").read_bytes())
    done = nestling("fit", few, "-o", tmp_path / "a.nest", *SMALL, status=1)
    assert "holds 3" in done.stderr and "at least 5" in done.stderr and "add images" in done.stderr


def test_a_damaged_cache_entry_is_computed_again(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    nestling("fit", photos, "-o", tmp_path / "a.nest", *SMALL, NESTLING_CACHE=str(cache))
    entries = sorted(path for path in cache.rglob("*-as-is") if path.is_file())
    assert len(entries) == 60
    entries[0].write_bytes(entries[0].read_bytes()[:-5])
    damaged = bytearray(entries[1].read_bytes())
    damaged[20] ^= 0x10
    entries[1].write_bytes(damaged)
    entries[2].write_bytes(b"")
    done = nestling("fit", photos, "-o", tmp_path / "b.nest", *SMALL, NESTLING_CACHE=str(cache))
    assert "embedding" in done.stderr
    assert (tmp_path / "b.nest").read_bytes() == bundle.read_bytes()


def test_parts_by_other_names_and_a_question(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    """The classes are those inside; whoever asked knows what to type, and what was fitted so is read so again."""
    for part, chosen in (("Training", "*[0-6].jpg"), ("Testing", "*[7-9].jpg")):
        for label in ("apple", "plum"):
            (tmp_path / "fruit" / part / label).mkdir(parents=True)
            for file in (photos / label).glob(chosen):
                shutil.copy(file, tmp_path / "fruit" / part / label)
    out = tmp_path / "a.nest"
    result = json.loads(nestling("fit", tmp_path / "fruit", "-o", out, *SMALL, "--json").stdout)
    assert result["images"] == {"train": 20, "val": 8, "test": 12, "left_out": 0}
    assert json.loads(nestling("eval", out, tmp_path / "fruit", "--json").stdout)["labels"] == ["apple", "plum"]

    shutil.copytree(tmp_path / "fruit" / "Testing", tmp_path / "fruit" / "eval")
    asked = nestling("fit", tmp_path / "fruit", "-o", tmp_path / "b.nest", *SMALL, status=1)
    assert "Testing holds folders of images (apple, plum)" in asked.stderr and not (tmp_path / "b.nest").exists()
    assert "--parts " in asked.stderr and "--no-parts " in asked.stderr
    whole = json.loads(nestling("fit", tmp_path / "fruit", "-o", tmp_path / "b.nest", *SMALL, "--parts", "--json").stdout)
    assert whole["images"] == result["images"]
    assert json.loads(nestling("eval", tmp_path / "b.nest", tmp_path / "fruit", "--json").stdout)["labels"] == ["apple", "plum"]
    nestling("fit", tmp_path / "fruit", "-o", tmp_path / "c.nest", *SMALL, "--no-parts", status=1)  # every photograph is in two


def test_what_a_figure_leaves_open_is_said(nestling: Nestling, tmp_path: Path) -> None:
    """One picture but for a pixel, in three classes of 30, 9 and 5: whoever learns from it says the largest class, always."""
    for label, count in (("a", 30), ("b", 9), ("c", 5)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(count):
            pixels = np.full((64, 64, 3), 128, np.uint8)
            pixels[0, i, "abc".index(label)] = 129
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{i:02}.png")
    for name in ("copy.png", "deep/copy.png"):
        (tmp_path / "photos" / "a" / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "photos" / "a" / "00.png", tmp_path / "photos" / "a" / name)
    out = tmp_path / "a.nest"
    done = nestling("fit", tmp_path / "photos", "-o", out, *SMALL)
    assert "test top-1  66.7% [35.4, 87.9]; always answering a: 66.7%" in done.stdout
    assert "answers 'a' for every photograph of the validation part" in done.stderr
    assert "fewer than 5 test photographs of 'b', 'c'" in done.stderr and "--balanced" in done.stderr
    twice = next(line for line in done.stderr.splitlines() if " = " in line)
    assert [Path(file).name for file in twice.split(" = ")] == ["00.png", "copy.png", "copy.png"]
    table = done.stdout.partition("confusions")[0].splitlines()
    rows = {words[0]: words[1:] for line in table if (words := line.replace("│", " ").split())[:1] in (["a"], ["b"], ["c"])}
    assert rows == {"a": ["66.7%", "100.0%", "[61,", "100]", "6"], "b": ["-", "-", "2"], "c": ["-", "-", "1"]}

    result = json.loads(nestling("fit", tmp_path / "photos", "-o", out, *SMALL, "--json").stdout)
    assert (result["majority"], result["majority_class"], result["one_answer"]) == (result["top1"], "a", "a")
    assert len(result["warnings"]) == 3 and [len(files) for files in result["copies"]] == [3]
    evaluated = json.loads(nestling("eval", out, tmp_path / "photos", "--json").stdout)
    assert [row["recall"] for row in evaluated["per_class"]] == [1, None, None]
    assert evaluated["majority"] == evaluated["top1"] and evaluated["per_class"][2]["recall_interval"][1] < 1
    quantized = nestling("quantize", out, "-o", tmp_path / "a8.nest", "--json")
    assert json.loads(quantized.stdout)["one_answer"] == "a" and "the int8 network answers 'a' for every" in quantized.stderr
    assert "the int8 network answers 'a'" in nestling("export", out, "--to", "tflite", "-o", tmp_path / "out").stderr
    balanced = nestling("fit", tmp_path / "photos", "-o", out, *SMALL, "--balanced")
    assert "let each class weigh the same" not in balanced.stderr


def test_a_backbone_that_cannot_be_quantised_is_told_of_at_once(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    """Before a photograph is looked at; what is to be typed next is what is left."""
    mine, fine = tmp_path / "mine.nest", tmp_path / "fine.nest"
    begun = nestling("fit", photos, "--backbone", "test_convnext", "--weights", "none", "--size", 32, "-o", mine)
    lines = begun.stderr.splitlines()
    assert lines[0].startswith("warning: test_convnext") and "layer_norm (layer stem.1)" in lines[0], lines
    assert "fp32 .pte" in lines[0] and "nestling backbones" in lines[0]
    assert "--precision fp32" in begun.stdout and "int8" not in begun.stdout
    for command in (("finetune",), ("distill", "--teacher", mine)):
        done = nestling(command[0], mine, photos, *command[1:], "--epochs", 1, "--blocks", 0, "-o", fine)
        assert done.stderr.splitlines()[0].startswith("warning: test_convnext"), done.stderr
        assert "--precision fp32" in done.stdout
    said = json.loads(nestling("backbones", "test_convnext", "resnet18", "--json").stdout)
    assert [row["formats"] for row in said] == ["fp32 .pte", "all"] and "layer_norm" in said[0]["lacking"]
