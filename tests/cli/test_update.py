"""fit --update: photographs that came later move none of the old ones, here, in files that were exported, and on a device."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nestling.apart.runner import load as runner
from nestling.bundle import PARTS, Bundle, Part, load, save
from nestling.data.choose import scan_for
from nestling.data.folders import scan
from nestling.device.parts import parts
from nestling.embedding.refit import fit_settings
from nestling.measure.answers import known_split
from tests.helpers.commands import SMALL, Nestling

COLOURS = {"apple": (200, 40, 40), "lime ü": (60, 190, 60), "plum": (90, 40, 160), "kiwi": (120, 110, 40)}


def pictures(root: Path, counts: dict[str, int], seed: int) -> Path:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.clip(rng.normal(COLOURS[name], 25, (50, 60, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{seed}-{i:02}.png")
    return root


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The new ones alone: two of one class, which are all learned from, ten of another one, and a class that is new."""
    return pictures(tmp_path_factory.mktemp("later") / "came later", {"apple": 2, "plum": 10, "kiwi": 9}, 7)


@pytest.fixture(scope="module")
def all_of_them(photos: Path, later: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(photos, tmp_path_factory.mktemp("all") / "fruit")
    return shutil.copytree(later, root, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def updated(nestling: Nestling, bundle: Path, all_of_them: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("updated") / "more.nest"
    done = nestling("fit", all_of_them, "--update", bundle, "-o", out)
    return out, done.stderr + done.stdout


def parts_of(path: Path) -> dict[str, Part]:
    found = load(path).split
    assert found is not None
    return found.part_of()


def test_old_ones_keep_their_part_and_new_ones_are_divided_among_themselves(
    bundle: Path, updated: tuple[Path, str], later: Path, all_of_them: Path
) -> None:
    old, new = parts_of(bundle), parts_of(updated[0])
    assert {print_: new[print_] for print_ in old} == old
    came = scan(later)
    counts = {label: dict.fromkeys(PARTS, 0) for label in came.labels}
    for item in came.items:
        counts[came.labels[item.label]][new[item.fingerprint]] += 1
    assert counts == {
        "apple": {"train": 2, "val": 0, "test": 0},
        "kiwi": {"train": 5, "val": 2, "test": 2},
        "plum": {"train": 6, "val": 2, "test": 2},
    }
    assert len(new) == 60 + 21
    assert "21 photographs are new, with the classes kiwi; 60 keep their part" in updated[1]
    on_device = parts(all_of_them, load(bundle).labels, old, 0)  # with the split.csv of before: the same division
    assert {i.fingerprint: part for part in PARTS for i in getattr(on_device, part)} == new


def test_all_but_the_head_stays(bundle: Path, updated: tuple[Path, str]) -> None:
    before, after = load(bundle), load(updated[0])
    assert after.labels == ("apple", "kiwi", "lime ü", "plum") and after.head.weight.shape[0] == 4
    assert after.preprocess == before.preprocess and after.architecture == before.architecture
    assert all(np.array_equal(after.arrays[name], array) for name, array in before.arrays.items())
    assert [step.name for step in after.lineage] == ["fit", "update"]
    assert fit_settings(after)["views"] == "none"


def test_what_follows_sees_the_same_parts(
    nestling: Nestling, bundle: Path, updated: tuple[Path, str], all_of_them: Path, tmp_path: Path
) -> None:
    """The bundle, its integers, a file of it: of each `eval` takes the same test part, with the old one in it."""
    tests = {print_ for print_, part in parts_of(updated[0]).items() if part == "test"}
    assert {print_ for print_, part in parts_of(bundle).items() if part == "test"} < tests
    nestling("quantize", updated[0], "-o", tmp_path / "more8.nest")
    assert parts_of(tmp_path / "more8.nest") == parts_of(updated[0])
    nestling("export", tmp_path / "more8.nest", "--to", "tflite,onnx", "--precision", "int8", "-o", tmp_path / "out")
    out, dataset = tmp_path / "out", scan_for(load(updated[0]).labels, all_of_them)
    for model in (updated[0], tmp_path / "more8.nest", out / "more8-int8.tflite", out / "more8-int8.onnx"):
        said = json.loads(nestling("eval", model, all_of_them, "--json").stdout)
        assert said["images"] == len(tests) == 16 and "the test part, 16 images" in said["said"], model
        assert set(known_split(runner(model), dataset).test) == tests


def test_the_new_ones_alone_will_do_where_the_old_ones_still_are(
    nestling: Nestling, bundle: Path, updated: tuple[Path, str], later: Path, tmp_path: Path
) -> None:
    out = tmp_path / "more.nest"
    nestling("fit", later, "--update", bundle, "-o", out)
    assert parts_of(out) == parts_of(updated[0])
    # the same photographs in another order, so sums may round otherwise
    np.testing.assert_allclose(load(out).head.weight, load(updated[0]).head.weight, rtol=0, atol=1e-6)
    nestling("quantize", out, "-o", tmp_path / "more8.nest")  # finds both folders
    assert len(load(tmp_path / "more8.nest").yardstick.fingerprints) == 16
    again = pictures(tmp_path / "again", {"kiwi": 8}, 11)
    third = tmp_path / "third.nest"
    nestling("fit", again, "--update", out, "-o", third)
    assert len(parts_of(third)) == 89 and parts_of(updated[0]).items() <= parts_of(third).items()


def test_what_is_gone_is_said_and_keeps_its_part(nestling: Nestling, bundle: Path, all_of_them: Path, tmp_path: Path) -> None:
    root = shutil.copytree(all_of_them, tmp_path / "fewer")
    gone = next(path for path in (root / "apple").iterdir() if path.suffix == ".jpg")
    gone.unlink()
    orphan = tmp_path / "orphan.nest"
    save(without_folder(load(bundle)), orphan)
    done = nestling("fit", root, "--update", orphan, "-o", tmp_path / "a.nest", "--json")
    assert "1 photographs that it knew are not there any more" in done.stderr
    images = json.loads(done.stdout)["images"]
    assert sum(images.values()) == 80 and len(parts_of(tmp_path / "a.nest")) == 81
    only = pictures(tmp_path / "only new", {"apple": 6, "plum": 6}, 3)
    said = nestling("fit", only, "--update", orphan, "-o", tmp_path / "b.nest", status=1).stderr
    assert "none of the photographs" in said and "put the new ones into the folder with the old ones" in said


def without_folder(bundle: Bundle) -> Bundle:
    step = bundle.lineage[-1]
    return replace(bundle, lineage=(replace(step, settings={k: v for k, v in step.settings.items() if k != "folder"}),))


def test_classes_that_were_left_out_before_stay_out_unless_they_are_named(
    nestling: Nestling, photos: Path, all_of_them: Path, tmp_path: Path
) -> None:
    first = tmp_path / "two.nest"
    nestling("fit", photos, "-o", first, *SMALL, "--classes", "apple,plum")
    nestling("fit", all_of_them, "--update", first, "-o", tmp_path / "a.nest")
    assert load(tmp_path / "a.nest").labels == ("apple", "plum")
    nestling("fit", all_of_them, "--update", first, "-o", tmp_path / "b.nest", "--classes", "apple,plum,kiwi")
    assert load(tmp_path / "b.nest").labels == ("apple", "kiwi", "plum")


@pytest.mark.parametrize("words", [("--size", "96"), ("--backbone", "resnet18"), ("--seed", "0"), ("--views", "mirror")])
def test_what_the_bundle_says_itself_is_not_asked_for(
    nestling: Nestling, bundle: Path, photos: Path, words: tuple[str, str]
) -> None:
    assert f"leave out {words[0]}" in nestling("fit", photos, "--update", bundle, *words, status=2).stderr


def test_a_bundle_that_does_not_know_what_it_learned_from(nestling: Nestling, bundle: Path, photos: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.nest"
    save(replace(load(bundle), split=None), bare)
    said = nestling("fit", photos, "--update", bare, "-o", tmp_path / "a.nest", status=1).stderr
    assert "which photographs it learned from" in said and "--backbone" in said
