"""Photographs in folders: which there are, what each is called, and which cannot serve.

photos/good/*.jpg  photos/bad/*.jpg                                a folder a class
photos/train/good/*.jpg  photos/val/...  photos/test/...           the parts given (val, test or both may be missing)
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestling.bundle import PARTS, Part
from nestling.errors import UnusableData
from nestling.preprocess import why_not_image

LEAST = 5  # images of a class: with 60/20/20, three to learn from, one to choose by, one to test on

PART_FOLDERS: dict[str, Part] = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


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
class LeftOut:
    """A file (or a linked folder) that is not used, and why, in words that fit behind its name and a colon."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Dataset:
    """What a folder holds. labels: sorted; items and left_out: in path_order. Copies of a photograph are items of their own."""

    root: Path
    labels: tuple[str, ...]
    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...] = ()


@dataclass(frozen=True)
class _ClassFolder:
    path: Path
    label: str
    part: Part | None


def path_order(path: Path) -> tuple[bytes, ...]:
    """What paths are sorted by: folder by folder, each name by the bytes that the file system keeps.

    So in/0.bmp comes before in-0.bmp (a folder's files stand together), Z before a, and a name that is not UTF-8 has its place too.
    folder.c sorts alike: of equal photographs both keep the first.
    """
    return tuple(os.fsencode(name) for name in path.parts)


def by_path(entry: Item | LeftOut) -> tuple[bytes, ...]:
    """The key that sorts entries by path_order."""
    return path_order(entry.path)


# ---- scanning ----------------------------------------------------------------------------------------------------------------


def scan(root: Path, classes: Sequence[str] | None = None) -> Dataset:
    """Every image below root with its class; classes: only these (default: all).

    Files are found at any depth in a class folder and judged by content, whatever their suffix; hidden ones are ignored, links
    followed. Each is read once: its header is checked and its content hashed; damage behind the header shows when it is decoded
    (see stream.py). A photograph that stands in two classes is left out of both; one that stands in two given parts stays in test
    rather than val, in val rather than train.
    Raises UnusableData: root is missing, empty, cannot be read, holds no class folders or not the classes asked for, no usable
    image, or a class whose name cannot be written.
    """
    try:
        folders, strays = _class_folders(root)
    except OSError as error:
        raise UnusableData(f"{error.filename or root} cannot be read ({error.strerror}).") from error
    names = sorted({folder.label for folder in folders})
    labels = tuple(names if classes is None else _chosen(root, names, classes))
    found: list[Item] = []
    left_out = strays
    for folder in folders:
        if folder.label not in labels:
            continue
        for path in _files(root, folder.path):
            if isinstance(path, LeftOut):
                left_out.append(path)
            elif isinstance(print_ := _read(path), LeftOut):
                left_out.append(print_)
            else:
                found.append(Item(path, labels.index(folder.label), print_, folder.part))
    dataset = _one_side_each(Dataset(root, labels, tuple(sorted(found, key=by_path)), tuple(sorted(left_out, key=by_path))))
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
        raise UnusableData(
            f"{root} holds one class only, {labels[0]!r}; at least two are needed to tell apart.",
            f"add a folder with photographs of something else:  {root}/NAME",
        )
    given = given_parts(dataset)
    for index, label in enumerate(labels):
        items = [item for item in dataset.items if item.label == index]
        counts = Counter(part for part, _ in {(item.part, item.fingerprint) for item in items})
        total = sum(counts.values())
        for part in given:
            # those that the folders don't give are taken from train, one at least
            least = 1 + (len(PARTS) - len(given) if part == "train" else 0)
            if counts[part] < least:
                raise UnusableData(
                    f"{root}/{part} holds {_number(counts[part])} of class {label!r}; at least {least} needed.",
                    f"add images to {root}/{part}/{label}{_or_leave_out(dataset, label)}",
                )
        if total < LEAST:
            copies = len(items) - total
            folder = f"class {label!r} in {root}" if given else str(root / label)
            raise UnusableData(
                f"{folder} holds {_number(total)}{f' (and {copies} copies)' if copies else ''}; "
                f"a class needs at least {LEAST} to be split into train, val and test.",
                f"add images to it{_or_leave_out(dataset, label)}",
            )


def given_parts(dataset: Dataset) -> tuple[Part, ...]:
    """The parts that the folders give, in order; () where they give none."""
    return tuple(part for part in PARTS if any(item.part == part for item in dataset.items))


def fingerprint(dataset: Dataset) -> str:
    """16 hex digits that stand for the whole data set: contents with their classes and given parts; not names, places or order."""
    entries = sorted((dataset.labels[item.label], item.part or "", item.fingerprint) for item in dataset.items)
    return hashlib.sha256(json.dumps([dataset.labels, entries]).encode()).hexdigest()[:16]


# ---- folders -----------------------------------------------------------------------------------------------------------------


def _class_folders(root: Path) -> tuple[list[_ClassFolder], list[LeftOut]]:
    """The class folders, sorted, and the images that lie beside them."""
    if not root.is_dir():
        problem = "is a file" if root.exists() else "does not exist"
        raise UnusableData(f"{root} {problem}; expected a folder of photographs.", _layout_hint(root))
    top = _folders(root)
    parted = {folder.name: _folders(folder) for folder in top}
    if "train" in parted and parted["train"] and parted.keys() <= PART_FOLDERS.keys():
        folders = [_ClassFolder(path, path.name, PART_FOLDERS[part]) for part, paths in parted.items() for path in paths]
        places = [root, *top]
    else:
        folders = [_ClassFolder(path, path.name, None) for path in top]
        places = [root]
    strays = [LeftOut(path, "beside the class folders, in none of them") for place in places for path in _images_in(place)]
    if not folders and strays:
        raise UnusableData(f"{root} holds {_number(len(strays))} itself; expected a folder for each class.", _layout_hint(root))
    if not folders:
        raise UnusableData(f"{root} is empty; expected a folder for each class.", _layout_hint(root))
    for folder in folders:
        _require_writable(folder)
    looped = [folder for folder in folders if root.resolve().is_relative_to(folder.path.resolve())]
    strays += [LeftOut(folder.path, LOOP) for folder in looped]
    return [folder for folder in folders if folder not in looped], strays


LOOP = "a link back to a folder above it"


def _folders(place: Path) -> list[Path]:
    return sorted((path for path in place.iterdir() if path.is_dir() and not _hidden(path)), key=path_order)


def _images_in(place: Path) -> list[Path]:
    """The images that lie in the folder itself; a README or a list of labels there is none of our business."""
    files = (path for path in place.iterdir() if not path.is_dir() and not _hidden(path))
    return sorted((path for path in files if not isinstance(_read(path), LeftOut)), key=path_order)


def _hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "__MACOSX"  # the latter: what macOS puts into zip files


def _require_writable(folder: _ClassFolder) -> None:
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


def _files(root: Path, folder: Path) -> Iterator[Path | LeftOut]:
    """Every file below a class folder, in path_order. A folder that several links lead to is read where it comes first."""
    own = (root.resolve(), folder.resolve())
    waiting, seen = [folder], {own[1]}
    while waiting:
        path = waiting.pop()
        if path != folder:
            if not path.is_dir():
                yield path
                continue
            real = path.resolve()
            if any(above.is_relative_to(real) for above in own):
                yield LeftOut(path, LOOP)
                continue
            if real in seen:
                yield LeftOut(path, "a link to a folder that is read already")
                continue
            seen.add(real)
        try:
            waiting += sorted((inner for inner in path.iterdir() if not _hidden(inner)), key=path_order, reverse=True)
        except OSError as error:
            yield LeftOut(path, f"it cannot be read ({error.strerror})")


def _read(path: Path) -> str | LeftOut:
    """The file's fingerprint, or why it is no image."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return LeftOut(path, "not a file")  # a pipe would wait for ever
        with path.open("rb") as file:
            if reason := why_not_image(file):
                return LeftOut(path, reason)
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        return LeftOut(path, f"it cannot be read ({error.strerror})")


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


# ---- words -------------------------------------------------------------------------------------------------------------------


def _number(count: int) -> str:
    return f"{count or 'no'} usable image{'' if count == 1 else 's'}"


def _for_example(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return ""
    return f" {len(left_out)} left out, for example {left_out[0].path}: {left_out[0].reason}."


def _or_leave_out(dataset: Dataset, label: str) -> str:
    others = [name for name in dataset.labels if name != label]
    return f", or leave the class out:  nestling fit {dataset.root} --classes {','.join(others)}" if len(others) > 1 else ""


def _layout_hint(root: Path) -> str:
    return f"put the photographs of each class into a folder of its own:  {root}/good  {root}/bad"
