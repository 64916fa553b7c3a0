"""Writing so that nothing is lost: beside the target, flushed to the disk, then put in place by one rename.

Until then it lies in a temporary folder (see temporary.py), which the next to write there sweeps where this process is killed.
"""

import ctypes
import errno
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from nestling.errors import NestlingError, UnusableFile
from nestling.temporary import NEW, OLD, OWN, restored, sweep, temporary

LEAST_ROOM = 1 << 20  # bytes: less than any network takes
FLUSHING = 8  # files at a time: file systems flush several with one write to their journal
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2  # Linux's renameat2, macOS's renamex_np
NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # a folder that cannot be opened or a file system that has no such thing


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all: a reader sees the old file or the new one, never half of one.

    Raises OSError, naming `path`, where the folder cannot be made or written, or a pipe or a device has that name.
    """
    with naming(path):
        require_file_or_nothing(path)
        make_folder(path.parent)
        with temporary(path.parent) as place:
            new = place / NEW
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
            flush(path.parent)


def require_file_or_nothing(path: Path) -> None:
    """That a file may be put at `path`: a rename would replace a pipe, or /dev/null, too. A link is replaced, not followed.

    Raises OSError for a folder, a pipe, a device, or where what stands above it is a file.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise OSError(errno.EINVAL, "it is a pipe or a device", str(path))


def require_there(path: Path, hint: str) -> None:
    """That there is a file or a folder that may be read, asked before the work begins. Raises UnusableFile with the hint."""
    try:
        found = restored(path)
        found.stat()
        if not os.access(found, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except FileNotFoundError as error:
        raise UnusableFile(f"{path} does not exist.", hint) from error
    except (OSError, ValueError) as error:
        raise UnusableFile(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.", hint) from error


def require_place(path: Path, what: str, suffix: str, beginning: bytes) -> None:
    """That what a command is going to make may be put at `path`, asked before the work is done.

    An older file of the same suffix may be replaced, or one with the same first bytes; no other: somebody's photograph, say, whose
    name was typed by mistake. what: it is going to be, "a bundle". Raises NestlingError.
    """
    hint = "name another one with -o"
    try:
        require_file_or_nothing(path)
        if path.suffix.lower() != suffix and path.is_file():
            with path.open("rb") as file:
                found = file.read(len(beginning))
            if found and found.lower() != beginning.lower():
                raise NestlingError(f"{path} is there, and is not {what}: it is not overwritten.", hint)
        _require_writable(path.parent)
    except OSError as error:
        raise NestlingError(f"{path} cannot be written: {error.strerror}.", hint) from error


def require_folders_place(folder: Path) -> None:
    """Likewise for a folder, which may be there. Raises NestlingError."""
    try:
        if os.path.lexists(folder) and not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _require_writable(folder)
    except OSError as error:
        raise NestlingError(f"{folder} cannot be written: {error.strerror}.", "name another one with -o") from error


def require_room(place: Path, needed: int) -> None:
    """That the disk on which `place` will lie has so many bytes free. Raises NestlingError."""
    free = shutil.disk_usage(_there(place)).free
    if free < needed:
        raise NestlingError(
            f"{place} cannot be written: its disk has {free / 1e6:.1f} MB free, about {needed / 1e6:.1f} MB are needed.",
            "make room, or name another place with -o",
        )


def _there(folder: Path) -> Path:
    """The folder itself, or of those above it the first that is there."""
    return next((one for one in (folder, *folder.parents) if one.exists()), Path())


def _require_writable(folder: Path) -> None:
    """That something can be written into a folder, or into the one that it will be made in. Raises OSError."""
    folder = _there(folder)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    if shutil.disk_usage(folder).free < LEAST_ROOM:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def replace_folder(folder: Path, files: Iterable[tuple[str, bytes]], executable: Collection[str] = ()) -> None:
    """Put a folder of files, name and content each, in place of an older one, whole or not at all.

    executable: names of those that may be run. Raises as folder_beside.
    """
    with folder_beside(folder) as new:
        for name, content in files:
            write(new / name, content, name in executable)


def write(path: Path, content: bytes, executable: bool = False) -> None:
    """A new file, for a folder that is still beside its place. Raises OSError, naming `path`."""
    with naming(path), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o777 if executable else 0o666), "wb") as file:
        file.write(content)


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """An empty folder to be filled, which is put in place of `folder` at the end; where filling it fails, all stays as it was.

    Raises OSError, naming the file in `folder` or the folder itself, where it cannot be written or replaced.
    """
    try:
        make_folder(folder.parent)
        with temporary(folder.parent) as place:
            new = place / NEW / folder.name
            new.mkdir(parents=True)
            yield new
            _flush_all(new)
            _put(new, folder, place / OLD / folder.name)
            flush(folder.parent)
    except OSError as error:
        name = _in_place(error.filename, folder)
        if name == error.filename:
            raise
        raise OSError(error.errno, error.strerror, name) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError names this path, whatever file it befell on the way there."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def flush(path: Path) -> None:
    """Wait until a file, or what names stand in a folder, is on the disk. Raises OSError, naming it."""
    with naming(path):
        try:
            opened = os.open(path, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)
        except OSError as error:
            if error.errno not in NO_FLUSH:
                raise


def make_folder(folder: Path) -> None:
    """The folder and those above it, where they are missing; each name flushed. Raises OSError, naming the one it befell."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        flush(folder.parent)


# ---- a folder's place ------------------------------------------------------------------------------------------------------------


def _put(new: Path, folder: Path, old: Path) -> None:
    """new becomes folder. Where the system cannot let two change places, there is none for a moment: see temporary._put_back."""
    if not os.path.lexists(folder):
        new.rename(folder)
    elif not _exchanged(new, folder):
        old.parent.mkdir()
        folder.rename(old)
        new.rename(folder)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two have changed places, in one step."""
    paths = os.fsencode(one), os.fsencode(other)
    try:
        libc = ctypes.CDLL(None)
        if sys.platform == "darwin":
            return bool(libc.renamex_np(*paths, RENAME_SWAP) == 0)
        return bool(libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0)
    except (AttributeError, OSError, TypeError):  # a C library without it
        return False


def _flush_all(folder: Path) -> None:
    whole = [Path(place, name) for place, _, names in os.walk(folder) for name in ("", *names)]
    with ThreadPoolExecutor(FLUSHING) as pool:
        list(pool.map(flush, whole))


def _in_place(name: str | None, folder: Path) -> str | None:
    """What a file that is still in a temporary folder beside `folder` will be called; any other name as it is."""
    path = Path(name or "")
    if name is None or not path.is_relative_to(folder.parent):
        return name
    beside, *inside = path.relative_to(folder.parent).parts or ("",)
    return str(folder.joinpath(*inside[2:])) if OWN.fullmatch(beside) else name


# ---- what is there ---------------------------------------------------------------------------------------------------------------


def read_at_most(path: Path, most: int) -> bytes:
    """The content of a file. Raises OSError, also where it has more than `most` bytes, or is a pipe, which would be waited for."""
    with open(path, "rb", opener=_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise OSError(errno.EINVAL, "not a file")
        if about.st_size > most:
            raise OSError(errno.EFBIG, f"too large, {about.st_size} bytes")
        return file.read(most)


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NONBLOCK)


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def not_made(folder: Path, made: Mapping[str, str]) -> str | None:
    """The first file below `folder` that is not one of `made`, path -> SHA-256; or that was changed since. None: all are.

    For whoever is about to replace a folder: what somebody else put there is not to be lost. Litter in it is swept.
    """
    sweep(folder)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or (name in made and digest_of(path) == made[name])):
            return name
        if path.is_dir() and not any(file.startswith(f"{name}/") for file in made):
            return name
    return None
