"""The lists of `data prepare`: `path label`, one image a line; `name number`, one class a line. fit's own: listed.py."""

from __future__ import annotations

import difflib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from nestling.data.listed import apart, numbered, text_of
from nestling.errors import UnusableData

LONGEST_NUMBER = 18  # digits
Folders: TypeAlias = dict[Path, tuple[str, str]]
"""Images (or folders) that are not used: the class folder that each would be in, "" where it is none, and why."""


@dataclass(frozen=True)
class Entry:
    """An image: its file, the class folder that it goes into, and its path inside its source, which names it there."""

    path: Path
    folder: str
    inner: str


def folder_name(name: str) -> str:
    """A class's folder: the parts of its name joined with "-", without a first part of one letter, which only sorts.

    /a/airfield -> airfield; /a/apartment_building/outdoor -> apartment_building-outdoor; tench -> tench.
    """
    parts = [part for part in name.split("/") if part]
    if len(parts) > 1 and len(parts[0]) == 1 and parts[1].startswith(parts[0]):
        parts = parts[1:]
    return "-".join(parts)


def read_names(path: Path) -> dict[str, str]:
    """A list `name number`: number -> name. Raises UnusableData, naming the line."""
    names: dict[str, str] = {}
    for number, line in _lines(path):
        name, index = apart(line)
        if not name or (known := _number(index)) is None:
            raise UnusableData(f"{path}, line {number}: expected `name number`, found {line[:80]!r}.")
        if known in names:
            raise UnusableData(f"{path}, line {number}: {index} has a name already, {names[known]!r}.")
        names[known] = name
    return names


def read_list(path: Path, source: Path, names: Mapping[str, str] | None, strip: int) -> list[Entry]:
    """A list `path label`; label is the last word of the line, or what follows its last tab. names: see read_names.

    Raises UnusableData, naming the line, for one of another form, a path that leads out of `source`, a number without a name, or a
    name that cannot be a folder's.
    """
    entries: list[Entry] = []
    folders: dict[str, str] = {}
    named = set(names.values()) if names else set()
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        image, label = apart(line)
        if not image or not label:
            raise UnusableData(f"{where}: expected `path label`, found {line[:80]!r}.")
        inner = _inside(image, strip, where)
        name = _named(label, names, named, where)
        folder = folder_name(name)
        if not folder or folder.startswith(".") or not folder.isprintable() or "\\" in folder:
            raise UnusableData(f"{where}: the class {name!r} cannot be the name of a folder.")
        if folders.setdefault(folder, name) != name:
            raise UnusableData(f"{where}: the classes {folders[folder]!r} and {name!r} would both be in the folder {folder}.")
        entries.append(Entry(source / inner, folder, inner))
    if not entries:
        raise UnusableData(f"{path} is empty; expected lines `path label`.")
    return entries


def chosen_entries(entries: Sequence[Entry], classes: Sequence[str] | None, listed: Path) -> tuple[list[Entry], Folders]:
    """Those of the wanted classes, each once; and those that are listed in two of them.

    classes: as the list names them or as their folders are called. Raises UnusableData for one that is not in the list.
    """
    known = {entry.folder for entry in entries}
    wanted = known if classes is None else {folder_name(name) for name in classes}
    for name in sorted(wanted - known):
        near = difflib.get_close_matches(name, sorted(known), 3, 0.5) or sorted(known)[:5]
        raise UnusableData(f"{listed} has no class {name!r}.", f"it has {len(known)}, among them {', '.join(near)}")
    found: dict[Path, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.path, []).append(entry)
    once = [same[0] for same in found.values() if len({entry.folder for entry in same}) == 1 and same[0].folder in wanted]
    twice: Folders = {}
    for path, same in found.items():
        folders = sorted({entry.folder for entry in same})
        own = [folder for folder in folders if folder in wanted]
        if len(folders) > 1 and own:
            twice[path] = (own[0], f"listed in two classes, {' and '.join(folders[:2])}")
    return once, twice


def _lines(path: Path) -> list[tuple[int, str]]:
    return numbered(text_of(path, "it is to be a list of lines `path label`"))


def _inside(text: str, strip: int, where: str) -> str:
    """The path without its first `strip` parts, the one before a leading slash being a part."""
    parts = text.split("/")[strip:]
    if not parts or ".." in parts or "\0" in text or PurePosixPath("/".join(parts)).is_absolute():
        hint = "take its first parts away:  --strip 1" if text.startswith("/") else ""
        raise UnusableData(f"{where}: the path {text!r} leads out of the folder of images.", hint)
    inner = "/".join(part for part in parts if part not in ("", "."))
    if not inner:
        raise UnusableData(f"{where}: {text!r} names no file.", f"take fewer parts away than --strip {strip}" if strip else "")
    return inner


def _number(text: str) -> str | None:
    """A whole number without zeros in front; None for anything else, and for one of more digits than Python turns into a number."""
    return str(int(text)) if text.isdecimal() and len(text) <= LONGEST_NUMBER else None


def _named(label: str, names: Mapping[str, str] | None, named: Container[str], where: str) -> str:
    """named: all names."""
    if names is None:
        return label
    number = _number(label)
    if number is not None and number in names:
        return names[number]
    if label in named:
        return label
    raise UnusableData(f"{where}: {label!r} has no name in the list of names.", "give the list that belongs to it with --names")
