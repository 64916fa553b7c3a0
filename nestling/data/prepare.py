"""data prepare: from a folder of images and a list of their labels, or from class folders, to class folders of one format.

A list has a line an image, `path label`; the label is a name, or a number whose name stands in a second list, `name number`, as in
Places365's validation set.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from nestling.brief import as_table, in_short
from nestling.data.folders import Item, LeftOut, scan
from nestling.data.prepare_lists import Entry, Folders, chosen_entries, read_list, read_names
from nestling.data.survey import reading_of, said_of_set, survey
from nestling.errors import UnusableData, UnusableFile, WrongOption
from nestling.files import digest_of, folder_beside, naming, not_made, write
from nestling.outside import Record, content, parsed
from nestling.preprocess.image import SIDES, ImagePreprocess, resized
from nestling.preprocess.pictures import Picture, Reading, attempt, in_mode, opened
from nestling.preprocess.room import Room
from nestling.printable import json_text
from nestling.processor import cores
from nestling.progress import Progress, silent
from nestling.temporary import restored
from nestling.words import SavedAs

Reason = Literal["missing", "broken", "tiny"]
SAVED: dict[SavedAs, dict[str, Any]] = {
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
    run made. levels: of images of 16 bits the value that is white, None for that of the bits (8, 10, 12, 14 or 16) that the largest
    value of all needs.
    """

    format: SavedAs = "jpg"
    size: int | None = None
    classes: tuple[str, ...] | None = None
    strip: int = 0
    least: int = 32
    keep_tiny: bool = False
    parts: bool | None = None
    force: bool = False
    levels: int | None = None


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
    """counts: of each class folder. left_out: the images that were not written, and why. kept_tiny: tiny ones that were.

    said: lines on how the images were read, where a person should know.
    """

    __repr__, _repr_html_ = in_short, as_table

    folder: Path
    counts: tuple[Count, ...]
    left_out: tuple[LeftOut, ...]
    kept_tiny: tuple[LeftOut, ...]
    said: tuple[str, ...] = ()

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
    """digest: SHA-256 of the new file, "" where there is none. reason, said: what is wrong with the image, "" where nothing is."""

    digest: str
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
    labels that are numbers. Each image is turned upright, made sRGB of 8 bits, cut to its middle square, and resized if config says
    so.
    Raises UnusableData: source or a list cannot be used, a class is unknown, a path of the list leads out of source, nothing is
    left to write, or `out` holds what an earlier run did not make.
    """
    config = config or PrepareConfig()
    if config.size is not None and not SIDES[0] <= config.size <= SIDES[1]:
        raise WrongOption(f"--size is from {SIDES[0]} to {SIDES[1]} pixels; found {config.size}.")
    if not source.is_dir():
        raise UnusableData(f"{source} is no folder; expected a folder of images.")
    _require_apart(source, out, listed)
    _require_replaceable(out, config.force)
    entries, unused = _from_list(source, listed, names, config) if listed else _from_folders(source, config)
    jobs = _jobs(entries, config.format)
    found = survey([Item(job.source, 0, "") for job in jobs if job.source.is_file()], progress)  # a pipe would wait for ever
    reading = reading_of(found, config.levels)
    done: list[tuple[_Job, _Done]] = []
    written: dict[str, str] = {}
    with folder_beside(out) as new:
        with progress("preparing", len(jobs)) as advance:
            for job, result in _worked(jobs, config, reading, new):
                if result.digest:
                    written[f"{job.folder}/{job.name}"] = result.digest
                done.append((job, result))
                advance(1)
        prepared = replace(_counted(out, done, unused), said=said_of_set(found, reading, chosen=config.levels is not None))
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


def _jobs(entries: Sequence[Entry], format: SavedAs) -> list[_Job]:
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


def _worked(jobs: Sequence[_Job], config: PrepareConfig, reading: Reading, new: Path) -> Iterator[tuple[_Job, _Done]]:
    """Every job's result, in order; Pillow lets go of the interpreter's lock while it decodes, resizes and encodes."""
    workers = cores()
    room = Room(workers)
    waiting: deque[tuple[_Job, Future[_Done]]] = deque()
    left = iter(jobs)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prepare")
    try:
        for _ in jobs:
            while len(waiting) < workers * AHEAD and (job := next(left, None)) is not None:
                waiting.append((job, pool.submit(_written, job, config, reading, new / job.folder / job.name, room)))
            job, future = waiting.popleft()
            yield job, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _written(job: _Job, config: PrepareConfig, reading: Reading, to: Path, room: Room) -> _Done:
    """Decodes an image, makes it what is wanted and writes it. Raises OSError where that cannot be written."""
    if not job.source.exists():
        return _Done("", reason="missing", said="missing")
    if not job.source.is_file():  # a pipe would wait for ever
        return _Done("", reason="broken", said="not a file")

    def made() -> _Done | OSError:
        with opened(job.source, reading, room, beside=lambda height, width: 4 * height * width) as picture:
            tiny = min(picture.height, picture.width) < config.least
            said = f"tiny: {picture.width} x {picture.height} pixels" if tiny else ""
            if tiny and not config.keep_tiny:
                return _Done("", reason="tiny", said=said)
            grey = all(_is_grey(band) for _, band in picture.bands())
            square = _square(picture, config.size)
            try:
                with naming(to):
                    to.parent.mkdir(parents=True, exist_ok=True)
                    square.save(to, **SAVED[config.format])
                return _Done(digest_of(to), grey, "tiny" if tiny else None, said)
            except OSError as error:  # the disk's fault, not the picture's
                return error

    result = attempt(made)
    if isinstance(result, OSError):
        raise result
    return _Done("", reason="broken", said=result) if isinstance(result, str) else result


def _is_grey(band: Image.Image) -> bool:
    if band.mode == "L":
        return True
    pixels = np.asarray(band)
    return bool((pixels[:, :, :1] == pixels).all())


def _square(picture: Picture, size: int | None) -> Image.Image:
    """The middle square, mode RGB, of side `size`, or of the picture's shorter side."""
    side = min(picture.height, picture.width)
    top, left = (picture.height - side) // 2, (picture.width - side) // 2
    square = picture.cut((left, top, left + side, top + side))
    if size is not None and size != side:
        return in_mode(resized(ImagePreprocess((size, size), 3, 1.0, "bicubic", (0.0,) * 3, (1.0,) * 3), square), "RGB")
    whole = Image.new("RGB", (side, side))
    for box, band in square.bands():
        whole.paste(in_mode(band, "RGB"), box)
    return whole


def _counted(out: Path, done: Sequence[tuple[_Job, _Done]], unused: Folders) -> Prepared:
    counts: dict[str, Counter[str]] = {}
    left_out: list[LeftOut] = []
    kept_tiny: list[LeftOut] = []
    for job, result in done:
        count = counts.setdefault(job.folder, Counter())
        count["listed"] += 1
        if not result.digest:
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
