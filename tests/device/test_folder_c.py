"""folder.c and split.c find and divide what nestling.data finds and divides; SHA-256 is hashlib's."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from nestling.bundle import PARTS
from nestling.data.folders import scan
from nestling.data.split import split
from nestling.data.walk import path_order
from nestling.device.parts import parts, read_split
from nestling.errors import UnusableData
from tests.device.runner_program import environment, program
from tests.helpers.layouts import LAYOUTS, lay_out

NAMES = st.sampled_from(("good", "bad", "ä b", "Z", "a-1", "日本", "x,y"))


@pytest.fixture(scope="module")
def lister(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("sanitized"), "list_folder.c")


@dataclass(frozen=True)
class Listing:
    """parts: part -> {(fingerprint, class, path)}; failed: the reason, "" where there is none."""

    classes: tuple[str, ...]
    parts: dict[str, set[tuple[str, str, str]]]
    left_out: set[str]
    failed: str


def listing(lister: Path, data: Path, split_csv: Path, seed: int, known: Iterable[str] = ()) -> Listing:
    command = [str(lister), str(data), str(split_csv), str(seed), *known]
    ended = subprocess.run(command, capture_output=True, env=environment(), check=False, encoding="utf-8", errors="surrogateescape")
    assert not ended.stderr, ended.stderr[:2000]
    rows = [line.split("\t") for line in ended.stdout.split("\n") if line]
    found: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
    for row in rows:
        if row[0] in PARTS:
            found[row[0]].add((row[1], row[2], row[3]))
    said = ended.stdout.split("failed\t")[1] if ended.returncode else ""
    return Listing(
        tuple(row[1] for row in rows if row[0] == "class"), found, {row[1] for row in rows if row[0] == "left out"}, said
    )


def picture(number: int) -> bytes:
    """A BMP; the same for the same number, so that copies happen."""
    with TemporaryDirectory() as place:
        file = Path(place) / "x.bmp"
        Image.fromarray(np.full((2, 3, 3), number % 251, np.uint8) + np.uint8(number // 251)).save(file)
        return file.read_bytes()


PICTURES = [picture(number) for number in range(60)]
HIDDEN = (".hidden/{}.bmp", ".{}.bmp", "__MACOSX/{}.bmp")
RAW = os.fsdecode(b"\xff\x80{}.bmp")  # a name that is not UTF-8
LOOSE = (
    "{}.bmp",
    "in/{}.bmp",
    "in/deep er/{}",
    "in-{}.bmp",
    "in {}.bmp",
    "in!/{}.bmp",
    "In/{}.bmp",
    "ü{}.bmp",
    "\ue000{}.bmp",
    "\U0001f600{}",
    RAW,
)
PATHS = st.sampled_from(LOOSE + HIDDEN)
FILES = st.lists(st.tuples(NAMES, PATHS, st.integers(0, 59), st.integers(0, 99)), min_size=1, max_size=120)


def expected_of(data: Path, known: dict[str, Any], seed: int) -> dict[str, set[tuple[str, str, str]]]:
    found = parts(data, (), known, seed)
    return {part: {(item.fingerprint, found.labels[item.label], str(item.path)) for item in getattr(found, part)} for part in PARTS}


def copies(first: str, second: str) -> Any:
    """One photograph twice in a class: which of the two is kept is a matter of the order of paths alone. It was chance that brought
    such a pair (and a processor that seemed to matter), so the pairs are named."""
    return example(files=[("good", first, 0, 0), ("good", second, 0, 0)], given_parts="", seed=0)


@settings(max_examples=120, deadline=None)
@copies("in/{}.bmp", "in-{}.bmp")
@copies("in/{}.bmp", "in {}.bmp")
@copies("in/{}.bmp", "in!/{}.bmp")
@copies("in/{}.bmp", "In/{}.bmp")
@copies("in/{}.bmp", "in/deep er/{}")
@copies(RAW, "ü{}.bmp")
@copies(RAW, "\ue000{}.bmp")
@copies(RAW, "\U0001f600{}")
@copies("\ue000{}.bmp", "\U0001f600{}")
@given(
    files=FILES,
    given_parts=st.sampled_from(("", "", "train,test", "train,valid", "train,val,test")),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_folder(lister: Path, files: list[tuple[str, str, int, int]], given_parts: str, seed: int) -> None:
    """Copies, photographs in two classes or two parts, hidden files, folders in folders, given parts; half of them in split.csv."""
    with TemporaryDirectory() as place:
        data, split_csv = Path(place) / "data", Path(place) / "split.csv"
        for number, (label, path, picture_number, name) in enumerate(files):
            names = given_parts.split(",") if given_parts else [""]
            file = data / names[number % len(names)] / label / path.format(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(PICTURES[picture_number])
            (file.parent / "notes.txt").write_text("no image")
        try:
            dataset = scan(data)
        except UnusableData:
            require_read_alike(lister, data)
            return
        prints = sorted({item.fingerprint for item in dataset.items})
        lines = [f"{print_},{PARTS[int(print_, 16) % 3]}" for print_ in prints if int(print_, 16) % 2]
        for content in ("", "\n".join(["fingerprint,part", *lines]) + "\n"):
            if content:
                split_csv.write_text(content)
            found = listing(lister, data, split_csv, seed)
            assert not found.failed and found.classes == dataset.labels
            assert dict(found.parts) == {k: v for k, v in expected_of(data, read_split(split_csv), seed).items() if v}
            assert {str(entry.path) for entry in dataset.left_out} == found.left_out


def require_read_alike(lister: Path, data: Path, known: tuple[str, ...] = ()) -> None:
    """Both find the same classes, photographs and what to leave out; or both refuse."""
    found = listing(lister, data, data / "no", 0, known)
    try:
        dataset = scan(data, known=known)
    except UnusableData as error:
        assert found.failed.split(":")[0].split(" holds")[0] == error.message.split(":")[0].split(" holds")[0]
        return
    assert not found.failed and found.classes == dataset.labels
    assert {str(entry.path) for entry in dataset.left_out} == found.left_out
    divided = parts(data, known, {}, 0)
    mine = {
        name: {(item.fingerprint, divided.labels[item.label], str(item.path)) for item in getattr(divided, name)} for name in PARTS
    }
    assert {name: found.parts.get(name, set()) for name in PARTS} == mine


@pytest.mark.parametrize("name", LAYOUTS)
def test_parts_and_classes_are_told_apart_alike(lister: Path, tmp_path: Path, name: str) -> None:
    """What data/test_layout.py says is right is what both do."""
    lay_out(tmp_path / "photos", LAYOUTS[name][0], 4)
    require_read_alike(lister, tmp_path / "photos")
    require_read_alike(lister, tmp_path / "photos", ("a", "b"))


TOP = st.sampled_from(
    ("train", "Train", "training_set", "val", "valid", "Test", "eval set", "seg_train", "test2", "bus", "car", "träin")
)
INNER = st.sampled_from(("a", "b", "c", "train", "bus"))


@settings(max_examples=100, deadline=None)
@given(
    folders=st.dictionaries(TOP, st.lists(st.one_of(st.just(""), INNER), min_size=1, max_size=3), min_size=1, max_size=4),
    wrapped=st.sampled_from(("", "set/", "set/of/")),
    deeper=st.sampled_from(("", "/again")),
    known=st.sampled_from(((), ("a", "b"), ("train", "bus"), ("set",))),
)
def test_any_layout(lister: Path, folders: dict[str, list[str]], wrapped: str, deeper: str, known: tuple[str, ...]) -> None:
    with TemporaryDirectory() as place:
        paths = [f"{wrapped}{top}/{name}{deeper if name else ''}".rstrip("/") for top, names in folders.items() for name in names]
        lay_out(Path(place) / "data", paths, 1)
        lay_out(Path(place) / "data", [f"{wrapped}notes/notes.txt"])
        require_read_alike(lister, Path(place) / "data", known)


def test_the_order_of_paths(lib: Any) -> None:
    """Folder by folder, each name by its bytes: what `LC_ALL=C sort` says of paths whose slashes come before every other byte."""
    names = [
        b"a",
        b"a-",
        b"a b",
        b"a\x01",
        b"A",
        b"b",
        b"\x7f",
        "ü".encode(),
        "\ue000".encode(),
        "\U0001f600".encode(),
        b"\x80",
        b"\xff",
    ]
    paths = [b"d/" + b"/".join(some) for n in (1, 2) for some in itertools.product(names, repeat=n)]
    wanted = sorted(paths, key=lambda path: path.replace(b"/", b"\0"))
    assert sorted(paths, key=lambda path: path_order(Path(os.fsdecode(path)))) == wanted
    for before, after in itertools.pairwise(wanted):
        assert lib.path_order(before, after) < 0 < lib.path_order(after, before) and lib.path_order(before, before) == 0


@settings(max_examples=60, deadline=None)
@given(counts=st.lists(st.integers(5, 40), min_size=2, max_size=4), seed=st.integers(0, 2**32))
def test_a_whole_data_set_is_divided_as_fit_does(lister: Path, counts: list[int], seed: int) -> None:
    with TemporaryDirectory() as place:
        data = Path(place) / "data"
        for label, count in enumerate(counts):
            (data / f"class{label}").mkdir(parents=True)
            for i in range(count):
                (data / f"class{label}" / f"{i}.bmp").write_bytes(PICTURES[i] + bytes([label]))
        expected = split(scan(data), seed)
        found = listing(lister, data, Path(place) / "split.csv", seed)
        for part in PARTS:
            assert {entry[0] for entry in found.parts[part]} == set(getattr(expected, part))


def test_fewer_than_three_of_a_class_are_all_learned_from(lister: Path, tmp_path: Path) -> None:
    for label, count in (("few", 2), ("three", 3)):
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(count):
            (tmp_path / "data" / label / f"{i}.bmp").write_bytes(PICTURES[i] + label.encode())
    found = listing(lister, tmp_path / "data", tmp_path / "split.csv", 5)
    assert sorted(entry[1] for entry in found.parts["train"]) == ["few", "few", "three"]
    assert [len(found.parts[part]) for part in PARTS] == [3, 1, 1]
    keys = {
        hashlib.sha256(f"5:{print_}".encode()).digest(): print_
        for print_ in (hashlib.sha256(PICTURES[i] + b"three").hexdigest()[:16] for i in range(3))
    }
    in_order = [keys[key] for key in sorted(keys)]
    assert [entry[0] for part in ("test", "val") for entry in found.parts[part]] == in_order[:2]


def test_links_are_followed_and_loops_are_not(lister: Path, tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for folder in (data / "a", data / "b", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / "1.bmp").write_bytes(PICTURES[1])
    (data / "a" / "2.bmp").write_bytes(PICTURES[2])
    (data / "a" / "link").symlink_to(elsewhere)
    (data / "b" / "3.bmp").write_bytes(PICTURES[3])
    (data / "b" / "up").symlink_to(data)
    (data / "b" / "round").symlink_to(data / "b")
    (data / "c").symlink_to(data)
    found = listing(lister, data, tmp_path / "no", 0)
    assert sorted(Path(entry[2]).name for entry in found.parts["train"]) == ["1.bmp", "2.bmp", "3.bmp"]
    assert {Path(path).name for path in found.left_out} == {"up", "round", "c"}


def test_links_out_of_the_folder_are_followed_alike(lister: Path, tmp_path: Path) -> None:
    """Where two links lead to one folder, the first by path is followed; one to a folder that the data lies in is not, whose other
    classes would come with it."""
    data, elsewhere = tmp_path / "above" / "data", tmp_path / "elsewhere"
    for place, number in ((data / "a" / "x" / "deep", 1), (data / "b", 2), (elsewhere, 3), (tmp_path / "above" / "other", 4)):
        place.mkdir(parents=True)
        (place / f"{number}.bmp").write_bytes(PICTURES[number])
    (data / "a" / "y").symlink_to(data / "a" / "x" / "deep")
    (data / "a" / "w").symlink_to(elsewhere)
    (data / "a" / "z").symlink_to(elsewhere)
    (data / "b" / "up").symlink_to(tmp_path / "above")
    (data / "b" / "beside").symlink_to(tmp_path / "above" / "other")
    dataset, found = scan(data), listing(lister, data, tmp_path / "no", 0)
    assert {entry[2] for entry in found.parts["train"]} == {str(item.path) for item in dataset.items}
    assert found.left_out == {str(entry.path) for entry in dataset.left_out} == {str(data / at) for at in ("a/y", "a/z", "b/up")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "does not begin with the line 'fingerprint,part'"),
        ("print,part\n", "does not begin"),
        ("fingerprint,part\n0123456789abcdef,train\n0123456789abcdeF,train\n", "line 3, is not a fingerprint"),
        ("fingerprint,part\n0123456789abcdef,training\n", "line 2, is not"),
        ("fingerprint,part\n0123456789abcde,val\n", "line 2, is not"),
        ("fingerprint,part\n0123456789abcdef;val\n", "line 2, is not"),
    ],
)
def test_a_split_csv_that_is_none_is_named(lister: Path, tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.bmp").write_bytes(PICTURES[0])
    (tmp_path / "split.csv").write_text(content)
    found = listing(lister, tmp_path / "data", tmp_path / "split.csv", 0)
    assert said in found.failed and "split.csv" in found.failed


def test_what_cannot_be_learned_from_is_said(lister: Path, tmp_path: Path) -> None:
    assert "does not exist" in listing(lister, tmp_path / "absent", tmp_path / "no", 0).failed
    (tmp_path / "empty").mkdir()
    assert "holds no usable image" in listing(lister, tmp_path / "empty", tmp_path / "no", 0).failed
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "1.bmp").write_bytes(PICTURES[0])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "data" / "a" / "2.jpg")
    said = listing(lister, tmp_path / "data", tmp_path / "no", 0).failed
    assert "2.jpg is a JPEG file" in said and f"nestling data prepare {tmp_path / 'data'} --format bmp -o" in said
    (tmp_path / "data" / "a" / "2.jpg").unlink()
    bad = bytes(tmp_path / "data") + b"/\xff\xfe"
    Path(bad.decode("utf-8", "surrogateescape")).mkdir()
    assert "is not UTF-8" in listing(lister, tmp_path / "data", tmp_path / "no", 0).failed


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=300), cut=st.integers(0, 300))
def test_sha256(lib: Any, content: bytes, cut: int) -> None:
    """Taken in in two pieces."""
    state, digest = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    lib.sha256_begin(state)
    for piece in (content[:cut], content[cut:]):
        lib.sha256_add(state, piece, ctypes.c_size_t(len(piece)))
    lib.sha256_end(state, digest)
    assert digest.raw == hashlib.sha256(content).digest()


@pytest.fixture(scope="module")
def lib(c_parts: Any) -> Any:
    return c_parts
