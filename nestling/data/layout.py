"""Which folders are classes and which are parts (train, val, test): told by their names together with what they hold.

A name alone tells nothing: among photographs of vehicles, train is a class. The twin of nestling/device/runtime/layout.c.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nestling.bundle import PARTS, Part
from nestling.data.walk import DISK, LeftOut, Tree, folders_in, holds_images, images_in
from nestling.errors import UnusableData

SPELLINGS: Mapping[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
SEPARATORS = " _-."


@dataclass(frozen=True)
class ClassFolder:
    """part: where the folder above it gives one."""

    path: Path
    label: str
    part: Part | None


@dataclass(frozen=True)
class Layout:
    """folders: those of the classes, sorted. left_out: what lies beside them."""

    folders: tuple[ClassFolder, ...]
    left_out: tuple[LeftOut, ...]


Told = Literal["classes", "parts", "unclear"]


@dataclass(frozen=True)
class Seen:
    """What a folder holds. path: where its class folders are. name: of the folder in the data set's own.

    part: that its name speaks of; sure: the name says nothing else. inner: names of the folders in it that hold images, at any
    depth. direct: images lie in the folder itself.
    """

    path: Path
    name: str
    part: Part | None
    sure: bool
    inner: frozenset[str]
    direct: bool


def layout(root: Path, parts: bool | None = None, known: Collection[str] = (), asks: bool = True, tree: Tree = DISK) -> Layout:
    """The class folders of a data set.

    parts: whether folders that are called like parts are parts; None: find out. known: classes that are expected; where one reading
    alone gives any of them, it is that one. asks: the person can answer with --parts and --no-parts.
    Raises UnusableData where it cannot be told, saying both readings; OSError where a folder cannot be read.
    """
    top, looped = folders_in(root, tree)
    seen = [look(root, path, tree) for path in top] if parts is not False and any(part_of(path.name)[0] for path in top) else []
    if parts and not any(one.part and one.inner for one in seen):
        raise UnusableData(
            f"{root} has no parts: no folder that is called train, val or test and holds a folder for each class.",
            "leave out --parts",
        )
    if parts is None and not seen and len(top) == 1:
        _require_unwrapped(root, top[0], known, tree)
    found: Told = "parts" if parts else _settled(seen, known) or told(seen)
    if found == "unclear":
        raise _unclear(root, seen, asks)
    return _parts(root, seen, looped, tree) if found == "parts" else _classes(root, top, looped, tree)


# ---- names -------------------------------------------------------------------------------------------------------------------


def part_of(name: str) -> tuple[Part | None, bool]:
    """(the part that a folder's name speaks of, whether it says nothing else). Case does not matter.

    Testing, test_set, trainset: sure. seg_train, train2017, test images: not.
    """
    if not name.isascii():
        return None, False
    text = name.lower().strip(SEPARATORS)
    bare = text.removesuffix("set").rstrip(SEPARATORS)
    if bare in SPELLINGS:
        return SPELLINGS[bare], True
    found = {SPELLINGS[word] for word in re.findall("[a-z]+", text) if word in SPELLINGS}
    return (found.pop(), False) if len(found) == 1 else (None, False)


# ---- what the folders hold -----------------------------------------------------------------------------------------------------


def look(root: Path, folder: Path, tree: Tree = DISK) -> Seen:
    """Looks into a folder of the data set. seg_train/seg_train, as archives have it, is one folder."""
    part, sure = part_of(folder.name)
    path = folder
    while True:
        folders, _ = folders_in(path, tree)
        direct = next(images_in(path, tree), None) is not None
        if direct or part is None or [inner.name for inner in folders] != [folder.name]:
            break
        path = folders[0]
    return Seen(path, folder.name, part, sure, frozenset(f.name for f in folders if holds_images(root, f, tree)), direct)


def unwrapped(root: Path, tree: Tree) -> Path:
    """The folder that an archive was made of, where it holds that one alone and the folders of images are in it."""
    while True:
        top, _ = folders_in(root, tree)
        if len(top) != 1 or part_of(top[0].name)[0] or next(images_in(root, tree), None) is not None:
            return root
        only = look(root, top[0], tree)
        if only.direct or not only.inner:
            return root
        root = only.path


def told(seen: Sequence[Seen]) -> Told:
    """How the folders of a data set are to be read, as far as names and structure tell."""
    full = [one for one in seen if one.inner or one.direct]
    sure, named = [one for one in full if one.sure], [one for one in full if one.part]
    found = _told_by(sure, [one for one in full if not one.sure]) if sure else "classes"
    if found != "classes" or len(named) == len(sure) or not {"train"} < {one.part for one in named}:
        return found
    others = [one for one in full if not one.part]  # names that only contain a part's word decide nothing, but they may ask
    return "classes" if _told_by(named, others) == "classes" or (others and not _agree(named, 2)) else "unclear"


def _told_by(named: Sequence[Seen], others: Sequence[Seen]) -> Told:
    """named: folders that are called like parts; others: those beside them. All of them hold images."""
    parts = {one.part for one in named}
    if _agree(named, 2 if others else 0):
        return "parts" if len(parts) == len(named) else "unclear"  # Train and train, val and valid: which is it?
    if not others:
        return "classes" if len(named) == 1 and not named[0].inner else "unclear"
    deep = any(_deep(one) for one in named)
    if not deep and (len(parts) == 1 or "train" not in parts):
        return "classes"  # bus, car, train
    own = _classes_of(named)
    if len(parts) == 1 and all(_deep(one) and not own & one.inner for one in others):
        return "classes"  # bus/city bus/coach train/steam train/diesel
    if parts in ({"val"}, {"test"}) and not any(own & one.inner for one in others):
        return "classes"
    return "unclear"


def _agree(named: Sequence[Seen], least: int) -> bool:
    """Whether train holds folders, and each other part that does holds some of these; of one of them `least` or more."""
    train = _classes_of([one for one in named if one.part == "train"])
    shared = [len(train & one.inner) for one in named if one.part != "train" and one.inner]
    return bool(train) and all(shared) and max(shared, default=0) >= least


def _deep(one: Seen) -> bool:
    """It holds several folders of images and no image itself, as a part does and a class may."""
    return len(one.inner) > 1 and not one.direct


def _settled(seen: Sequence[Seen], known: Collection[str]) -> Told | None:
    """The reading that alone gives classes that are expected."""
    as_classes = {one.name for one in seen} & set(known)
    as_parts = _classes_of(_part_folders(seen)) & set(known)
    return None if bool(as_classes) == bool(as_parts) else "parts" if as_parts else "classes"


def _classes_of(some: Sequence[Seen]) -> frozenset[str]:
    return frozenset().union(*(one.inner for one in some))


# ---- the two readings ----------------------------------------------------------------------------------------------------------


def _classes(root: Path, top: Sequence[Path], looped: Sequence[LeftOut], tree: Tree) -> Layout:
    return Layout(tuple(ClassFolder(path, path.name, None) for path in top), (*looped, *_strays([root], tree)))


def _parts(root: Path, seen: Sequence[Seen], looped: Sequence[LeftOut], tree: Tree) -> Layout:
    """All folders of one part together."""
    chosen = _part_folders(seen)
    folders, left_out = [], [*looped, *_strays([root, *(one.path for one in chosen)], tree)]
    for one in chosen:
        inner, inner_looped = folders_in(one.path, tree)
        folders += [ClassFolder(path, path.name, one.part) for path in inner]
        left_out += inner_looped
    beside = [one for one in seen if one not in chosen and (one.inner or one.direct)]
    names = _listed([one.name for one in chosen])
    left_out += [LeftOut(root / one.name, f"the whole folder, for it lies beside the parts {names} and is none") for one in beside]
    return Layout(tuple(folders), tuple(left_out))


def _part_folders(seen: Sequence[Seen]) -> list[Seen]:
    """The parts, where the folders are read so: what is surely called so, and others for parts that there are not."""
    sure = {one.part for one in seen if one.sure}
    return [one for one in seen if one.part and (one.sure or one.part not in sure)]


def _strays(places: Sequence[Path], tree: Tree) -> list[LeftOut]:
    return [LeftOut(path, "beside the class folders, in none of them") for place in places for path in images_in(place, tree)]


# ---- words -------------------------------------------------------------------------------------------------------------------


def _unclear(root: Path, seen: Sequence[Seen], asks: bool) -> UnusableData:
    full = [one for one in seen if one.inner or one.direct]
    found = "; ".join(f"{one.name} holds {_holding(one)}" for one in full)
    message = f"{root}: it cannot be told whether its folders are parts (train, val, test) or classes: {found}."
    if not asks:
        return UnusableData(message, "rename them: parts are called train, val and test, and hold a folder for each class")
    chosen = _part_folders(full)
    classes, beside = sorted(_classes_of(chosen)), [one.name for one in full if one not in chosen]
    names = {part: " and ".join(one.name for one in chosen if one.part == part) for part in PARTS}
    parts = ", ".join(f"{name} as {part}" for part, name in names.items() if name)
    left = f"; {_listed(beside)} left out" if beside else ""
    as_parts = f"--parts     reads {parts}; the classes are {_listed(classes)}{left}"
    as_parts = as_parts if classes else f"as parts they need a folder for each class:  {root}/train/NAME"
    as_classes = f"--no-parts  reads every folder as a class: {_listed([one.name for one in full])}"
    return UnusableData(message, f"{as_parts}\n  {as_classes}")


def _holding(one: Seen) -> str:
    folders = f"folders of images ({_listed(sorted(one.inner))})" if one.inner else ""
    return " and ".join(filter(None, (folders, "images" if one.direct else "")))


def _require_unwrapped(root: Path, only: Path, known: Collection[str], tree: Tree) -> None:
    """archive/dataset/train/good: a folder further down was meant."""
    while next(images_in(only, tree), None) is None:
        seen = [look(root, path, tree) for path in folders_in(only, tree)[0]]
        names = {one.name for one in seen if one.inner or one.direct}
        if told(seen) != "classes" or (only.name not in known and names & set(known)):
            way = only.relative_to(root)
            raise UnusableData(
                f"{root} holds one folder only, {way}, and that one holds {_listed(sorted(names))}.", f"name that one:  {only}"
            )
        if len(seen) != 1:
            return
        only /= seen[0].name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
