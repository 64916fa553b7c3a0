"""Writing so that nothing is lost: beside the target, then put in place by one rename."""

import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole or not at all: a reader sees the old file or the new one, never half of one.

    Raises OSError where the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).chmod(0o666 & ~_umask())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def replace_folder(folder: Path, files: Iterable[tuple[str, bytes]], executable: Collection[str] = ()) -> None:
    """Put a folder of files, name and content each, in place of an older one, whole or not at all.

    executable: names of those that may be run.
    """
    with folder_beside(folder) as new:
        for name, content in files:
            (new / name).write_bytes(content)
            if name in executable:
                (new / name).chmod(0o777 & ~_umask())


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """An empty folder to be filled, which is put in place of `folder` at the end; where filling it fails, all stays as it was."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new, old = beside / "new", beside / "old"
        new.mkdir()
        yield new
        if folder.exists():
            folder.replace(old)
        try:
            new.replace(folder)
        except OSError:
            if old.exists():
                old.replace(folder)
            raise
    finally:
        shutil.rmtree(beside)


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

    For whoever is about to replace a folder: what somebody else put there is not to be lost.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or (name in made and digest_of(path) == made[name])):
            return name
        if path.is_dir() and not any(file.startswith(f"{name}/") for file in made):
            return name
    return None
