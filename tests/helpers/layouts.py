"""Folders as people lay them out, and how they are to be read: for the reader in Python and the one in C."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from PIL import Image

# what lies where -> the folders that are classes, each as PART/LABEL or LABEL; "ask" where it cannot be told
LAYOUTS: dict[str, tuple[tuple[str, ...], str]] = {
    # parts, whatever they are called
    "plain": (("train/a", "train/b", "val/a", "val/b", "test/a", "test/b"), "train/a, train/b, val/a, val/b, test/a, test/b"),
    "long names": (("Training/a", "Training/b", "Testing/a", "Testing/b"), "train/a, train/b, test/a, test/b"),
    "capitals": (("Train/a", "Train/b", "Test/a", "Test/b"), "train/a, train/b, test/a, test/b"),
    "shouted": (("TRAIN/a", "TRAIN/b", "VALID/a", "VALID/b"), "train/a, train/b, val/a, val/b"),
    "dev, eval": (("training/a", "training/b", "dev/a", "dev/b", "eval/a"), "train/a, train/b, val/a, val/b, test/a"),
    "sets": (("training_set/a", "training_set/b", "Test Set/a", "Test Set/b"), "train/a, train/b, test/a, test/b"),
    "run together": (("trainset/a", "trainset/b", "valset/a", "valset/b"), "train/a, train/b, val/a, val/b"),
    "each wrapped": (("train/train/a", "train/train/b", "test/test/a", "test/test/b"), "train/a, train/b, test/a, test/b"),
    "train alone": (("Train/a", "Train/b"), "train/a, train/b"),
    "a test without classes": (("train/a", "train/b", "test"), "train/a, train/b"),
    "a class that test lacks": (("train/a", "train/b", "test/a"), "train/a, train/b, test/a"),
    "a photograph beside the classes": (("train/a", "train/b", "train", "test/a", "test/b"), "train/a, train/b, test/a, test/b"),
    "deep": (("train/a/1/2", "train/b/1", "test/a/3", "test/b"), "train/a, train/b, test/a, test/b"),
    # a third folder beside
    "unlabelled ones beside": (("train/a", "train/b", "test/a", "test/b", "unlabelled"), "train/a, train/b, test/a, test/b"),
    "the same classes beside": (("Train/a", "Train/b", "Test/a", "Test/b", "more/a", "more/b"), "train/a, train/b, test/a, test/b"),
    "no images beside": (("train/a", "train/b", "test/a", "annotations/notes.txt"), "train/a, train/b, test/a"),
    "an empty val": (("train/a", "train/b", "val/notes.txt"), "train/a, train/b"),
    # classes
    "classes": (("a", "b"), "a, b"),
    "vehicles": (("bus", "car", "train"), "bus, car, train"),
    "Vehicles": (("Bus", "Car", "Train"), "Bus, Car, Train"),
    "vehicles by day": (("bus/monday", "car/monday", "train/monday"), "bus, car, train"),
    "vehicles by kind": (("bus/city", "bus/coach", "car/van", "car/limousine", "train/steam", "train/diesel"), "bus, car, train"),
    "steam trains and buses": (("bus", "train/steam"), "bus, train"),
    "trains, some in folders": (("bus", "train", "train/steam", "train/diesel"), "bus, train"),
    "two kinds of trains": (("freight train", "passenger train"), "freight train, passenger train"),
    "two kinds of trains by day": (("new_train/1", "new_train/2", "old_train/1", "old_train/2"), "new_train, old_train"),
    "words in names": (("test tube", "train", "bus"), "bus, test tube, train"),
    "environments": (("dev", "test", "staging"), "dev, staging, test"),
    "one new class": (("train",), "train"),
    "test among others": (("control", "test/x", "test/y"), "control, test"),
    "not ASCII": (("träin/a", "träin/b", "tést/a", "tést/b"), "träin, tést"),
    "Kelvin, long s": (("teſt/a", "teſt/b", "train"), "teſt, train"),
    # it cannot be told
    "flat parts": (("train", "test"), "ask"),
    "flat parts and a third": (("train", "test", "sample"), "ask"),
    "flat images": (("train_images", "test_images"), "ask"),
    "other classes in test": (("train/a", "train/b", "test/c", "test/d"), "ask"),
    "other case in test": (("Training/Cats", "Training/Dogs", "Testing/cats", "Testing/dogs"), "ask"),
    "test alone": (("Testing/a", "Testing/b"), "ask"),
    "no train": (("val/a", "val/b", "test/a", "test/b"), "ask"),
    "two names of val": (("train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b"), "ask"),
    "two names of train": (("Train/a", "Train/b", "train/a", "train/b"), "ask"),
    "eval beside test": (("train/a", "train/b", "eval/a", "eval/b", "test/a", "test/b"), "ask"),
    "train and one beside": (("train/a", "train/b", "unlabelled"), "ask"),
    "train and bus": (("train/steam", "train/diesel", "bus"), "ask"),
    "all alike": (("bus/front", "bus/side", "train/front", "train/side"), "ask"),
    "test and the rest": (("learn/a", "learn/b", "test/a", "test/b"), "ask"),
    "names with more in them": (("seg_train/a", "seg_train/b", "seg_test/a", "seg_test/b", "seg_pred"), "ask"),
    "and wrapped": (("seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_test/seg_test/b"), "ask"),
    "years": (("train2017/a", "train2017/b", "val2017/a", "val2017/b"), "ask"),
    # one folder down
    "an archive": (("dataset/train/a", "dataset/train/b", "dataset/test/a", "dataset/test/b"), "ask"),
    "an archive's archive": (("data/set/train/a", "data/set/train/b", "data/set/test/a"), "ask"),
}  # fmt: skip


def lay_out(root: Path, folders: Iterable[str], each: int = 1, begin: int = 0) -> None:
    """Puts `each` photographs (BMP, no two alike) into each folder, and a note where a path ends in .txt."""
    count = begin
    for folder in folders:
        place = root / folder
        if folder.endswith(".txt"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("a list of things to do\n")
            continue
        place.mkdir(parents=True, exist_ok=True)
        for _ in range(each):
            (place / f"{count:04}.bmp").write_bytes(bmp(count))
            count += 1


def bmp(number: int) -> bytes:
    """3 x 2 pixels; another one for each number."""
    buffer = BytesIO()
    Image.frombytes("RGB", (3, 2), number.to_bytes(18, "little")).save(buffer, "BMP")
    return buffer.getvalue()
