"""Options that several commands take. What is wrong with a word or a path is said here, before anything heavy is imported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from nestling.errors import MAKE_BUNDLE, WrongOption
from nestling.files import require_folders_place, require_place, require_room, require_there

T = TypeVar("T", bound=str)

Trust = Annotated[bool, typer.Option("--trust", help="Compile and run a folder of C that this user's nestling did not write.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout (docs/json.md).")]


# ---- words -----------------------------------------------------------------------------------------------------------------------


def one_of(option: str, known: Sequence[str], help: str, **more: Any) -> Any:
    """An option that takes one word of those that are known, in any case."""

    def parse(text: str) -> str:
        (word,) = words(option, text, known, 1)
        return word

    return typer.Option(option, parser=parse, metavar="|".join(known), autocompletion=lambda: list(known), help=help, **more)


def words(option: str, text: str, known: Sequence[T], most: int | None = None) -> list[T]:
    """Words that are known, separated by commas, each once, in any case. Raises WrongOption."""
    asked = [word.strip().lower() for word in text.split(",")]
    same = {word.lower(): word for word in known}
    if unknown := [word for word in asked if word not in same]:
        raise WrongOption(f"{option} is one {'' if most == 1 else 'or more '}of {', '.join(known)}; found {unknown[0]!r}.")
    if most is not None and len(asked) > most:
        raise WrongOption(f"{option} is one of {', '.join(known)}; found {text!r}.")
    return list(dict.fromkeys(same[word] for word in asked))


def share(option: str, text: str) -> float:
    """50% or 0.5 -> 0.5. Raises WrongOption."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise WrongOption(f"{option} is a share such as 50% or 0.5; found {text!r}.") from None


def sides(text: str | None, option: str = "--size") -> tuple[int, int] | int | None:
    """What --size says: 96, a square's side; 96x128, height and width. Raises WrongOption."""
    if text is None:
        return None
    numbers = [int(part) if part.isascii() and part.isdigit() and len(part) < 6 else 0 for part in text.lower().split("x")]
    if not all(numbers) or len(numbers) > 2:
        raise WrongOption(f"{option} is pixels, 96, or height and width, 96x128; found {text!r}.")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers separated by commas. Raises WrongOption."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise WrongOption(f"{option} is numbers separated by commas; found {text!r}.") from None


def seed(says: str) -> Any:
    """An option for where random numbers begin. says: of what."""
    return typer.Option(min=0, max=2**63 - 1, help=says)


# ---- what is there ---------------------------------------------------------------------------------------------------------------

MAKE_FILE = "make it:  nestling fit PHOTOS -o my.nest, nestling export my.nest"
MAKE_FOLDER = "put the photographs of each class into a folder of its own:  photos/good  photos/bad"
MAKE_PACKAGE = "make one:  nestling pack my8.nest -o pkg"


def there(hint: str) -> Callable[[Any], Any]:
    """Looks whether a path, or each of several, is there."""

    def require(found: Any) -> Any:
        for path in found if isinstance(found, list) else [found]:
            if path is not None:
                require_there(path, hint)
        return found

    return require


def bundle(help: str = "The fitted bundle.") -> Any:
    """An argument: a bundle that is there."""
    return typer.Argument(help=help, callback=there(MAKE_BUNDLE))


def network(help: str, **more: Any) -> Any:
    """An argument: a bundle, an exported file or a folder of C that is there; or several."""
    return typer.Argument(help=help, callback=there(MAKE_FILE), **more)


def photographs(help: str) -> Any:
    """An argument: photographs that are there."""
    return typer.Argument(help=help, callback=there(MAKE_FOLDER))


def package() -> Any:
    """An argument: a package that is there."""
    return typer.Argument(help="A package that `nestling pack` made.", callback=there(MAKE_PACKAGE))


def file(help: str, *names: str, **more: Any) -> Any:
    """An option: a file or a folder that is there."""
    return typer.Option(*names, help=help, callback=there(""), **more)


LEARNED_FROM: Any = {"help": "The photographs it learned from.", "show_default": "where they were", "callback": there(MAKE_FOLDER)}
LearnedFrom = Annotated[Path | None, typer.Argument(**LEARNED_FROM)]
DataOption = Annotated[Path | None, typer.Option(**LEARNED_FROM)]


# ---- what is made ----------------------------------------------------------------------------------------------------------------


def _may_be(what: str, suffix: str, beginning: bytes) -> Callable[[Path | None], Path | None]:
    def require(path: Path | None) -> Path | None:
        if path is not None:
            require_place(path, what, suffix, beginning)
        return path

    return require


def room_beside(output: Path, bundle: Path) -> None:
    """That there is room for what is made of a bundle, which is about as large. Raises NestlingError."""
    require_room(output, bundle.stat().st_size)


to_bundle, to_page = _may_be("a bundle", ".nest", b"PK"), _may_be("a page", ".html", b"<!doctype html")
to_head, to_picture = _may_be("a head", ".nst", b"NSTHEAD"), _may_be("a picture", ".svg", b"<svg")

STD = "The same: input = (v / 255 - mean) / std."
SIZE = "Of the input in pixels: a side, 96, or height and width, 96x128."
NewBundle = Annotated[Path, typer.Option("-o", "--output", help="The bundle to write.", callback=to_bundle)]


def new_folder(help: str) -> Any:
    """An option -o: a folder to be written, or one that is there."""

    def require(path: Path | None) -> Path | None:
        if path is not None:
            require_folders_place(path)
        return path

    return typer.Option("-o", "--output", help=help, callback=require)
