"""From an image file to upright pixels of 8 bits, without a second copy of a large picture.

Pillow decodes a picture as a whole. What follows (16 bits to 8, colour profiles, transparency, turning it upright) is done to the
parts that somebody wants, one after the other.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nestling.errors import UnusableData
from nestling.preprocess import jpeg
from nestling.preprocess.colour import Conversion, Space, to_srgb
from nestling.preprocess.kinds import ORIENTATION, decoding, open_picture
from nestling.preprocess.levels import (
    SIXTEEN_BITS,
    Box,
    Values,
    greatest,
    is_deep,
    raw_mode,
    require_readable,
    to_bytes,
    values_of,
)
from nestling.preprocess.room import Turn

Uint8Array = NDArray[np.uint8]
T = TypeVar("T")
Colour = Literal["as stored", "srgb"]

MOST_PIXELS = 100_000_000  # 400 MB once decoded; refused by what the header claims, before anything is allocated
MOST_MEMORY = 1_000_000_000  # bytes while a picture is decoded: WebP needs 16 a pixel, and says 100 megapixels in 34
BAND = 1_000_000  # pixels of a band of rows

# EXIF 2.32: what undoes each orientation but 1, the upright one
UPRIGHT: dict[int, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about odd metadata in files that it reads well, and what it cannot read is named by us. Once, here:
# warnings.catch_warnings around each file is not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Pillow takes memory in blocks of 16 MB, and glibc keeps such for the thread that gave them back: eight large pictures in eight
# threads, one after the other, took 2.8 GB. Blocks of more than 32 MB go back to the system at once.
Image.core.set_block_size(64 * 2**20)  # type: ignore[attr-defined]  # Pillow's C, without types


@dataclass(frozen=True)
class Reading:
    """How stored values become those that a network takes.

    levels: of pixels of 16 bits, the value that becomes 255, as all above it do; 255 to 65535. Those of 8 bits are as they are.
    colour: "srgb", where a picture has an ICC profile its colours are turned into sRGB; "as stored", profiles are not looked at, as
    in bundles of before 0.3, whose networks were taught so.
    """

    levels: int = SIXTEEN_BITS
    colour: Colour = "as stored"


AS_STORED = Reading()


class File(Protocol):
    """What a picture is read from: a Path, or what lies within something else (data/archive.py, data/arrays.py)."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Its content, from the beginning; can be sought in. Raises OSError, or UnusableData with the bare reason."""
        ...


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright. part: what lies within a box, a PIL image of mode L (where the picture is grey) or RGB."""

    width: int
    height: int
    part: Callable[[Box], Image.Image]

    def bands(self, columns: bool = False) -> Iterator[tuple[Box, Image.Image]]:
        """All of it, some whole rows (or columns) at a time, each with its box."""
        length, width = (self.width, self.height) if columns else (self.height, self.width)
        step = max(1, BAND // width)
        for first in range(0, length, step):
            last = min(first + step, length)
            box = (first, 0, last, self.height) if columns else (0, first, self.width, last)
            yield box, self.part(box)

    def cut(self, box: Box) -> Picture:
        """What lies within the box, as a picture of its own."""
        x, y, right, bottom = box
        return Picture(right - x, bottom - y, lambda inner: self.part((inner[0] + x, inner[1] + y, inner[2] + x, inner[3] + y)))


# ---- reading -----------------------------------------------------------------------------------------------------------------


def read_image(source: File | bytes, name: str = "", reading: Reading = AS_STORED) -> Uint8Array:
    """Any image file as uint8 RGB [H, W, 3], upright.

    JPEG, PNG, WebP, BMP, TIFF, GIF and AVIF (first frame), JPEG 2000, PPM, TGA; HEIC with the extra heif. Grey, palette and CMYK
    become RGB, transparency lies on white, 16 bits are scaled to 8. `name` is the file's name in messages (source itself, where it
    is a path).
    Raises UnusableData, naming file and reason, for anything else: empty, damaged, not an image, more than 100 megapixels.
    """
    return named(attempt(lambda: _pixels(source, reading)), source, name)


def _pixels(source: File | bytes, reading: Reading) -> Uint8Array:
    with opened(source, reading) as picture:
        pixels = np.empty((picture.height, picture.width, 3), np.uint8)
        for (_, top, _, bottom), band in picture.bands():
            pixels[top:bottom] = np.asarray(in_mode(band, "RGB"))
        return pixels


def _opened(source: File | bytes) -> IO[bytes]:
    return BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def from_pixels(pixels: Uint8Array) -> Picture:
    """uint8 [H, W, 3] or [H, W, 1] as a Picture."""
    shown = pixels if pixels.shape[2] == 3 else pixels[:, :, 0]

    def part(box: Box) -> Image.Image:
        left, top, right, bottom = box
        return Image.fromarray(shown[top:bottom, left:right])

    return Picture(pixels.shape[1], pixels.shape[0], part)


@contextmanager
def opened(
    source: File | bytes, reading: Reading, turn: Turn | None = None, beside: Callable[[int, int], int] = lambda height, width: 0
) -> Iterator[Picture]:
    """The decoded picture, for as long as the block lasts.

    turn: what is waited for before anything is decoded (see room.py); beside: (height, width) -> bytes that the block makes itself.
    Raises what why() puts into words, here or when rows are asked for.
    """
    with _opened(source) as file, _open(file) as image:
        raw, deep = raw_mode(image), is_deep(image)
        amount = decoding(image, deep and reading.levels != SIXTEEN_BITS) + beside(image.height, image.width)
        with turn.taken(amount) if turn else nullcontext():
            try:
                image = _loaded(image, file)
                # of colours of 16 bits Pillow gives the high byte, which is all there is to it where white is white
                wide = deep and (image.mode.startswith("I") or reading.levels != SIXTEEN_BITS)
                values = values_of(image, raw, file, _open) if wide else None
                yield _upright(image, _eight_bits(image, values, reading.levels), _conversion(image, raw, reading))
            finally:
                image.close()  # the pixels go before the room is given back


def _loaded(image: Image.Image, file: IO[bytes]) -> Image.Image:
    """The image, decoded; of a JPEG that lacks nothing but its end another one. Raises what why() puts into words."""
    try:
        image.load()
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        file.seek(0)
        whole = jpeg.completed(file.read(), _open)
        if whole is None:
            raise
        image.close()
        return whole
    _require_pixels(image)  # a HEIC's header may say less than there is
    return image


def look(source: File | bytes) -> tuple[bool, str] | None:
    """By the header alone: whether it has 16 bits a value, and why its colour profile cannot be used.

    "": it can be, or there is none. None where this is no image that may be read.
    """
    try:
        with _opened(source) as file, _open(file) as image:
            found = profile_of(image, raw_mode(image))
            return is_deep(image), found if isinstance(found, str) else ""
    except Exception:
        return None


def largest_value(source: File | bytes, turn: Turn) -> int | None:
    """Of a picture of 16 bits, transparency aside; None where it cannot be decoded. Rounded up where low bytes cannot be had."""
    try:
        with _opened(source) as file, _open(file) as image:
            raw = raw_mode(image)
            with turn.taken(decoding(image, both_bytes=True)):
                image.load()
                return greatest(image, raw, file, _open)
    except Exception:
        return None


def attempt(work: Callable[[], T]) -> T | str:
    """What it gives; or why a picture cannot be had, in words without the file's name."""
    try:
        return work()
    except Exception as error:
        return why(error)


def named(result: T | str, source: File | bytes, name: str) -> T:
    """The result of attempt(). Raises UnusableData, naming the file, where it is a reason."""
    if isinstance(result, str):
        raise UnusableData(f"{name or (source if isinstance(source, Path) else 'the image')} cannot be used: {result}.")
    return result


def why(error: Exception) -> str:
    """Why an image could not be read. Pillow's readers raise whatever the damage makes them do: struct.error, IndexError."""
    match error:
        case UnusableData():
            return error.message
        case Image.DecompressionBombError():
            return f"its header claims more than {MOST_PIXELS // 10**6} megapixels"
        case MemoryError():
            return "too large for the memory that is left"
        case OSError(errno=int(), strerror=str(said)):
            return f"it cannot be read ({said})"
        case _:
            said = " ".join(str(error).split()) or type(error).__name__
            return "truncated" if "truncated" in said.lower() else f"damaged ({said})"


def why_not_image(file: IO[bytes]) -> str | None:
    """None where the open file's header is that of an image that may be read, else the reason.

    Nothing is decoded: damage further on shows in read_image.
    """
    try:
        with _open(file):
            return None
    except Exception as error:
        return why(error)


def _open(file: IO[bytes]) -> Image.Image:
    """The image with its header read and judged. Raises UnusableData, its message the bare reason, and Pillow's errors."""
    if not file.read(1):
        raise UnusableData("empty, 0 bytes")
    image = open_picture(file)
    pixels = _require_pixels(image)
    if (memory := decoding(image)) > MOST_MEMORY:
        what = f"its header claims {pixels / 1e6:.0f} megapixels"
        raise UnusableData(f"{what}, which as {image.format} take {memory / 1e9:.1f} GB to decode; 1 GB is the most")
    require_readable(image)
    return image


def _require_pixels(image: Image.Image) -> int:
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise UnusableData(f"its header claims {pixels / 1e6:.0f} megapixels, more than {MOST_PIXELS // 10**6}")
    if pixels == 0:
        raise UnusableData("its header claims no pixels")
    return pixels


# ---- a part of a picture -------------------------------------------------------------------------------------------------------


def _upright(image: Image.Image, stored: Callable[[Box], Image.Image], conversion: Conversion | None) -> Picture:
    """Turned as EXIF says. TIFF was turned by Pillow while loading, which also took the tag away.

    stored: box -> what lies there as the file has it, in a mode of 8 bits.
    """
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
        turn = UPRIGHT.get(orientation)
    except Exception:  # damaged EXIF in a sound picture: such a photograph is shown unturned everywhere
        turn = None
    if turn is None:
        return Picture(image.width, image.height, lambda box: _flat(stored(box), conversion))
    width, height = image.size if orientation < 5 else image.size[::-1]

    def part(box: Box) -> Image.Image:
        left, top, right, bottom = box
        x = (width - right, width - left) if orientation in (2, 3, 6, 7) else (left, right)
        y = (height - bottom, height - top) if orientation in (3, 4, 7, 8) else (top, bottom)
        there = (x[0], y[0], x[1], y[1]) if orientation < 5 else (y[0], x[0], y[1], x[1])
        return _flat(stored(there), conversion).transpose(turn)

    return Picture(width, height, part)


def _eight_bits(image: Image.Image, values: Values | None, levels: int) -> Callable[[Box], Image.Image]:
    """What cuts a part out of the image, in one of Pillow's modes of 8 bits. Raises UnusableData for floating-point pixels."""
    if image.mode == "F":
        raise UnusableData("its pixels are floating-point numbers; 8 or 16 bits are read")
    if values is None:
        return lambda box: image if box == (0, 0, *image.size) else image.crop(box)
    scaled = to_bytes(levels)

    def cut(box: Box) -> Image.Image:
        found = values(box)
        if found.ndim == 2:
            return Image.fromarray(scaled[found])
        shown = scaled[found]
        if found.shape[2] in (2, 4) and image.mode != "CMYK":
            shown[:, :, -1] = found[:, :, -1] >> 8  # transparency is not light
        return Image.fromarray(shown, "CMYK") if image.mode == "CMYK" else Image.fromarray(shown)

    return cut


def _flat(band: Image.Image, conversion: Conversion | None) -> Image.Image:
    """Any mode of 8 bits as L (where grey) or RGB, in sRGB, transparency over white."""
    if band.mode == "CMYK" and conversion:
        return conversion(band)
    if band.has_transparency_data:
        colours = in_mode(band, "RGBA")
        if conversion:
            alpha = colours.getchannel("A")
            colours = conversion(colours.convert("RGB"))
            colours.putalpha(alpha)
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    band = in_mode(band, "L" if band.mode in ("1", "L") else "RGB")
    return conversion(band) if conversion else band


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """As Image.convert, without a copy where it is of that mode."""
    return image if image.mode == mode else image.convert(mode)


# ---- colour profiles -------------------------------------------------------------------------------------------------------------


def _conversion(image: Image.Image, raw: str, reading: Reading) -> Conversion | None:
    found = profile_of(image, raw) if reading.colour == "srgb" else None
    return None if isinstance(found, str) else found


def profile_of(image: Image.Image, raw: str) -> Conversion | str | None:
    """See colour.to_srgb; None for an image without a profile. raw: its raw_mode before it was loaded."""
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile or image.mode in ("1", "LAB"):  # LAB says itself which colours it means
        return None
    grey = image.mode in ("L", "LA", "La") or image.mode.startswith("I") or raw.startswith("LA")
    space: Space = "CMYK" if image.mode == "CMYK" else "GRAY" if grey else "RGB"
    return to_srgb(profile, space)
