"""What in a set's files decides how they are read: how bright pictures of 16 bits are, and which colour profiles cannot be used."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nestling.data.folders import Item, LeftOut
from nestling.preprocess.levels import BITS, DARK, SIXTEEN_BITS, fitting, white
from nestling.preprocess.pictures import Reading, largest_value, look
from nestling.preprocess.room import Room
from nestling.processor import cores
from nestling.progress import Progress, silent

MANY_DARK = 0.1  # share of the pictures of 16 bits that may be nearly black without a word


@dataclass(frozen=True)
class Survey:
    """deep: pictures of 16 bits, each with its largest value. profiles: pictures whose colour profile cannot be used, and why."""

    deep: tuple[tuple[Path, int], ...] = ()
    profiles: tuple[LeftOut, ...] = ()


def survey(items: Sequence[Item], progress: Progress = silent, cache: Path | None = None) -> Survey:
    """Reads every header, and decodes pictures of 16 bits for their largest value; what cannot be read is passed over.

    cache: folder in which the largest values are remembered by the files' contents.
    """
    headers = [(item, found) for item in items if (found := look(item.file)) is not None]
    deep = [item for item, (is_deep, _) in headers if is_deep]
    profiles = tuple(LeftOut(item.path, reason) for item, (_, reason) in headers if reason)
    if not deep:
        return Survey((), profiles)
    workers = cores()
    measured = partial(_largest, room=Room(workers), cache=cache)
    values: list[tuple[Path, int]] = []
    with progress("measuring pictures of 16 bits", len(deep)) as advance:
        pool = ThreadPoolExecutor(workers, thread_name_prefix="measure")
        try:
            for item, largest in zip(deep, pool.map(measured, deep), strict=True):
                if largest is not None:
                    values.append((item.path, largest))
                advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
    return Survey(tuple(values), profiles)


def reading_of(found: Survey, levels: int | None) -> Reading:
    """How a new set is read. levels: the value of 16-bit pixels that is white; None for that of the bits that the largest needs."""
    if levels is None:
        levels = fitting(max((largest for _, largest in found.deep), default=SIXTEEN_BITS))
    return Reading(levels, "srgb")


# ---- words ---------------------------------------------------------------------------------------------------------------------


def said_of_set(found: Survey, reading: Reading, chosen: bool) -> tuple[str, ...]:
    """What a person should know of a set that is read so, a line each; chosen: the levels were asked for."""
    lines: list[str] = []
    if found.deep:
        path, largest = max(found.deep, key=lambda entry: entry[1])
        dark = [path for path, value in found.deep if value <= reading.levels // DARK]
        if not chosen and reading.levels < SIXTEEN_BITS:
            bits = next(bits for bits in BITS if white(bits) == reading.levels)
            lines.append(
                f"{_pictures(len(found.deep))} of 16 bits, the largest value in them {largest}: taken as {bits} bits, "
                f"{reading.levels} becomes white (--levels 16 leaves them as they are stored)"
            )
        if not chosen and len(dark) > MANY_DARK * len(found.deep):
            lines.append(
                f"{len(dark)} of {_pictures(len(found.deep))} of 16 bits hold no value above {reading.levels // DARK}, for example "
                f"{dark[0]}; the largest, {largest}, is in {path}: the dark ones are nearly black. "
                "If their camera has 10 or 12 bits, say so:  --levels 12"
            )
        lines += _above(found, reading, "--levels")
    return (*lines, *_unusable(found))


def said_of_asked(found: Survey, reading: Reading) -> tuple[str, ...]:
    """What a person should know who asks a network about pictures, of which it was taught with some that were read so."""
    dark = [(path, value) for path, value in found.deep if value <= reading.levels // DARK]
    lines = _above(found, reading, "what this network was taught with")
    if dark:
        path, value = max(dark, key=lambda entry: entry[1])
        lines.append(
            f"{_pictures(len(dark))} of 16 bits hold no value above {value}, for example {path}: nearly black to this network, "
            f"which takes {reading.levels} as white. For a camera of 12 bits:  nestling data prepare PHOTOS --levels 12 -o brighter"
        )
    return (*lines, *(_unusable(found) if reading.colour == "srgb" else ()))


def _above(found: Survey, reading: Reading, why: str) -> list[str]:
    above = [entry for entry in found.deep if entry[1] > reading.levels]
    if not above:
        return []
    path, largest = max(above, key=lambda entry: entry[1])
    return [
        f"{_pictures(len(above))} of 16 bits hold values above {reading.levels}, which is white by {why}: these become white, too. "
        f"The largest, {largest}, is in {path}"
    ]


def _unusable(found: Survey) -> tuple[str, ...]:
    if not found.profiles:
        return ()
    some = found.profiles[0]
    count = _pictures(len(found.profiles))
    return (f"{count} with a colour profile that cannot be used, read without it, for example {some.path}: {some.reason}",)


def _pictures(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"


# ---- remembered ------------------------------------------------------------------------------------------------------------------


def _largest(item: Item, room: Room, cache: Path | None) -> int | None:
    entry = cache / "largest" / item.fingerprint[:2] / item.fingerprint if cache and item.fingerprint else None
    known = _remembered(entry) if entry else None
    if known is not None:
        return known
    found = largest_value(item.file, room)
    if entry and found is not None:
        with contextlib.suppress(OSError):  # a full disk or a cache that cannot be written costs time, nothing else
            entry.parent.mkdir(parents=True, exist_ok=True)
            beside = entry.with_name(f".{entry.name}.{os.getpid()}")
            beside.write_text(str(found))
            beside.replace(entry)
    return found


def _remembered(entry: Path) -> int | None:
    try:
        text = entry.read_bytes()
    except OSError:
        return None
    return int(text) if len(text) <= 5 and text.isdigit() and int(text) <= SIXTEEN_BITS else None
