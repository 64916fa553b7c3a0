import hashlib
import os
import shutil
from pathlib import Path

import pytest

from nestling.data.folders import Dataset, fingerprint, require_enough, scan, without
from nestling.data.stream import stream
from nestling.errors import UnusableData
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.horrors import CLASSES, GOOD_EACH, USED, make_horrors, photograph

SMALL = ImagePreprocess((32, 32), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


def fill(folder: Path, count: int, seed: int) -> None:
    """`count` photographs whose contents are those of (seed, index) and nobody else's."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        photograph(1000 * seed + index, 0).save(folder / f"{index:03}.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos" / "bad", 6, 1)
    fill(tmp_path / "photos" / "good", 7, 2)
    return tmp_path / "photos"


def names(dataset: Dataset) -> list[str]:
    return [item.path.relative_to(dataset.root).as_posix() for item in dataset.items]


def reasons(dataset: Dataset) -> dict[str, str]:
    return {entry.path.relative_to(dataset.root).as_posix(): entry.reason for entry in dataset.left_out}


# ---- what is found -----------------------------------------------------------------------------------------------------------


def test_a_folder_a_class(photos: Path) -> None:
    dataset = scan(photos)
    assert dataset.labels == ("bad", "good")
    assert names(dataset) == [f"bad/{i:03}.png" for i in range(6)] + [f"good/{i:03}.png" for i in range(7)]
    assert [item.label for item in dataset.items] == [0] * 6 + [1] * 7
    assert {item.part for item in dataset.items} == {None}
    assert dataset.left_out == ()
    for item in dataset.items:
        assert item.fingerprint == hashlib.sha256(item.path.read_bytes()).hexdigest()[:16]
    require_enough(dataset)


def test_names_may_be_anything_on_one_line(tmp_path: Path) -> None:
    labels = ["with space", "ünïcode 猫", "cafe\u0301", "caf\u00e9", "-o", "{x}", "a,b"]
    for seed, label in enumerate(labels):
        fill(tmp_path / label, 5, seed)
    assert scan(tmp_path).labels == tuple(sorted(labels))


def test_a_line_break_in_a_class_name(photos: Path) -> None:
    fill(photos / "two\nlines", 5, 3)
    with pytest.raises(UnusableData, match="line break"):
        scan(photos)


def test_a_class_name_that_is_not_utf8(photos: Path) -> None:
    (photos / os.fsdecode(b"\xff")).mkdir()
    with pytest.raises(UnusableData, match="UTF-8"):
        scan(photos)


def test_content_counts_not_the_suffix(photos: Path) -> None:
    (photos / "good" / "000.png").rename(photos / "good" / "000.txt")
    (photos / "good" / "001.png").rename(photos / "good" / "no suffix")
    (photos / "good" / "list.csv").write_text("a,b\n")
    dataset = scan(photos)
    assert {"good/000.txt", "good/no suffix"} <= set(names(dataset))
    assert list(reasons(dataset)) == ["good/list.csv"]


def test_deep_files_are_found_and_hidden_ones_not(photos: Path) -> None:
    fill(photos / "good" / "monday" / "morning", 1, 5)
    fill(photos / "good" / ".cache", 1, 6)
    fill(photos / "__MACOSX" / "good", 1, 7)
    photograph(8, 0).save(photos / "good" / ".hidden.png")
    assert len(scan(photos).items) == 14
    assert "good/monday/morning/000.png" in names(scan(photos))


def test_only_some_classes(photos: Path) -> None:
    fill(photos / "ugly", 5, 3)
    assert scan(photos, ["ugly", "bad"]).labels == ("bad", "ugly")
    assert len(scan(photos, ["ugly", "bad"]).items) == 11
    with pytest.raises(UnusableData, match=r"no class 'nice'; it has 'bad', 'good', 'ugly'"):
        scan(photos, ["bad", "nice"])


@pytest.mark.parametrize(("val", "expected"), [("val", "val"), ("valid", "val"), ("validation", "val")])
def test_parts_given_by_folders(tmp_path: Path, val: str, expected: str) -> None:
    for seed, part in enumerate(("train", val, "test")):
        for label in ("a", "b"):
            fill(tmp_path / part / label, 3, 10 * seed + ord(label))
    (tmp_path / "README.md").write_text("about")
    dataset = scan(tmp_path)
    assert dataset.labels == ("a", "b")
    assert {item.path.relative_to(tmp_path).parts[0]: item.part for item in dataset.items} == {
        "train": "train",
        val: expected,
        "test": "test",
    }
    require_enough(dataset)


def test_vehicles_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "steam", 5, 1)
    fill(tmp_path / "bus", 5, 2)
    assert scan(tmp_path).labels == ("bus", "train")


# ---- copies ------------------------------------------------------------------------------------------------------------------


def test_a_photograph_in_two_classes_is_left_out_of_both(photos: Path) -> None:
    shutil.copy(photos / "good" / "003.png", photos / "bad" / "x.png")
    dataset = scan(photos)
    assert len(dataset.items) == 12
    assert reasons(dataset) == {
        "bad/x.png": "the same photograph is also in class good",
        "good/003.png": "the same photograph is also in class bad",
    }


def test_a_photograph_in_train_and_test_stays_in_test(tmp_path: Path) -> None:
    for seed, part in enumerate(("train", "val", "test")):
        for label in ("a", "b"):
            fill(tmp_path / part / label, 3, 10 * seed + ord(label))
    for part in ("train", "val"):
        shutil.copy(tmp_path / "test" / "a" / "000.png", tmp_path / part / "a" / "copy.png")
    dataset = scan(tmp_path)
    assert reasons(dataset) == {f"{part}/a/copy.png": "the same photograph is also in test" for part in ("train", "val")}
    assert "test/a/000.png" in names(dataset)


# ---- links -------------------------------------------------------------------------------------------------------------------


def test_links_to_files_and_folders_are_followed(photos: Path, tmp_path: Path) -> None:
    fill(tmp_path / "elsewhere" / "deep", 2, 9)
    photograph(99, 0).save(tmp_path / "one.png")
    (photos / "good" / "more").symlink_to(tmp_path / "elsewhere")
    (photos / "good" / "one.png").symlink_to(tmp_path / "one.png")
    (photos / "ugly").symlink_to(tmp_path / "elsewhere" / "deep")
    assert {"good/one.png"} <= set(names(scan(photos, ["bad", "good"])))
    assert len(scan(photos, ["bad", "good"]).items) == 16
    assert scan(photos).labels == ("bad", "good", "ugly")


@pytest.mark.parametrize("target", ["..", "../good", "../..", "."])
def test_loops_are_named_and_left(photos: Path, target: str) -> None:
    (photos / "good" / "loop").symlink_to(target, target_is_directory=True)
    dataset = scan(photos)
    assert len(dataset.items) == 13
    assert reasons(dataset) == {"good/loop": "a link back to a folder above it"}


def test_a_loop_among_the_class_folders(photos: Path) -> None:
    (photos / "zzz").symlink_to(".", target_is_directory=True)
    dataset = scan(photos)
    assert dataset.labels == ("bad", "good")
    assert list(reasons(dataset)) == ["zzz"]


def test_folders_that_link_to_each_other_are_read_once(photos: Path, tmp_path: Path) -> None:
    others = [tmp_path / "o" / str(i) for i in range(12)]
    for seed, folder in enumerate(others):
        fill(folder, 1, 20 + seed)
    for folder in others:
        for other in others:
            (folder / f"to {other.name}").symlink_to(other)
    (photos / "good" / "o").symlink_to(others[0])
    assert len(scan(photos).items) == 13 + 12


# ---- errors ------------------------------------------------------------------------------------------------------------------


def test_missing_empty_and_wrong_places(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(UnusableData, match="none does not exist"):
        scan(tmp_path / "none")
    with pytest.raises(UnusableData, match="is a file"):
        scan(photos / "good" / "000.png")
    with pytest.raises(UnusableData, match="good holds 7 usable images itself; expected a folder for each class"):
        scan(photos / "good")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnusableData, match="is empty"):
        scan(tmp_path / "empty")
    (tmp_path / "empty" / "good").mkdir()
    with pytest.raises(UnusableData, match="no usable image"):
        scan(tmp_path / "empty")
    (tmp_path / "empty" / "good" / "x.jpg").write_bytes(b"")
    with pytest.raises(UnusableData, match=r"no usable image. 1 left out, for example .*x\.jpg: empty, 0 bytes"):
        scan(tmp_path / "empty")


def test_one_class_only(photos: Path) -> None:
    with pytest.raises(UnusableData, match="one class only, 'good'"):
        require_enough(scan(photos, ["good"]))


def test_too_few_images_of_a_class(photos: Path) -> None:
    fill(photos / "ugly", 4, 3)
    shutil.copy(photos / "ugly" / "000.png", photos / "ugly" / "copy.png")
    with pytest.raises(UnusableData, match=r"ugly holds 4 usable images \(and 1 copies\); a class needs at least 5") as caught:
        require_enough(scan(photos))
    assert f"nestling fit {photos} --classes bad,good" in caught.value.hint


def test_too_few_since_they_are_also_in_another_class(photos: Path) -> None:
    for name in ("000.png", "001.png"):
        (photos / "tiny").mkdir(exist_ok=True)
        shutil.copy(photos / "good" / name, photos / "tiny")
    with pytest.raises(UnusableData, match=r"tiny holds no usable images; .* 2 left out, for example .*is also in class good"):
        require_enough(scan(photos))


def test_too_few_images_of_a_class_in_a_part(tmp_path: Path) -> None:
    for seed, (part, count) in enumerate({"train": 5, "test": 1}.items()):
        for label in ("a", "b"):
            fill(tmp_path / part / label, count, 10 * seed + ord(label))
    require_enough(scan(tmp_path))
    shutil.rmtree(tmp_path / "test" / "b")
    with pytest.raises(UnusableData, match="test holds no usable images of class 'b'"):
        require_enough(scan(tmp_path))


def test_images_beside_the_class_folders_are_named(photos: Path) -> None:
    photograph(77, 0).save(photos / "stray.png")
    (photos / "README.txt").write_text("about")
    assert reasons(scan(photos)) == {"stray.png": "beside the class folders, in none of them"}


# ---- the fingerprint of a set ------------------------------------------------------------------------------------------------


def test_fingerprint_is_of_contents_and_classes(photos: Path, tmp_path: Path) -> None:
    before = fingerprint(scan(photos))
    moved = tmp_path / "moved"
    shutil.copytree(photos, moved)
    (moved / "good" / "000.png").rename(moved / "good" / "zzz.png")
    assert fingerprint(scan(moved)) == before
    (moved / "good" / "zzz.png").rename(moved / "bad" / "zzz.png")
    assert fingerprint(scan(moved)) != before
    assert fingerprint(scan(photos, ["good"])) != before


# ---- all of it ---------------------------------------------------------------------------------------------------------------


def test_the_folder_of_horrors(tmp_path: Path) -> None:
    expected = make_horrors(tmp_path)
    dataset = scan(tmp_path)
    decoded = list(stream(dataset.items, SMALL, workers=2))
    dataset = without(dataset, [found for _, found in decoded if not hasattr(found, "shape")])
    assert dataset.labels == CLASSES
    assert len(dataset.items) == 2 * GOOD_EACH + USED
    found = reasons(dataset)
    assert found.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in found[path]
    assert len({item.fingerprint for item in dataset.items}) == len(dataset.items) - 1
    require_enough(dataset)
