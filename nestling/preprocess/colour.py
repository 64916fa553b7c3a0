"""Colour profiles: a picture that carries one is turned into sRGB, which is what networks are taught with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

Space = Literal["GRAY", "RGB", "CMYK"]
Conversion = Callable[[Image.Image], Image.Image]

LARGEST_PROFILE = 8_000_000  # bytes; those of printing presses have up to 3 MB
SAME = 3  # levels: a profile that moves no colour further is sRGB, written by somebody who rounded otherwise
GREYS: tuple[Space, ...] = ("GRAY", "RGB")


@lru_cache(maxsize=32)
def to_srgb(profile: bytes, space: Space) -> Conversion | str | None:
    """What turns colours of this ICC profile into sRGB; None where they are sRGB; or why the profile cannot be used.

    space: of the picture's pixels. The conversion takes and gives mode L or RGB for GRAY, RGB for RGB; for CMYK it gives RGB.
    Relative colorimetric with black point compensation, as photographs are printed and shown. Safe to share between threads:
    Little CMS keeps nothing in a transform while it is applied.
    """
    if len(profile) > LARGEST_PROFILE:
        return f"it has {len(profile) / 1e6:.0f} MB"
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        found = str(opened.profile.xcolor_space).strip()
        if space == "GRAY" and found == "RGB":
            return None if _conversion(opened, "RGB") is None else "it is of RGB colours, the picture is grey"
        if found != space:
            return f"it is of {found} colours, the picture of {space}"
        return _conversion(opened, space)
    except Exception as error:  # Little CMS says little: "cannot open profile from string"
        return " ".join(str(error).split())[:100] or type(error).__name__


def _conversion(profile: ImageCms.ImageCmsProfile, space: Space) -> Conversion | None:
    """Raises what Pillow does where there is no way from this profile to sRGB."""
    mode = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}[space]
    srgb = ImageCms.createProfile("sRGB")
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    if space == "GRAY":
        flags |= ImageCms.Flags.NOOPTIMIZE  # of 256 values each is worked out, not drawn between a few
    transform = ImageCms.buildTransform(profile, srgb, mode, "RGB", intent, flags)
    if space == "CMYK":
        return transform.apply
    sample = _sample(space)
    shown = transform.apply(sample)
    if np.abs(np.asarray(shown).astype(int) - np.asarray(sample.convert("RGB"))).max() <= SAME:
        return None
    if space == "RGB":
        return transform.apply
    curve = np.asarray(shown)[0, :, 1].tolist()  # of 256 greys; three times the same, but for rounding
    return lambda image: image.point(curve * len(image.getbands()))


def _sample(space: Space) -> Image.Image:
    """Every grey, or 17 levels of red, green and blue in all combinations."""
    if space == "GRAY":
        return Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    levels = np.linspace(0, 255, 17).round().astype(np.uint8)
    return Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(17, -1, 3))
