"""Large pictures, pictures of 16 bits and colour profiles. Judged by Pillow on the whole picture, and by arithmetic by hand."""

import io
import re
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from nestling.errors import UnusableData
from nestling.preprocess import pictures
from nestling.preprocess.colour import to_srgb
from nestling.preprocess.image import ImagePreprocess, load
from nestling.preprocess.levels import fitting, white
from nestling.preprocess.pictures import Reading, largest_value, look, read_image
from nestling.preprocess.room import LEAST, OneLarge, Room
from tests.helpers.made_pictures import cmyk_profile, encoded, grey_profile, noise, png, rgb_profile, tiff

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pictures.py has a filter; pytest its own
SRGB = Reading(colour="srgb")


def colours(height: int = 30, width: int = 40) -> Image.Image:
    return Image.fromarray(noise(height, width).astype(np.uint8))


# ---- in parts --------------------------------------------------------------------------------------------------------------------


def as_a_whole(content: bytes) -> Image.Image:
    """By Pillow alone, without parts: upright, transparency over white, L where grey."""
    with Image.open(io.BytesIO(content)) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            rgba = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
        return upright.convert("L" if upright.mode in ("1", "L") else "RGB")


@pytest.mark.parametrize("shape", [(31, 47), (150, 40), (40, 150), (1, 300), (300, 1)])
@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "L"), ("TIFF", "CMYK")])
def test_parts_give_the_bytes_of_the_whole(kind: str, mode: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BAND", 500)
    source = Image.fromarray(noise(*shape, 4).astype(np.uint8)).convert("RGBA")
    image = source if mode == "RGBA" else source.convert("RGB").convert(mode)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        content = encoded(image, kind, exif=exif, **({"transparency": bytes(range(256))} if mode == "P" else {}))
        whole = as_a_whole(content)
        np.testing.assert_array_equal(read_image(content), np.asarray(whole.convert("RGB")))
        for side, interpolation in ((16, Image.Resampling.BICUBIC), (64, Image.Resampling.BILINEAR)):
            scale = side / min(whole.size)
            width, height = (side if length == min(whole.size) else int(side * length / min(whole.size)) for length in whole.size)
            left, top = (round((length - side) / 2) for length in (width, height))
            expected = whole.resize((width, height), interpolation).crop((left, top, left + side, top + side)).convert("RGB")
            p = ImagePreprocess((side, side), 3, 1.0, interpolation.name.lower(), (0.5,) * 3, (0.5,) * 3)  # type: ignore[arg-type]  # the same word
            np.testing.assert_array_equal(load(p, content), np.asarray(expected), err_msg=f"{orientation} {scale}")


# ---- memory ----------------------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
def peak():
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
import numpy
from nestling.preprocess import room
from nestling.data.stream import stream
from nestling.data.folders import Item
from nestling.preprocess.image import ImagePreprocess
p = ImagePreprocess((32, 32), 3, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
room.LEAST, room.ORDINARY = 0, int(sys.argv[2])
small = Path(sys.argv[1]).with_name("small.png")
list(stream([Item(small, 0, "")], p, 1))
before = peak()
for _, image in stream([Item(Path(name), 0, "") for name in sys.argv[3:]], p, 8):
    assert isinstance(image, numpy.ndarray), image
print(peak() - before)
"""


def memory(ordinary: int, *files: Path) -> int:
    """Bytes at the peak, above what the program has anyway, while eight threads decode the files. A program of its own."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell the peak of a program")
    Image.new("RGB", (9, 9)).save(files[0].with_name("small.png"))
    command = [sys.executable, "-c", PEAK, str(files[0]), str(ordinary), *map(str, files)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


SIDE = 3000
PIXELS = SIDE * SIDE


def flat(path: Path, mode: str, **options: Any) -> Path:
    image = Image.new(mode, (SIDE, SIDE), 1 if len(mode) == 1 or mode == "I;16" else (1, 2, 3, 128)[: len(mode)])
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 200, 30])
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "mode", "stored", "options"),
    [
        ("grey16.png", "I;16", 2, {}),
        ("clear.png", "RGBA", 4, {}),
        ("palette.png", "P", 1, {"transparency": bytes([255, 0])}),
        ("turned.jpg", "RGB", 4, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    ],
)
def test_a_large_picture_is_held_once(name: str, mode: str, stored: int, options: dict[str, object], tmp_path: Path) -> None:
    used = memory(50_000_000, flat(tmp_path / name, mode, **options))
    assert used < stored * PIXELS + 40_000_000  # the parts take the same of a picture of any size


def test_many_large_pictures_wait_for_one_another(tmp_path: Path) -> None:
    first = flat(tmp_path / "0.png", "RGB")
    files = [first, *(tmp_path / f"{i}.png" for i in range(1, 8))]
    for path in files[1:]:
        path.write_bytes(first.read_bytes())
    assert memory(4 * PIXELS // 8, *files) < 3 * 4 * PIXELS  # room for one at a time; eight would be 8 * 4


def test_room_is_never_overdrawn_and_everybody_has_a_turn() -> None:
    room, lock = Room(4), threading.Lock()
    inside: list[int] = []
    most: list[int] = []

    def work(amount: int) -> int:
        with room.taken(amount):
            with lock:
                inside.append(amount)
                most.append(sum(inside))
                if amount > LEAST:
                    assert [other for other in inside if other] == [amount]  # whoever needs more than there is, is alone
            time.sleep(0.001)  # so that there are others
            with lock:
                inside.remove(amount)
        return amount

    amounts = [LEAST // 3, LEAST // 7, 2 * LEAST, LEAST, 0, LEAST // 2] * 20
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, amounts)) == amounts
    assert max(amount for amount in most if amount != 2 * LEAST) <= LEAST


def test_processes_have_a_turn_each_for_what_is_large() -> None:
    lock = threading.Lock()
    turn = OneLarge(lock)
    with turn.taken(LEAST):
        assert lock.locked()
        with turn.taken(1000):
            pass
    assert not lock.locked()


def test_what_a_header_claims_is_weighed_before_it_is_decoded() -> None:
    """A WebP of 34 bytes, 9999 pixels square, would take 1.6 GB."""
    small = b"RIFF\x1a\0\0\0WEBPVP8L\x0e\0\0\0/\x0e\xa7\xc3\x09\x07\x10\x11\xfd\x0fDD\xff\x03"
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (9999, 9999)  # so Pillow would
    with pytest.raises(UnusableData, match=r"100 megapixels, which as WEBP take 1\.6 GB"):
        read_image(small)


def test_text_that_unpacks_to_much_is_no_reason_to_hold_it() -> None:
    bomb = zlib.compress(bytes(100_000_000))
    whole = encoded(Image.new("RGB", (9, 9)), "PNG")
    for kind, start in ((b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")):
        data = kind + start + bomb
        chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
        with pytest.raises(UnusableData, match="too large"):
            read_image(whole[:33] + chunk + whole[33:])


# ---- 16 bits ---------------------------------------------------------------------------------------------------------------------


def scaled(values: NDArray[np.uint16], largest: int) -> NDArray[np.uint8]:
    """Rounded to the nearest, exactly: halves of whole numbers are floats without error."""
    exact = np.minimum(values.astype(np.float64), largest) * 255 / largest
    return np.floor(exact + 0.5).astype(np.uint8)


DEEP: dict[str, Callable[[NDArray[np.uint16]], bytes]] = {
    "png": png,
    "little": lambda values: tiff(values, "<"),
    "big": lambda values: tiff(values, ">"),
    "little, deflated": lambda values: tiff(values, "<", packed=True),
    "big, deflated": lambda values: tiff(values, ">", packed=True),
}


@pytest.mark.parametrize("form", DEEP)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_levels_make_cameras_of_fewer_bits_bright(form: str, channels: int, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BAND", 300)
    values = noise(31, 47, channels, white(bits), bits)
    content = DEEP[form](values)
    pixels = read_image(content, reading=Reading(white(bits)))
    np.testing.assert_array_equal(pixels, np.broadcast_to(scaled(values, white(bits)), (31, 47, 3)))
    assert largest_value(content, Room()) == values.max()
    assert look(content) == (True, "")
    stored = read_image(content)  # as before there were levels: grey rounded, of colours the high byte
    expected = np.repeat(scaled(values, 65535), 3, axis=2) if channels == 1 else (values >> 8).astype(np.uint8)
    np.testing.assert_array_equal(stored, expected)


def test_levels_leave_transparency_alone() -> None:
    values = noise(20, 30, 4, 4095)
    values[:, :, 3] = 65535
    values[:10, :, 3] = 0
    for content, light in ((png(values), values[:, :, :3]), (png(values[:, :, ::3]), values[:, :, :1])):
        pixels = read_image(content, reading=Reading(4095))
        np.testing.assert_array_equal(pixels[10:], np.broadcast_to(scaled(light, 4095), (20, 30, 3))[10:])
        assert (pixels[:10] == 255).all()
        assert largest_value(content, Room()) == light.max()


def test_levels_of_cmyk_and_of_what_is_above() -> None:
    inks = noise(20, 30, 4, 4095)
    expected = Image.fromarray(scaled(inks, 4095), "CMYK").convert("RGB")
    np.testing.assert_array_equal(read_image(tiff(inks), reading=Reading(4095)), np.asarray(expected))
    np.testing.assert_array_equal(
        read_image(png(noise(9, 9, 1, 65535)), reading=Reading(1000))[:, :, :1], scaled(noise(9, 9, 1, 65535), 1000)
    )


def test_levels_leave_eight_bits_alone() -> None:
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF"):
        content = encoded(colours(), kind)
        np.testing.assert_array_equal(read_image(content, reading=Reading(1023)), read_image(content))
        assert look(content) == (False, "")


def test_sixteen_bits_in_planes() -> None:
    values = noise(20, 30, 3, 4095)
    with pytest.raises(UnusableData, match="planes"):
        read_image(tiff(values, planes=True))  # Pillow would give noise
    packed = tiff(values, packed=True, planes=True)
    np.testing.assert_array_equal(read_image(packed), values >> 8)
    assert largest_value(packed, Room()) == values.max() | 255
    with pytest.raises(UnusableData, match="levels"):
        read_image(packed, reading=Reading(4095))


def test_the_bits_that_a_value_needs() -> None:
    assert [fitting(value) for value in (0, 255, 256, 1023, 1024, 3968, 4096, 16383, 16384, 65535)] == [
        255, 255, 1023, 1023, 4095, 4095, 16383, 16383, 65535, 65535
    ]  # fmt: skip


# ---- colour profiles -------------------------------------------------------------------------------------------------------------

# linear RGB -> XYZ at D50: Lindbloom's tables (Adobe RGB and sRGB adapted by Bradford)
ADOBE = np.array([[0.6097559, 0.2052401, 0.1492240], [0.3111242, 0.6256560, 0.0632197], [0.0194811, 0.0608902, 0.7448387]])
PROPHOTO = np.array([[0.7976749, 0.1351917, 0.0313534], [0.2880402, 0.7118741, 0.0000857], [0.0, 0.0, 0.8252100]])
TO_SRGB = np.linalg.inv(
    np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]])
)


def shown(linear: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1, 0 to 255."""
    light = np.clip(linear, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize(("to_xyz", "gamma"), [(ADOBE, 563 / 256), (PROPHOTO, 461 / 256)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_profiles_are_turned_into_srgb(to_xyz: NDArray[np.float64], gamma: float, kind: str) -> None:
    image = colours()
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, icc_profile=rgb_profile(to_xyz, gamma), **options)
    linear = (np.asarray(image) / 255) ** gamma @ to_xyz.T @ TO_SRGB.T
    within = ((linear > 0.001) & (linear < 1)).all(axis=2)  # outside of sRGB there is more than one way to give up
    assert within.sum() > 100
    pixels = read_image(content, reading=SRGB)
    assert np.abs(pixels[within] - shown(linear[within])).max() <= 1.5
    assert np.abs(pixels.astype(int) - np.asarray(image)).max() > 20
    np.testing.assert_array_equal(read_image(content), np.asarray(image))  # as bundles of before have it


def test_jpeg_palette_and_transparency_with_a_profile() -> None:
    profile = rgb_profile(ADOBE, 563 / 256)
    convert = to_srgb(profile, "RGB")
    assert callable(convert)
    jpeg = encoded(colours(), "JPEG", icc_profile=profile)
    np.testing.assert_array_equal(read_image(jpeg, reading=SRGB), np.asarray(convert(Image.open(io.BytesIO(jpeg)))))
    palette = colours().convert("P")
    pixels = read_image(encoded(palette, "PNG", icc_profile=profile), reading=SRGB)
    np.testing.assert_array_equal(pixels, np.asarray(convert(palette.convert("RGB"))))
    clear = colours()
    clear.putalpha(Image.fromarray(np.repeat(np.array([[0], [255]], np.uint8), 15, axis=0).repeat(40, axis=1)))
    pixels = read_image(encoded(clear, "PNG", icc_profile=profile), reading=SRGB)
    assert (pixels[:15] == 255).all()
    np.testing.assert_array_equal(pixels[15:], np.asarray(convert(colours()))[15:])


def test_grey_and_ink_profiles() -> None:
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(2, axis=0)
    for kind in ("L", "LA"):
        content = encoded(Image.fromarray(ramp).convert(kind), "PNG", icc_profile=grey_profile(1.0))
        pixels = read_image(content, reading=SRGB)
        assert np.abs(pixels[:, :, 0] - shown(ramp / 255)).max() <= 1
        assert (pixels == pixels[:, :, :1]).all()
    inks = Image.merge("CMYK", [Image.new("L", (256, 2), 40)] * 3 + [Image.fromarray(ramp)])
    lightness = 100 * (1 - ramp / 255)
    light = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)  # CIE 15
    pixels = read_image(encoded(inks, "TIFF", icc_profile=cmyk_profile()), reading=SRGB)
    assert np.abs(pixels - shown(light)[:, :, None]).max() <= 3


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for image in (colours(), colours().convert("L"), colours().convert("LA"), colours().convert("1")):
        content = encoded(image, "PNG", icc_profile=profile)
        np.testing.assert_array_equal(read_image(content, reading=SRGB), read_image(content))
        assert look(content) == (False, "")


ADOBE_PROFILE = rgb_profile(ADOBE, 563 / 256)


@pytest.mark.parametrize(
    ("profile", "mode", "reason"),
    [
        (ADOBE_PROFILE[:200], "RGB", "."),
        (b"no profile at all", "RGB", "."),
        (b"x" * 9_000_000, "RGB", "9 MB"),
        (ADOBE_PROFILE, "L", "the picture is grey"),
        (ADOBE_PROFILE, "CMYK", "the picture of CMYK"),
        (grey_profile(1.0), "RGB", "of GRAY"),
        (cmyk_profile(), "RGB", "of CMYK"),
        (cmyk_profile()[:-1000], "CMYK", "."),
    ],
)
def test_a_profile_that_cannot_be_used_is_told_and_left(profile: bytes, mode: str, reason: str) -> None:
    content = encoded(colours().convert(mode), "TIFF", icc_profile=profile)
    np.testing.assert_array_equal(read_image(content, reading=SRGB), read_image(content))
    found = look(content)
    assert found is not None and re.search(reason, found[1])


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(ADOBE_PROFILE, "RGB"), (grey_profile(2.2), "L"), (cmyk_profile(), "CMYK")]),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_profiles_never_cost_the_picture(made: tuple[bytes, str], changes: list[tuple[int, int]]) -> None:
    profile = bytearray(made[0])
    for place, value in changes:
        profile[place % len(profile)] = value
    content = encoded(colours(4, 5).convert(made[1]), "TIFF", icc_profile=bytes(profile))
    assert read_image(content, reading=SRGB).shape == (4, 5, 3)
    assert look(content) is not None


def test_conversions_are_the_same_in_many_threads() -> None:
    convert = to_srgb(ADOBE_PROFILE, "RGB")
    assert callable(convert)
    images = [Image.fromarray(noise(60, 70, seed=seed).astype(np.uint8)) for seed in range(30)]
    alone = [convert(image).tobytes() for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert [made.tobytes() for made in pool.map(convert, images)] == alone
