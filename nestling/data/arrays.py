"""Photographs that are in memory already: NumPy arrays, PIL images, beside names of files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from nestling.data.folders import Dataset, Item, LeftOut, require_writable, whole
from nestling.data.walk import print_of
from nestling.errors import UnusableData
from nestling.preprocess.pictures import why

Images: TypeAlias = Sequence[Any] | NDArray[Any]
"""An array of images, uint8 [N, H, W, C] or [N, H, W], or a sequence of arrays [H, W, C] or [H, W], PIL images, and paths."""
OneImage: TypeAlias = str | Path | Image.Image | NDArray[Any]
"""A path, a PIL image, an array [H, W] or [H, W, C]."""

IN_MEMORY = Path("images")  # what stands for the folder
AS_PNG = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
AS_TIFF = ("PA", "RGBX", "CMYK", "YCbCr", "LAB")
CHANNELS = (1, 3, 4)


@dataclass(frozen=True, eq=False)
class Held:
    """An image in memory, which is read as a file is: its levels, its transparency and its colour profile count."""

    image: Image.Image

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """See File."""
        file = BytesIO()
        if self.image.mode in AS_PNG:
            self.image.save(file, "PNG", compress_level=0)
        else:
            self.image.save(file, "TIFF")
        file.seek(0)
        return file


def photographs(images: Images, labels: Sequence[str]) -> Dataset:
    """The data set of images and their classes, one label an image; `fit`, `quantize` and others take it in place of a folder.

    An image is known again by its pixels. Raises UnusableData, naming the place, for what is no image or no name of a class.
    """
    names = _names(labels, len(images))
    known = tuple(sorted(set(names)))
    items: list[Item] = []
    left_out: list[LeftOut] = []
    for index, (image, name) in enumerate(zip(images, names, strict=True)):
        made = item_of(image, known.index(name), f"images[{index}]")
        items += [made] if isinstance(made, Item) else []
        left_out += [made] if isinstance(made, LeftOut) else []
    return whole(Dataset(IN_MEMORY, known, tuple(items), tuple(left_out)))


def item_of(image: Any, label: int, where: str) -> Item | LeftOut:
    """One image. where: what it is called. A file that is no image is left out; raises UnusableData for what else is none."""
    if isinstance(image, str | Path):
        found = print_of(Path(image))
        return found if isinstance(found, LeftOut) else Item(Path(image), label, found)
    shown = _upright(image, where) if isinstance(image, Image.Image) else Image.fromarray(_pixels(image, where))
    if shown.mode not in (*AS_PNG, *AS_TIFF):
        raise UnusableData(f"{where} is of mode {shown.mode}; images of 8 bits a value, and grey ones of 16, are taken.")
    return Item(Path(where), label, _print(shown), held=Held(shown))


def several(images: Any) -> Sequence[Any]:
    """A single image (a path, a PIL image, an array [H, W] or [H, W, C]) as a sequence of one; several as they are."""
    if isinstance(images, str | Path | Image.Image):
        return [images]
    if isinstance(images, np.ndarray) and (images.ndim == 2 or (images.ndim == 3 and images.shape[2] in CHANNELS)):
        return [images]
    return list(images)


def _upright(image: Image.Image, where: str) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # one that is read only now may be damaged
        raise UnusableData(f"{where} cannot be used: {why(error)}.") from error


def _pixels(image: Any, where: str) -> NDArray[Any]:
    pixels = np.asarray(image)
    found = f"{where} is {pixels.dtype} {list(pixels.shape)}"
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    shaped = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in CHANNELS)
    if shaped and pixels.size and (pixels.dtype == np.uint8 or (pixels.dtype == np.uint16 and pixels.ndim == 2)):
        return np.ascontiguousarray(pixels)
    hint = ""
    if pixels.dtype.kind == "f":
        hint = "where values go from 0 to 1:  (255 * images).round().astype('uint8')"
    elif pixels.ndim == 3 and pixels.shape[0] in CHANNELS:
        hint = "channels come last:  images.transpose(0, 2, 3, 1)"
    raise UnusableData(f"{found}; expected uint8 [H, W, 3], [H, W, 1] or [H, W].", hint)


def _print(image: Image.Image) -> str:
    """16 hex digits of all that says how it looks."""
    found = hashlib.sha256(f"{image.mode} {image.width}x{image.height} {image.info.get('transparency')}\n".encode())
    found.update(image.tobytes())
    found.update(bytes(image.getpalette("RGBA") or b"" if image.mode in ("P", "PA") else b""))
    found.update(image.info.get("icc_profile") or b"")
    return found.hexdigest()[:16]


def _names(labels: Sequence[str], count: int) -> list[str]:
    if len(labels) != count:
        raise UnusableData(f"there are {count} images and {len(labels)} labels; expected a label for each image.")
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label:
            hint = "make them names:  [str(label) for label in labels]"
            raise UnusableData(f"labels[{index}] is {label!r}; expected the name of a class.", hint)
        require_writable(label, f"labels[{index}],")
    return [str(label) for label in labels]
