"""From an image file to what a network takes: the one definition, printed into every format.

Three steps, each with its own function: `read_image` (any file -> uint8 RGB), `resize` (-> uint8 of the network's size; this is
what every artifact takes) and `table` (the normalisation, a node of the Graph).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from nestling.errors import UnusableData, UnusableFile
from nestling.outside import brief

Uint8Array = NDArray[np.uint8]
T = TypeVar("T")
Interpolation = Literal["bicubic", "bilinear"]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MOST_PIXELS = 100_000_000  # 400 MB once decoded; refused by what the header claims, before anything is allocated
SIDES = (8, 4096)  # smallest and largest side of what a network takes
LONGEST = 10_000  # largest side before the crop, so that a square image enlarged to it has at most MOST_PIXELS

FILTERS: Mapping[Interpolation, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}

# EXIF 2.32, tag 0x0112: what undoes each orientation but 1, the upright one
ORIENTATION = 0x0112
UPRIGHT: Mapping[int, Image.Transpose] = {
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


@dataclass(frozen=True)
class ImagePreprocess:
    """Resize the shorter side to size / crop, cut the centre, normalise.

    size: (height, width), 8 to 4096. channels: 3 (RGB) or 1 (grey). crop: share of the side that is kept, 0.05 to 1.
    mean, std: one a channel, for values in 0..1: input = (v / 255 - mean) / std.
    """

    size: tuple[int, int]
    channels: Literal[1, 3]
    crop: float
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]


Preprocess: TypeAlias = ImagePreprocess  # a union as soon as there is a second kind, told apart by "kind" in a file


# ---- as plain values, for files ----------------------------------------------------------------------------------------------


def to_plain(p: Preprocess) -> dict[str, Any]:
    """What JSON can hold; from_plain gives it back."""
    return {
        "kind": "image",
        "size": list(p.size),
        "channels": p.channels,
        "crop": p.crop,
        "interpolation": p.interpolation,
        "mean": list(p.mean),
        "std": list(p.std),
    }


def from_plain(plain: Mapping[str, Any]) -> Preprocess:
    """The inverse of to_plain. Raises UnusableFile, saying which value is wrong, for what no network could take."""
    if not isinstance(plain, Mapping) or plain.get("kind") != "image":
        kind = plain.get("kind") if isinstance(plain, Mapping) else plain
        raise UnusableFile(f"the preprocessing is of kind {brief(kind)}; this nestling knows 'image'.")
    expected: tuple[tuple[str, bool, str], ...] = (
        ("size", _is_list(plain.get("size"), 2, _is_side), f"[height, width], whole numbers from {SIDES[0]} to {SIDES[1]}"),
        ("channels", _is_whole(plain.get("channels")) and plain["channels"] in (1, 3), "1 or 3"),
        ("crop", _is_number(plain.get("crop")) and 0.05 <= plain["crop"] <= 1, "a number from 0.05 to 1"),
        ("interpolation", isinstance(plain.get("interpolation"), str) and plain["interpolation"] in FILTERS, "bicubic or bilinear"),
        ("mean", _is_list(plain.get("mean"), plain.get("channels"), _is_number), "a finite number a channel"),
        ("std", _is_list(plain.get("std"), plain.get("channels"), _is_deviation), "a number above 0 a channel"),
    )
    for name, right, what in expected:
        if not right:
            raise UnusableFile(f"the preprocessing's {name} is {brief(plain.get(name))}; it should be {what}.")
    if max(plain["size"]) / plain["crop"] > LONGEST:
        raise UnusableFile(f"the preprocessing's size / crop, {plain['size']} / {plain['crop']}, is above {LONGEST} pixels.")
    return ImagePreprocess(
        size=(plain["size"][0], plain["size"][1]),
        channels=plain["channels"],
        crop=float(plain["crop"]),
        interpolation=plain["interpolation"],
        mean=tuple(float(v) for v in plain["mean"]),
        std=tuple(float(v) for v in plain["std"]),
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and _is_whole(value) and SIDES[0] <= value <= SIDES[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6  # False for NaN as well


def _is_deviation(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value >= 1e-6


def _is_list(value: object, length: object, right: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == length and all(right(v) for v in value)


# ---- reading -----------------------------------------------------------------------------------------------------------------


def read_image(source: Path | bytes, name: str = "") -> Uint8Array:
    """Any image file as uint8 RGB [H, W, 3], upright.

    JPEG, PNG, WebP, BMP, TIFF, GIF (first frame); grey, palette and CMYK become RGB, transparency lies on white, 16-bit grey is
    scaled to 8. `name` is the file's name in messages (source itself, where it is a path).
    Raises UnusableData, naming file and reason, for anything else: empty, damaged, not an image, more than 100 megapixels.
    """
    return np.array(_named(_decode(source), source, name).convert("RGB"))


def load(p: Preprocess, source: Path | bytes, name: str = "") -> Uint8Array:
    """An image file as the network takes it, uint8 [h, w, C]: the bytes of resize(p, read_image(source)). Raises UnusableData."""
    return _named(try_load(p, source), source, name)


def try_load(p: Preprocess, source: Path | bytes) -> Uint8Array | str:
    """As load; but what cannot be read gives the reason, without the file's name, for callers that go on without it."""
    image = _decode(source)
    return image if isinstance(image, str) else _as_array(p, _resized(p, image))


def why_not_image(file: IO[bytes]) -> str | None:
    """None where the open file's header is that of an image that may be read, else the reason.

    Nothing is decoded: damage further on shows in read_image.
    """
    try:
        with _open(file):
            return None
    except Exception as error:
        return _reason(error)


def _named(result: T | str, source: Path | bytes, name: str) -> T:
    if isinstance(result, str):
        raise UnusableData(f"{name or (source if isinstance(source, Path) else 'the image')} cannot be used: {result}.")
    return result


def _decode(source: Path | bytes) -> Image.Image | str:
    """A PIL image of mode L or RGB, upright; or the reason why there is none.

    JPEG's decoding at a reduced scale (Pillow's draft) would be quicker, but moves pixels by up to 7 levels.
    """
    try:
        with source.open("rb") if isinstance(source, Path) else BytesIO(source) as file, _open(file) as image:
            image.load()
            return _eight_bits(_upright(image))
    except Exception as error:
        return _reason(error)


def _reason(error: Exception) -> str:
    """Why an image could not be read. Pillow's readers raise whatever the damage makes them do: struct.error, IndexError."""
    match error:
        case UnusableData():
            return error.message
        case UnidentifiedImageError():
            return "not an image: no header of a JPEG, PNG, WebP, BMP, TIFF or GIF"
        case Image.DecompressionBombError():
            return f"its header claims more than {MOST_PIXELS // 10**6} megapixels"
        case MemoryError():
            return "too large for the memory that is left"
        case OSError(errno=int(), strerror=str(said)):
            return f"it cannot be read ({said})"
        case _:
            said = " ".join(str(error).split()) or type(error).__name__
            return "truncated" if "truncated" in said.lower() else f"damaged ({said})"


def _open(file: IO[bytes]) -> Image.Image:
    """The image with its header read and judged. Raises UnusableData, its message the bare reason, and Pillow's errors."""
    if not file.read(1):
        raise UnusableData("empty, 0 bytes")
    file.seek(0)
    image: Image.Image = Image.open(file, formats=FORMATS)
    pixels = image.width * image.height
    if pixels > MOST_PIXELS:
        raise UnusableData(f"its header claims {pixels / 1e6:.0f} megapixels, more than {MOST_PIXELS // 10**6}")
    if pixels == 0:
        raise UnusableData("its header claims no pixels")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says. TIFF was turned by Pillow while loading, which also took the tag away."""
    try:
        turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF in a sound picture: such a photograph is shown unturned everywhere
        turn = None
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any mode as L (where grey) or RGB, transparency over white. Raises UnusableData for float and 32-bit pixels."""
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 65535:
            raise UnusableData("its pixels have 32 bits; 8 or 16 are read")
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise UnusableData("its pixels are floating-point numbers; 8 or 16 bits are read")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


# ---- resizing ----------------------------------------------------------------------------------------------------------------


def resize(p: Preprocess, image: Uint8Array) -> Uint8Array:
    """uint8 [H, W, 3] (or [H, W, 1]) -> uint8 [h, w, C]: antialiased resize and centre crop.

    The shorter side becomes floor(size / crop) (for a target that is not square: the least scale that covers both of its sides so
    enlarged), then the centre is cut out. Grey is ITU-R 601 luma, taken before resizing. The bytes are those of timm's evaluation
    transform (crop_mode "center"), which resizes with Pillow as well.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected uint8 [H, W, 3] or [H, W, 1], got {image.dtype} {list(image.shape)}")
    return _as_array(p, _resized(p, Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])))


def _resized(p: Preprocess, image: Image.Image) -> Image.Image:
    if p.channels == 1:
        image = image.convert("L")
    height, width = p.size
    full_h, full_w = _full_size(p, image.height, image.width)
    if full_h * full_w > MOST_PIXELS:
        image = _middle(p, image, MOST_PIXELS / (full_h * full_w))
        full_h, full_w = _full_size(p, image.height, image.width)
    top, left = round((full_h - height) / 2), round((full_w - width) / 2)  # halves to even, as torchvision's center_crop
    return image.resize((full_w, full_h), FILTERS[p.interpolation]).crop((left, top, left + width, top + height))


def _middle(p: Preprocess, image: Image.Image, share: float) -> Image.Image:
    """The middle part of an image a thousand times as long as wide, which enlarged as a whole would not fit into memory."""
    height, width = image.height, image.width
    if height * p.size[1] > width * p.size[0]:
        cut = int(height * (1 - share) / 2)
        return image.crop((0, cut, width, height - cut))
    cut = int(width * (1 - share) / 2)
    return image.crop((cut, 0, width - cut, height))


def _full_size(p: Preprocess, height: int, width: int) -> tuple[int, int]:
    """(height, width) of the whole image after resizing and before the crop, rounded as timm does. At least p.size."""
    target_h, target_w = (math.floor(side / p.crop) for side in p.size)
    if target_h != target_w:
        ratio = min(height / target_h, width / target_w)
        return round(height / ratio), round(width / ratio)
    short, long = sorted((height, width))
    longer = int(target_h * long / short)
    return (longer, target_h) if height > width else (target_h, longer)


def _as_array(p: Preprocess, image: Image.Image) -> Uint8Array:
    """[h, w, C]; an L image for an RGB network is repeated, which is what resizing three equal channels gives."""
    pixels = np.asarray(image)
    return np.repeat(pixels[:, :, None], p.channels, axis=2) if pixels.ndim == 2 else pixels.copy()


# ---- normalising -------------------------------------------------------------------------------------------------------------


def table(p: Preprocess) -> NDArray[np.float32]:
    """What each of the 256 values becomes, a channel: float32 [C, 256], (v / 255 - mean) / std computed in float64."""
    values = np.arange(256)[None, :] / 255
    normalised: NDArray[np.float32] = ((values - np.array(p.mean)[:, None]) / np.array(p.std)[:, None]).astype(np.float32)
    return normalised
