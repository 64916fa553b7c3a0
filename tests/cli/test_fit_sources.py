"""nestling fit of a folder, an archive, a list and arrays; of sizes that are no squares; with another mean and std."""

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

import nestling as verbs
from nestling.bundle import load
from nestling.data.arrays import photographs
from nestling.errors import UnusableData
from nestling.models import recorded
from nestling.preprocess.image import table
from nestling.training.fit import FitConfig
from tests.helpers.commands import SMALL, Nestling

UNTAUGHT = SMALL[:4]  # without its size


def listed(photos: Path, to: Path, heading: bool) -> Path:
    with to.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerows([("file", "class")] * heading + [(path, path.parent.name) for path in sorted(photos.rglob("*.jpg"))])
    return to


def test_archives_and_lists_give_the_bundle_of_the_folder(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    """And what follows finds the photographs there, and of them the same test part."""
    with zipfile.ZipFile(tmp_path / "fruit.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(photos.rglob("*.jpg")):
            archive.write(path, f"fruit/{path.relative_to(photos)}")
    (tmp_path / "fruit.txt").write_text("".join(f"{path}\n" for path in sorted(photos.rglob("*.jpg"))))
    expected = load(bundle)
    assert expected.head is not None and expected.split is not None
    for source in (tmp_path / "fruit.zip", listed(photos, tmp_path / "fruit.csv", True), tmp_path / "fruit.txt"):
        out = tmp_path / f"{source.suffix[1:]}.nest"
        nestling("fit", source, "-o", out, *SMALL)
        made = load(out)
        assert (made.labels, made.split, made.lineage[-1].data) == (expected.labels, expected.split, expected.lineage[-1].data)
        np.testing.assert_array_equal(made.head.weight, expected.head.weight)
        said = json.loads(nestling("eval", bundle, source, "--json").stdout)
        assert said["images"] == len(expected.split.test)
    nestling("quantize", tmp_path / "zip.nest", "-o", tmp_path / "zip8.nest")
    assert len(load(tmp_path / "zip8.nest").yardstick.fingerprints) == len(expected.split.val)
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("path,label\na.jpg\n")
    assert "wrong.csv, line 2" in nestling("fit", wrong, "-o", tmp_path / "x.nest", *SMALL, status=1).stderr


def test_arrays_are_learned_as_files_of_the_same_pixels(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "cache"))
    files = sorted(photos.rglob("*.jpg"))
    images = np.stack([np.asarray(Image.open(path)) for path in files])
    labels = [path.parent.name for path in files]
    config = FitConfig("mobilenetv2_050", "none", (32, 64))
    fitted = verbs.fit(images, labels, config)
    assert fitted.images == {"train": 36, "val": 12, "test": 12, "left_out": 0} and fitted.test.top1 > 0.6
    other = verbs.fit(list(images), np.array(labels), config)  # type: ignore[arg-type]  # an array of names will do
    assert other.bundle.split == fitted.bundle.split
    np.testing.assert_array_equal(other.bundle.head.weight, fitted.bundle.head.weight)
    verbs.quantize(fitted.bundle, photographs(images, labels))
    with pytest.raises(UnusableData, match="names no folder"):
        verbs.quantize(fitted.bundle)
    with pytest.raises(UnusableData, match="need a label each"):
        verbs.fit(images)


# ---- height and width ----------------------------------------------------------------------------------------------------------


def test_a_size_that_is_no_square_goes_through_the_whole_chain(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    """Height before width: what each file takes is read by its runtime, what it answers compared with the network's."""
    out, integers = tmp_path / "a.nest", tmp_path / "a8.nest"
    nestling("fit", photos, "-o", out, *UNTAUGHT, "--size", "64x96")
    assert load(out).preprocess.size == (64, 96)
    nestling("quantize", out, "-o", integers)
    nestling("export", integers, "--to", "tflite,c", "--precision", "int8", "-o", tmp_path / "out")
    interpreter = Interpreter(str(tmp_path / "out" / "a8-int8.tflite"))
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 64, 96, 3]
    header = (tmp_path / "out" / "a8-c-host" / "nestling_model.h").read_text()
    assert "NESTLING_INPUT_HEIGHT 64\n" in header and "NESTLING_INPUT_WIDTH 96\n" in header
    said = json.loads(nestling("agree", integers, tmp_path / "out" / "a8-c-host", photos, "--json").stdout)
    assert said["agreement"] == 1


@pytest.mark.parametrize("size", ["64x", "x96", "64x96x3", "0", "64*96", "-64", "6.5"])
def test_what_is_no_size_is_a_mistake(nestling: Nestling, photos: Path, size: str) -> None:
    done = nestling("fit", photos, f"--size={size}", status=2)
    assert "--size is pixels" in done.stderr and "96x128" in done.stderr


def test_a_size_that_no_image_has_is_refused(nestling: Nestling, photos: Path) -> None:
    assert "not 5000" in nestling("fit", photos, *UNTAUGHT, "--size", "64x5000", status=1).stderr
    with pytest.warns(UserWarning, match="size 70x96 is not a multiple of 32; 64x96 would waste nothing"):
        assert recorded.preprocess_of("tf_efficientnet_lite0", (70, 96)).size == (70, 96)


# ---- mean and std --------------------------------------------------------------------------------------------------------------


def test_mean_and_std_are_those_that_the_weights_were_trained_with(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.nest"
    nestling("fit", photos, "-o", out, *SMALL, "--mean", "0.5", "--std", "0.2,0.25,0.5")
    preprocess = load(out).preprocess
    assert preprocess.mean == (0.5,) * 3 and preprocess.std == (0.2, 0.25, 0.5)
    expected = (np.arange(256) / 255 - 0.5) / np.array([[0.2], [0.25], [0.5]])
    np.testing.assert_allclose(table(preprocess), expected, rtol=1e-6, atol=1e-6)
    again = tmp_path / "again.nest"
    nestling("fit", photos, "-o", again, "--backbone", out)
    assert load(again).preprocess == preprocess


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--mean", "0.5"), 2, "belong together"),
        (("--mean", "0.5", "--std", "0"), 1, "std"),
        (("--mean", "1,2", "--std", "1"), 1, "mean"),
        (("--mean", "nan", "--std", "1"), 1, "mean"),
        (("--mean", "half", "--std", "1"), 2, "--mean is numbers"),
    ],
)
def test_a_mean_that_none_may_be_is_refused(
    nestling: Nestling, photos: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    assert said in nestling("fit", photos, *SMALL, *words, status=status).stderr
