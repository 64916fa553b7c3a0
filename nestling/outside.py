"""What comes from outside: files that anybody may have written, so read that they neither fill the memory nor surprise.

    content      the bytes of a file that is one
    unzipped     the members of an archive in which nothing is compressed, nothing lies over another, and each name stands once
    arrays       the tensors of a .safetensors file; require_sound: all of their numbers are finite
    parsed       JSON of bounded depth and number of values
    Record       a JSON object whose members are read with their types checked

Each takes memory and time in proportion to the file. Each refusal is an UnusableFile that names the file and the place in it.
"""

from __future__ import annotations

import io
import json
import math
import os
import reprlib
import stat
import struct
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from nestling.errors import UnusableFile

Array: TypeAlias = NDArray[Any]

MOST_MEMBERS = 10_000  # of an archive; a .pth has one a tensor
MOST_HEADER = 2**24  # bytes of JSON in front of a .safetensors file: a hundred or so a tensor
MOST_VALUES = 4_000_000  # in one JSON text, each of which takes some 100 bytes of memory
DEEPEST = 32  # lists and objects in one another; nestling's own files have eight
LOCAL_HEADER = 30  # bytes in front of a member of an archive, and its name


# ---- bytes ---------------------------------------------------------------------------------------------------------------------


def content(path: Path, hint: str = "") -> bytes:
    """The bytes of a regular file."""
    require_regular(path, hint)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror or error}.", hint) from error


def require_regular(path: Path, hint: str = "") -> None:
    """That a file may be opened: a pipe's other end would be waited for, a device has no end."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return
        reason = "it is a folder" if path.is_dir() else "it is no regular file"
    except (OSError, ValueError) as error:  # ValueError: a name that the system cannot have
        reason = str(getattr(error, "strerror", None) or error)
    raise UnusableFile(f"{path} cannot be read: {reason}.", hint)


def unzipped(archive: bytes, where: str) -> dict[str, bytes]:
    """The members of an archive by name."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            infos = opened.infolist()
            require_plain_members(infos, len(archive), where)
            return {info.filename: opened.read(info) for info in infos}
    except (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, EOFError, OSError, struct.error) as error:
        # RuntimeError: encrypted, or of a version to come; OSError: a place before the beginning
        raise UnusableFile(f"{where} is not a whole archive ({error}).") from error


def require_plain_members(infos: Sequence[zipfile.ZipInfo], size: int, where: str) -> None:
    """That what the members claim fits side by side into the archive's `size` bytes: stored as they are, apart, each name once."""
    if len(infos) > MOST_MEMBERS:
        raise UnusableFile(f"{where} has {len(infos)} members; at most {MOST_MEMBERS} make sense.")
    names: set[str] = set()
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise UnusableFile(f"{where}: its member {info.filename!r} is compressed; members are stored as they are.")
        if info.filename in names:
            raise UnusableFile(f"{where} has two members of the name {info.filename!r}.")
        if info.header_offset < end:
            raise UnusableFile(f"{where}: its member {info.filename!r} lies over {before!r}.")
        names.add(info.filename)
        end, before = info.header_offset + LOCAL_HEADER + len(info.orig_filename) + info.file_size, info.filename
    if end > size:
        raise UnusableFile(f"{where}: its member {before!r} is longer than the archive.")


def is_file_name(name: str) -> bool:
    """Whether a file of this name can stand in a folder, and nowhere else."""
    try:
        return name not in ("", ".", "..") and Path(name).name == name and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:  # half a character
        return False


# ---- arrays --------------------------------------------------------------------------------------------------------------------


def arrays(file: bytes, where: str) -> dict[str, Array]:
    """The arrays of a .safetensors file by name; see require_sound for what they may hold."""
    require_small_header(file[:8], where)
    try:
        found: dict[str, Array] = load_safetensors(file)
    except (SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype that NumPy does not have
        raise UnusableFile(f"{where} is not a whole .safetensors file ({error}).") from error
    return found


def require_small_header(first: bytes, where: str, hint: str = "") -> None:
    """first: the first 8 bytes of a .safetensors file, which say how long the list of its tensors is."""
    if len(first) == 8 and int.from_bytes(first, "little") > MOST_HEADER:
        raise UnusableFile(f"{where} is not a .safetensors file, or its header is longer than {MOST_HEADER} bytes.", hint)


def require_sound(found: Mapping[str, Array], where: str) -> None:
    """That every array is one of numbers, every number finite, and no running variance (torch's name for it) below 0."""
    for name, array in found.items():
        if array.dtype.kind not in "fiub":
            raise UnusableFile(f"{where}: {name!r} holds {array.dtype}, which are no real numbers.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UnusableFile(f"{where}: {name!r} holds {NOT_FINITE}.")
        if name.endswith(VARIANCE) and array.size and array.min() < 0:
            raise UnusableFile(f"{where}: {name!r} holds variances below 0.")


NOT_FINITE = "numbers that are not finite (NaN or infinite)"
VARIANCE = "running_var"


# ---- JSON ----------------------------------------------------------------------------------------------------------------------


def parsed(text: bytes, where: str, hint: str = "") -> Any:
    """The value of a JSON text in UTF-8."""
    if sum(text.count(mark) for mark in (b",", b":", b"[", b"{")) > MOST_VALUES:
        raise UnusableFile(f"{where} holds more than {MOST_VALUES} values.", hint)
    try:
        value = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise UnusableFile(f"{where} is no JSON that can be read ({reason}).", hint) from error
    if _is_deeper(value, DEEPEST):
        raise UnusableFile(f"{where} is nested more than {DEEPEST} deep.", hint)
    return value


def _is_deeper(value: object, most: int) -> bool:
    """Level by level, for Python's own stack is not deep."""
    level = [value]
    for _ in range(most + 1):
        level = [part for outer in level for part in _parts(outer)]
        if not level:
            return False
    return True


def _parts(value: object) -> Collection[object]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


class Record:
    """A JSON object whose members are read with their types checked: exactly that type, for JSON's true is no number here."""

    def __init__(self, plain: object, where: str, hint: str = "") -> None:
        self.where, self.hint = where, hint
        if not isinstance(plain, dict):
            self.refuse(f"an object is expected here, not {brief(plain)}")
        self.plain: dict[str, Any] = plain

    def refuse(self, reason: str) -> NoReturn:
        """Raise UnusableFile for this place."""
        raise UnusableFile(f"{self.where}: {reason}", self.hint)

    def only(self, *names: str) -> None:
        """Refuse members that are missing or unknown."""
        if set(self.plain) != set(names):
            self.refuse(f"members {sorted(map(brief, self.plain))[:20]} are not {sorted(names)}")

    def has(self, name: str) -> bool:
        """Whether there is such a member that is not null."""
        return self.plain.get(name) is not None

    def get(self, name: str, kind: type | tuple[type, ...]) -> Any:
        """A member of this type, or one of these."""
        if name not in self.plain:
            self.refuse(f"{name!r} is missing")
        value = self.plain[name]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if type(value) not in kinds:
            self.refuse(f"{name!r} is {brief(value)}; expected {' or '.join(KINDS.get(one, one.__name__) for one in kinds)}")
        return value

    def text(self, name: str) -> str:
        """A string."""
        return str(self.get(name, str))

    def whole(self, name: str, low: int = 0, high: int = 2**63 - 1) -> int:
        """A whole number from low to high."""
        value = int(self.get(name, int))
        if not low <= value <= high:
            self.refuse(f"{name!r} is {brief(value)}; expected a whole number from {low} to {high}")
        return value

    def seed(self, name: str) -> int:
        """A whole number that random numbers can begin with, of either sign."""
        return self.whole(name, -(2**63), 2**64 - 1)

    def number(self, name: str) -> float:
        """A finite number, whole or not."""
        value = self.get(name, (int, float))
        if not is_finite(value):
            self.refuse(f"{name!r} is {brief(value)}; expected a finite number")
        return float(value)

    def measured(self, name: str) -> float:
        """Any number; NaN, which JSON has no word for, where there was nothing to measure: null."""
        value = self.get(name, (int, float, type(None)))
        if type(value) is int and not is_finite(value):
            self.refuse(f"{name!r} is {brief(value)}; expected a number")
        return math.nan if value is None else float(value)

    def list_of(self, name: str, kind: type, most: int) -> tuple[Any, ...]:
        """A list of values of this type."""
        values = self.get(name, list)
        if len(values) > most or any(type(value) is not kind for value in values):
            self.refuse(f"{name!r} must be a list of at most {most} of {KINDS.get(kind, kind.__name__)}")
        return tuple(values)

    def names(self, name: str, most: int = 10_000) -> tuple[str, ...]:
        """A list of strings."""
        return self.list_of(name, str, most)

    def record(self, name: str) -> Record:
        """An object."""
        return Record(self.get(name, dict), f"{self.where}: {name}", self.hint)

    def maybe(self, name: str) -> Record:
        """An object; an empty one where it is missing or null."""
        return self.record(name) if self.has(name) else Record({}, self.where, self.hint)

    def records(self, name: str, most: int) -> list[Record]:
        """A list of objects."""
        listed = self.list_of(name, dict, most)
        return [Record(item, f"{self.where}: {name}[{index}]", self.hint) for index, item in enumerate(listed)]

    def optional(self, name: str, read: Callable[[str], Any], default: Any = None) -> Any:
        """What `read`, a method of this record, makes of the member; the default where it is missing or null."""
        return read(name) if self.has(name) else default


KINDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}


def is_finite(value: float) -> bool:
    """Of any number that JSON holds, also one that no float does."""
    return -1e300 < value < 1e300 and math.isfinite(value)


def brief(value: object) -> str:
    """A value of any size in a few letters, for a message."""
    return reprlib.repr(value)
