"""nestling learn, as a user types it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import typer

from nestling.cli import learn, show
from nestling.device.head_file import newest
from nestling.errors import NestlingError, WrongOption
from tests.helpers.packages import Photos, package, untrained

FRUIT = ("apple", "lime", "plum")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """(exit status, stdout, stderr) of `nestling learn`, also where main.py does not list the command."""
    monkeypatch.setenv("NESTLING_CACHE", str(cache))
    app = typer.Typer()
    app.command("learn")(learn.command)

    def learned(*arguments: object) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                app([str(word) for word in arguments], standalone_mode=False)
                status = 0
            except WrongOption as error:
                show.say(str(error))
                status = 2
            except typer.BadParameter as error:
                show.say(error.format_message())
                status = 2
            except NestlingError as error:
                show.say(f"error: {error}")
                status = 1
        return status, out.getvalue(), err.getvalue()

    return learned


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return package(tmp_path / "pkg", untrained(FRUIT))


def test_a_table_and_what_to_type_next(run: Run, packed: Path, tmp_path: Path) -> None:
    photos = Photos(tmp_path)("photos", dict.fromkeys(FRUIT, 15))
    status, out, err = run(packed, photos, "--cycles", 60, "--replay", 1)
    assert status == 0, err
    assert "100.0%" in out and "27 photographs, 60 cycles" in out and "27 embeddings" in out
    assert f"nestling learn {packed} MORE --from {packed / 'trained.nst'}" in out
    new = Photos(tmp_path)("new", {"sky": 15})
    status, out, err = run(packed, new, "--from", packed / "trained.nst", "-o", tmp_path / "more.nst")
    assert status == 0 and "sky (new)" in out and "27 of the replay store" in out, out + err
    assert newest(tmp_path / "more.nst")[0].labels == (*FRUIT, "sky")


def test_json_is_one_object_and_nothing_else(run: Run, packed: Path, tmp_path: Path) -> None:
    photos = Photos(tmp_path)("photos", dict.fromkeys(FRUIT, 15))
    _, out, _ = run(packed, photos, "--cycles", 60, "--json")
    result = json.loads(out)
    assert result["trained"] == str(packed / "trained.nst") and result["cycles"] == 60
    assert result["images"] == {"train": 27, "val": 9, "test": 9}
    assert result["accuracy"]["test"]["after"]["top1"] == 1 > result["accuracy"]["test"]["before"]["top1"]
    _, out, _ = run(packed, photos, "--cycles", 0, "--json")
    assert json.loads(out)["trained"] is None


def test_a_resumed_training_says_from_where(run: Run, packed: Path, tmp_path: Path) -> None:
    photos = Photos(tmp_path)("photos", dict.fromkeys(FRUIT, 15))
    run(packed, photos, "--cycles", 20)
    _, out, err = run(packed, photos, "--cycles", 50, "--resume")
    assert "gone on from" in err and "20 cycles" in err and "50 cycles" in out


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("pkg", "nowhere"), 1, "nowhere does not exist"),
        (("nowhere", "photos"), 1, "nowhere"),
        (("pkg", "photos", "--optimizer", "lbfgs"), 2, "sgd, adam"),
        (("pkg", "photos", "--batch", "0"), 2, "--batch"),
        (("pkg", "photos", "-o", "pkg/head.nst"), 1, "head.nst is a file of the package"),
        (("pkg", "photos", "-o", "pkg"), 1, "pkg cannot be written: Is a directory"),
    ],
)
def test_mistakes(run: Run, packed: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    places = {"pkg": packed, "photos": Photos(tmp_path)("photos", dict.fromkeys(FRUIT, 5))}
    places["pkg/head.nst"] = packed / "head.nst"
    before = sorted(packed.parent.rglob("*"))
    found, out, err = run(*(places.get(word, word) for word in arguments))
    assert found == status and said in err and not out
    assert sorted(packed.parent.rglob("*")) == before
