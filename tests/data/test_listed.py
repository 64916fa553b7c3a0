"""Lists of photographs: CSV as people and programs write it, and text files."""

import csv
from pathlib import Path

import pytest

from nestling.data.folders import Dataset, fingerprint, require_enough, scan
from nestling.errors import UnusableData
from tests.helpers.horrors import photograph


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folders that are the classes, for the folder to be held against; a blank and a comma in names."""
    for seed, name in enumerate(("bad, very", "good one")):
        (tmp_path / "all" / name).mkdir(parents=True)
        for index in range(6):
            photograph(100 * seed + index, 0).save(tmp_path / "all" / name / f"{index} x.png")
    return tmp_path / "all"


def rows(photos: Path) -> list[tuple[str, str]]:
    return [(path.relative_to(photos.parent).as_posix(), path.parent.name) for path in sorted(photos.rglob("*.png"))]


def same(found: Dataset, photos: Path) -> None:
    folder = scan(photos)
    assert found.labels == folder.labels and fingerprint(found) == fingerprint(folder)
    assert [item.path.resolve() for item in found.items] == [item.path.resolve() for item in folder.items]
    require_enough(found)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("heading", [(), ("path", "label"), ("Image Path", "Class")])
@pytest.mark.parametrize("form", ["utf-8", "utf-8-sig"])
def test_tables(photos: Path, delimiter: str, heading: tuple[str, ...], form: str) -> None:
    listed = photos.parent / "list.csv"
    with listed.open("w", newline="", encoding=form) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([heading] * bool(heading) + rows(photos) + [()])
    same(scan(listed), photos)


def test_other_columns_and_parts(photos: Path) -> None:
    listed = photos.parent / "list.csv"
    with listed.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "label", "split", "file"))
        for number, (path, label) in enumerate(rows(photos)):
            writer.writerow((number, label, ("train", "Validation", "test")[number % 3], path))
    found = scan(listed)
    parts = {item.path.name: item.part for item in found.items if found.labels[item.label] == "good one"}
    assert parts == {f"{i} x.png": ("train", "val", "test")[i % 3] for i in range(6)}
    assert {item.part for item in scan(listed, parts=False).items} == {None}


@pytest.mark.parametrize("labels", [True, False])
def test_lines(photos: Path, labels: bool) -> None:
    """Names with blanks are told apart from labels by which file there is."""
    if labels:
        for folder, name in (("bad, very", "bad"), ("good one", "good")):
            (photos / folder).rename(photos / name)
    listed = photos.parent / "list.txt"
    listed.write_text("".join(f"{path} {label}\n" if labels else f"{path}\n\n" for path, label in rows(photos)))
    same(scan(listed), photos)
    if labels:
        listed.write_text("".join(f"{path}\tthe {label}\n" for path, label in rows(photos)))
        assert scan(listed).labels == ("the bad", "the good")


def test_what_is_not_there_is_named_and_what_is_there_twice_counts_once(photos: Path) -> None:
    listed = photos.parent / "list.csv"
    whole = rows(photos)
    text = "".join(f'"{path}",{label.split()[0].strip(",")}\n' for path, label in [*whole, whole[0], ("all/none.png", "good")])
    listed.write_text(text + f'"{whole[-1][0]}",bad\n')
    found = scan(listed)
    left = {entry.path.name: entry.reason for entry in found.left_out}
    assert "No such file" in left["none.png"] and "also in class" in left["5 x.png"]
    assert len(found.items) == 11 and found.labels == ("bad", "good")
    assert scan(listed, ["good"]).labels == ("good",)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "path,label\na.png,good\nb.png\n", r"a.csv, line 3: expected `path,label`, found 1 columns"),
        ("a.csv", "a.png,good,1\n", r"a.csv, line 1: expected `path,label`"),
        ("a.csv", 'path,label\n"a.png,good\n', r"a.csv, line 2"),
        ("a.csv", "path,label,split\na.png,good,later\n", r"a.csv, line 2: 'later' is no part"),
        ("a.csv", "path,label,split\na.png,good,test\na.png,good,val\n", r"a.csv, line 3: .*a.png is in the part test already"),
        ("a.csv", "path,label\n", "names no photograph"),
        ("a.csv", "path,label\n\0,good\n", "line 2"),
        ("a.txt", "", "names no photograph"),
        ("a.txt", "a.png good\nb.png\n", r"a.txt, line 2: expected `path label`"),
        ("a.txt", "x/a.png\nb.png\n", r"a.txt, line 2: 'b.png' lies in no folder"),
        ("a.csv", "path,label\nnone.png,good\n", "holds no usable image. 1 left out, for example .*none.png"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    photograph(0, 0).save(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(UnusableData, match=said):
        scan(tmp_path / name)


def test_other_files_are_no_lists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\0")
    with pytest.raises(UnusableData, match="UTF-8"):
        scan(tmp_path / "a.csv")
    (tmp_path / "a.dat").write_text("a.png,good")
    with pytest.raises(UnusableData, match=r"is a file; expected a folder of photographs, a .zip, or a list"):
        scan(tmp_path / "a.dat")


def test_too_few_of_a_class_are_said_in_words_of_a_list(photos: Path) -> None:
    listed = photos.parent / "list.csv"
    listed.write_text("".join(f'"{path}","{label}"\n' for path, label in rows(photos)[:9]))
    with pytest.raises(UnusableData, match=r"class 'good one' in .*list.csv holds 3 usable images"):
        require_enough(scan(listed))
