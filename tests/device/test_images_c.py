"""images.c reads what Pillow reads, and names what it does not: BMP, PPM, PGM, whole, cut short and damaged."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from nestling.errors import UnusableData
from nestling.preprocess.pictures import read_image, why_not_image
from tests.device.runner_program import CImage, Images, environment, program

SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def lib(c_parts: Any) -> Any:
    c_parts.image_decode.restype = c_parts.image_why_not.restype = c_parts.image_foreign.restype = ctypes.c_char_p
    return c_parts


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return program(tmp_path_factory.mktemp("sanitized"), "read_images.c")


def decoded(lib: Any, content: bytes) -> Images | str:
    """RGB, or the reason why there is none; grey comes with one channel and is repeated here."""
    made = CImage()
    if (problem := lib.image_decode(content, ctypes.c_size_t(len(content)), ctypes.byref(made))) is not None:
        return str(problem.decode())
    shape = (made.height, made.width, made.channels)
    pixels = np.frombuffer(ctypes.string_at(made.pixels, int(np.prod(shape))), np.uint8).reshape(shape)
    return np.repeat(pixels, 3, axis=2) if made.channels == 1 else pixels


def by_pillow(content: bytes) -> Images | None:
    try:
        return read_image(content)
    except UnusableData:
        return None


def noise(seed: int, *shape: int) -> Images:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(image: Image.Image, form: str = "BMP") -> bytes:
    file = BytesIO()
    image.save(file, form)
    return file.getvalue()


def bmp(
    seed: int, width: int, height: int, bits: int, *, size: int = 40, downwards: bool = False, colours: int = 0, gap: int | None = 0
) -> bytes:
    """A BMP with a header of `size` bytes, put together by hand. colours: of the palette, 0 for 256 without saying so.

    gap: bytes before the pixels; None: there are none, and the header says that the pixels begin where the palette does.
    """
    rng = np.random.default_rng(seed)
    entries = (colours or 256) * (3 if size == 12 else 4) if bits == 8 else 0
    stride = (width * bits + 31) // 32 * 4
    if size == 12:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        tall = -height if downwards else height
        header = struct.pack("<IiiHHIIiiII", size, width, tall, 1, bits, 0, 0, 2835, 2835, colours, 0).ljust(size, b"\0")
    offset = 14 + len(header) + (0 if gap is None else entries + gap)
    pixels = rng.integers(0, colours or 256, stride * height, dtype=np.uint8) if bits == 8 else rng.bytes(stride * height)
    palette = rng.bytes(entries)
    return struct.pack("<2sIHHI", b"BM", 0, 0, 0, offset) + header + palette + bytes(gap or 0) + bytes(pixels)


# ---- what is read ------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    seed=SEEDS,
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    bits=st.sampled_from((8, 24, 32)),
    size=st.sampled_from((12, 40, 52, 56, 64, 108, 124)),
    downwards=st.booleans(),
    colours=st.sampled_from((0, 256, 255, 17, 3, 1)),
    gap=st.sampled_from((0, 5, 64, None)),
)
@example(seed=0, width=5, height=4, bits=8, size=40, downwards=False, colours=0, gap=None)
@example(seed=1, width=5, height=4, bits=8, size=12, downwards=False, colours=0, gap=None)
def test_every_bmp_of_8_24_and_32_bits(
    lib: Any, seed: int, width: int, height: int, bits: int, size: int, downwards: bool, colours: int, gap: int | None
) -> None:
    few = colours if bits == 8 and size > 12 else 0
    content = bmp(seed, width, height, bits, size=size, downwards=downwards and size > 12, colours=few, gap=gap)
    assert_array_equal(decoded(lib, content), read_image(content))


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (30, 41)])
def test_what_pillow_writes(lib: Any, mode: str, height: int, width: int) -> None:
    content = saved(Image.fromarray(noise(height, height, width, 3)).convert(mode))
    assert_array_equal(decoded(lib, content), read_image(content))


@settings(max_examples=150, deadline=None)
@given(
    seed=SEEDS,
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    colour=st.booleans(),
    largest=st.integers(1, 255),
    comment=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=9),
    blank=st.sampled_from((" ", "\n", "\t", " \r\n ")),
)
def test_every_ppm_and_pgm_of_8_bits(
    lib: Any, seed: int, width: int, height: int, colour: bool, largest: int, comment: str, blank: str
) -> None:
    header = f"{'P6' if colour else 'P5'}\n# {comment}\n{width}{blank}{height}\n#{comment}\r{largest}\n"
    content = header.encode() + noise(seed, height, width, 3 if colour else 1).tobytes()  # values above `largest`, too
    assert_array_equal(decoded(lib, content), read_image(content))


# ---- what is not -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not an image"),
        (b"BM", "truncated"),
        (b"P6\n3 3\n255", "more than 8 bits, or a damaged header"),
        (b"P6\n0 3\n255\n", "no pixels"),
        (b"P6\n2 2\n65535\n" + bytes(24), "more than 8 bits"),
        (b"P5\n99999 99999\n255\n", "more than 100 megapixels"),
        (b"P5\n99999999999999999999 1\n255\n", "no pixels"),
        (b"P3\n1 1\n255\n1 2 3\n", "not an image"),
        (bmp(0, 4, 4, 24).replace(struct.pack("<ii", 4, 4), struct.pack("<ii", 2**31 - 1, 2**31 - 1)), "more than 100 megapixels"),
        (bmp(0, 4, 4, 24).replace(struct.pack("<ii", 4, 4), struct.pack("<ii", -4, 4)), "more than 100 megapixels"),
        (bmp(0, 4, 4, 24).replace(struct.pack("<HHI", 1, 24, 0), struct.pack("<HHI", 1, 24, 3)), "compressed"),
        (bmp(0, 4, 4, 24).replace(struct.pack("<HHI", 1, 24, 0), struct.pack("<HHI", 1, 16, 0)), "8, 24 and 32 are read"),
        (bmp(0, 4, 4, 24).replace(struct.pack("<I", 40), struct.pack("<I", 41)), "no version has"),
        (bmp(0, 4, 4, 24)[:-1], "truncated"),
    ],
)
def test_why_not(lib: Any, content: bytes, reason: str) -> None:
    found = decoded(lib, content)
    assert isinstance(found, str) and reason in found


def test_formats_that_python_reads_are_known_by_name(lib: Any) -> None:
    image = Image.fromarray(noise(0, 9, 9, 3))
    names = {"JPEG2000": "JPEG 2000", "WEBP": "WebP"}
    for form in ("JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA"):
        content = saved(image, form)
        assert lib.image_foreign(content, ctypes.c_size_t(len(content))).decode() == names.get(form, form)
    for content in (b"P6\n2 2\n65535\n" + bytes(24), b"P2 1 1 255 7\n", b"P4 8 1\n\0"):
        assert read_image(content).shape and lib.image_foreign(content, ctypes.c_size_t(len(content))).startswith(b"PPM")
    heic = struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(90)
    assert lib.image_foreign(heic, ctypes.c_size_t(len(heic))) == b"HEIC"
    for content in (saved(image), b"P6\n1 1\n255\n123", b"", b"text"):
        assert lib.image_foreign(content, ctypes.c_size_t(len(content))) is None


def test_a_tga_is_one_here_where_it_is_one_there(lib: Any) -> None:
    random, both = np.random.default_rng(0), 0
    whole = [saved(Image.fromarray(noise(0, 9, 9, 3)).convert(mode), "TGA") for mode in ("RGB", "L", "P")]
    for number in range(3000):
        head = bytearray(whole[number % 3])
        for place in random.integers(0, 18, random.integers(0, 4)):
            head[place] = random.choice((0, 1, 2, 3, 8, 9, 10, 11, 16, 24, 32, 64, 255))
        there = not (said := why_not_image(BytesIO(bytes(head))) or "").startswith("not an image")
        if not head.startswith((b"P", b"BM")):
            assert (lib.image_foreign(bytes(head), ctypes.c_size_t(len(head))) == b"TGA") == there, (head[:18].hex(), said)
            both += there
    assert 300 < both < 2900


@pytest.mark.parametrize("bits", [8, 24, 32])
def test_a_file_cut_anywhere_is_read_where_pillow_reads_it(lib: Any, bits: int) -> None:
    content = bmp(bits, 5, 3, bits, colours=9 if bits == 8 else 0)
    verdicts = [isinstance(decoded(lib, content[:length]), str) for length in range(len(content) + 1)]
    assert verdicts == [by_pillow(content[:length]) is None for length in range(len(content) + 1)]


# ---- hostile files -----------------------------------------------------------------------------------------------------------


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Some bytes changed, most of them near the beginning, perhaps cut short or made longer."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        place = int(rng.integers(0, min(len(changed), 60))) if rng.random() < 0.8 else int(rng.integers(0, len(changed)))
        changed[place] = int(rng.choice((0, 1, 2, 8, 127, 128, 255, int(rng.integers(256)))))
    keep = len(changed) if rng.random() < 0.6 else int(rng.integers(0, len(changed) + 1))
    return bytes(changed[:keep]) + rng.bytes(int(rng.integers(0, 9)))


def seed_files() -> list[bytes]:
    portables = [b"P6\n# x\n7 5\n255\n" + noise(1, 105).tobytes(), b"P5 6 6 99\n" + noise(2, 36).tobytes()]
    return [*portables, *(bmp(i, 7, 5, bits, size=size) for i, bits in enumerate((8, 24, 32)) for size in (12, 40, 124))]


def test_damaged_files_are_named_or_read_and_nothing_else_happens(reader: Path, tmp_path: Path) -> None:
    """3,000 files through decoder and resizer under the address and undefined-behaviour sanitizers."""
    rng, seeds = np.random.default_rng(0), seed_files()
    files = []
    for number in range(3000):
        file = tmp_path / f"{number}"
        file.write_bytes(damaged(rng, seeds[number % len(seeds)]))
        files.append(str(file))
    for target in (("16", "16", "3"), ("9", "20", "1")):
        command = [str(reader), *target, *files]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        assert ended.returncode == 0, ended.stderr[:2000]
        lines = ended.stdout.splitlines()
        assert len(lines) == len(files)
        assert 300 < sum(line[0].isdigit() for line in lines) < 2900


def test_what_is_read_from_damaged_files_is_what_pillow_reads(lib: Any) -> None:
    """Where both read a BMP they read the same pixels; where this one does, Pillow does."""
    rng = np.random.default_rng(1)
    seeds: list[Callable[[int], bytes]] = [partial(bmp, width=6, height=4, bits=bits) for bits in (8, 24, 32)]
    read = 0
    for number in range(1500):
        content = damaged(rng, seeds[number % 3](number))
        found = decoded(lib, content)
        if isinstance(found, str) or not content.startswith(b"BM"):
            continue
        expected = by_pillow(content)
        assert expected is not None
        assert_array_equal(found, expected)
        read += 1
    assert read > 300
