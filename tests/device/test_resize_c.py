"""resize.c gives the bytes of nestling.preprocess.image, which resizes with Pillow."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from nestling.preprocess.image import ImagePreprocess, resize
from tests.device.runner_program import CImage, Images

CROPS = st.sampled_from((1.0, 0.875, 0.95, 0.05)) | st.floats(0.05, 1)
SIDES = st.integers(8, 64)
SEEDS = st.integers(0, 2**32 - 1)


class CTarget(ctypes.Structure):
    _fields_ = (
        ("height", ctypes.c_uint32),
        ("width", ctypes.c_uint32),
        ("channels", ctypes.c_uint32),
        ("bicubic", ctypes.c_int),
        ("crop", ctypes.c_double),
    )


@pytest.fixture(scope="module")
def lib(c_parts: Any) -> Any:
    return c_parts


def resized(lib: Any, p: ImagePreprocess, image: Images) -> Images:
    image = np.ascontiguousarray(image)
    source = CImage(image.shape[1], image.shape[0], image.shape[2], image.ctypes.data)
    target = CTarget(*p.size, p.channels, p.interpolation == "bicubic", p.crop)
    out = np.full((*p.size, p.channels), 0xA5, np.uint8)
    assert lib.resize(ctypes.byref(source), ctypes.byref(target), ctypes.c_void_p(out.ctypes.data)) == 0
    return out


def noise(seed: int, height: int, width: int, channels: int = 3) -> Images:
    """Every second one of extremes only, where sums go beyond 0 and 255."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return image if seed % 2 else np.where(image < 128, 0, 255).astype(np.uint8)


def preprocess(size: tuple[int, int], channels: int, crop: float, interpolation: Any) -> ImagePreprocess:
    return ImagePreprocess(size, channels, crop, interpolation, (0.5,) * channels, (0.5,) * channels)  # type: ignore[arg-type]  # drawn by hypothesis


@settings(max_examples=500, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    size=st.tuples(SIDES, SIDES) | SIDES.map(lambda side: (side, side)),
    channels=st.tuples(st.sampled_from((1, 3)), st.sampled_from((1, 3))),
    crop=CROPS,
    interpolation=st.sampled_from(("bicubic", "bilinear")),
    seed=SEEDS,
)
def test_any_size(
    lib: Any, shape: tuple[int, int], size: tuple[int, int], channels: tuple[int, int], crop: float, interpolation: str, seed: int
) -> None:
    image, p = noise(seed, *shape, channels[0]), preprocess(size, channels[1], crop, interpolation)
    assert_array_equal(resized(lib, p, image), resize(p, image))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (1, 1, (224, 224)),
        (1, 1, (8, 40)),
        (1, 3000, (224, 224)),  # enlarged as a whole it would have more than 100 megapixels: only its middle is
        (9000, 2, (96, 96)),
        (1, 174_705, (24, 40)),
        (631_362, 2, (40, 24)),
        (100_001, 3, (24, 16)),
        (2000, 3000, (224, 224)),
        (4000, 500, (96, 96)),
        (224, 224, (224, 224)),
        (256, 341, (224, 224)),
        (341, 256, (224, 320)),
        (300, 100, (50, 50)),
    ],
)
def test_large_and_long(lib: Any, height: int, width: int, size: tuple[int, int], interpolation: str) -> None:
    for crop in (0.875, 1.0):
        image, p = noise(height + width, height, width), preprocess(size, 3, crop, interpolation)
        assert_array_equal(resized(lib, p, image), resize(p, image))


def test_which_of_height_and_width_comes_first(lib: Any) -> None:
    """Pillow alone as the judge: of a square target without a crop the whole image is resized. Its order changes near 2 to 1."""
    rng = np.random.default_rng(4)
    for _ in range(150):
        width, more = int(rng.integers(9, 60)), int(rng.integers(-2, 3))
        side = int(rng.integers(8, width + 1))
        image = noise(int(rng.integers(2**32)), 2 * width + more, width)
        long = int(side * image.shape[0] / width)
        top = round((long - side) / 2)
        whole = Image.fromarray(image).resize((side, long), Image.Resampling.BICUBIC)
        p = preprocess((side, side), 3, 1.0, "bicubic")
        assert_array_equal(resized(lib, p, image), np.asarray(whole)[top : top + side])
