"""What net_runner says of names: letters that a terminal would obey are shown as Python shows them, and bytes that are no UTF-8."""

import subprocess
from pathlib import Path

import pytest

from nestling.printable import shown
from tests.device.runner_program import program


@pytest.fixture(scope="module")
def complain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("sanitized"), "complain.c")


def test_letters_are_shown_as_in_python(complain: Path) -> None:
    letters = [chr(code) for code in (*range(1, 0x700), *range(0x1800, 0x2100), 0x7167, 0xFEFF, 0xFFFD, 0xFFFF, 0x1F986, 0xE0041)]
    texts = [f"a{letter}b" for letter in letters]
    ended = subprocess.run([complain, *texts], capture_output=True, check=True)
    assert ended.stderr.decode().split("\n")[:-1] == [shown(text) for text in texts]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a\xffb\xc3", r"a\xffb\xc3"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),  # half a character
        (b"\xc0\x9b\xe0\x80\x9b", r"\xc0\x9b\xe0\x80\x9b"),  # a control, longer than it has to be
        (b"\xf4\x90\x80\x80\xf5", r"\xf4\x90\x80\x80\xf5"),  # past the last letter
        (b"x\nleft out: all", r"x\nleft out: all"),
        (b"x\n  a hint", "x\n  a hint"),
    ],
)
def test_bytes_and_lines(complain: Path, content: bytes, expected: str) -> None:
    ended = subprocess.run([complain, content], capture_output=True, check=True)
    assert ended.stderr.decode() == f"{expected}\n"
