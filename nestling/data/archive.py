"""Photographs in a .zip, read where they lie: nothing is unpacked to the disk, and nothing that the archive claims is believed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Literal

from nestling.data.layout import unwrapped
from nestling.data.walk import Tree
from nestling.errors import UnusableData
from nestling.preprocess.pictures import File

MOST_MEMBERS = 5_000_000
MOST_BYTES = 1_000_000_000  # of one member: as much as a picture may take while it is decoded
DEEPEST = 64  # folders in one another
LOCAL_HEADER = struct.Struct("<4s22sHH")  # APPNOTE.TXT 4.3.7: the signature, what the directory says as well, two lengths
MOST_DEFLATED = 1032  # bytes that a byte of deflate may stand for, and some at the beginning
ENCRYPTED = 1  # a flag


@dataclass(frozen=True)
class Member:
    """A file in an archive. at: where its header is. packed, size: bytes in the archive, and unpacked. crc: of these."""

    archive: Path
    at: int
    packed: int
    size: int
    deflated: bool
    crc: int

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """See File."""
        with self.archive.open("rb") as file:
            file.seek(self.at)
            header = file.read(LOCAL_HEADER.size)
            if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
                raise UnusableData("damaged in the archive (it has no header)")
            *_, name, extra = LOCAL_HEADER.unpack(header)
            file.seek(name + extra, 1)
            content = file.read(self.packed)
        if self.deflated:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
            except zlib.error as error:
                raise UnusableData(f"damaged in the archive ({error})") from error
        if len(content) != self.size or zlib.crc32(content) != self.crc:
            raise UnusableData("damaged in the archive (its length or its checksum is another one)")
        return BytesIO(content)


def is_archive(path: Path) -> bool:
    """By its content."""
    return path.is_file() and zipfile.is_zipfile(path)


def archive_tree(path: Path) -> tuple[Path, Tree]:
    """(the folder in it that holds the data set's folders, what its paths lead to); paths: the archive's, and a name in it.

    Raises UnusableData for a damaged archive, and for one whose members lie over one another, as one that never ends would have
    them.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as opened:
            infos = opened.infolist()
    except (zipfile.BadZipFile, ValueError, OverflowError, EOFError, NotImplementedError, struct.error, OSError) as error:
        raise UnusableData(
            f"{path} is not a whole archive ({error}).", "make it again, or unpack it and name the folder"
        ) from error
    _require_apart(infos, size, path)
    files: dict[Path, File | str] = {}
    inner: dict[Path, dict[Path, None]] = defaultdict(dict)
    for info in infos:
        names = info.filename.replace("\\", "/").removesuffix("/").split("/")
        if info.is_dir() or ".." in names or "" in names or len(names) > DEEPEST:
            continue  # a name that leads out of the archive is no photograph's
        place = path
        for name in names:
            inner[place][place / name] = None
            place /= name
        files[place] = _file(info, size, path)
    for folder in inner:
        files.pop(folder, None)

    def in_folder(folder: Path) -> Iterable[Path]:
        return inner.get(folder, {})

    tree = Tree(in_folder, lambda path: path in inner, lambda path: path, files.__getitem__)
    return unwrapped(path, tree), tree


def _require_apart(infos: Sequence[zipfile.ZipInfo], size: int, path: Path) -> None:
    if len(infos) > MOST_MEMBERS:
        raise UnusableData(f"{path} has {len(infos)} members; at most {MOST_MEMBERS} are read.")
    end, before = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise UnusableData(f"{path}: its member {info.filename!r} lies over {before!r}.", "make the archive again")
        end, before = info.header_offset + LOCAL_HEADER.size + len(info.orig_filename) + info.compress_size, info.filename
    if end > size:
        raise UnusableData(f"{path}: its member {before!r} is longer than the archive.", "make the archive again")


def _file(info: zipfile.ZipInfo, size: int, path: Path) -> File | str:
    """A member, or why it is not read."""
    if info.flag_bits & ENCRYPTED:
        return "encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"packed in a way that is not read (method {info.compress_type}; deflate is)"
    if info.file_size > MOST_BYTES:
        return f"the archive claims that it has {info.file_size / 1e9:.1f} GB; 1 GB is the most"
    if info.file_size > MOST_DEFLATED * (info.compress_size + 1):
        return "the archive claims more bytes than can be in it"
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    return Member(path, info.header_offset, info.compress_size, info.file_size, deflated, info.CRC)
