"""What a network's own symbols, macros and files in C begin with, so that several networks link into one program.

The kernels (nst_*) begin with nothing of it: one copy serves them all. Programs that any network may stand behind (main_bench.c,
host.c) are written for the usual name, and `renamed` for another.
"""

from __future__ import annotations

import re
from pathlib import Path

from nestling.errors import WrongOption

USUAL = "nestling"
MODEL, WEIGHTS = "model", "weights"
KERNELS = "nst"
MOST = 64  # letters
OWN_FILES = tuple(f"{part}.{kind}" for part in (MODEL, WEIGHTS) for kind in ("h", "c"))
# The switches of what is compiled are nestling's, whatever a network is called.
ITS_NAMES = re.compile(r"\b(nestling|NESTLING)_(?!TRACE\b|PROFILE\b)")


def require_name(name: str) -> None:
    """Raises NestlingError for what C cannot take as the beginning of a name, or what is the kernels' own."""
    what = f"a letter, then letters, digits and _, {MOST} at most"
    if not re.fullmatch(rf"[A-Za-z][A-Za-z0-9_]{{0,{MOST - 1}}}", name):
        raise WrongOption(f"--name is to be an identifier of C: {what}; found {name!r}.", f"as in:  --name {_like(name)}")
    if name.lower() == KERNELS or name.lower().startswith(f"{KERNELS}_"):
        raise WrongOption(f"--name is to be other than the kernels' own, {KERNELS}_...; found {name!r}.", "as in:  --name parts")


def file(name: str, what: str) -> str:
    """One of OWN_FILES as it is called in a folder."""
    return f"{name}_{what}"


def renamed(text: bytes, name: str) -> bytes:
    """A program that speaks of the network by its usual name, for one of another name."""
    if name == USUAL:
        return text

    def other(match: re.Match[str]) -> str:
        return f"{name if match[1].islower() else name.upper()}_"

    return ITS_NAMES.sub(other, text.decode()).encode()


def of(folder: Path) -> str | None:
    """The name of the network in a folder of C; None where there is none, or more than one.

    A header of another name alone says nothing: all of the network's files must be there.
    """
    if (folder / file(USUAL, "model.h")).is_file():
        return USUAL
    found = [path.name.removesuffix("_model.h") for path in folder.glob("*_model.h")]
    whole = [name for name in found if all((folder / file(name, what)).is_file() for what in OWN_FILES)]
    return whole[0] if len(whole) == 1 else None


def _like(name: str) -> str:
    """The letters of a name that C takes."""
    return re.sub(r"^[^A-Za-z]+|[^A-Za-z0-9_]", "", name)[:MOST] or "parts"
