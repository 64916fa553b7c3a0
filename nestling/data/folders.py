"""Photographs in folders: which there are, what each is called, and which cannot serve.

photos/good/*.jpg  photos/bad/*.jpg                                a folder a class
photos/train/good/*.jpg  photos/val/...  photos/test/...           the parts given (val, test or both may be missing; see layout.py)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import PARTS, Part
from nestling.data.layout import ClassFolder, Layout, layout
from nestling.data.walk import LOOP, files_below, folders_in, path_order, print_of
from nestling.data.walk import LeftOut as LeftOut
from nestling.errors import UnusableData
from nestling.temporary import restored

LEAST = 5  # images of a class: with 60/20/20, three to learn from, one to choose by, one to test on


@dataclass(frozen=True)
class Item:
    """An image file. label: index into Dataset.labels.

    fingerprint: first 16 hex digits of the SHA-256 of the file's content. part: where the folders give it, else None.
    """

    path: Path
    label: int
    fingerprint: str
    part: Part | None = None


@dataclass(frozen=True)
class Dataset:
    """What a folder holds. labels: sorted; items and left_out: in path_order. Copies of a photograph are items of their own.

    folders: of the classes; of a part each class has one.
    """

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()
    folders: tuple[ClassFolder, ...] = ()


def by_path(entry: Item | LeftOut) -> tuple[bytes, ...]:
    """The key that sorts entries by path_order."""
    return path_order(entry.path)


# ---- scanning ----------------------------------------------------------------------------------------------------------------


def scan(
    root: Path,
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
    image, a class whose name cannot be written, or folders that may be parts as well as classes.
    """
    found = _found(restored(root), parts, known or classes or (), asks=not known)
    names = sorted({folder.label for folder in found.folders})
    labels = tuple(names if classes is None else _chosen(root, names, classes))
    items: list[Item] = []
    left_out = list(found.left_out)
    for folder in found.folders:
        if folder.label not in labels:
            continue
        for path in files_below(root, folder.path):
            if isinstance(path, LeftOut):
                left_out.append(path)
            elif isinstance(print_ := print_of(path), LeftOut):
                left_out.append(print_)
            else:
                items.append(Item(path, labels.index(folder.label), print_, folder.part))
    order = tuple(sorted(items, key=by_path)), tuple(sorted(left_out, key=by_path))
    dataset = _one_side_each(Dataset(root, labels, *order, found.folders))
    if not dataset.items:
        raise UnusableData(f"{root} holds no usable image.{_for_example(dataset.left_out)}", _layout_hint(root))
    return dataset


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
        inner = [path for folder in dataset.folders if folder.label == labels[0] for path in folders_in(folder.path)[0]]
        further = f", or, where the folders in it are the classes, name that one:  {inner[0].parent}" if len(inner) > 1 else ""
        raise UnusableData(
            f"{root} holds one class only, {labels[0]!r}; at least two are needed to tell apart.",
            f"add a folder with photographs of something else:  {root}/NAME{further}",
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
                    f"add images to {folder / label}{_or_leave_out(dataset, label)}",
                )
        if total < LEAST:
            copies = len(items) - total
            where = f"class {label!r} in {root}" if given else str(root / label)
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


def _found(root: Path, parts: bool | None, known: Sequence[str], asks: bool) -> Layout:
    """The class folders, and what lies beside them."""
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise UnusableData(f"{root} {problem}; expected a folder of photographs.", _layout_hint(root))
    try:
        found = layout(root, parts, known, asks)
    except OSError as error:
        raise UnusableData(f"{error.filename or root} cannot be read ({error.strerror}).") from error
    if not found.folders and (strays := [entry for entry in found.left_out if entry.reason != LOOP]):
        raise UnusableData(f"{root} holds {_number(len(strays))} itself; expected a folder for each class.", _layout_hint(root))
    if not found.folders:
        raise UnusableData(f"{root} is empty; expected a folder for each class.", _layout_hint(root))
    for folder in found.folders:
        _require_writable(folder)
    return found


def _require_writable(folder: ClassFolder) -> None:
    """A class's name goes into labels.txt, one a line, and into JSON."""
    if len(folder.label.splitlines()) > 1 or folder.label.endswith(("\n", "\r")):
        raise UnusableData(f"the class folder {folder.label!r} has a line break in its name.", "rename the folder")
    try:
        folder.label.encode()
    except UnicodeEncodeError as error:
        raise UnusableData(f"the name of the class folder {folder.label!r} is not valid UTF-8.", "rename the folder") from error


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
    return next((folder.path.parent for folder in dataset.folders if folder.part == part), dataset.root / part)


# ---- words -------------------------------------------------------------------------------------------------------------------


def _number(count: int) -> str:
    return f"{count or 'no'} usable image{'' if count == 1 else 's'}"


def _for_example(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    return f" {len(left_out)} left out, for example {left_out[0].path}: {left_out[0].reason}."


def _left_out_of(dataset: Dataset, label: str) -> list[LeftOut]:
    folders = [folder.path for folder in dataset.folders if folder.label == label]
    return [entry for entry in dataset.left_out if any(entry.path.is_relative_to(folder) for folder in folders)]


def _or_leave_out(dataset: Dataset, label: str) -> str:
    others = [name for name in dataset.labels if name != label]
    return f", or leave the class out:  nestling fit {dataset.root} --classes {','.join(others)}" if len(others) > 1 else ""


def _layout_hint(root: Path) -> str:
    return f"put the photographs of each class into a folder of its own:  {root}/good  {root}/bad"
