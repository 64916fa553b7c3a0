"""Photographs that a list names: a CSV with the columns path and label, or a text file with a path a line.

Paths are relative to the list. In a text file the label follows the path, behind the last blank or tab; where it does not, the
photograph's folder is its class.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nestling.bundle import Part
from nestling.data.layout import SPELLINGS
from nestling.errors import UnusableData
from nestling.files import read_at_most

MOST_BYTES = 2**28
TABLES, LINES = (".csv", ".tsv"), (".txt", ".lst", ".list")
DELIMITERS = ",;\t"
TRIED = 100  # lines by which a list's form is told
COLUMNS: Mapping[str, frozenset[str]] = {  # as people call them
    "path": frozenset(("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "img", "imgpath", "photo")),
    "label": frozenset(("label", "class", "category", "target", "classname", "labelname")),
    "part": frozenset(("part", "split", "set", "subset")),
}
EXPECTED = "expected `path,label`"


@dataclass(frozen=True)
class Listed:
    """A line: a photograph, its class, and the part where the list has a column of such."""

    path: Path
    label: str
    part: Part | None = None


def is_list(path: Path) -> bool:
    """By its name; what is in it shows when it is read."""
    return path.is_file() and path.suffix.lower() in (*TABLES, *LINES)


def read_listed(path: Path) -> tuple[Listed, ...]:
    """The lines of a list. Raises UnusableData, naming the line, for one that says something else."""
    text = text_of(path)
    found = tuple(_rows(path, text) if path.suffix.lower() in TABLES else _lines(path, text))
    if not found:
        raise UnusableData(f"{path} names no photograph.", _hint(path))
    return found


def text_of(path: Path, hint: str = "") -> str:
    """A list's text. Raises UnusableData, with the hint, where it cannot be read or is none."""
    try:
        return read_at_most(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise UnusableData(f"{path} cannot be read ({error.strerror}).", hint) from error
    except UnicodeDecodeError as error:
        raise UnusableData(f"{path} is no text in UTF-8.", hint or "save it as UTF-8") from error


def numbered(text: str) -> list[tuple[int, str]]:
    """Its lines that are not empty, each with its number from 1."""
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def apart(line: str) -> tuple[str, str]:
    """What stands in front of a line's last tab, or where there is none its last blank, and what behind it."""
    first, _, last = line.rpartition("\t" if "\t" in line else " ")
    return first.strip(), last.strip()


def _hint(path: Path) -> str:
    return f"a line is  photos/1.jpg{',' if path.suffix.lower() in TABLES else ' '}good"


# ---- tables --------------------------------------------------------------------------------------------------------------------


def _rows(path: Path, text: str) -> Iterator[Listed]:
    delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: Mapping[str, int] | None = None
    parts: dict[Path, Part | None] = {}
    try:
        for row in reader:
            where, cells = f"{path}, line {reader.line_num}", [cell.strip() for cell in row]
            if not any(cells):
                continue
            if columns is None:
                columns = _columns(cells)
                if columns:
                    continue
                columns = {"path": 0, "label": 1}
                if len(cells) != 2:
                    said = delimiter.join(cells)[:80]
                    raise UnusableData(f"{where}: {EXPECTED}, or a heading with these names, found {said!r}.", _hint(path))
            found = _row(path, columns, cells, where)
            if parts.setdefault(found.path, found.part) != found.part:
                raise UnusableData(f"{where}: {found.path} is in the part {parts[found.path]} already, and here in {found.part}.")
            yield found
    except csv.Error as error:
        raise UnusableData(f"{path}, line {reader.line_num}: {EXPECTED} ({error}).", _hint(path)) from error


def _delimiter(text: str) -> str:
    """What stands between the first line's cells: what makes a heading or two of them, else what is there most often."""
    first = text.lstrip().partition("\n")[0].rstrip("\r")
    often = sorted(DELIMITERS, key=first.count, reverse=True)
    for delimiter in often:
        with contextlib.suppress(csv.Error):
            cells = next(csv.reader([first], delimiter=delimiter, strict=True), [])
            if len(cells) == 2 or _columns(cells):
                return delimiter
    return often[0]


def _columns(cells: Sequence[str]) -> Mapping[str, int]:
    """Where the heading has what; empty where the line is none."""
    names = [cell.lower().replace(" ", "").replace("_", "") for cell in cells]
    found = {what: next((i for i, name in enumerate(names) if name in known), None) for what, known in COLUMNS.items()}
    there = {what: i for what, i in found.items() if i is not None}
    return there if {"path", "label"} <= there.keys() else {}


def _row(path: Path, columns: Mapping[str, int], cells: Sequence[str], where: str) -> Listed:
    values = {what: cells[i] for what, i in columns.items() if i < len(cells)}
    if not values.get("path") or not values.get("label"):
        raise UnusableData(f"{where}: {EXPECTED}, found {len(cells)} columns: {', '.join(cells)[:80]!r}.", _hint(path))
    said = values.get("part", "")
    part = SPELLINGS.get(said.lower())
    if said and part is None:
        raise UnusableData(f"{where}: {said[:40]!r} is no part; they are train, val and test.")
    return Listed(_place(path, values["path"], where), values["label"], part)


# ---- lines ---------------------------------------------------------------------------------------------------------------------


def _lines(path: Path, text: str) -> Iterator[Listed]:
    lines = numbered(text)
    alone = _paths_alone(path, [line for _, line in lines])
    for number, line in lines:
        where = f"{path}, line {number}"
        image, label = (line, Path(line).parent.name) if alone else apart(line)
        if not label and alone:
            raise UnusableData(f"{where}: {line[:80]!r} lies in no folder that would be its class.", _hint(path))
        if not image or not label:
            raise UnusableData(f"{where}: expected `path label`, found {line[:80]!r}.", _hint(path))
        yield Listed(_place(path, image, where), label)


def _paths_alone(path: Path, lines: Sequence[str]) -> bool:
    """Whether lines are paths without labels: told by the first one that names a file in one of the two ways."""
    for line in lines[:TRIED]:
        for image, alone in ((line, True), (apart(line)[0], False)):
            if image and "\0" not in image and (path.parent / image).is_file():
                return alone
    return not all(apart(line)[0] for line in lines[:TRIED])


def _place(path: Path, image: str, where: str) -> Path:
    if "\0" in image:
        raise UnusableData(f"{where}: {image[:80]!r} is no name of a file.")
    return path.parent / image
