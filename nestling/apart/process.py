"""Another process that does what it is asked, within limits of time and memory. Its end is an error that names the file."""

from __future__ import annotations

import os
import selectors
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, Signals
from time import monotonic
from typing import IO, Any

from nestling import errors
from nestling.apart.messages import packed, unpacked
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.ir import Array
from nestling.printable import shown
from nestling.python import python

SECONDS = 120.0  # for one image: hundreds of times what the largest network takes on a small board
STARTING = 600.0  # for a runtime's own import, which no file has a part in
MEMORY, MEMORY_PER_BYTE = 2 << 30, 16  # bytes; and for each byte of the file
TICK = 0.05  # seconds between two looks
SAID, SHOWN = 4096, 200  # bytes of stderr that are kept; characters of its last line that are shown
CHUNK = 1 << 16
HARMLESS = ("INFO", "WARNING", "W0", "I0", "Warning")  # beginnings of lines that do not say why a process ended


@dataclass(frozen=True)
class Limits:
    """seconds: that one image may take, or loading the file. memory: bytes; None for 2 GiB and 16 times the file's size."""

    seconds: float = SECONDS
    memory: int | None = None


def limits() -> Limits:
    """As the environment has them: NESTLING_SECONDS, and NESTLING_MEMORY in GB. Raises NestlingError for what is no number."""
    seconds, memory = _number("NESTLING_SECONDS"), _number("NESTLING_MEMORY")
    return Limits(seconds or SECONDS, None if memory is None else int(memory * 1e9))


def _number(name: str) -> float | None:
    text = os.environ.get(name, "")
    if not text:
        return None
    with suppress(ValueError):
        if 0 < (value := float(text)) < 1e9:
            return value
    raise NestlingError(f"{name} is to be a number over 0; it is {text!r}.", f"unset {name}")


class Process:
    """A process that runs one file. A class, for it holds the process, which ends with it, or with the one that asks.

    file: in messages, and what the limit of memory depends on. what: does the work there, a runtime's name.
    """

    def __init__(self, file: Path, what: str, within: Limits | None = None) -> None:
        self.file, self.what = file, what
        self._limits = within or limits()
        memory = self._limits.memory
        self._memory = MEMORY + MEMORY_PER_BYTE * _size(file) if memory is None else memory
        self._received, self._said = bytearray(), b""
        told = bool(os.environ.get("NESTLING_VERBOSE"))
        self._process = subprocess.Popen(
            [*python("nestling.apart.worker"), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if told else subprocess.PIPE,
            bufsize=0,
            env=os.environ | {"NESTLING_VERBOSE": "1"},  # what it says comes to us
        )
        self.close = weakref.finalize(self, _end, self._process)

    def ask(
        self, call: str, arguments: Mapping[str, object], arrays: Sequence[Array] = (), images: int = 1, starting: bool = False
    ) -> tuple[Any, tuple[Array, ...]]:
        """What one of worker.py's CALLS gives, as plain values and arrays. images: that it takes; each has its seconds.

        Raises what the call raises, an error of nestling's; UnusableFile, naming the file, where the process ends, does not answer
        in time, or takes more memory than it may.
        """
        seconds = STARTING if starting else self._limits.seconds * images
        if not self.close.alive:
            raise UnusableFile(f"{self.file} is not run any more: its process has ended.")
        try:
            (error, value), answer = self._asked(packed([call, dict(arguments)], arrays), seconds)
        except ValueError as wrong:
            self.close()
            raise UnusableFile(f"{self.file} cannot be run: {self.what} gave what is no answer.") from wrong
        except BaseException:
            self.close()
            raise
        if error is not None:
            kind, message, hint = error
            raise _kind(kind)(message, hint)
        return value, answer

    def _asked(self, message: bytes, seconds: float) -> tuple[Any, tuple[Array, ...]]:
        out, source = self._process.stdout, self._process.stdin
        assert out is not None and source is not None
        os.set_blocking(source.fileno(), False)
        pending = memoryview(message)
        passed, before = 0.0, monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            selector.register(source, selectors.EVENT_WRITE)
            if self._process.stderr is not None:
                selector.register(self._process.stderr, selectors.EVENT_READ)

            def take(count: int) -> bytes:
                nonlocal pending, passed, before
                while len(self._received) < count:
                    for key, _ in selector.select(TICK):
                        if key.fileobj is not source:
                            self._read(selector, key.fileobj)
                            continue
                        try:
                            pending = pending[os.write(source.fileno(), pending[:CHUNK]) :]
                        except BrokenPipeError:
                            raise self._death() from None
                        if not pending:
                            selector.unregister(source)
                    now = monotonic()
                    passed, before = passed + min(now - before, 2 * TICK), now  # a process that was stopped (Ctrl-Z) has not worked
                    self._check(passed, seconds)
                taken = bytes(self._received[:count])
                del self._received[:count]
                return taken

            return unpacked(take)

    def _read(self, selector: selectors.BaseSelector, source: Any) -> None:
        content = os.read(source.fileno(), CHUNK)
        if source is self._process.stdout:
            if not content:
                raise self._death()
            self._received += content
        elif content:
            self._said = (self._said + content)[-SAID:]
        else:
            selector.unregister(source)

    def _check(self, passed: float, seconds: float) -> None:
        """Raises UnusableFile where a limit is passed."""
        if passed > seconds:
            raise UnusableFile(
                f"{self.file} gave no answer within {seconds:g} seconds in {self.what}.",
                f"where this computer only is slow, allow more:  NESTLING_SECONDS={2 * self._limits.seconds:g}",
            )
        if _resident(self._process.pid) > self._memory:
            raise UnusableFile(
                f"{self.file} takes more than {self._memory / 1e9:.1f} GB of memory in {self.what}.",
                f"where it is a large network, allow more:  NESTLING_MEMORY={2 * self._memory / 1e9:.0f}",
            )

    def _death(self) -> NestlingError:
        """What is to be said of a process that has ended by itself."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)  # its pipe closes a moment before it is gone
        code = self._process.poll()
        if self._process.stderr is not None:
            os.set_blocking(self._process.stderr.fileno(), False)
            with suppress(BlockingIOError):
                while content := os.read(self._process.stderr.fileno(), CHUNK):
                    self._said = (self._said + content)[-SAID:]
        how = f"its process ended ({_named(code)})"
        said = f": {line}" if (line := _last_line(self._said)) else ""
        hint = "it is damaged, or made to do that; make it again, or take it from its source again"
        return UnusableFile(f"{self.file} cannot be run by {self.what}, {how}{said}.", hint)


def _kind(name: str) -> type[NestlingError]:
    kind = getattr(errors, name, NestlingError)
    return kind if isinstance(kind, type) and issubclass(kind, NestlingError) else NestlingError


def _named(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    if code == -SIGKILL:
        return "killed; perhaps the computer has no memory left"
    with suppress(ValueError):
        return Signals(-code).name if code < 0 else f"status {code}"
    return f"signal {-code}"


def _last_line(said: bytes) -> str:
    """The last line that may say why, what cannot be printed escaped."""
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines()]
    found = [line for line in lines if line and not line.startswith(HARMLESS)]
    return shown(found[-1])[:SHOWN].rstrip(".") if found else ""


def _size(file: Path) -> int:
    with suppress(OSError):
        parts = file.iterdir() if file.is_dir() else (file,)
        return sum(part.stat().st_size for part in parts)
    return 0


def _resident(process: int) -> int:
    """Bytes; 0 where the system does not tell (Linux does)."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _end(process: subprocess.Popen[bytes]) -> None:
    """Also where nobody closes it: when it is collected, and at the interpreter's end."""
    process.kill()
    process.wait()
    pipes: tuple[IO[bytes] | None, ...] = (process.stdin, process.stdout, process.stderr)
    for pipe in pipes:
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
