"""Pictures of 16 bits a value: what they hold, and which of their values is white.

A camera of 10, 12 or 14 bits often writes into files of 16 without scaling, so that nothing in them is brighter than a sixteenth of
white. Nothing in such a file tells; the largest value of all pictures of a set does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nestling.errors import UnusableData

Box = tuple[int, int, int, int]  # left, top, right, bottom, as Pillow's
Values = Callable[[Box], NDArray[np.unsignedinteger]]
Opener = Callable[[IO[bytes]], Image.Image]

SIXTEEN_BITS = 65535  # the white of files of 16 bits, where nothing else is known
BITS = (8, 10, 12, 14, 16)  # of cameras; 8: somebody wrote bytes into 16 bits
DARK = 16  # a picture whose largest value is white / 16, four bits less, is nearly black

# Of colours Pillow gives the high byte of each value alone; the low byte is had by telling it the other byte order.
_OTHER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LOW = {f"{mode};16{order}": f"{mode};16{other}" for mode in ("RGB", "RGBX", "RGBA", "CMYK") for order, other in _OTHER.items()}
_GREY_ALPHA = "LA;16B"  # four bytes a pixel, had one by one as if they were red, green, blue and alpha

BITS_PER_SAMPLE, PLANES = 258, 284  # TIFF 6.0; PlanarConfiguration 2: a plane a colour


# ---- which value is white ------------------------------------------------------------------------------------------------------


def white(bits: int) -> int:
    """The largest value of so many bits."""
    return int(2**bits - 1)


def fitting(largest: int) -> int:
    """The white of the smallest number of BITS that holds this value."""
    return next(white(bits) for bits in BITS if largest <= white(bits))


@lru_cache(maxsize=8)
def to_bytes(levels: int) -> NDArray[np.uint8]:
    """uint8 [65536]: what each 16-bit value becomes, rounded to the nearest; `levels` and all above it 255."""
    values = np.minimum(np.arange(65536, dtype=np.int64), levels)
    found: NDArray[np.uint8] = ((values * 255 + levels // 2) // levels).astype(np.uint8)
    return found


# ---- what a file holds ---------------------------------------------------------------------------------------------------------


def raw_mode(image: Image.Image) -> str:
    """How an image that is open, but not loaded, lies in its file, in Pillow's words ("RGB;16B"); "" where it does not say."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    found = args[0] if isinstance(args, tuple) and args else args
    return found if isinstance(found, str) else ""


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is open, but not loaded, has 16 bits a value, or 12 or 32 that Pillow gives as they are."""
    return image.mode.startswith("I") or ";16" in raw_mode(image)


def require_readable(image: Image.Image) -> None:
    """Raises UnusableData for colours of 16 bits in planes that are not compressed: Pillow reads them as bytes, that is noise."""
    tags = getattr(image, "tag_v2", {})
    if len(raw_mode(image)) == 1 and tags.get(PLANES) == 2 and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise UnusableData("its 16-bit colours lie in planes, which is read where they are compressed")


def values_of(image: Image.Image, raw: str, file: IO[bytes], opener: Opener) -> Values:
    """What gives the 16-bit values of a part of a deep image: uint16 [h, w], or [h, w, C], alpha as the last of 2 or 4.

    image: loaded; raw: its raw_mode of before; file, opener: where it came from, for its low bytes.
    Raises UnusableData where these cannot be had, and, when called, for values that 16 bits don't hold.
    """
    if image.mode.startswith("I"):
        return lambda box: _within_sixteen(np.asarray(image.crop(box)))
    if getattr(image, "tag_v2", {}).get(PLANES) == 2 or raw not in (*_LOW, _GREY_ALPHA):
        raise UnusableData("its 16-bit colours are stored in a way that leaves their levels as they are")
    file.seek(0)
    again = opener(file)
    stored = _LOW.get(raw, "RGBA")
    again.tile = [  # type: ignore[attr-defined]  # Pillow's types lack it
        tile._replace(args=(stored, *tile.args[1:]) if isinstance(tile.args, tuple) else stored)
        for tile in again.tile  # type: ignore[attr-defined]  # Pillow's types lack it
    ]
    again.load()

    def values(box: Box) -> NDArray[np.unsignedinteger]:
        low = np.asarray(again.crop(box))
        high = low[:, :, ::2] if raw == _GREY_ALPHA else np.asarray(image.crop(box))
        found: NDArray[np.uint16] = high.astype(np.uint16) << 8 | (low[:, :, 1::2] if raw == _GREY_ALPHA else low)
        return found

    return values


def greatest(image: Image.Image, raw: str, file: IO[bytes], opener: Opener) -> int:
    """The largest value of a deep image, transparency aside. As values_of; where that refuses, by the high bytes, rounded up."""
    colours = 3 if image.mode in ("RGB", "RGBA") else len(image.getbands())
    try:
        values = values_of(image, raw, file, opener)
    except UnusableData:
        return max(int(band[1]) for band in image.getextrema()[:colours]) << 8 | 255  # type: ignore[index]  # Pillow's types lack it
    step = max(1, 1_000_000 // image.width)
    rows = ((top, min(top + step, image.height)) for top in range(0, image.height, step))
    return max(int(_light(values((0, top, image.width, bottom)), colours).max()) for top, bottom in rows)


def _light(values: NDArray[np.unsignedinteger], colours: int) -> NDArray[np.unsignedinteger]:
    """Without transparency."""
    return values if values.ndim == 2 else values[:, :, : 1 if values.shape[2] == 2 else colours]


def _within_sixteen(values: NDArray[np.integer]) -> NDArray[np.unsignedinteger]:
    if values.dtype.itemsize > 2 and (values.min() < 0 or values.max() > SIXTEEN_BITS):
        raise UnusableData("its pixels have 32 bits; 8 or 16 are read")
    return values.astype(np.uint16)
