"""Whatever labels and files are called, whatever stdout takes, whoever reads it: no traceback, nothing that steers a terminal."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from tests import ROOT

CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")  # also of the bytes of UTF-8, read as latin-1
TURNS = re.compile(r"\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xd8\x9c|\xc2[\x80-\x9f]|\xed[\xa0-\xbf]")  # in UTF-8


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    command = [sys.executable, "-m", "tests.cli.terminal_forks", str(tmp_path_factory.mktemp("hostile"))]
    return json.loads(subprocess.run(command, capture_output=True, check=True, cwd=ROOT).stdout)


def test_no_traceback_and_nothing_that_steers_a_terminal(runs: list[dict]) -> None:
    assert len(runs) > 100
    for run in runs:
        text = run["out"] + run["err"]
        assert "Traceback" not in text and "did not expect" not in text, run
        assert not CONTROLS.search(text), run
        assert run["streams"] in ("cp1252", "ascii") or not TURNS.search(text), run
        assert run["streams"] != "ascii" or text.isascii(), run


def test_names_are_shown_escaped(runs: list[dict]) -> None:
    by = {(run["command"], run["json"], run["streams"]): run["out"] for run in runs if run["status"] == 0}
    for streams in ("utf-8", "cp1252", "ascii"):
        told = by["eval", False, streams]
        assert all(name in told for name in (r"esc\x1b[2J", r"rlo\u202e", "a [bold]b", r"\udc80\ud800", "[red]:smile:*/"))
        assert r"0\udcff\udcfe\x1b]0;pwned\x07\nerror: none.png" in told
    assert "rlo\\u202e\xc3\xbc" in by["eval", False, "utf-8"] and "rlo\\u202e\xfc" in by["eval", False, "cp1252"]


def test_json_is_the_same_whatever_stdout_takes(runs: list[dict]) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = [run for run in runs if run["json"] and run["streams"] in ("utf-8", "cp1252", "ascii")]
    values: dict[str, list[Any]] = {}
    for run in found:
        content = run["out"].encode("latin-1")
        assert run["streams"] == "utf-8" or content.isascii()
        values.setdefault(run["command"], []).append(json.loads(content.decode(), parse_constant=refuse))
    assert len(values) == 5 and all(one == three and two == three for one, two, three in values.values())
    assert (
        values["predict"][0][0]["image"].encode("utf-8", "surrogateescape").endswith(b"0\xff\xfe\x1b]0;pwned\x07\nerror: none.png")
    )


def test_how_a_command_ends_when_its_streams_do(runs: list[dict]) -> None:
    usual = {run["number"]: run["status"] for run in runs if run["streams"] == "utf-8"}
    for run in runs:
        expected = usual[run["number"]]
        if expected or run["streams"] not in ("gone", "both gone", "full"):
            assert run["status"] == expected, run
        elif run["streams"] == "full":
            assert run["status"] == 1 and "standard output cannot be written: No space left" in run["err"], run
        else:
            assert run["status"] == 141 and not run["out"] and "error" not in run["err"], run


def test_commands_print_through_show_alone_and_the_runner_through_complain() -> None:
    """Else a name would come out as it is. What is printed otherwise there: numbers and words of ours."""
    cli = ROOT / "nestling" / "cli"
    printing = re.compile(r"\bprint\(|\.std(out|err)\b|\becho\(|Console\(")
    by_hand = {path.name for path in cli.glob("*.py") if printing.search(path.read_text())}
    assert by_hand == {"show.py", "ending.py", "main.py"}
    runtime = cli.parent / "device" / "runtime"
    telling = [line for path in runtime.glob("*.c") for line in path.read_text().splitlines() if "printf(stderr" in line]
    assert all("%s" not in line and "%.*s" not in line for line in telling), telling
