"""A table in a terminal of any width: no name, interval or number with its unit is broken over lines, no line is too long."""

import io
import os
import pty
import re
import sys
from contextlib import redirect_stdout

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from nestling.cli import show

HEADINGS = ["network", "runtime", "test top-1 [95%]", "agreement", "noise ratio", "size", "median", "95th pct", "peak memory"]
DEMO = [
    [file, runtime, "86.3% [83.1, 89.0]", "98.2%", "0.52", "13.55 MB", ms, "120.20 ms", "130.10 MB"]
    for file, runtime, ms in (
        ("elpv.nest", "torch", "9.85 ms"), ("elpv-dynamic.tflite", "LiteRT", "9.85 ms"), ("elpv-c-host", "C", "110.00 ms"),
        ("elpv-int8.onnx", "ONNX Runtime", "9.85 ms"), ("elpv-int8.onnx", "OpenVINO", "9.85 ms"),
    )
]  # fmt: skip
LONG = [[f"places365-mobilenetv3-large-100-{row[0]}", *row[1:]] for row in DEMO]


def printed(headings: list[str], rows: list[list[str]], width: int, title: str = "", encoding: str = "utf-8") -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setenv("COLUMNS", str(width))
        show.table(headings, rows, title)
    return out.buffer.getvalue().decode(encoding).splitlines()


@pytest.mark.parametrize("rows", [DEMO, LONG])
@pytest.mark.parametrize("width", [132, 100, 80, 60, 40])
def test_the_networks_of_a_report(rows: list[list[str]], width: int) -> None:
    lines = printed(HEADINGS, rows, width)
    for row in rows:
        for cell in row:
            assert any(re.search(rf"(^|[\s│]){re.escape(cell)}($|[\s│])", line) for line in lines), cell
    assert all(cell_len(line) <= max(width, *(len(row[0]) for row in rows)) for line in lines)
    words = "\n".join(lines)
    assert all(word in words for heading in HEADINGS[1:] for word in heading.split())


def test_a_wide_terminal_has_one_box_and_a_narrow_one_repeats_what_tells_rows_apart() -> None:
    assert printed(HEADINGS, DEMO, 140)[0].startswith("┏")
    narrow = "\n".join(printed(HEADINGS, DEMO, 80)).split("\n\n")
    assert len(narrow) == 2 and all(part.count("elpv-int8.onnx") == 2 and "OpenVINO" in part for part in narrow)
    names = [row[0].split()[0] for row in LONG]
    assert [line for line in printed(HEADINGS, LONG, 60) if line in names] == names  # each row as lines of its own


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 8).flatmap(
        lambda n: st.tuples(
            st.lists(st.text("ab cü照", max_size=14), min_size=n, max_size=n),
            st.lists(st.lists(st.text("xyz.é照🦆-", max_size=30), min_size=n, max_size=n), max_size=4),
        )
    ),
    st.integers(1, 140),
)
def test_any_table(table: tuple[list[str], list[list[str]]], width: int) -> None:
    headings, rows = table
    lines = printed(headings, rows, width)
    longest = max((cell_len(cell) for row in rows for cell in row), default=0)
    for cell in {cell for row in rows for cell in row}:
        assert any(cell in line for line in lines), (cell, lines)
    words = max((cell_len(word) for heading in headings for word in heading.split()), default=0)
    assert all(cell_len(line) <= max(width, longest + max(map(cell_len, headings)) + 4, words + 4) for line in lines)


def test_a_list_is_broken_at_its_commas_and_a_title_at_its_words() -> None:
    answers = "lime green 10.0%, plum 2.2%, cherry tomato 1.1%"
    lines = printed(["image", "next"], [["a" * 30 + ".jpg", answers]], 36, "the answers of a network whose name is long")
    assert lines == [
        "the answers of a network whose name", "is long",
        "a" * 30 + ".jpg", "  next  lime green 10.0%, plum 2.2%,", "        cherry tomato 1.1%",
    ]  # fmt: skip


def test_where_there_are_no_lines_to_draw_with_they_are_ascii() -> None:
    lines = printed(HEADINGS, DEMO, 140, "×", "ascii") + printed(HEADINGS, DEMO, 80, "", "cp1252")
    assert all(line.isascii() for line in lines) and any(line.startswith("+--") for line in lines)


def test_nothing_is_read_as_markup() -> None:
    lines = printed(["[b]", ":smile:"], [["[red]x[/red]", ":duck: [/]"]], 80, "[link=x]:smile:")
    assert lines[0] == "[link=x]:smile:" and "[b]" in lines[2] and ":smile:" in lines[2]
    assert "[red]x[/red]" in lines[4] and ":duck: [/]" in lines[4]


def test_the_width_of_a_terminal_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pty.openpty()
    try:
        os.set_blocking(theirs, False)
        import fcntl
        import struct
        import termios

        fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        monkeypatch.delenv("COLUMNS", raising=False)
        with os.fdopen(os.dup(ours), "w") as terminal:
            monkeypatch.setattr(sys, "__stdout__", terminal)
            assert show.columns() == 80
        with io.TextIOWrapper(io.BytesIO()) as file:
            monkeypatch.setattr(sys, "__stdout__", file)
            assert show.columns() == 132
    finally:
        os.close(theirs)
        os.close(ours)
