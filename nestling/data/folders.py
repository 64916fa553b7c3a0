"""Photographs in folders: which there are, what each is called, and which cannot serve.

photos/good/*.jpg  photos/bad/*.jpg                                a folder a class
photos/train/good/*.jpg  photos/val/...  photos/test/...           the parts given (val, test or both may be missing; see layout.py)
photos.zip                                                         the same within an archive (archive.py)
photos.csv, photos.txt                                             a list of paths and classes (listed.py)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short
from nestling.bundle import PARTS, Part
from nestling.data.archive import archive_tree, is_archive
from nestling.data.layout import ClassFolder, Layout, layout
from nestling.data.listed import LINES, TABLES, is_list, read_listed
from nestling.data.walk import DISK, LOOP, Tree, files_below, folders_in, images_in, path_order, print_of
from nestling.data.walk import LeftOut as LeftOut
from nestling.errors import UnusableData
from nestling.preprocess.pictures import File
from nestling.temporary import restored

LOOKED_AT = 20  # folders beside one, at most, where a message is made up
LEAST = 5  # images of a class: with 60/20/20, three to learn from, one to choose by, one to test on


@dataclass(frozen=True)
class Item:
    """An image file. label: index into Dataset.labels.

    fingerprint: first 16 hex digits of the SHA-256 of the file's content. part: where the folders give it, else None.
    held: what it is read from where `path`, which names it, is no file of its own (in an archive, in memory).
    """

    path: Path
    label: int
    fingerprint: str
    part: Part | None = None
    held: File | None = None

    @property
    def file(self) -> File:
        """What it is read from."""
        return self.held or self.path


@dataclass(frozen=True)
class Dataset:
    """What a folder holds. labels: sorted; items and left_out: in path_order. Copies of a photograph are items of their own.

    root: of the folders; the archive, the list. folders: of the classes; of a part each class has one; () where there are none.
    beside: roots of others that were put to it.
    """

    __repr__, _repr_html_ = in_short, as_table

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    folders: tuple[ClassFolder, ...] = ()
    beside: tuple[Path, ...] = ()


def by_path(entry: Item | LeftOut) -> tuple[bytes, ...]:
    """The key that sorts entries by path_order."""
    return path_order(entry.path)


# ---- scanning ----------------------------------------------------------------------------------------------------------------


Source: TypeAlias = Path | Dataset
"""Where photographs are: a folder, a .zip, a list (.csv, .txt), or a data set that was made of these or of arrays (arrays.py)."""


def scan(
    root: Source,
    classes: Sequence[str] | None = None,
    parts: bool | None = None,
    known: Sequence[str] = (),
) -> Dataset:
    """Every image below root with its class; classes: only these (default: all).

    parts: whether the folders give parts; None: found out (see layout.py), and asked where it cannot be. known: the classes of the
    network that the images are for, where there is one.
    Files are found at any depth in a class folder and judged by content, whatever their suffix; hidden ones are ignored, links
    followed. Each is read once: its header is checked and its content hashed; damage behind the header shows when it is decoded
    (see stream.py). A photograph that stands in two classes is left out of both; one that stands in two given parts stays in test
    rather than val, in val rather than train.
    Raises UnusableData: root is missing, empty, cannot be read, holds no class folders or not the classes asked for, no usable
    image, a class whose name cannot be written, or folders that may be parts as well as classes; a line of a list that is none.
    """
    if isinstance(root, Dataset):
        return whole(_of_classes(root, classes))
    if is_list(root):
        return whole(_from_list(root, classes, parts))
    return whole(_from_folders(restored(root), classes, parts, known))


def whole(dataset: Dataset) -> Dataset:
    """The data set in order, without photographs that stand in two classes or parts. Raises UnusableData where nothing is left."""
    order = tuple(sorted(dataset.items, key=by_path)), tuple(sorted(dataset.left_out, key=by_path))
    found = _one_side_each(replace(dataset, items=order[0], left_out=order[1]))
    if not found.items:
        raise UnusableData(f"{found.root} holds no usable image.{_for_example(found.left_out)}", _layout_hint(found.root))
    return found


def _from_folders(root: Path, classes: Sequence[str] | None, parts: bool | None, known: Sequence[str]) -> Dataset:
    place, tree = archive_tree(root) if is_archive(root) else (root, DISK)
    found = _found(root, place, tree, parts, known or classes or (), asks=not known)
    names = sorted({folder.label for folder in found.folders})
    labels = tuple(names if classes is None else _chosen(root, names, classes))
    items: list[Item] = []
    left_out = list(found.left_out)
    for folder in found.folders:
        if folder.label not in labels:
            continue
        for path in files_below(place, folder.path, tree):
            if isinstance(path, LeftOut):
                left_out.append(path)
            elif isinstance(print_ := print_of(path, tree), LeftOut):
                left_out.append(print_)
            else:
                held = tree.file(path) if tree is not DISK else None
                items.append(Item(path, labels.index(folder.label), print_, folder.part, None if isinstance(held, str) else held))
    return Dataset(root, labels, tuple(items), tuple(left_out), found.folders)


def _from_list(listed: Path, classes: Sequence[str] | None, parts: bool | None) -> Dataset:
    """A photograph that is listed twice in one class counts once."""
    lines = tuple(dict.fromkeys(read_listed(listed)))
    names = sorted({line.label for line in lines})
    for name in names:
        require_writable(name, "the class")
    labels = tuple(names if classes is None else _chosen(listed, names, classes))
    items: list[Item] = []
    left_out: list[LeftOut] = []
    for line in lines:
        if line.label in labels:
            print_ = print_of(line.path)
            if isinstance(print_, LeftOut):
                left_out.append(print_)
            else:
                items.append(Item(line.path, labels.index(line.label), print_, None if parts is False else line.part))
    return Dataset(listed, labels, tuple(items), tuple(left_out))


def _of_classes(dataset: Dataset, classes: Sequence[str] | None) -> Dataset:
    if classes is None:
        return dataset
    labels = tuple(_chosen(dataset.root, dataset.labels, classes))
    items = [replace(i, label=labels.index(name)) for i in dataset.items if (name := dataset.labels[i.label]) in labels]
    others = [folder.path for folder in dataset.folders if folder.label not in labels]
    left_out = [entry for entry in dataset.left_out if not any(entry.path.is_relative_to(folder) for folder in others)]
    folders = tuple(folder for folder in dataset.folders if folder.label in labels)
    return replace(dataset, labels=labels, items=tuple(items), left_out=tuple(left_out), folders=folders)


def without(dataset: Dataset, left_out: Sequence[LeftOut]) -> Dataset:
    """The data set without these files, which join its left_out: for what decoding found to be damaged."""
    paths = {entry.path for entry in left_out}
    return replace(
        dataset,
        items=tuple(item for item in dataset.items if item.path not in paths),
        left_out=tuple(sorted((*dataset.left_out, *left_out), key=by_path)),
    )


def require_enough(dataset: Dataset) -> None:
    """Raises UnusableData where the data set cannot be learned from.

    One class only; a class with fewer than 5 different images; or, where the folders give parts, a class without one in a part.
    """
    root, labels = dataset.root, dataset.labels
    if len(labels) < 2:
        own = [folder.path for folder in dataset.folders if folder.label == labels[0] and folder.path.is_dir()]
        inner = [path for folder in own for path in folders_in(folder)[0]]
        further = f", or, where the folders in it are the classes, name that one:  {inner[0].parent}" if len(inner) > 1 else ""
        raise UnusableData(
            f"{root} holds one class only, {labels[0]!r}; at least two are needed to tell apart.",
            f"add a folder with photographs of something else:  {root}/NAME{further}"
            if dataset.folders
            else "add photographs of something else",
        )
    given = given_parts(dataset)
    if given and "train" not in given:
        raise UnusableData(
            f"{root} has the parts {' and '.join(given)}, but no train to learn from.", f"add it:  {root}/train/{labels[0]}"
        )
    for index, label in enumerate(labels):
        items = [item for item in dataset.items if item.label == index]
        counts = Counter(part for part, _ in {(item.part, item.fingerprint) for item in items})
        total = sum(counts.values())
        for part in given:
            # those that the folders don't give are taken from train, one at least
            least = 1 + (len(PARTS) - len(given) if part == "train" else 0)
            if counts[part] < least:
                folder = _folder_of(dataset, part)
                raise UnusableData(
                    f"{folder} holds {_number(counts[part])} of class {label!r}; at least {least} needed.",
                    f"add images to {folder / label if dataset.folders else 'it'}{_or_leave_out(dataset, label)}",
                )
        if total < LEAST:
            copies = len(items) - total
            where = f"class {label!r} in {root}" if given or not dataset.folders else str(root / label)
            raise UnusableData(
                f"{where} holds {_number(total)}{f' (and {copies} copies)' if copies else ''}; "
                f"a class needs at least {LEAST} to be split into train, val and test.{_for_example(_left_out_of(dataset, label))}",
                f"add images to it{_or_leave_out(dataset, label)}",
            )


def given_parts(dataset: Dataset) -> tuple[Part, ...]:
    """The parts that the folders give, in order; () where they give none."""
    return tuple(part for part in PARTS if any(item.part == part for item in dataset.items))


def copies(dataset: Dataset) -> tuple[tuple[Path, ...], ...]:
    """The files of each photograph that lies in its class more than once, in path_order."""
    found: dict[str, list[Path]] = defaultdict(list)
    for item in dataset.items:
        found[item.fingerprint].append(item.path)
    return tuple(tuple(paths) for paths in found.values() if len(paths) > 1)


def labels_of(items: Sequence[Item]) -> NDArray[np.int64]:
    """Their classes, int64 [N]."""
    return np.array([item.label for item in items], np.int64)


def fingerprint(dataset: Dataset) -> str:
    """16 hex digits that stand for the whole data set: contents with their classes and given parts; not names, places or order."""
    entries = sorted((dataset.labels[item.label], item.part or "", item.fingerprint) for item in dataset.items)
    return hashlib.sha256(json.dumps([dataset.labels, entries]).encode()).hexdigest()[:16]


# ---- folders -----------------------------------------------------------------------------------------------------------------


def _found(root: Path, place: Path, tree: Tree, parts: bool | None, known: Sequence[str], asks: bool) -> Layout:
    """The class folders, and what lies beside them. place: the folder that holds them; root itself, or one in the archive."""
    if not tree.is_folder(place):
        problem = "is a file" if root.exists() else "does not exist"
        if is_archive(root):
            raise UnusableData(f"{root} is empty; expected a folder for each class in it.", _layout_hint(root))
        raise UnusableData(
            f"{root} {problem}; expected a folder of photographs, a .zip, or a list, .csv or .txt.", _layout_hint(root)
        )
    try:
        found = layout(place, parts, known, asks, tree)
    except OSError as error:
        raise UnusableData(f"{error.filename or root} cannot be read ({error.strerror}).") from error
    if not found.folders and (strays := [entry for entry in found.left_out if entry.reason != LOOP]):
        raise UnusableData(f"{root} holds {_number(len(strays))} itself; expected a folder for each class.", _layout_hint(root))
    if not found.folders:
        raise UnusableData(f"{root} is empty; expected a folder for each class.", _layout_hint(root))
    for folder in found.folders:
        require_writable(folder.label, "the class folder")
    return found


def require_writable(label: str, what: str) -> None:
    """A class's name goes into labels.txt, one a line, and into JSON. Raises UnusableData. what: has the name."""
    if len(label.splitlines()) > 1 or label.endswith(("\n", "\r")):
        raise UnusableData(f"{what} {label!r} has a line break in its name.", "rename it")
    try:
        label.encode()
    except UnicodeEncodeError as error:
        raise UnusableData(f"the name of {what} {label!r} is not valid UTF-8.", "rename it") from error


def _chosen(root: Path, names: Sequence[str], classes: Sequence[str]) -> list[str]:
    for name in classes:
        if name not in names:
            raise UnusableData(f"{root} has no class {name!r}; it has {', '.join(repr(n) for n in names)}.")
    return sorted(set(classes))


# ---- copies ------------------------------------------------------------------------------------------------------------------


def _one_side_each(dataset: Dataset) -> Dataset:
    """Leaves out what would let one photograph stand for two classes, or be learned from and tested on."""
    copies: dict[str, list[Item]] = defaultdict(list)
    for item in dataset.items:
        copies[item.fingerprint].append(item)
    left_out = [entry for same in copies.values() for entry in (*_two_classes(same, dataset.labels), *_two_parts(same))]
    return without(dataset, left_out)


def _two_classes(same: Sequence[Item], labels: Sequence[str]) -> Iterator[LeftOut]:
    indices = {item.label for item in same}
    if len(indices) > 1:
        for item in same:
            others = ", ".join(labels[index] for index in sorted(indices - {item.label}))
            yield LeftOut(item.path, f"the same photograph is also in class {others}")


def _two_parts(same: Sequence[Item]) -> Iterator[LeftOut]:
    parts = [part for part in PARTS if any(item.part == part for item in same)]
    if len(parts) > 1 and len({item.label for item in same}) == 1:
        for item in same:
            if item.part != parts[-1]:  # test before val before train: what was learned from can be spared
                yield LeftOut(item.path, f"the same photograph is also in {parts[-1]}")


def _folder_of(dataset: Dataset, part: Part) -> Path:
    """The folder of a part that is given."""
    at = dataset.root / part if dataset.folders else Path(f"the part {part} of {dataset.root}")
    return next((folder.path.parent for folder in dataset.folders if folder.part == part), at)


# ---- words -------------------------------------------------------------------------------------------------------------------


def _number(count: int) -> str:
    return f"{count or 'no'} usable image{'' if count == 1 else 's'}"


def _for_example(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    return f" {len(left_out)} left out, for example {left_out[0].path}: {left_out[0].reason}."


def _left_out_of(dataset: Dataset, label: str) -> list[LeftOut]:
    folders = [folder.path for folder in dataset.folders if folder.label == label]
    if not dataset.folders:
        return list(dataset.left_out)
    return [entry for entry in dataset.left_out if any(entry.path.is_relative_to(folder) for folder in folders)]


def _or_leave_out(dataset: Dataset, label: str) -> str:
    others = [name for name in dataset.labels if name != label]
    return f", or leave the class out:  nestling fit {dataset.root} --classes {','.join(others)}" if len(others) > 1 else ""


def _layout_hint(root: Path) -> str:
    if root.suffix.lower() in (*TABLES, *LINES):
        return "its paths are relative to the list"
    if root.is_file():
        return "put the photographs of each class into a folder of its own, photos/good  photos/bad, and name the one above"
    own = f"put the photographs of each class into a folder of its own:  {root}/good  {root}/bad"
    beside = [path for path in root.parent.iterdir() if path.is_dir() and path != root] if root.is_dir() else []
    if any(next(images_in(path), None) for path in beside[:LOOKED_AT]):
        return f"if its classes are {root.name} and the folders beside it:  nestling fit {root.parent}; else {own}"
    return own
