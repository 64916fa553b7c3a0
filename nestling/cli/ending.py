"""How a command ends: what is said of an error, and the exit status. Of the standard library: it tells of failed imports, too."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

from nestling import extras
from nestling.errors import NestlingError
from nestling.printable import shown

DONE, FAILED, USAGE, INTERRUPTED, READER_GONE = 0, 1, 2, 130, 141
DEBUG = "--debug"
LONGEST = 300  # letters of somebody else's error
HERE = Path(__file__).parent.parent
FRAME = ("main.py", "__main__.py")  # every traceback begins there
MEMORY = (
    "MemoryError", "bad_alloc", "bad allocation", "annot allocate memory", "an't allocate memory", "ot enough memory",
    "ut of memory", "failed to map segment", "start new thread",
)  # fmt: skip


HOME = "  name another folder for what is kept:  NESTLING_CACHE=/tmp/nestling nestling ..."


@dataclass(frozen=True)
class Ending:
    """The exit status, and lines for stderr."""

    status: int
    lines: tuple[str, ...] = ()


def whole_streams() -> None:
    """Opens those of stdin, stdout and stderr that are closed (`>&-`), on nothing: else the next file would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w" if number else "r", encoding="utf-8"))  # noqa: SIM115  # until the end


def without_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """The command line without --debug, which may stand anywhere, and whether tracebacks are wanted."""
    options = list(words[: words.index("--")]) if "--" in words else list(words)
    kept = [word for word in options if word != DEBUG]
    return kept + list(words[len(options) :]), len(kept) < len(options) or bool(os.environ.get("NESTLING_DEBUG"))


def of_error(error: BaseException, words: Sequence[str]) -> Ending:
    """What to say of an error that a command ended with. words: the command line."""
    if isinstance(error, NestlingError):
        first, *more = error.message.split("\n")  # further lines are set in: whatever a file is called, it can't begin one
        more += error.hint.split("\n") if error.hint else []
        return Ending(FAILED, (f"error: {first}", *(f"  {line.strip()}" for line in more)))
    if isinstance(error, KeyboardInterrupt):
        return Ending(INTERRUPTED, ("interrupted; what is in the cache stays, no file was left half-written",))
    causes = [_said(one) for one in _causes(error)]
    memory = [text for text in causes if any(word in text for word in MEMORY)]
    if memory:
        hint = "  end other programs, or lift the limit (ulimit -v)"
        return Ending(FAILED, (f"error: there is not enough memory ({memory[0]}).", hint))
    said = causes[0]
    if isinstance(error, OSError):
        kept = (HOME,) if isinstance(error, PermissionError | FileNotFoundError) and _is_homes(_file(error)) else ()
        return Ending(FAILED, (f"error: {_file(error)}: {error.strerror or error}", *kept))
    if isinstance(error, ModuleNotFoundError) and (extra := extras.extra_of(error.name or "")) is not None:
        said = f"error: this needs {str(error.name).partition('.')[0]}, which is not installed."
        return Ending(FAILED, (said, f"  {extras.hint(extra)}"))
    if isinstance(error, ImportError):
        return Ending(FAILED, (f"error: a package cannot be loaded ({said}).", "  install nestling again:  pip install nestling"))
    command = " ".join(["nestling", DEBUG, *words])
    report = f"Please report it, with what --debug shows:  {command}"
    return Ending(FAILED, (f"error: nestling met something that it did not expect: {said} ({_place(error)}). {report}",))


def wrong(message: str, command: str, hint: str = "") -> Ending:
    """A command line that cannot be right. command: whose --help tells what can, "nestling fit"."""
    first, *more = message.rstrip(".").split("\n")
    return Ending(USAGE, (f"error: {first}", *(f"  {line.strip()}" for line in (*more, hint) if line), f"  see:  {command} --help"))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _said(error: BaseException) -> str:
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def traceback_of(error: BaseException) -> list[str]:
    """The lines of its traceback."""
    return "".join(traceback.format_exception(error)).rstrip("\n").split("\n")


def _is_homes(name: str) -> bool:
    """Whether it lies at or above the user's cache folder: there is no home, or none that may be written to."""
    from platformdirs import user_cache_path

    return Path(name) in (user_cache_path("nestling"), *user_cache_path("nestling").parents)


def _file(error: OSError) -> str:
    name = error.filename
    if isinstance(name, str | bytes | os.PathLike):
        return os.fsdecode(name)
    try:
        Path.cwd()
    except OSError:
        return "the current folder"
    return f"a file in {gettempdir()} or beside what is written" if error.errno == errno.ENOSPC else "a file"


def _place(error: BaseException) -> str:
    """file.py:123, the last line of ours that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if HERE in Path(frame.filename).parents and Path(frame.filename).name not in FRAME]
    return next((f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(ours or frames)), "before the first line")


def write(lines: Sequence[str]) -> None:
    """Lines on stderr, without rich; where nobody can read them, nothing."""
    try:
        for line in lines:
            sys.stderr.write(f"{shown(line, sys.stderr.encoding or 'utf-8')}\n")
        sys.stderr.flush()
    except OSError:
        pass


def leave(status: int) -> None:
    """Exit with the status; what could not be written to stdout or stderr is let go, without Python's own words about it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    sys.exit(status)
