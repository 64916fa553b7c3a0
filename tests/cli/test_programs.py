"""export, predict, eval, agree and bench on small ExecuTorch programs."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from nestling import bundle as bundles
from nestling.errors import UnusableFile
from nestling.formats import load
from nestling.preprocess.image import load as load_image
from tests.helpers.commands import Nestling


def test_predict_needs_the_program_alone(nestling: Nestling, everything: Path, photos: Path, tmp_path: Path) -> None:
    alone = tmp_path / "x.pte"
    alone.write_bytes((everything / "fruit-int8.pte").read_bytes())
    files = [photos / "apple" / "00.jpg", photos / "lime ü" / "01.jpg", photos / "plum" / "02.jpg"]
    found = json.loads(nestling("predict", alone, *files, "--json").stdout)
    assert [row["label"] for row in found] == ["apple", "lime ü", "plum"]
    assert [row["image"] for row in found] == [str(file) for file in files]
    for row in found:
        assert row["top"][0] == [row["label"], row["probability"]] and sum(p for _, p in row["top"]) == pytest.approx(1, abs=1e-6)


def test_the_float_program_answers_as_timm_does(everything: Path, bundle: Path, photos: Path) -> None:
    """timm's own network (not made plain), its own preprocessing, and the bundle's numbers."""
    loaded = bundles.load(bundle)
    network = timm.create_model("mobilenetv2_050", num_classes=0).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in loaded.arrays.items()}, strict=False)
    config = timm.data.resolve_data_config({"input_size": (3, 64, 64)}, model=network)
    transform = timm.data.create_transform(**config)
    program = load(everything / "fruit-fp32.pte")
    for file in sorted(photos.glob("*/0*.jpg")):
        with torch.no_grad(), Image.open(file) as image:
            embedding = network(transform(image)[None])[0].numpy()
        expected = loaded.head.weight @ embedding + loaded.head.bias
        found = program(load_image(loaded.preprocess, file)[None])[0]
        assert np.abs(found - expected).max() <= 1e-3 * np.abs(expected).max()


def test_the_manifest_and_json_name_what_was_made(nestling: Nestling, everything: Path, bundle: Path, tmp_path: Path) -> None:
    entries = json.loads((everything / "manifest.json").read_text())["artifacts"]
    listed = [entry for entry in entries if entry["file"] in ("fruit-fp32.pte", "fruit-int8.pte")]
    assert len(listed) == 2
    for entry in listed:
        assert entry["bytes"] == (everything / entry["file"]).stat().st_size and 0.5 < entry["delegated"] <= 1
    assert listed[1]["bytes"] < 0.5 * listed[0]["bytes"]
    assert listed[0]["max_relative_difference"] < 1e-3


def test_eval_uses_the_test_part_and_says_so(nestling: Nestling, everything: Path, bundle: Path, photos: Path) -> None:
    for model in (bundle, everything / "fruit-int8.pte"):
        done = nestling("eval", model, photos, "--json")
        result = json.loads(done.stdout)
        assert "test part, 12 images" in done.stderr
        assert result["images"] == 12 and result["top1"] > 0.8
        assert np.sum(result["confusion"]) == 12 and result["labels"] == ["apple", "lime ü", "plum"]


def test_eval_says_when_it_cannot_tell(nestling: Nestling, everything: Path, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "plum").mkdir(parents=True)
    for i in range(4):
        (other / "plum" / f"{i}.jpg").write_bytes((photos / "plum" / f"{i:02}.jpg").read_bytes())
    done = nestling("eval", everything / "fruit-fp32.pte", other, "--json")
    assert "cannot be told" in done.stderr and json.loads(done.stdout)["images"] == 4


def test_agree_with_itself_and_with_its_small_one(nestling: Nestling, everything: Path, bundle: Path, photos: Path) -> None:
    same = json.loads(nestling("agree", bundle, everything / "fruit-fp32.pte", photos, "--json").stdout)
    assert same["agreement"] == 1 and same["images"] == 12
    other = json.loads(nestling("agree", bundle, everything / "fruit-int8.pte", photos, "--json").stdout)
    assert other["rms_logit_difference"] > 10 * same["rms_logit_difference"]


def test_bench_times_each_in_turn(nestling: Nestling, everything: Path) -> None:
    files = [everything / f"fruit-{precision}.pte" for precision in ("fp32", "int8")]
    rows = json.loads(nestling("bench", *files, "--json").stdout)["artifacts"]
    assert [row["file"] for row in rows] == ["fruit-fp32.pte", "fruit-int8.pte"]
    for row in rows:
        assert 0 < row["ms_median"] <= row["ms_p95"] and row["peak_memory_bytes"] > 0 and row["threads"] == 1


@pytest.mark.parametrize("damage", ["truncated", "other", "empty"])
def test_damaged_files_are_named(
    nestling: Nestling, everything: Path, bundle: Path, photos: Path, tmp_path: Path, damage: str
) -> None:
    for source in (bundle, everything / "fruit-fp32.pte"):
        content = source.read_bytes()
        broken = tmp_path / f"broken{source.suffix}"
        broken.write_bytes({"truncated": content[: len(content) // 2], "other": b"hello, world " * 100, "empty": b""}[damage])
        done = nestling("predict", broken, photos / "plum" / "00.jpg", status=1)
        assert broken.name in done.stderr and "error:" in done.stderr


def test_a_bundle_of_another_schema_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    content = bundle.read_bytes()
    old = tmp_path / "old.nest"
    old.write_bytes(content.replace(b'"schema":1', b'"schema":0'))
    with pytest.raises(UnusableFile, match=r"CRC|schema 0"):
        bundles.load(old)


def test_predict_names_an_image_that_cannot_be_read(nestling: Nestling, everything: Path, tmp_path: Path) -> None:
    (tmp_path / "note.jpg").write_text("no image")
    done = nestling("predict", everything / "fruit-fp32.pte", tmp_path / "note.jpg", status=1)
    assert "note.jpg" in done.stderr and "not an image" in done.stderr
