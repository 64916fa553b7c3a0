"""A child that kills itself before one of the things that it does to files."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from itertools import count

EVENTS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod", "fcntl.flock")


def watched(kill_at: int = 0) -> Callable[[], int]:
    """Count what this process does to files from here on, and SIGKILL it before number kill_at; 0: never. Gives the count.

    Opening for writing, mkdir, rename, exchange, unlink, rmdir, link, chmod, flock, fsync. It cannot be taken back.
    """
    numbers, done = count(1), [0]

    def operation() -> None:
        number = next(numbers)  # in one step: several threads come here
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(number)

    def heard(event: str, arguments: tuple[object, ...]) -> None:
        exchange = event == "ctypes.dlsym" and arguments[1] == "renameat2"
        if event in EVENTS or exchange or (event == "open" and _writes(*arguments)):
            operation()

    def synced(opened: int) -> None:
        operation()
        fsync(opened)

    fsync, os.fsync = os.fsync, synced  # type: ignore[assignment]  # ours are descriptors, no files
    sys.addaudithook(heard)
    return lambda: max(done)


def _writes(path: object, mode: object, flags: object) -> bool:
    new = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return not isinstance(path, int) and path != os.devnull and new


def child(work: Callable[[], None], kill_at: int = 0) -> int | None:
    """Do the work in a forked process that is killed before operation kill_at: None, or how many it did where it was not."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            done = watched(kill_at)
            work()
            os.write(writer, str(done()).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as said:
        _, status = os.waitpid(process, 0)
        assert status in (0, signal.SIGKILL), f"the child failed: {status}"
        return int(said.read()) if status == 0 else None
