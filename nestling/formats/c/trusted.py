"""Folders of C before they are compiled: whose they are, and a copy of just the bytes that were looked at."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling import trust
from nestling.errors import NotTrusted, UnusableFile
from nestling.files import naming
from nestling.temporary import restored

ABOUT = "about.json"
SUFFIXES = (".c", ".h", ".ld")  # what a compiler and its linker are given, beside what the folder says of itself
PURPOSE = "folder of C"
LARGEST = 1 << 31  # bytes of all files together; 100 MB of weights are 400 MB of text
MOST_MAC = 1024


def signed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """A folder's files, content by name, with the MAC that says to this user's nestling that it wrote them."""
    try:
        return dict(files) | {trust.MAC: trust.mac_of(PURPOSE, _taken(files))}
    except OSError as error:
        warnings.warn(trust.without_key(error), stacklevel=2)
        return dict(files)


@contextmanager
def copied(folder: Path, trusting: bool = False) -> Iterator[Path]:
    """A temporary folder with what of `folder` is compiled: the bytes that were looked at, whatever becomes of the folder.

    What lies in it besides (subfolders, what `make` built) is not there. trusting: whoever wrote it.
    Raises NotTrusted; UnusableFile, naming the folder, for one that is none of C or cannot be read.
    """
    files = _read(folder)
    if not trusting:
        _require_known(folder, files)
    with TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        yield Path(place)


def require_trusted(paths: Sequence[Path], trusting: bool) -> None:
    """Raises NotTrusted for the first folder among the paths that is not known, before anything long is begun."""
    for folder in paths if not trusting else ():
        if restored(folder).is_dir():
            _require_known(folder, _read(folder))


def is_known(folder: Path) -> bool:
    """Whether this user's nestling wrote the folder as it is."""
    try:
        require_trusted([folder], trusting=False)
    except (NotTrusted, UnusableFile):
        return False
    return True


def _require_known(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        mac = _content(folder / trust.MAC, MOST_MAC)
    except OSError:
        mac = b""
    if not trust.known(PURPOSE, files, mac):
        why = "it was changed, or comes from another user or computer" if mac else f"it has no {trust.MAC}"
        raise NotTrusted(
            f"{folder} is not as this user's nestling wrote it: {why}. Compiling and running it does whatever its author wrote.",
            f"where you trust its author, add --trust; else make it again:  nestling export my8.nest --to c -o {folder.parent}",
        )


def _read(folder: Path) -> dict[str, bytes]:
    """The files that are compiled, content by name."""
    try:
        names = sorted(path.name for path in restored(folder).iterdir() if path.name == ABOUT or path.suffix in SUFFIXES)
        if ABOUT not in names:
            raise UnusableFile(
                f"{folder} holds no {ABOUT}: it is no folder of C, and no other one is a network.",
                "name a bundle, an exported file, or make a folder of C:  nestling export my8.nest --to c -o out",
            )
        found: dict[str, bytes] = {}
        left = LARGEST
        for name in names:
            found[name] = _content(folder / name, left)
            left -= len(found[name])
        return found
    except OSError as error:
        raise UnusableFile(f"{error.filename or folder} cannot be read: {error.strerror}.") from error


def _content(path: Path, most: int) -> bytes:
    """Of a file, or of what a link leads to. Raises OSError; UnusableFile for a pipe, a device, and more bytes than `most`."""
    with naming(path), os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode) or told.st_size > most:
            raise UnusableFile(f"{path} is no file of C: {'too large' if told.st_size > most else 'no file at all'}.")
        content = file.read(most + 1)
    if len(content) > most:
        raise UnusableFile(f"{path} is no file of C: too large.")
    return content


def _taken(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name == ABOUT or Path(name).suffix in SUFFIXES}
