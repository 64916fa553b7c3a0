"""A .zip is read as its folder would be, and nothing that it claims is believed. Judged by what zipfile unpacks."""

import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nestling.data.archive import MOST_BYTES
from nestling.data.folders import Dataset, LeftOut, fingerprint, require_enough, scan
from nestling.data.stream import stream
from nestling.errors import UnusableData
from nestling.preprocess.image import ImagePreprocess, load
from tests.helpers.horrors import photograph

SMALL = ImagePreprocess((32, 32), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(("bad", "good ü")):
        (tmp_path / "photos" / name / "deep").mkdir(parents=True)
        for index in range(6):
            photograph(100 * seed + index, 0).save(tmp_path / "photos" / name / f"{index}.png")
        photograph(100 * seed + 50, 0).save(tmp_path / "photos" / name / "deep" / "x.jpg")
    (tmp_path / "photos" / "good ü" / "notes.txt").write_text("things to do")
    return tmp_path / "photos"


def packed(folder: Path, to: Path, inside: str = "", method: int = zipfile.ZIP_DEFLATED, windows: bool = False) -> Path:
    with zipfile.ZipFile(to, "w", method) as archive:
        for path in sorted(folder.rglob("*")):
            name = f"{inside}{path.relative_to(folder).as_posix()}"
            archive.write(path, name.replace("/", "\\") if windows and path.is_file() else name)
        archive.writestr("__MACOSX/._photos", b"what macOS puts there")
    return to


def reasons(dataset: Dataset) -> dict[str, str]:
    return {entry.path.name: entry.reason for entry in dataset.left_out}


@pytest.mark.parametrize("inside", ["", "photos/", "my photos/2026/"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_it_is_read_as_its_folder_would_be(photos: Path, tmp_path: Path, inside: str, method: int) -> None:
    archive = packed(photos, tmp_path / "photos.zip", inside, method)
    before = sorted(tmp_path.rglob("*"))
    folder, found = scan(photos), scan(archive)
    require_enough(found)
    assert found.root == archive and found.labels == folder.labels and fingerprint(found) == fingerprint(folder)
    assert [(i.path.name, i.label, i.fingerprint) for i in found.items] == [
        (i.path.name, i.label, i.fingerprint) for i in folder.items
    ]
    assert all(item.path.is_relative_to(archive) for item in found.items)
    assert reasons(found) == reasons(folder) and "notes.txt" in reasons(found)
    for index, image in stream(found.items, SMALL, workers=2):
        np.testing.assert_array_equal(image, load(SMALL, folder.items[index].path))
    assert sorted(tmp_path.rglob("*")) == before  # nothing was unpacked


def test_names_with_backslashes_and_parts(photos: Path, tmp_path: Path) -> None:
    assert scan(packed(photos, tmp_path / "a.zip", windows=True)).labels == ("bad", "good ü")
    for part in ("train", "test"):
        shutil.copytree(photos, tmp_path / "parts" / part)
        for file in (tmp_path / "parts" / part).rglob("*.png"):
            file.write_bytes(file.read_bytes() + part.encode())  # else they were copies
    for inside in ("", "wrapped/"):
        found = scan(packed(tmp_path / "parts", tmp_path / "parts.zip", inside))
        assert found.labels == ("bad", "good ü") and {item.part for item in found.items} == {"train", "test"}


def test_without_class_folders_it_says_so(tmp_path: Path) -> None:
    photograph(0, 0).save(tmp_path / "one.png")
    for names, said in (((), "is empty"), (("one.png",), "expected a folder for each class")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.write(tmp_path / "one.png", name)
        with pytest.raises(UnusableData, match=said):
            scan(tmp_path / "a.zip")


# ---- what it claims ------------------------------------------------------------------------------------------------------------


def test_names_that_lead_out_are_nobodys_photographs(photos: Path, tmp_path: Path) -> None:
    archive = packed(photos, tmp_path / "a.zip")
    with zipfile.ZipFile(archive, "a") as opened:
        for name in (
            "../bad/out.png",
            "/bad/out.png",
            "bad/../../out.png",
            "bad//out.png",
            "\\bad\\out.png",
            "bad/" * 100 + "out.png",
        ):
            opened.writestr(zipfile.ZipInfo(name), (photos / "bad" / "0.png").read_bytes())
    assert not any("out.png" in str(item.path) for item in scan(archive).items)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "photos"]


def directory(content: bytearray, name: bytes) -> int:
    """Where the directory's entry of a member begins."""
    at = content.rindex(name) - 46
    assert content[at : at + 4] == b"PK\1\2"
    return at


def claim(field: int, form: str, value: int) -> Callable[[bytearray], None]:
    def change(content: bytearray) -> None:
        struct.pack_into(form, content, directory(content, b"bad/0.png") + field, value)

    return change


def damage(content: bytearray) -> None:
    content[content.index(b"bad/0.png") + 200] ^= 0x55


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (claim(8, "<H", 1), "encrypted"),
        (claim(10, "<H", 14), "method 14"),
        (claim(24, "<I", MOST_BYTES + 1), "1 GB is the most"),
        (claim(24, "<I", 900_000_000), "more bytes than can be in it"),
        (claim(24, "<I", 5), "its length or its checksum"),
        (claim(16, "<I", 1), "its length or its checksum"),
        (damage, "damaged"),
    ],
)
def test_a_member_that_is_not_as_it_says_is_left_out(
    photos: Path, tmp_path: Path, change: Callable[[bytearray], None], reason: str
) -> None:
    archive = packed(photos, tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    change(content)
    archive.write_bytes(content)
    found = scan(archive)
    assert reason in reasons(found)["0.png"] and len(found.items) == 13


def test_an_archive_whose_members_lie_over_one_another_is_refused(photos: Path, tmp_path: Path) -> None:
    content = bytearray(packed(photos, tmp_path / "a.zip").read_bytes())
    (one, two) = (struct.unpack_from("<I", content, directory(content, name) + 42)[0] for name in (b"bad/0.png", b"bad/1.png"))
    assert one < two
    struct.pack_into("<I", content, directory(content, b"bad/1.png") + 42, one)
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UnusableData, match="lies over"):
        scan(tmp_path / "a.zip")


def test_a_damaged_archive_is_an_error_or_leaves_files_out(photos: Path, tmp_path: Path) -> None:
    content = packed(photos, tmp_path / "a.zip").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        changed = bytearray(content[: random.integers(1, len(content))] if random.random() < 0.2 else content)
        for _ in range(random.integers(1, 30)):
            changed[random.integers(max(0, len(changed) - 2500), len(changed))] = random.integers(256)
        (tmp_path / "a.zip").write_bytes(changed)
        try:
            for _, image in stream(scan(tmp_path / "a.zip").items, SMALL, workers=1):
                assert isinstance(image, np.ndarray | LeftOut)
        except UnusableData:
            refused += 1
    assert 30 < refused < 150
