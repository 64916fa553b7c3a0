"""Options that several commands take."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from nestling.files import require_place

Trust = Annotated[bool, typer.Option("--trust", help="Compile and run a folder of C that this user's nestling did not write.")]


def _may_be(what: str, suffix: str, beginning: bytes) -> Callable[[Path | None], Path | None]:
    def require(path: Path | None) -> Path | None:
        if path is not None:
            require_place(path, what, suffix, beginning)
        return path

    return require


to_bundle, to_page = _may_be("a bundle", ".nest", b"PK"), _may_be("a page", ".html", b"<!doctype html")
to_head, to_picture = _may_be("a head", ".nst", b"NSTHEAD"), _may_be("a picture", ".svg", b"<svg")


def seed(says: str) -> Any:
    """An option for where random numbers begin. says: of what."""
    return typer.Option(min=0, max=2**63 - 1, help=says)


NewBundle = Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.", callback=to_bundle)]
