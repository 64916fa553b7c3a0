"""From an image file to what a network takes: the one definition, printed into every format.

Three steps, each with its own function: pictures.read_image (any file -> uint8 RGB), `resize` (-> uint8 of the network's size; this
is what every artifact takes) and `table` (the normalisation, a node of the Graph). `load` does the first two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nestling.errors import NestlingError, UnusableFile
from nestling.outside import brief
from nestling.preprocess.levels import SIXTEEN_BITS, white
from nestling.preprocess.pictures import (
    AS_STORED,
    MOST_PIXELS,
    Colour,
    File,
    Picture,
    Reading,
    Uint8Array,
    attempt,
    from_pixels,
    in_mode,
    named,
    opened,
)
from nestling.preprocess.room import Turn

Interpolation = Literal["bicubic", "bilinear"]
Size: TypeAlias = int | tuple[int, int]
"""Of what a network takes: the side of a square, or (height, width)."""

SIDES = (8, 4096)  # smallest and largest side of what a network takes
LONGEST = 10_000  # largest side before the crop, so that a square image enlarged to it has at most MOST_PIXELS
WITHOUT = "nestling trace, export and bench try it with made-up numbers"
RANKS: Mapping[str, Sequence[int]] = {"float32": range(1, 6), "uint8": (3,)}  # of numbers
LARGEST = 2**26  # how many they may be
LEVELS = (white(8), SIXTEEN_BITS)  # least and largest value of a 16-bit pixel that may be white

FILTERS: Mapping[Interpolation, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


@dataclass(frozen=True)
class ImagePreprocess:
    """Resize the shorter side to size / crop, cut the centre, normalise.

    size: (height, width), 8 to 4096. channels: 3 (RGB) or 1 (grey). crop: share of the side that is kept, 0.05 to 1.
    mean, std: one a channel, for values in 0..1: input = (v / 255 - mean) / std. reading: of files, before all this.
    """

    size: tuple[int, int]
    channels: Literal[1, 3]
    crop: float
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reading: Reading = AS_STORED


@dataclass(frozen=True)
class Numbers:
    """What a network takes that is given no photographs: numbers that are made elsewhere, of sound or by sensors.

    shape: of one, without the batch. dtype: float32; or uint8, and then the shape is [height, width, channels]: an integer
    network's own int8, 128 higher, so that all that takes an image's bytes takes these.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"]

    def __getattr__(self, name: str) -> Any:
        """What only photographs have, a size, a mean: whoever asks for it is told in plain words, by a NestlingError."""
        raise _no_photographs(self) if name in ImagePreprocess.__dataclass_fields__ else AttributeError(name)


Preprocess: TypeAlias = ImagePreprocess | Numbers  # told apart by "kind" in a file


def shape_of(p: Preprocess) -> tuple[int, ...]:
    """What an artifact takes, without the batch: [H, W, C] of an image."""
    return p.shape if isinstance(p, Numbers) else (*p.size, p.channels)


def of_photographs(p: Preprocess) -> ImagePreprocess:
    """The preprocessing, where it is one of photographs. Raises NestlingError where it is not."""
    if isinstance(p, Numbers):
        raise _no_photographs(p)
    return p


def _no_photographs(p: Numbers) -> NestlingError:
    return NestlingError(f"this network takes numbers, {p.dtype} {list(p.shape)}, not photographs.", WITHOUT)


def noise(p: Preprocess, count: int = 1, seed: int = 0) -> NDArray[np.uint8 | np.float32]:
    """What any network can be tried with, [count, ...]: bytes of any value, or normal numbers; the same for the same seed."""
    rng, shape = np.random.default_rng(seed), (count, *shape_of(p))
    if isinstance(p, Numbers) and p.dtype == "float32":
        return rng.normal(size=shape).astype(np.float32)
    return rng.integers(0, 256, shape).astype(np.uint8)


def require_taken(p: Preprocess, given: NDArray[Any], name: str) -> None:
    """That a network of the name can be given these, [N, ...]. Raises NestlingError."""
    dtype = p.dtype if isinstance(p, Numbers) else "uint8"
    if given.dtype != np.dtype(dtype) or given.shape[1:] != shape_of(p):
        what = "numbers" if isinstance(p, Numbers) else "images"
        raise NestlingError(f"{name} takes {dtype} {what} of shape {shape_of(p)}, not {given.dtype} of {given.shape[1:]}.")


def sides_of(size: Size) -> tuple[int, int]:
    """(height, width)."""
    return (size, size) if isinstance(size, int) else size


def as_option(size: Size) -> str:
    """As --size takes it: 96, or 96x128, height before width."""
    height, width = sides_of(size)
    return str(height) if height == width else f"{height}x{width}"


def normalised(p: Preprocess, mean: Sequence[float], std: Sequence[float]) -> Preprocess:
    """With another mean and std, one number or one a channel. Raises UnusableFile, saying which is wrong, for what none may be."""
    each = ([*values] * (p.channels if len(values) == 1 else 1) for values in (mean, std))
    return from_plain(to_plain(p) | dict(zip(("mean", "std"), each, strict=True)))


# ---- as plain values, for files ----------------------------------------------------------------------------------------------


def to_plain(p: Preprocess) -> dict[str, Any]:
    """What JSON can hold; from_plain gives it back. Levels and colour are in it where they are not those of older bundles."""
    if isinstance(p, Numbers):
        return {"kind": "numbers", "shape": list(p.shape), "dtype": p.dtype}
    reading: dict[str, Any] = {}
    if p.reading.levels != SIXTEEN_BITS:
        reading["levels"] = p.reading.levels
    if p.reading.colour != "as stored":
        reading["colour"] = p.reading.colour
    return reading | {
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
    kind = plain.get("kind") if isinstance(plain, Mapping) else plain
    if kind == "numbers":
        return _numbers(plain)
    if kind != "image":
        raise UnusableFile(f"the preprocessing is of kind {brief(kind)}; this nestling knows 'image' and 'numbers'.")
    expected: tuple[tuple[str, bool, str], ...] = (
        ("size", _is_list(plain.get("size"), 2, _is_side), f"[height, width], whole numbers from {SIDES[0]} to {SIDES[1]}"),
        ("channels", _is_whole(plain.get("channels")) and plain["channels"] in (1, 3), "1 or 3"),
        ("crop", _is_number(plain.get("crop")) and 0.05 <= plain["crop"] <= 1, "a number from 0.05 to 1"),
        ("interpolation", isinstance(plain.get("interpolation"), str) and plain["interpolation"] in FILTERS, "bicubic or bilinear"),
        ("mean", _is_list(plain.get("mean"), plain.get("channels"), _is_number), "a finite number a channel"),
        ("std", _is_list(plain.get("std"), plain.get("channels"), _is_deviation), "a number above 0 a channel"),
        ("levels", _is_white(plain.get("levels", SIXTEEN_BITS)), f"a whole number from {LEVELS[0]} to {LEVELS[1]}"),
        ("colour", plain.get("colour", "as stored") in get_args(Colour), " or ".join(get_args(Colour))),
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
        reading=Reading(plain.get("levels", SIXTEEN_BITS), plain.get("colour", "as stored")),
    )


def _numbers(plain: Mapping[str, Any]) -> Numbers:
    shape: Any = plain.get("shape")
    dtype: Any = plain.get("dtype")
    right = isinstance(shape, list) and len(shape) in RANKS.get(dtype if isinstance(dtype, str) else "", ())
    if not right or not all(_is_whole(side) and 1 <= side <= LARGEST for side in shape) or math.prod(shape) > LARGEST:
        raise UnusableFile(f"the preprocessing's numbers are {brief(dtype)} {brief(shape)}; expected float32, or uint8 of 3 sides.")
    return Numbers(tuple(shape), dtype)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and _is_whole(value) and SIDES[0] <= value <= SIDES[1]


def _is_white(value: object) -> bool:
    return isinstance(value, int) and _is_whole(value) and LEVELS[0] <= value <= LEVELS[1]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e6  # False for NaN as well


def _is_deviation(value: object) -> bool:
    return isinstance(value, int | float) and _is_number(value) and value >= 1e-6


def _is_list(value: object, length: object, right: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == length and all(right(v) for v in value)


# ---- from a file ---------------------------------------------------------------------------------------------------------------


def load(p: Preprocess, source: File | bytes, name: str = "", turn: Turn | None = None) -> Uint8Array:
    """An image file as the network takes it, uint8 [h, w, C]: the bytes of resize(p, read_image(source)). Raises UnusableData."""
    return named(try_load(p, source, turn), source, name)


def try_load(p: Preprocess, source: File | bytes, turn: Turn | None = None) -> Uint8Array | str:
    """As load; but what cannot be read gives the reason, without the file's name, for callers that go on without it.

    turn: what is waited for before anything is decoded (see room.py).
    """

    def pixels() -> Uint8Array:
        with opened(source, p.reading, turn, _beside(p)) as picture:
            return _as_array(p, resized(p, picture))

    return attempt(pixels)


# ---- resizing ----------------------------------------------------------------------------------------------------------------


def resize(p: Preprocess, image: Uint8Array) -> Uint8Array:
    """uint8 [H, W, 3] (or [H, W, 1]) -> uint8 [h, w, C]: antialiased resize and centre crop.

    The shorter side becomes floor(size / crop) (for a target that is not square: the least scale that covers both of its sides so
    enlarged), then the centre is cut out. Grey is ITU-R 601 luma, taken before resizing. The bytes are those of timm's evaluation
    transform (crop_mode "center"), which resizes with Pillow as well.
    """
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype != np.uint8 or 0 in image.shape:
        raise ValueError(f"expected uint8 [H, W, 3] or [H, W, 1], got {image.dtype} {list(image.shape)}")
    return _as_array(p, resized(p, from_pixels(image)))


def resized(p: Preprocess, picture: Picture) -> Image.Image:
    """As resize, of a Picture, to a PIL image of p.size: mode L where picture or network are grey, else RGB.

    It is made narrow (or low) a band at a time, in the order in which Pillow does it, with bytes in between: the answer is the
    same.
    """
    height, width = p.size
    full_h, full_w = _full_size(p, picture.height, picture.width)
    if full_h * full_w > MOST_PIXELS:
        picture = _middle(p, picture, MOST_PIXELS / (full_h * full_w))
        full_h, full_w = _full_size(p, picture.height, picture.width)
    height_first = picture.height > full_h and picture.height - full_h > 2 * (picture.width - full_w)  # as Pillow from 13 on
    between = (picture.width, full_h) if height_first else (full_w, picture.height)
    half: Image.Image | None = None
    for (left, top, right, bottom), band in picture.bands(columns=height_first):
        small = (right - left, full_h) if height_first else (full_w, bottom - top)
        made = (in_mode(band, "L") if p.channels == 1 else band).resize(small, FILTERS[p.interpolation])
        if small == between:
            half = made
        else:
            half = half or Image.new(made.mode, between)
            half.paste(made, (left, 0) if height_first else (0, top))
    assert half is not None
    top, left = round((full_h - height) / 2), round((full_w - width) / 2)  # halves to even, as torchvision's center_crop
    return half.resize((full_w, full_h), FILTERS[p.interpolation]).crop((left, top, left + width, top + height))


def _beside(p: Preprocess) -> Callable[[int, int], int]:
    """(height, width) of a picture -> bytes that resizing it needs, at four a pixel: what is narrow already, and the whole."""

    def bytes_(height: int, width: int) -> int:
        full_h, full_w = _full_size(p, height, width)
        return 4 * (min(full_w * height, MOST_PIXELS) + min(full_w * full_h, MOST_PIXELS))

    return bytes_


def _middle(p: Preprocess, picture: Picture, share: float) -> Picture:
    """The middle part of an image a thousand times as long as wide, which enlarged as a whole would not fit into memory."""
    height, width = picture.height, picture.width
    if height * p.size[1] > width * p.size[0]:
        cut = int(height * (1 - share) / 2)
        return picture.cut((0, cut, width, height - cut))
    cut = int(width * (1 - share) / 2)
    return picture.cut((cut, 0, width - cut, height))


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
