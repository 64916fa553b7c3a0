"""nestling fit, as a user types it."""

import json
from pathlib import Path

import pytest
from cli.conftest import SMALL, Nestling
from data.horrors import CLASSES, make_horrors


def test_json_is_one_object_and_nothing_else(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    done = nestling("fit", photos, "-o", tmp_path / "a.nest", *SMALL, "--json", process=True)
    result = json.loads(done.stdout)
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0}
    assert result["top1"] > 0.8 and result["interval"][0] <= result["top1"] <= result["interval"][1]
    assert set(result["seconds"]) == {"scan", "embeddings", "head"}


def test_same_seed_same_bundle_byte_for_byte(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    """Also without the cache, so that what was embedded before cannot be what makes them equal."""
    again, fresh, other = (tmp_path / name for name in ("again.nest", "fresh.nest", "other.nest"))
    nestling("fit", photos, "-o", again, *SMALL)
    nestling("fit", photos, "-o", fresh, *SMALL, NESTLING_CACHE=str(tmp_path / "cache"), process=True)
    nestling("fit", photos, "-o", other, *SMALL, "--seed", 1)
    assert again.read_bytes() == bundle.read_bytes() == fresh.read_bytes()
    assert other.read_bytes() != bundle.read_bytes()


def test_a_folder_of_horrors(nestling: Nestling, tmp_path: Path) -> None:
    reasons = make_horrors(tmp_path / "photos")
    done = nestling("fit", tmp_path / "photos", "-o", tmp_path / "a.nest", *SMALL)
    for file, reason in reasons.items():
        line = next((line for line in done.stderr.splitlines() if file in line), None)
        assert line and reason in line, f"{file} is not named with its reason:\n{done.stderr}"
    assert CLASSES[1] in done.stdout
    strict = nestling("fit", tmp_path / "photos", "-o", tmp_path / "b.nest", *SMALL, "--strict", status=1)
    assert "truncated.jpg" in strict.stderr and "--strict" in strict.stderr and not (tmp_path / "b.nest").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("fit", "nowhere"), 1, "nowhere does not exist"),
        (("fit", ".", "--backbone", "mobilenetv9"), 1, "mobilenetv9"),
        (("fit",), 2, "'data'"),
        (("fit", ".", "--size", "big"), 2, "'--size'"),
        (("fit", ".", "--views", "sideways"), 1, "none, mirror, flips"),
        (("frobnicate",), 2, "frobnicate"),
    ],
)
def test_mistakes_on_the_command_line(nestling: Nestling, photos: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = nestling(*(str(photos) if word == "." else word for word in arguments), status=status)
    assert said in done.stderr and not done.stdout


def test_few_images_say_what_to_do(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for name in ("apple", "plum"):
        (few / name).mkdir(parents=True)
        for i in range(3 if name == "apple" else 9):
            (few / name / f"{i}.jpg").write_bytes((photos / name / f"{i:02}.jpg").read_bytes())
    done = nestling("fit", few, "-o", tmp_path / "a.nest", *SMALL, status=1)
    assert "holds 3" in done.stderr and "at least 5" in done.stderr and "add images" in done.stderr


def test_a_damaged_cache_entry_is_computed_again(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    nestling("fit", photos, "-o", tmp_path / "a.nest", *SMALL, NESTLING_CACHE=str(cache))
    entries = sorted(path for path in cache.rglob("*-as-is") if path.is_file())
    assert len(entries) == 60
    entries[0].write_bytes(entries[0].read_bytes()[:-5])
    damaged = bytearray(entries[1].read_bytes())
    damaged[20] ^= 0x10
    entries[1].write_bytes(damaged)
    entries[2].write_bytes(b"")
    done = nestling("fit", photos, "-o", tmp_path / "b.nest", *SMALL, NESTLING_CACHE=str(cache))
    assert "embedding" in done.stderr
    assert (tmp_path / "b.nest").read_bytes() == bundle.read_bytes()
