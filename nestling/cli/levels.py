"""--levels: which value of a picture of 16 bits is white."""

from typing import Annotated

import typer

from nestling.errors import WrongOption

Levels = Annotated[
    str, typer.Option("--levels", help="White in 16-bit files: auto (by their largest value), 8 to 16 (bits), or the value itself.")
]


def as_white(text: str) -> int | None:
    """The value that is white; None for auto. Raises WrongOption."""
    from nestling.preprocess.image import LEVELS
    from nestling.preprocess.levels import BITS, white

    if text == "auto":
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if BITS[0] <= number <= BITS[-1]:
        return white(number)
    if LEVELS[0] <= number <= LEVELS[1]:
        return number
    wanted = f"auto, bits from {BITS[0]} to {BITS[-1]}, or a value from {LEVELS[0]} to {LEVELS[1]}"
    raise WrongOption(f"--levels is {wanted}; found {text!r}.")
