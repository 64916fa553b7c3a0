"""Class folders from a list: what is written, counted, named and refused. Pillow and hashlib judge."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import nestling.files
from nestling.cli.data import app
from nestling.data import prepare as module
from nestling.data.folders import scan
from nestling.data.prepare import Count, PrepareConfig, prepare
from nestling.data.prepare_lists import folder_name, read_list, read_names
from nestling.errors import UnusableData, WrongOption
from nestling.temporary import NEW
from nestling.words import SavedAs
from tests.helpers.made_pictures import png, rgb_profile

NAMES = "/a/airfield 0\n/a/apartment_building/outdoor 8\n/z/zen_garden 364\n"
LIST = """sky.jpg 0
grey.jpg 0
grass.png 8
tiny.png 8
half.jpg 8
empty.jpg 8
missing.jpg 8
sub folder/tall.bmp 8
turned.jpg 364
not wanted.jpg 5
"""


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "val"
    (root / "sub folder").mkdir(parents=True)
    Image.fromarray(noise(60, 80)).save(root / "sky.jpg")
    Image.fromarray(noise(50, 70, 1)).convert("L").save(root / "grey.jpg")
    Image.fromarray(noise(64, 48, 2)).save(root / "grass.png")
    Image.fromarray(noise(31, 90, 3)).save(root / "tiny.png")
    whole = (root / "sky.jpg").read_bytes()
    (root / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.jpg").write_bytes(b"")
    Image.fromarray(noise(90, 40, 4)).save(root / "sub folder" / "tall.bmp")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(noise(40, 70, 5)).save(root / "turned.jpg", exif=exif, quality=100, subsampling=0)
    Image.fromarray(noise(40, 40, 6)).save(root / "not wanted.jpg")
    (tmp_path / "list.txt").write_text(LIST)
    (tmp_path / "names.txt").write_text(NAMES + "/b/beach 5\n")
    return root


WANTED = ("airfield", "apartment_building-outdoor", "/z/zen_garden")


def made(source: Path, out: str = "out", listed: str = "list.txt", **settings: object) -> module.Prepared:
    beside = source.parent
    config = PrepareConfig(**({"classes": WANTED} | settings))  # type: ignore[arg-type]  # the case's own settings
    return prepare(source, beside / out, beside / listed, beside / "names.txt", config)


def files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_counts_are_right_and_what_is_left_out_is_named(source: Path) -> None:
    done = made(source)
    assert done.counts == (
        Count("airfield", 2, 2, 1, 0, 0, 0, 0),
        Count("apartment_building-outdoor", 6, 2, 0, 1, 2, 1, 0),
        Count("zen_garden", 1, 1, 0, 0, 0, 0, 0),
    )
    reasons = {entry.path.name: entry.reason for entry in done.left_out}
    assert set(reasons) == {"tiny.png", "half.jpg", "empty.jpg", "missing.jpg"}
    assert reasons["tiny.png"] == "tiny: 90 x 31 pixels" and reasons["missing.jpg"] == "missing"
    assert "truncated" in reasons["half.jpg"] and "0 bytes" in reasons["empty.jpg"]
    assert done.written == 5 == len(scan(done.folder).items)
    assert {item.path.relative_to(done.folder).as_posix() for item in scan(done.folder).items} == {
        "airfield/sky.jpg",
        "airfield/grey.jpg",
        "apartment_building-outdoor/grass.jpg",
        "apartment_building-outdoor/sub folder-tall.jpg",
        "zen_garden/turned.jpg",
    }


@pytest.mark.parametrize("form", ["jpg", "bmp", "png"])
def test_each_image_is_the_middle_square_upright_in_three_channels(source: Path, form: SavedAs) -> None:
    out = made(source, format=form).folder
    for path in out.rglob(f"*.{form}"):
        with Image.open(path) as image:
            assert image.format == {"jpg": "JPEG", "bmp": "BMP", "png": "PNG"}[form]
            assert image.mode == "RGB" and image.width == image.height
    grey = np.asarray(Image.open(out / "airfield" / f"grey.{form}"))
    assert grey.shape == (50, 50, 3) and np.ptp(grey, axis=2).max() == 0
    if form == "jpg":
        return
    assert np.array_equal(np.asarray(Image.open(out / "apartment_building-outdoor" / f"grass.{form}")), noise(64, 48, 2)[8:56])
    with Image.open(source / "turned.jpg") as image:
        upright = np.rot90(np.asarray(image), -1)  # EXIF 6: to be turned clockwise by a quarter
    assert np.array_equal(np.asarray(Image.open(out / "zen_garden" / f"turned.{form}")), upright[15:55])


def test_sixteen_bits_and_profiles_become_eight_bits_of_srgb(tmp_path: Path) -> None:
    """All that a device can do with a picture is what stands in the BMP."""
    values = np.random.default_rng(3).integers(0, 3969, (40, 40, 3)).astype(np.uint16)
    values[0, 0] = 3968
    profile = rgb_profile(np.diag([0.9642, 1.0, 0.8249])[:, [2, 0, 1]], 1.0)
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
    (tmp_path / "in" / "a" / "deep.png").write_bytes(png(values))
    written: dict[str, dict[str, Any]] = {"profile": {"icc_profile": profile}, "odd": {"icc_profile": b"odd"}, "plain": {}}
    for stem, options in written.items():
        Image.fromarray(noise(40, 40)).save(tmp_path / "in" / "a" / f"{stem}.png", **options)
    Image.fromarray(noise(40, 40, 9)).save(tmp_path / "in" / "b" / "other.png")
    done = prepare(tmp_path / "in", tmp_path / "out", config=PrepareConfig("bmp"))
    deep, converted, odd, plain = (
        np.asarray(Image.open(tmp_path / "out" / "a" / f"{stem}.bmp")) for stem in ("deep", "profile", "odd", "plain")
    )
    np.testing.assert_array_equal(deep, np.floor(values.astype(float) * 255 / 4095 + 0.5))
    np.testing.assert_array_equal(plain, noise(40, 40))
    np.testing.assert_array_equal(odd, plain)
    assert np.abs(converted.astype(int) - plain).max() > 20
    assert [line for line in done.said if "3968" in line and "12 bits" in line]
    assert [line for line in done.said if "profile that cannot be used" in line and "odd.png" in line]
    brighter = prepare(tmp_path / "in", tmp_path / "more", config=PrepareConfig("png", levels=2000))
    deep = np.asarray(Image.open(tmp_path / "more" / "a" / "deep.png"))
    np.testing.assert_array_equal(deep, np.floor(np.minimum(values, 2000).astype(float) * 255 / 2000 + 0.5))
    assert [line for line in brighter.said if "above 2000" in line]


def test_size_resizes_as_pillow_does(source: Path) -> None:
    out = made(source, format="bmp", size=24).folder
    square = Image.fromarray(noise(64, 48, 2)[8:56]).resize((24, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(Image.open(out / "apartment_building-outdoor" / "grass.bmp")), np.asarray(square))


def test_tiny_ones_are_kept_and_named_where_that_is_asked_for(source: Path) -> None:
    done = made(source, keep_tiny=True)
    assert [entry.path.name for entry in done.kept_tiny] == ["tiny.png"] and "kept" in done.kept_tiny[0].reason
    assert (done.folder / "apartment_building-outdoor" / "tiny.jpg").exists() and done.counts[1].tiny == 0
    lower = made(source, "lower", least=31)
    assert not lower.kept_tiny and (lower.folder / "apartment_building-outdoor" / "tiny.jpg").exists()


def test_without_a_list_class_folders_are_converted(source: Path, tmp_path: Path) -> None:
    by_list = made(source, format="png").folder
    (by_list / "airfield" / "inner").mkdir()
    Image.fromarray(noise(33, 33, 9)).save(by_list / "airfield" / "inner" / "sky.png")
    Image.fromarray(noise(33, 33, 10)).save(by_list / "airfield" / "SKY.bmp")
    (by_list / "airfield" / "notes.txt").write_text("no image")
    done = prepare(by_list, tmp_path / "again", config=PrepareConfig(format="bmp"))
    assert (done.counts[0].folder, done.counts[0].written) == ("airfield", 4)
    assert [(entry.path.name, done.counts[0].broken) for entry in done.left_out] == [("notes.txt", 1)]
    names = {path.name.casefold() for path in (done.folder / "airfield").iterdir()}
    assert names == {"sky.bmp", "sky-2.bmp", "inner-sky.bmp", "grey.bmp"}
    pixels = np.asarray(Image.open(done.folder / "airfield" / "inner-sky.bmp"))
    assert np.array_equal(pixels, noise(33, 33, 9))


def test_given_parts_stay(tmp_path: Path) -> None:
    for seed, folder in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / "parted" / folder).mkdir(parents=True)
        Image.fromarray(noise(40, 40, seed)).save(tmp_path / "parted" / folder / "x.png")
    done = prepare(tmp_path / "parted", tmp_path / "out")
    assert set(files(done.folder)) == {".prepared.json", "train/a/x.jpg", "train/b/x.jpg", "test/a/x.jpg", "test/b/x.jpg"}
    assert {item.part for item in scan(done.folder).items} == {"train", "test"}


@pytest.mark.parametrize("path", ["../secret.jpg", "a/../../secret.jpg", "/etc/secret.jpg", "sub folder/../../secret.jpg"])
def test_a_path_that_leads_out_is_refused(source: Path, path: str) -> None:
    Image.fromarray(noise(40, 40)).save(source.parent / "secret.jpg")
    (source.parent / "hostile.txt").write_text(f"sky.jpg 0\n{path} 0\n")
    with pytest.raises(UnusableData, match=r"hostile.txt, line 2.*leads out"):
        made(source, listed="hostile.txt", classes=None)
    assert not (source.parent / "out").exists()


def test_strip_takes_leading_parts_away(source: Path) -> None:
    (source.parent / "deep.txt").write_text("/data/val/sky.jpg 0\n/data/val/sub folder/tall.bmp\t8\n\n")
    done = made(source, listed="deep.txt", strip=3, classes=None)
    assert done.written == 2
    with pytest.raises(UnusableData, match="leads out"):
        made(source, "other", listed="deep.txt", strip=9, classes=None)


@pytest.mark.parametrize("name", ["..", "/", ".hidden", "a\x07b"])
def test_a_class_that_can_be_no_folder_is_refused(source: Path, name: str) -> None:
    (source.parent / "names.txt").write_text(f"{name} 0\n")
    (source.parent / "one.txt").write_text("sky.jpg 0\n")
    with pytest.raises(UnusableData, match=r"one.txt, line 1.*folder"):
        made(source, listed="one.txt", classes=None)
    assert sorted(path.name for path in source.parent.iterdir()) == ["list.txt", "names.txt", "one.txt", "val"]


@pytest.mark.parametrize(
    ("listed", "names", "match"),
    [
        ("sky.jpg\n", NAMES, r"line 1: expected `path label`"),
        ("sky.jpg 7\n", NAMES, r"line 1: '7' has no name"),
        ("sky.jpg 0\n", "/a/airfield zero\n", r"names.txt, line 1"),
        ("sky.jpg 0\n", "/a/airfield 0\n/b/beach 0\n", r"names.txt, line 2: 0 has a name already"),
        ("sky.jpg 0\ngrey.jpg 1\n", "/h/hall/in 0\nhall-in 1\n", r"line 2.*both be in the folder hall-in"),
        ("\n\n", NAMES, "empty"),
    ],
)
def test_a_wrong_line_is_named(source: Path, listed: str, names: str, match: str) -> None:
    (source.parent / "l.txt").write_text(listed)
    (source.parent / "names.txt").write_text(names)
    with pytest.raises(UnusableData, match=match):
        made(source, listed="l.txt", classes=None)


def test_names_of_classes_are_those_of_places365() -> None:
    assert folder_name("/a/airfield") == "airfield"
    assert folder_name("/a/apartment_building/outdoor") == "apartment_building-outdoor"
    assert folder_name("n01440764") == "n01440764" and folder_name("tench") == "tench" and folder_name("x/yes") == "x-yes"


def test_an_unknown_class_names_the_nearest(source: Path) -> None:
    with pytest.raises(UnusableData, match="no class 'airfeild'") as found:
        made(source, classes=("airfeild",))
    assert "airfield" in found.value.hint


def test_an_image_of_two_classes_is_left_out_and_one_listed_twice_counts_once(source: Path) -> None:
    (source.parent / "twice.txt").write_text("sky.jpg 0\nsky.jpg 8\ngrass.png 8\ngrass.png 8\ngrey.jpg 0\n")
    done = made(source, listed="twice.txt", classes=None)
    assert done.written == 2 and [entry.path.name for entry in done.left_out] == ["sky.jpg"]
    assert "two classes" in done.left_out[0].reason and sum(count.in_two_classes for count in done.counts) == 1


# ---- where it goes ---------------------------------------------------------------------------------------------------------------


def test_it_does_not_mix_with_what_is_there(source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(UnusableData, match="did not make"):
            made(source, force=force)
    assert files(out) == {"thesis.txt": b"years of work"} and not list(source.parent.glob(".out*"))


def test_force_replaces_what_it_made_and_nothing_else(source: Path) -> None:
    out = made(source).folder
    before = files(out)
    with pytest.raises(UnusableData, match="--force"):
        made(source)
    assert files(out) == before
    again = made(source, format="bmp", force=True)
    assert {Path(name).suffix for name in files(again.folder)} == {".bmp", ".json"}


@pytest.mark.parametrize("spoil", ["airfield/sky.jpg", "airfield/mine.jpg", "notes/deep/mine.txt", ".hidden", "empty folder/"])
def test_force_does_not_delete_what_somebody_put_there(source: Path, spoil: str) -> None:
    out = made(source).folder
    if spoil.endswith("/"):
        (out / spoil).mkdir()
    else:
        (out / spoil).parent.mkdir(parents=True, exist_ok=True)
        (out / spoil).write_bytes(b"mine")
    there = files(out)
    with pytest.raises(UnusableData, match=f"holds {spoil.partition('/')[0]}.*did not make"):
        made(source, force=True)
    assert files(out) == there and (out / spoil).exists()


def test_a_run_that_stops_leaves_all_as_it_was(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = made(source).folder
    before = files(out)
    real = module._written

    def stopped(job: module._Job, *others: Any) -> object:
        if job.source.name == "turned.jpg":
            raise KeyboardInterrupt
        return real(job, *others)

    monkeypatch.setattr(module, "_written", stopped)
    with pytest.raises(KeyboardInterrupt):
        made(source, force=True)
    assert files(out) == before
    assert sorted(path.name for path in source.parent.iterdir()) == ["list.txt", "names.txt", "out", "val"]


def test_where_the_new_folder_cannot_be_put_in_place_the_old_one_comes_back(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = made(source).folder
    before, real = files(out), Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == out and self.parent.name == NEW:
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(nestling.files, "_exchanged", lambda one, other: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="No space left"):
        made(source, format="bmp", force=True)
    assert files(out) == before and not list(source.parent.glob(".*"))


def test_folders_in_one_another_are_refused(source: Path) -> None:
    for out in (source, source.parent, source / "inside"):
        with pytest.raises(UnusableData, match="in one another"):
            prepare(source, out)


def test_nothing_to_write_is_an_error_that_names_one(source: Path) -> None:
    (source.parent / "none.txt").write_text("missing.jpg 0\n")
    with pytest.raises(UnusableData, match=r"missing.jpg: missing"):
        made(source, listed="none.txt", classes=None)
    assert not (source.parent / "out").exists()


# ---- the command -----------------------------------------------------------------------------------------------------------


def test_the_command_says_the_counts(source: Path) -> None:
    beside = source.parent
    words = ["prepare", source, "--list", beside / "list.txt", "--names", beside / "names.txt", "--classes", ",".join(WANTED)]
    done = CliRunner().invoke(app, [str(word) for word in (*words, "-o", beside / "a", "--format", "bmp", "--json")])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["written"] == 5 and {entry["path"].rpartition("/")[2] for entry in said["left_out"]} >= {"half.jpg", "tiny.png"}
    listed = json.loads((beside / "a" / ".prepared.json").read_text())["files"]
    assert listed == {name: sha256(c).hexdigest() for name, c in files(beside / "a").items() if name != ".prepared.json"}
    table = CliRunner().invoke(app, [str(word) for word in (*words, "-o", beside / "b")], env={"COLUMNS": "132"})
    row = next(line for line in table.stdout.splitlines() if "apartment" in line)
    assert row.replace("│", " ").split() == ["apartment_building-outdoor", "6", "2", "0", "1", "2", "1", "0"]
    wrong = CliRunner().invoke(app, [str(word) for word in (*words, "-o", beside / "c", "--format", "gif")])
    assert isinstance(wrong.exception, WrongOption)


@pytest.mark.parametrize("digits", [19, 5_000])
def test_numbers_of_more_digits_than_any_class_has(digits: int, tmp_path: Path) -> None:
    """Python turns no text of more than 4300 digits into a number."""
    names, listed = tmp_path / "names.txt", tmp_path / "list.txt"
    names.write_text(f"good {'9' * digits}\n")
    with pytest.raises(UnusableData, match=r"names\.txt, line 1: expected `name number`"):
        read_names(names)
    listed.write_text(f"a.jpg {'9' * digits}\n")
    with pytest.raises(UnusableData, match=r"list\.txt, line 1: .* has no name"):
        read_list(listed, tmp_path, {"1": "good"}, 0)
