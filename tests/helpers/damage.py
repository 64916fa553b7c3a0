"""How the fuzzer damages: bytes, JSON values, arrays, archives."""

from __future__ import annotations

import collections
import copy
import io
import json
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

EXTREMES = (0, 1, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, 10**30, 10**400, -0.5, 1e308, float("nan"), float("inf"),
    "", "x" * 5000, "\ud800", "a\0b", "../x", "image", [], {}, [[]], [0] * 300, {"a": {"b": [1]}},
)  # fmt: skip
DEEP = "@deep@"  # stands for so many lists in one another that json.dumps could not write them
DEPTHS = (2, 31, 100, 990, 200_000)
Rng = np.random.Generator


def damaged(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """A few of: flips, extremes where an offset or a length may stand, truncation, pieces left out or put in from another file."""
    content = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 8]))):
        if len(content) < 8:
            break
        at = _place(len(content), rng)
        length = int(2 ** rng.uniform(0, 10))
        match int(rng.integers(8)):
            case 0 | 1:
                content[at] ^= 1 << int(rng.integers(8))
            case 2 | 3 | 4:
                at = min(at & ~3, len(content) - 4)
                value = EXTREMES[rng.integers(len(EXTREMES))] if rng.random() < 0.7 else int(rng.integers(len(content)))
                content[at : at + 4] = value.to_bytes(4, "little")
            case 5:
                del content[at:]
            case 6:
                del content[at : at + length]
            case 7:
                other = others[rng.integers(len(others))]
                start = _place(len(other), rng)
                content[at : at + (length if rng.random() < 0.5 else 0)] = other[start : start + length]
    return bytes(content)


def _place(size: int, rng: Rng) -> int:
    """Anywhere, or near either end, where the tables are."""
    near = int(min(size - 1, rng.exponential(600)))
    return int(rng.integers(size)) if rng.random() < 0.4 else near if rng.random() < 0.5 else size - 1 - near


# ---- torch.save's files of before torch 1.6 -------------------------------------------------------------------------------------


def old_pth(value: bytes, keys: bytes, storages: bytes = b"") -> bytes:
    """One of these, of the pickle of what is in it, that of the list of its storages, and these, each behind its length."""
    before = (pickle.dumps(said, 2) for said in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return b"".join((*before, value, keys, storages))


def odd_old_pth(data: bytes, rng: Rng) -> bytes:
    """One whose list of storages is another, whose storages claim other lengths, or in whose pickles something is damaged."""
    stream = io.BytesIO(data)
    parts = []
    for _ in range(5):
        start = stream.tell()
        collections.deque(pickletools.genops(stream), maxlen=0)
        parts.append(data[start : stream.tell()])
    keys, storages = pickle.loads(parts[4]), bytearray(stream.read())  # noqa: S301  # made here
    match int(rng.integers(4)):
        case 0:
            keys.insert(int(rng.integers(len(keys) + 1)), [keys[0], "none", None, 7][rng.integers(4)])
        case 1:
            del keys[int(rng.integers(len(keys)))]
        case 2:
            extreme = EXTREMES[rng.integers(len(EXTREMES))] << int(rng.choice([0, 0, 29, 32]))
            storages[:8] = (extreme % 2**64).to_bytes(8, "little")
        case _:
            parts[3] = damaged(parts[3], parts, rng)
    return b"".join(parts[:4]) + pickle.dumps(keys, 2) + storages


# ---- JSON ----------------------------------------------------------------------------------------------------------------------


def damaged_json(value: Any, rng: Rng) -> Any:
    """A few places of a JSON value replaced, left out, doubled, wrapped, or of another type."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        here = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.85:
                here = here[key]
                continue
            match int(rng.integers(8)):
                case 0:
                    del here[key]
                case 1 if isinstance(here, list):
                    here.append(copy.deepcopy(here[key]))
                case 2:
                    here[key] = copy.deepcopy(here[keys[rng.integers(len(keys))]])
                case 3:
                    here[key] = of_another_type(here[key], rng)
                case 4:
                    here[key] = DEEP
                case _:
                    here[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            break
    return value


def of_another_type(value: Any, rng: Rng) -> Any:
    """The same told in another of JSON's types."""
    ways: tuple[Callable[[], Any], ...] = (
        lambda: str(value),
        lambda: [value],
        lambda: {"value": value},
        lambda: {str(i): one for i, one in enumerate(value)} if isinstance(value, list) else [value, value],
        lambda: float(value) if isinstance(value, int) and abs(value) < 2**64 else len(str(value)),
        lambda: bool(value),
    )
    return ways[rng.integers(len(ways))]()


def as_text(value: Any, rng: Rng) -> bytes:
    """The JSON text, DEEP written out; sometimes in another encoding."""
    text = json.dumps(value).encode()
    while f'"{DEEP}"'.encode() in text:
        depth = int(DEPTHS[rng.integers(len(DEPTHS))])
        opening, closing = (b"[", b"]") if rng.random() < 0.5 else (b'{"a":', b"}")
        text = text.replace(f'"{DEEP}"'.encode(), opening * depth + b"1" + closing * depth, 1)
    return text.decode().encode("utf-16") if rng.random() < 0.02 else text


# ---- arrays --------------------------------------------------------------------------------------------------------------------


def damaged_arrays(arrays: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """An array missing, of another dtype or shape, or with odd values."""
    name = list(arrays)[rng.integers(len(arrays))]
    array = np.array(arrays[name])
    flat = array.reshape(-1)
    found: dict[int, Callable[[], Any]] = {
        0: lambda: None,
        1: lambda: array.astype([np.float64, np.int64, np.float16, np.bool_, np.int8, np.uint8][rng.integers(6)]),
        2: lambda: flat[: rng.integers(len(flat) + 1)],
        3: lambda: array[None],
        4: lambda: np.where(rng.random(array.shape) < 0.3, array.dtype.type(0), array),
        5: lambda: np.full_like(array, [np.nan, np.inf, 1e-45, -1][rng.integers(4)] if array.dtype == np.float32 else -128),
        6: lambda: arrays[list(arrays)[rng.integers(len(arrays))]],
    }
    with np.errstate(all="ignore"):
        made = found[int(rng.integers(len(found)))]()
    return {key: value for key, value in (arrays | {name: made}).items() if value is not None}


# ---- archives ------------------------------------------------------------------------------------------------------------------


def archive(members: Mapping[str, bytes], compressed: bool = False) -> bytes:
    """An archive as it should be."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return packed.getvalue()


def odd_archive(members: Mapping[str, bytes], rng: Rng) -> bytes:
    """One whose members are compressed, stand twice, lie over one another, or claim other sizes than they have."""
    match int(rng.integers(4)):
        case 0:
            return archive(members, compressed=True)
        case 1:
            return repeated(members, int(rng.integers(2, 200)))
        case 2:
            return overlapping(members, int(rng.integers(1, 200)))
        case _:
            content = bytearray(archive(members))
            sizes = [at + 20 for at in _places(content, b"PK\x01\x02")] + [at + 18 for at in _places(content, b"PK\x03\x04")]
            for at in sizes:
                if rng.random() < 0.3:
                    content[at : at + 8] = struct.pack("<I", EXTREMES[rng.integers(len(EXTREMES))]) * 2
            return bytes(content)


def _places(content: bytearray, mark: bytes) -> list[int]:
    """Where the mark stands, but at the end, where what follows it would not fit."""
    return [at for at in range(len(content) - 30) if content[at : at + 4] == mark]


def repeated(members: Mapping[str, bytes], times: int) -> bytes:
    """Every member is listed so many times."""
    body, entries = bytearray(), []
    for name, content in members.items():
        entries += [_listed(name, zlib.crc32(content), len(content), len(body))] * times
        body += _local(name, zlib.crc32(content), len(content)) + content
    return _whole(body, entries)


def overlapping(members: Mapping[str, bytes], more: int) -> bytes:
    """The members, and before them `more` others, each of which holds everything behind it: with checksums that are right."""
    rest, entries = b"", []
    for name, content in reversed(list(members.items())):
        rest = _local(name, zlib.crc32(content), len(content)) + content + rest
        entries.append((name, zlib.crc32(content), len(content), len(rest)))
    for number in range(more):
        name, checksum, size = f"more{number}", zlib.crc32(rest), len(rest)
        rest = _local(name, checksum, size) + rest
        entries.append((name, checksum, size, len(rest)))
    return _whole(rest, [_listed(name, checksum, size, len(rest) - behind) for name, checksum, size, behind in entries])


def _local(name: str, checksum: int, size: int) -> bytes:
    return struct.pack("<4s5H3I2H", b"PK\x03\x04", 20, 0, 0, 0, 33, checksum, size, size, len(name), 0) + name.encode()


def _listed(name: str, checksum: int, size: int, at: int) -> bytes:
    sizes = (checksum, size, size, len(name), 0, 0, 0, 0, 0, at)
    return struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 20, 20, 0, 0, 0, 33, *sizes) + name.encode()


def _whole(body: bytes | bytearray, entries: list[bytes]) -> bytes:
    listed = b"".join(entries)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, len(entries), len(entries), len(listed), len(body), 0)
    return bytes(body) + listed + end
