"""Files and folders of a data set: in which order, which count, what is read of each."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nestling.errors import UnusableData
from nestling.preprocess.pictures import File, why_not_image

LOOP = "a link back to a folder above it"


@dataclass(frozen=True)
class LeftOut:
    """A file (or a folder) that is not used, and why, in words that fit behind its name and a colon."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Tree:
    """Where paths lead: on the disk, or within an archive (see archive.py).

    inner: what lies in a folder. is_folder. real: a path without links, by which loops are found. file: what a file is read from,
    or why it is not read. All raise OSError.
    """

    inner: Callable[[Path], Iterable[Path]]
    is_folder: Callable[[Path], bool]
    real: Callable[[Path], Path]
    file: Callable[[Path], File | str]


def _regular(path: Path) -> File | str:
    return path if stat.S_ISREG(path.stat().st_mode) else "not a file"  # a pipe would wait for ever


DISK = Tree(Path.iterdir, Path.is_dir, Path.resolve, _regular)


def path_order(path: Path) -> tuple[bytes, ...]:
    """What paths are sorted by: folder by folder, each name by the bytes that the file system keeps.

    So in/0.bmp comes before in-0.bmp (a folder's files stand together), Z before a, and a name that is not UTF-8 has its place too.
    The C of the device sorts alike: of equal photographs both keep the first.
    """
    return tuple(os.fsencode(name) for name in path.parts)


def folders_in(place: Path, tree: Tree = DISK) -> tuple[list[Path], list[LeftOut]]:
    """The folders in one, hidden ones aside, in path_order; and those that link back to it or above it. Raises OSError."""
    folders = sorted((path for path in tree.inner(place) if tree.is_folder(path) and not _hidden(path)), key=path_order)
    looped = [path for path in folders if tree.real(place).is_relative_to(tree.real(path))]
    return [path for path in folders if path not in looped], [LeftOut(path, LOOP) for path in looped]


def images_in(place: Path, tree: Tree = DISK) -> Iterator[Path]:
    """The images that lie in the folder itself, in path_order; a README or a list of labels there is none of our business."""
    for path in sorted((path for path in tree.inner(place) if not _hidden(path)), key=path_order):
        if not tree.is_folder(path) and why_no_image(path, tree) is None:
            yield path


def files_below(root: Path, folder: Path, tree: Tree = DISK) -> Iterator[Path | LeftOut]:
    """Every file below a folder of `root`, in path_order. A folder that several links lead to is read where it comes first."""
    own = (tree.real(root), tree.real(folder))
    waiting, seen = [folder], {own[1]}
    while waiting:
        path = waiting.pop()
        if path != folder:
            if not tree.is_folder(path):
                yield path
                continue
            real = tree.real(path)
            if any(above.is_relative_to(real) for above in own):
                yield LeftOut(path, LOOP)
                continue
            if real in seen:
                yield LeftOut(path, "a link to a folder that is read already")
                continue
            seen.add(real)
        try:
            waiting += sorted((inner for inner in tree.inner(path) if not _hidden(inner)), key=path_order, reverse=True)
        except OSError as error:
            yield LeftOut(path, f"it cannot be read ({error.strerror})")


def holds_images(root: Path, folder: Path, tree: Tree = DISK) -> bool:
    """Whether there is an image below the folder; the first one ends the search."""
    return any(why_no_image(path, tree) is None for path in files_below(root, folder, tree) if isinstance(path, Path))


def why_no_image(path: Path, tree: Tree = DISK) -> str | None:
    """None for a file whose header is an image's, else the reason."""
    found = _examined(path, tree, printed=False)
    return found.reason if isinstance(found, LeftOut) else None


def print_of(path: Path, tree: Tree = DISK) -> str | LeftOut:
    """The first 16 hex digits of the SHA-256 of an image file's content, or why it is no image."""
    return _examined(path, tree, printed=True)


def _examined(path: Path, tree: Tree, printed: bool) -> str | LeftOut:
    try:
        found = tree.file(path)
        if isinstance(found, str):
            return LeftOut(path, found)
        with found.open("rb") as file:
            if reason := why_not_image(file):
                return LeftOut(path, reason)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()[:16] if printed else ""  # type: ignore[arg-type]  # a File is one
    except OSError as error:
        return LeftOut(path, f"it cannot be read ({error.strerror or error})")
    except UnusableData as error:
        return LeftOut(path, error.message)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"  # the latter: what macOS puts into zip files
