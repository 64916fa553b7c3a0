"""Folders for what is not yet in place, which nobody has to remove: where their process was killed, the next one sweeps them.

Such a folder is called `.nestling-` and 12 hexadecimal digits, and holds a file `lock`, which its process keeps locked (flock)
until it ends, however it ends. So whoever finds the lock free knows that it is litter, whatever became of process numbers since.
One that has no lock in it is somebody else's, unless it is empty.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PREFIX, LOCK = ".nestling-", "lock"
NEW, OLD = ".new", ".old"  # within: a folder that is to be put in place, and the one that it takes the place of
OWN = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{12}}")


@contextmanager
def temporary(parent: Path) -> Iterator[Path]:
    """A folder for this process alone in `parent`, which is swept first; removed at the end with all that is in it.

    It holds the file `lock` and nothing else. Raises OSError where it cannot be made.
    """
    sweep(parent)
    place, lock = _made(parent)
    try:
        yield place
    finally:
        with suppress(OSError):  # what cannot be removed now is swept later
            _removed(place, lock)


@contextmanager
def scratch() -> Iterator[None]:
    """What this process and its children put into the system's temporary folder goes into one folder there, which is swept.

    For a command: it holds for the whole process. Where no folder can be made there, all stays as it is.
    """
    # not tempfile.gettempdir(): it tries the folder by a file, which a kill would leave
    parent = Path(tempfile.tempdir or os.environ.get("TMPDIR") or "/tmp")
    before, named = tempfile.tempdir, os.environ.get("TMPDIR")
    with ExitStack() as stack:
        with suppress(OSError):
            tempfile.tempdir = os.environ["TMPDIR"] = str(stack.enter_context(temporary(parent.absolute())))
        try:
            yield
        finally:
            tempfile.tempdir = before
            os.environ.pop("TMPDIR", None)
            if named is not None:
                os.environ["TMPDIR"] = named
    sweep(parent)  # a killed one's children, a compiler say, may have gone on for a while


def sweep(parent: Path) -> None:
    """Remove this user's temporary folders of killed processes from `parent`; put back what such a one had taken away."""
    with suppress(OSError, AttributeError):  # the latter: a system without users
        with os.scandir(parent) as entries:
            found = [Path(parent, entry.name) for entry in entries if OWN.fullmatch(entry.name) and _this_users(entry)]
        for place in found:
            with suppress(OSError):
                _swept(place)


def restored(folder: Path) -> Path:
    """The folder itself, for whoever is about to read it: one that a killed process had taken away is put back first."""
    if not os.path.lexists(folder):
        sweep(folder.parent)
    return folder


# ---- the lock --------------------------------------------------------------------------------------------------------------------


def _made(parent: Path) -> tuple[Path, int]:
    """(a new folder, its open lock)."""
    while True:
        place = parent / f"{PREFIX}{secrets.token_hex(6)}"
        place.mkdir(0o700)
        try:
            lock = os.open(place / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileNotFoundError:
            continue  # a sweep came between and took it for litter
        except OSError:
            place.rmdir()
            raise
        if _locked(lock) is not False and _same(place / LOCK, lock):
            return place, lock
        os.close(lock)  # likewise


def _swept(place: Path) -> None:
    try:
        lock = os.open(place / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        place.rmdir()  # its process was killed before it could lock it
        return
    if _locked(lock) and _same(place / LOCK, lock):
        _removed(place, lock)
    else:
        os.close(lock)


def _locked(lock: int) -> bool | None:
    """Whether this process has it locked now; None where there are no locks."""
    try:
        import fcntl  # not every system has it

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, ImportError):
        return None
    return True


def _same(path: Path, opened: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(opened))
    except FileNotFoundError:
        return False


def _this_users(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_uid == os.getuid()


# ---- what is in it ---------------------------------------------------------------------------------------------------------------


def _removed(place: Path, lock: int) -> None:
    """The lock goes last, and is held until then: a sweep that is killed is finished by the next."""
    try:
        _put_back(place)
        for entry in list(place.iterdir()):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != LOCK:
                entry.unlink()
        (place / LOCK).unlink()
    finally:
        os.close(lock)
    place.rmdir()


def _put_back(place: Path) -> None:
    """A folder that was taken away, and the new one not put in its place. Raises OSError where something else is there by now."""
    for old in list((place / OLD).iterdir()) if (place / OLD).exists() else ():
        if os.path.lexists(place / NEW / old.name):
            old.rename(place.parent / old.name)
