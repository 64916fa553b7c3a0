"""Parts and classes are told apart as people lay folders out, and asked about where they cannot be."""

from pathlib import Path

import pytest

from nestling.data.choose import scan_for
from nestling.data.folders import Dataset, require_enough, scan
from nestling.data.layout import part_of
from nestling.data.prepare import PrepareConfig, prepare
from nestling.data.split import split
from nestling.errors import UnusableData
from tests.helpers.layouts import LAYOUTS, lay_out


def read_as(dataset: Dataset) -> set[str]:
    """The class folders, each as PART/LABEL or LABEL."""
    return {f"{folder.part}/{folder.label}" if folder.part else folder.label for folder in dataset.folders}


@pytest.mark.parametrize("name", LAYOUTS)
def test_how_people_lay_folders_out(tmp_path: Path, name: str) -> None:
    folders, expected = LAYOUTS[name]
    lay_out(tmp_path / "photos", folders)
    if expected == "ask":
        with pytest.raises(UnusableData, match=r"cannot be told whether its folders are parts|holds one folder only"):
            scan(tmp_path / "photos")
    else:
        assert read_as(scan(tmp_path / "photos")) == set(expected.split(", "))


@pytest.mark.parametrize(
    ("name", "part", "sure"),
    [
        ("train", "train", True),
        ("TRAINING", "train", True),
        ("Dev", "val", True),
        ("Validation Set", "val", True),
        ("_test-set.", "test", True),
        ("evalset", "test", True),
        ("seg_train", "train", False),
        ("val2017", "val", False),
        ("test.images", "test", False),
        ("train_val", None, False),
        ("training_train", "train", False),
        ("trains", None, False),
        ("strain", None, False),
        ("set", None, False),
        ("tesť", None, False),
        ("", None, False),
    ],
)
def test_names_of_parts(name: str, part: str | None, sure: bool) -> None:
    assert part_of(name) == (part, sure)


def test_it_says_what_it_found_and_what_to_type(tmp_path: Path) -> None:
    lay_out(tmp_path, ("Train/a", "train/a", "train/b", "val/b", "more"))
    with pytest.raises(UnusableData) as caught:
        scan(tmp_path)
    assert "Train holds folders of images (a); more holds images; train holds folders of images (a, b)" in caught.value.message
    assert "--parts     reads Train and train as train, val as val; the classes are a, b; more left out" in caught.value.hint
    assert "--no-parts  reads every folder as a class: Train, more, train, val" in caught.value.hint


def test_the_person_settles_it(tmp_path: Path) -> None:
    lay_out(tmp_path, ("Train/a", "train/a", "train/b", "val/b", "more"))
    as_parts = scan(tmp_path, parts=True)
    assert read_as(as_parts) == {"train/a", "train/b", "val/b"}
    assert len(as_parts.items) == 4
    assert [(entry.path.name, "beside the parts Train, train, val" in entry.reason) for entry in as_parts.left_out] == [
        ("more", True)
    ]
    assert read_as(scan(tmp_path, parts=False)) == {"Train", "train", "val", "more"}
    with pytest.raises(UnusableData, match="has no parts"):
        scan(tmp_path / "more", parts=True)
    with pytest.raises(UnusableData, match="has no parts"):
        lay_out(tmp_path / "flat", ("train", "test"))
        scan(tmp_path / "flat", parts=True)


def test_classes_that_are_asked_for_settle_it(tmp_path: Path) -> None:
    lay_out(tmp_path, ("train/steam", "train/diesel", "bus", "car"))
    assert scan(tmp_path, ["train", "bus"]).labels == ("bus", "train")
    assert scan(tmp_path, ["steam", "diesel"]).labels == ("diesel", "steam")


def test_classes_that_the_network_knows_settle_it(tmp_path: Path) -> None:
    lay_out(tmp_path / "held back", ("Testing/a", "Testing/b"))
    assert read_as(scan_for(("b", "a"), tmp_path / "held back")) == {"test/a", "test/b"}
    lay_out(tmp_path / "vehicles", ("train/front", "train/side", "test/front", "test/side"))
    assert read_as(scan(tmp_path / "vehicles")) == {"train/front", "train/side", "test/front", "test/side"}
    assert read_as(scan_for(("test", "train"), tmp_path / "vehicles")) == {"train", "test"}
    lay_out(tmp_path / "of trains", ("train/train", "train/bus", "test/train", "test/bus"))
    assert read_as(scan_for(("bus", "train"), tmp_path / "of trains")) == {"train/train", "train/bus", "test/train", "test/bus"}
    lay_out(tmp_path / "archive", ("dataset/a", "dataset/b"))
    with pytest.raises(UnusableData, match="holds one folder only, dataset, and that one holds a, b"):
        scan_for(("a", "b"), tmp_path / "archive")
    with pytest.raises(UnusableData, match="rename them"):
        scan_for(("x", "y"), tmp_path / "held back")


def test_what_is_learned_from_are_the_classes(tmp_path: Path) -> None:
    lay_out(tmp_path, ("Training/a", "Training/b", "Testing/a", "Testing/b"), 6)
    dataset = scan(tmp_path)
    assert dataset.labels == ("a", "b")
    parts = split(dataset, 0)
    assert set(parts.test) == {item.fingerprint for item in dataset.items if "Testing" in item.path.parts}
    (tmp_path / "Testing" / "c").mkdir()
    with pytest.raises(UnusableData, match=r"Training holds no usable images of class 'c'") as caught:
        require_enough(scan(tmp_path))
    assert str(tmp_path / "Training" / "c") in caught.value.hint


def test_parts_without_train(tmp_path: Path) -> None:
    lay_out(tmp_path, ("val/a", "val/b", "test/a", "test/b"), 6)
    with pytest.raises(UnusableData, match="has the parts val and test, but no train to learn from"):
        require_enough(scan(tmp_path, parts=True))


def test_prepared_parts_are_called_as_the_device_knows_them(tmp_path: Path) -> None:
    lay_out(tmp_path / "photos", ("TRAIN/TRAIN/a", "TRAIN/TRAIN/b/deep", "Valid/a", "Valid/b", "more"))
    made = prepare(tmp_path / "photos", tmp_path / "out", config=PrepareConfig("bmp", least=1))
    assert {count.folder: count.written for count in made.counts} == {"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}
    assert [entry.path.name for entry in made.left_out] == ["more"]
    assert read_as(scan(tmp_path / "out")) == {"train/a", "train/b", "val/a", "val/b"}
    lay_out(tmp_path / "trains", ("train/steam", "train/diesel", "bus"))
    with pytest.raises(UnusableData, match="cannot be told"):
        prepare(tmp_path / "trains", tmp_path / "vehicles")
    prepare(tmp_path / "trains", tmp_path / "vehicles", config=PrepareConfig("bmp", least=1, parts=False))
    assert scan(tmp_path / "vehicles").labels == ("bus", "train")
