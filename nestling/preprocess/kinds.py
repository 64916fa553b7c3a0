"""Kinds of picture files: which are read, what decoding each of them holds, and what those are called that are not read."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from os import SEEK_END
from typing import IO

from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from nestling import extras
from nestling.errors import UnusableData

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")  # known by a mark, as TGA is not
READ = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000, PPM or TGA"
NO_IMAGE = f"not an image: no header of a {READ}"

HEAD = 64  # bytes that tell what a file is
ORIENTATION = 0x0112  # EXIF 2.32 and TIFF 6.0
BITS_PER_SAMPLE, ROWS_PER_STRIP, SAMPLE_FORMAT = 258, 278, 339  # TIFF 6.0
FLOATS = 3  # a SampleFormat

# ISO/IEC 23008-12, annex B: brands of HEVC in a HEIF file; 23000-22: mif1 and msf1 say nothing of the codec
HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF = (b"avif", b"avis")
FOREIGN: tuple[tuple[int, bytes, str], ...] = (  # where a mark stands, the mark, whose it is
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"v/1\x01", "an OpenEXR picture"),
    (0, b"#?RADIANCE", "a Radiance HDR picture"),
    (0, b"%PDF", "a PDF"),
    (4, b"ftypcrx ", "a camera's raw picture"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw picture"),
)


# ---- opening -------------------------------------------------------------------------------------------------------------------


def open_picture(file: IO[bytes]) -> Image.Image:
    """The picture with its header read. Raises UnusableData, its message the bare reason, and what Pillow's readers raise."""
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        file.seek(0)
        head = file.read(HEAD)
        if head[4:8] == b"ftyp" and head[8:12] in HEIC:
            return _heic(file)
        if not _is_tga(head):
            raise UnusableData(_not_read(file, head)) from error
        image = _tga(file, head)
    if image.format == "PPM":
        _keep_both_bytes(image)
    return image


def _heic(file: IO[bytes]) -> Image.Image:
    if not extras.has("heif"):
        raise UnusableData(f"a HEIC, which is read with the extra heif ({extras.hint('heif')}); or save it as JPEG")
    from pillow_heif.as_plugin import HeifImageFile

    file.seek(0)
    try:
        image: Image.Image = HeifImageFile(file)
    except SyntaxError as error:
        raise UnusableData(f"a damaged HEIC ({error})") from error
    return image


TGA_HEADER = struct.Struct("<BBBHHBHHHHBB")
TGA_DEPTHS: Mapping[int, tuple[int, ...]] = {1: (8,), 2: (16, 24, 32), 3: (1, 8, 16)}  # bits a pixel; palette, colours, grey
TGA_PACKED = 8  # added to these kinds where runs are


def _is_tga(head: bytes) -> bool:
    """Whether a header is as the format has it, field by field: there is no mark to know it by, and Pillow takes many for one.

    The twin of is_tga in device/runtime/images.c. Source: Truevision TGA File Format Specification 2.0.
    """
    if len(head) < TGA_HEADER.size:
        return False
    _, mapped, kind, first, colours, entry, _, _, width, height, depth, flags = TGA_HEADER.unpack_from(head)
    if mapped:
        palette = mapped == 1 and kind & 7 == 1 and 0 < colours <= 256 and first + colours <= 256 and entry in (16, 24, 32)
    else:
        palette = kind & 7 != 1 and first == colours == entry == 0
    return palette and kind & ~TGA_PACKED in TGA_DEPTHS and depth in TGA_DEPTHS[kind & 7] and flags >> 6 == 0 and width * height > 0


def _tga(file: IO[bytes], head: bytes) -> Image.Image:
    """Raises UnusableData where the file is shorter than its header says, as what is none would be."""
    identified, mapped, kind, _, colours, entry, _, _, width, height, depth, _ = TGA_HEADER.unpack_from(head)
    pixels = width * height * depth // 8 if not kind & TGA_PACKED else 1 + depth // 8
    whole = TGA_HEADER.size + identified + (colours * entry // 8 if mapped else 0) + pixels
    file.seek(0)
    try:
        image: Image.Image = Image.open(file, formats=("TGA",))
    except UnidentifiedImageError as error:
        raise UnusableData("a damaged TGA") from error
    if file.seek(0, SEEK_END) < whole:
        raise UnusableData("truncated")
    return image


def _keep_both_bytes(image: Image.Image) -> None:
    """Of colours of 16 bits Pillow's reader of PPM gives 8; taken as they are stored they have levels, as those of other files."""
    tile = image.tile[0]  # type: ignore[attr-defined]  # of Pillow's image files alone
    if tile.codec_name == "ppm" and tile.args == ("RGB", 65535):
        image.tile = [tile._replace(codec_name="raw", args=("RGB;16B", 0, 1))]  # type: ignore[attr-defined]  # of Pillow's image files alone


# ---- what is not read ----------------------------------------------------------------------------------------------------------


def _not_read(file: IO[bytes], head: bytes) -> str:
    """Why a file is none of those that are read, as far as its first bytes tell."""
    if head[4:8] == b"ftyp" and head[8:12] in AVIF:
        return "a damaged AVIF"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return _tiff(file)
    named = next((name for at, mark, name in FOREIGN if head[at:].startswith(mark)), None)
    return f"{named}, which is not read; save it as JPEG, PNG or TIFF" if named else NO_IMAGE


def _tiff(file: IO[bytes]) -> str:
    """What is in a TIFF that Pillow has no mode for."""
    try:
        file.seek(0)
        head = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 or head[3] == 43 else head)
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = (tuple(map(int, tags.get(tag, ()))) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))
    except Exception:  # whatever the damage makes the reader do
        return "a damaged TIFF"
    if not bits:
        return "a damaged TIFF"
    what = "floating-point numbers" if FLOATS in kinds else "values"
    each = f"{len(bits)} {what} of {max(bits)} bits a pixel" if len(bits) > 1 else f"{what} of {bits[0]} bits"
    return f"a TIFF of {each}, which is not read; save it as grey or RGB with 8 or 16 bits"


# ---- what decoding holds -------------------------------------------------------------------------------------------------------


def decoding(image: Image.Image, both_bytes: bool = False) -> int:
    """Bytes that decoding holds at its peak, by what the header says. both_bytes: colours of 16 bits are decoded twice."""
    pixels = image.width * image.height
    stored = (1 if image.mode in ("1", "L", "P") else 2 if image.mode.startswith("I;16") else 4) * pixels
    more = BESIDE.get(image.format or "", _nothing)(image, pixels, stored)
    return stored + more + (4 * pixels if both_bytes else 0)


def _nothing(image: Image.Image, pixels: int, stored: int) -> int:
    return 0


def _of_webp(image: Image.Image, pixels: int, stored: int) -> int:
    return 12 * pixels  # two canvases, and the bytes that are handed over


def _of_planes(image: Image.Image, pixels: int, stored: int) -> int:
    return 3 * (len(image.getbands()) + 1) * pixels  # the codec's frame, up to 16 bits a value, and the bytes that are handed over


def _of_jpeg(image: Image.Image, pixels: int, stored: int) -> int:
    return 2 * len(image.getbands()) * pixels if image.info.get("progressive") else 0  # coefficients of the whole picture


def _of_jpeg2000(image: Image.Image, pixels: int, stored: int) -> int:
    return (5 * len(image.getbands()) + 1) * pixels  # 32-bit coefficients of a tile, which may be all of it


def _of_ppm(image: Image.Image, pixels: int, stored: int) -> int:
    return 0 if image.tile[0].codec_name == "raw" else 2 * stored  # type: ignore[attr-defined]  # values as Python's bytes, and joined


def _of_tiff(image: Image.Image, pixels: int, stored: int) -> int:
    """A strip is decoded as a whole, and some write all rows into one; what is not upright Pillow turns into a copy."""
    tags = getattr(image, "tag_v2", {})
    rows = tags.get(ROWS_PER_STRIP, image.height)
    bits = sum(tags.get(BITS_PER_SAMPLE, (8,)))
    strip = image.width * min(rows, image.height) * bits // 8 if isinstance(rows, int) else 0
    return max(strip, stored if tags.get(ORIENTATION, 1) != 1 else 0)


BESIDE: Mapping[str, Callable[[Image.Image, int, int], int]] = {  # (image, its pixels, bytes of the decoded ones) -> bytes more
    "WEBP": _of_webp,
    "AVIF": _of_planes,
    "HEIF": _of_planes,
    "JPEG": _of_jpeg,
    "MPO": _of_jpeg,
    "JPEG2000": _of_jpeg2000,
    "PPM": _of_ppm,
    "TIFF": _of_tiff,
}
