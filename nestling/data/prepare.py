"""data prepare: from a folder of images and a list of their labels, or from class folders, to class folders of one format.

A list has a line an image, `path label`; the label is a name, or a number whose name stands in a second list, `name number`, as in
Places365's validation set.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nestling.data.folders import LeftOut, scan
from nestling.data.lists import Entry, Folders, chosen_entries, read_list, read_names
from nestling.errors import UnusableData, UnusableFile
from nestling.files import folder_beside, not_made, write
from nestling.outside import Record, content, parsed
from nestling.preprocess import SIDES, ImagePreprocess, read_image, resize
from nestling.printable import json_text
from nestling.progress import Progress, silent
from nestling.temporary import restored

Format = Literal["jpg", "bmp", "png"]
Reason = Literal["missing", "broken", "tiny"]
SAVED: dict[Format, dict[str, Any]] = {
    "jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    "bmp": {"format": "BMP"},
    "png": {"format": "PNG"},
}
MADE = ".prepared.json"  # what was written: only that is ever replaced
AHEAD = 8  # images that wait, a worker


@dataclass(frozen=True)
class PrepareConfig:
    """format: of the written files. size: side in pixels; None leaves the largest square as it is.

    classes: names of the wanted classes; None for all. strip: leading parts of the list's paths that are taken away, as `patch -p`
    does: /a/bar/1.jpg is bar/1.jpg with 2. least: an image with a side of fewer pixels is tiny. keep_tiny: tiny ones are named and
    kept, not left out. parts: whether folders that are called like parts are parts; None: found out. force: replace what an earlier
    run made.
    """

    format: Format = "jpg"
    size: int | None = None
    classes: tuple[str, ...] | None = None
    strip: int = 0
    least: int = 32
    keep_tiny: bool = False
    parts: bool | None = None
    force: bool = False


@dataclass(frozen=True)
class Count:
    """Of one class folder: images that were listed (or found), written, and of these grey ones; why the others were left out."""

    folder: str
    listed: int
    written: int
    grey: int
    missing: int
    broken: int
    tiny: int
    in_two_classes: int


@dataclass(frozen=True)
class Prepared:
    """counts: of each class folder. left_out: the images that were not written, and why. kept_tiny: tiny ones that were."""

    folder: Path
    counts: tuple[Count, ...]
    left_out: tuple[LeftOut, ...]
    kept_tiny: tuple[LeftOut, ...]

    @property
    def written(self) -> int:
        """Images in the folder."""
        return sum(count.written for count in self.counts)


@dataclass(frozen=True)
class _Job:
    """An image to be written to `folder`/`name`."""

    source: Path
    folder: str
    name: str


@dataclass(frozen=True)
class _Done:
    """content: of the new file, None where there is none. reason, said: what is wrong with the image, "" where nothing is."""

    content: bytes | None
    grey: bool = False
    reason: Reason | None = None
    said: str = ""


def prepare(
    source: Path,
    out: Path,
    listed: Path | None = None,
    names: Path | None = None,
    config: PrepareConfig | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Write the chosen classes of `source` into class folders below `out`, whole or not at all.

    listed: list of `path label`; None where source has a folder a class (see data.folders.scan). names: list of `name number` for
    labels that are numbers. Each image is turned upright, made RGB, cut to its middle square, and resized if config says so.
    Raises UnusableData: source or a list cannot be used, a class is unknown, a path of the list leads out of source, nothing is
    left to write, or `out` holds what an earlier run did not make.
    """
    config = config or PrepareConfig()
    if config.size is not None and not SIDES[0] <= config.size <= SIDES[1]:
        raise UnusableData(f"--size is from {SIDES[0]} to {SIDES[1]} pixels; found {config.size}.")
    if not source.is_dir():
        raise UnusableData(f"{source} is no folder; expected a folder of images.")
    _require_apart(source, out, listed)
    _require_replaceable(out, config.force)
    entries, unused = _from_list(source, listed, names, config) if listed else _from_folders(source, config)
    jobs = _jobs(entries, config.format)
    done: list[tuple[_Job, _Done]] = []
    written: dict[str, str] = {}
    with folder_beside(out) as new:
        with progress("preparing", len(jobs)) as advance:
            for job, result in _worked(jobs, config):
                if result.content is not None:
                    (new / job.folder).mkdir(parents=True, exist_ok=True)
                    write(new / job.folder / job.name, result.content)
                    written[f"{job.folder}/{job.name}"] = sha256(result.content).hexdigest()
                done.append((job, replace(result, content=result.content and b"")))  # what is written need not be kept
                advance(1)
        prepared = _counted(out, done, unused)
        if not written:
            some = prepared.left_out[0] if prepared.left_out else None
            example = f" {len(prepared.left_out)} left out, for example {some.path}: {some.reason}." if some else ""
            raise UnusableData(f"nothing of {source} could be written.{example}", "look at the paths in the list")
        write(new / MADE, json_text({"nestling": "data prepare", "files": written}, indent=0).encode())
    return prepared


# ---- what there is to do -------------------------------------------------------------------------------------------------------


def _from_list(source: Path, listed: Path, names: Path | None, config: PrepareConfig) -> tuple[list[Entry], Folders]:
    entries = read_list(listed, source, read_names(names) if names else None, config.strip)
    return chosen_entries(entries, config.classes, listed)


def _from_folders(source: Path, config: PrepareConfig) -> tuple[list[Entry], Folders]:
    """Parts are called train, val and test in what is written, however they are called in source."""
    dataset = scan(source, config.classes, config.parts)
    folders = {folder.path: folder for folder in dataset.folders}

    def entry(path: Path) -> Entry | None:
        """None for what lies in no class folder."""
        of = next((folders[above] for above in path.parents if above in folders), None)
        if of is None:
            return None
        return Entry(path, f"{of.part}/{of.label}" if of.part else of.label, path.relative_to(of.path).as_posix())

    entries = [made for item in dataset.items if (made := entry(item.path))]
    places = [(left, entry(left.path)) for left in dataset.left_out]
    return entries, {left.path: (made.folder if made else "", left.reason) for left, made in places}


def _jobs(entries: Sequence[Entry], format: Format) -> list[_Job]:
    """Each image's new name: its own, with the folders that it lay in before it; a number after it where two would be the same."""
    taken: Counter[str] = Counter()
    jobs: list[_Job] = []
    for entry in entries:
        stem = "-".join(Path(entry.inner).with_suffix("").parts).lstrip(".") or "image"
        name, again = f"{stem}.{format}", 1
        while taken[f"{entry.folder}/{name}".casefold()]:  # some file systems do not tell A from a
            again += 1
            name = f"{stem}-{again}.{format}"
        taken[f"{entry.folder}/{name}".casefold()] += 1
        jobs.append(_Job(entry.path, entry.folder, name))
    return jobs


# ---- images --------------------------------------------------------------------------------------------------------------------


def _worked(jobs: Sequence[_Job], config: PrepareConfig) -> Iterator[tuple[_Job, _Done]]:
    """Every job's result, in order; Pillow lets go of the interpreter's lock while it decodes, resizes and encodes."""
    workers = os.cpu_count() or 1
    waiting: deque[tuple[_Job, Future[_Done]]] = deque()
    left = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        for _ in jobs:
            while len(waiting) < workers * AHEAD and (job := next(left, None)) is not None:
                waiting.append((job, pool.submit(_converted, job.source, config)))
            job, future = waiting.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _converted(path: Path, config: PrepareConfig) -> _Done:
    try:
        if not path.exists():
            return _Done(None, reason="missing", said="missing")
        if not path.is_file():  # a pipe would wait for ever
            return _Done(None, reason="broken", said="not a file")
        image = read_image(path.read_bytes(), NAMELESS)
    except OSError as error:
        return _Done(None, reason="broken", said=f"it cannot be read ({error.strerror})")
    except UnusableData as error:
        return _Done(None, reason="broken", said=error.message.removeprefix(f"{NAMELESS} cannot be used: ").removesuffix("."))
    height, width, _ = image.shape
    tiny = min(height, width) < config.least
    said = f"tiny: {width} x {height} pixels" if tiny else ""
    if tiny and not config.keep_tiny:
        return _Done(None, reason="tiny", said=said)
    grey = bool((image[:, :, :1] == image).all())
    return _Done(_encoded(_square(image, config.size), config.format), grey, "tiny" if tiny else None, said)


NAMELESS = "the image"  # the list of what was left out names the file itself


def _square(image: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] -> the middle square [S, S, 3], S = size or the shorter side."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if size is None or size == side:
        return square
    return resize(ImagePreprocess((size, size), 3, 1.0, "bicubic", (0.0,) * 3, (1.0,) * 3), square)


def _encoded(image: NDArray[np.uint8], format: Format) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, **SAVED[format])
    return buffer.getvalue()


def _counted(out: Path, done: Sequence[tuple[_Job, _Done]], unused: Folders) -> Prepared:
    counts: dict[str, Counter[str]] = {}
    left_out: list[LeftOut] = []
    kept_tiny: list[LeftOut] = []
    for job, result in done:
        count = counts.setdefault(job.folder, Counter())
        count["listed"] += 1
        if result.content is None:
            count[result.reason or "broken"] += 1
            left_out.append(LeftOut(job.source, result.said))
            continue
        count["written"] += 1
        count["grey"] += result.grey
        if result.reason:
            kept_tiny.append(LeftOut(job.source, f"{result.said}, kept"))
    for path, (folder, reason) in unused.items():
        why = "in_two_classes" if "same photograph" in reason or "two classes" in reason else "broken"
        if folder:  # what lies beside the class folders is of none
            counts.setdefault(folder, Counter()).update(("listed", why))
        left_out.append(LeftOut(path, reason))
    fields = ("listed", "written", "grey", "missing", "broken", "tiny", "in_two_classes")
    rows = tuple(Count(folder, *(counts[folder][field] for field in fields)) for folder in sorted(counts))
    return Prepared(out, rows, tuple(left_out), tuple(kept_tiny))


# ---- where it goes -------------------------------------------------------------------------------------------------------------


def _require_apart(source: Path, out: Path, listed: Path | None) -> None:
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or (listed is None and there.is_relative_to(here)):
        raise UnusableData(f"{out} and {source} lie in one another.", "name a folder beside it:  -o prepared")


def _require_replaceable(out: Path, force: bool) -> None:
    if restored(out).is_symlink() or (out.exists() and not out.is_dir()):
        raise UnusableData(f"{out} is no folder.", "name another one:  -o prepared")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        made = Record(parsed(content(out / MADE), MADE), MADE).get("files", dict)
    except UnusableFile:
        raise UnusableData(
            f"{out} holds files that `data prepare` did not make.", "name an empty or a new folder with -o"
        ) from None
    foreign = not_made(out, made | {MADE: sha256((out / MADE).read_bytes()).hexdigest()})
    if foreign is not None:
        raise UnusableData(
            f"{out} holds {foreign}, which `data prepare` did not make or somebody changed.", "move it away, or name another folder"
        )
    if not force:
        raise UnusableData(f"{out} was prepared before.", "replace it with --force, or name another folder with -o")
