"""Kinds of picture files: what is read gives the pixels of before it was written, what is not is named, nothing is believed."""

import importlib
import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from nestling import extras
from nestling.errors import UnusableData
from nestling.preprocess.pictures import Reading, largest_value, look, read_image
from nestling.preprocess.room import Room
from tests import SHARED
from tests.helpers.made_pictures import encoded, noise

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
CASES = SHARED.parent / "cases" / "images"


def photo(height: int = 60, width: int = 90) -> Image.Image:
    """Without fine detail, which codecs that lose something keep."""
    return Image.fromarray(noise(5, 7).astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)


def refused(content: bytes) -> str:
    with pytest.raises(UnusableData) as caught:
        read_image(content, "photo")
    return caught.value.message


# ---- what is read --------------------------------------------------------------------------------------------------------------


WRITTEN = {
    "PPM": ("RGB", "L", "1"),
    "JPEG2000": ("RGB", "L", "RGBA"),
    "TGA": ("RGB", "L", "RGBA", "P", "1"),
    "TGA, RLE": ("RGB", "L", "P"),
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in WRITTEN.items() for mode in modes])
def test_kinds_without_loss_give_the_pixels_back(kind: str, mode: str) -> None:
    name, *packed = kind.split(", ")
    options = {"compression": "tga_rle"} if packed else {}
    image = Image.fromarray(noise(31, 47).astype(np.uint8)).convert(mode)
    if mode == "RGBA":
        image.putalpha(255)
    np.testing.assert_array_equal(read_image(encoded(image, name, **options)), np.asarray(image.convert("RGB")))


def test_avif_is_read_and_turned() -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(photo(), "TIFF", exif=exif)))))
        pixels = read_image(encoded(photo(), "AVIF", quality=95, subsampling="4:4:4", exif=exif))
        assert pixels.shape == expected.shape and np.abs(pixels.astype(int) - expected).max() < 20
    clear = photo()
    clear.putalpha(0)
    assert (read_image(encoded(clear, "AVIF")) == 255).all()


@pytest.mark.parametrize("magic", [b"P2", b"P3"])
def test_portable_pixmaps_in_letters(magic: bytes) -> None:
    values = noise(9, 11, 3 if magic == b"P3" else 1)
    text = b"%s\n# a comment\n11 9 255\n" % magic + b" ".join(b"%d" % value for value in values.ravel())
    np.testing.assert_array_equal(read_image(text), np.broadcast_to(values, (9, 11, 3)))


@pytest.mark.parametrize(("magic", "channels"), [(b"P5", 1), (b"P6", 3)])
def test_portable_pixmaps_of_sixteen_bits_have_levels(magic: bytes, channels: int) -> None:
    values = noise(20, 30, channels, 4095)
    content = b"%s 30 20 65535\n" % magic + values.astype(">u2").tobytes()
    assert look(content) == (True, "") and largest_value(content, Room()) == values.max()
    pixels = read_image(content, reading=Reading(4095))
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.floor(values.astype(float) * 255 / 4095 + 0.5), (20, 30, 3)))
    said = b"%s 30 20 4095\n" % magic + values.astype(">u2").tobytes()  # here the file says which value is white
    assert np.abs(read_image(said).astype(int) - pixels).max() <= 1


# ---- JPEGs without their end ---------------------------------------------------------------------------------------------------

JPEGS: dict[str, dict[str, object]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_rows": 1},
    "fine": {"quality": 98, "subsampling": 0},
}


@pytest.mark.parametrize("form", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_its_end_marker_is_whole(form: str, mode: str) -> None:
    image = Image.fromarray(noise(47, 61).astype(np.uint8)).convert(mode)
    content = encoded(image, "JPEG", **JPEGS[form])
    assert content[-2:] == b"\xff\xd9"
    whole = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    for missing in (1, 2):
        np.testing.assert_array_equal(read_image(content[:-missing]), whole)


@pytest.mark.parametrize("form", JPEGS)
def test_a_jpeg_that_lacks_more_is_truncated(form: str) -> None:
    """A last byte may hold nothing but filling; before that, each has bits of some pixel. Or between scans."""
    content = encoded(Image.fromarray(noise(47, 61).astype(np.uint8)), "JPEG", **JPEGS[form])
    whole = np.asarray(Image.open(io.BytesIO(content)))
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    read = 0
    for length in (*range(len(content) - 60, len(content) - 2), *range(700, len(content) - 60, 97), *scans[1:]):
        try:
            pixels = read_image(content[:length])
        except UnusableData as error:
            assert "truncated" in error.message
        else:
            np.testing.assert_array_equal(pixels, whole)
            read += 1
    assert read <= 2


# ---- what is not read is called by its name ------------------------------------------------------------------------------------


def heif(brand: bytes) -> bytes:
    return struct.pack(">I4s4sI4s4s", 24, b"ftyp", brand, 0, b"mif1", b"heic") + bytes(500)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1"])
def test_heic_without_the_extra_says_what_to_do(brand: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(extras.PACKAGES, "heif", ("no_such_module_at_all",))
    said = refused(heif(brand))
    assert "HEIC" in said and "pip install 'nestling[heif]'" in said and "JPEG" in said


@pytest.fixture
def heif_encoder() -> None:
    pytest.importorskip("pillow_heif", reason="needs pillow-heif, the extra heif").register_heif_opener()


def heic(image: Image.Image, **options: object) -> bytes:
    return encoded(image, "HEIF", quality=95, chroma=444, **options)


@pytest.mark.usefixtures("heif_encoder")
def test_heic_with_the_extra_is_read_and_upright() -> None:
    expected = np.asarray(photo())
    assert np.abs(read_image(heic(photo())).astype(int) - expected).max() < 20
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_image(heic(photo().transpose(Image.Transpose.ROTATE_90), exif=exif.tobytes()))
    assert turned.shape == expected.shape and np.abs(turned.astype(int) - expected).max() < 20
    assert "damaged HEIC" in refused(heif(b"heic"))
    with pytest.raises(UnusableData):
        read_image(heic(photo())[:400])


@pytest.mark.usefixtures("heif_encoder")
def test_a_heic_that_claims_too_much_is_refused() -> None:
    content = heic(photo(64, 96))
    at = content.index(b"ispe") + 8
    assert struct.unpack(">II", content[at : at + 8]) == (96, 64)
    assert "megapixels" in refused(content[:at] + struct.pack(">II", 30_000, 20_000) + content[at + 8 :])


def test_a_tiff_that_is_not_read_says_what_is_in_it() -> None:
    floats = io.BytesIO()
    Image.fromarray(np.zeros((4, 5), np.float32)).save(floats, "TIFF")
    assert "floating-point" in refused(floats.getvalue())
    assert "3 floating-point numbers of 32 bits" in refused(directory(samples=3, bits=32, kind=3))
    assert "7 values of 8 bits" in refused(directory(samples=7, bits=8, kind=1))
    assert "damaged TIFF" in refused(b"II*\0\xff\xff\xff\xff" + bytes(90))


def directory(samples: int, bits: int, kind: int) -> bytes:
    """A TIFF of 1 x 1 pixels with so many samples."""
    tags = [(256, 1), (257, 1), (258, bits), (259, 1), (262, 2), (273, 8), (277, samples), (278, 1), (279, 64), (339, kind)]
    start = 8 + 64
    after = start + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, value in tags:
        many = tag in (258, 339)
        entries += struct.pack("<HHI", tag, 3, samples if many else 1)
        entries += struct.pack("<I", after + (0 if tag == 258 else 2 * samples)) if many else struct.pack("<HH", value, 0)
    lists = struct.pack(f"<{2 * samples}H", *[bits] * samples, *[kind] * samples)
    return b"II*\0" + struct.pack("<I", start) + bytes(64) + struct.pack("<H", len(tags)) + entries + bytes(4) + lists


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\xff\x0a" + bytes(90), "JPEG XL"),
        (b"8BPS" + bytes(90), "Photoshop"),
        (b"%PDF-1.7" + bytes(90), "PDF"),
        (struct.pack(">I4s4s", 24, b"ftyp", b"crx ") + bytes(90), "raw"),
        (struct.pack(">I4s4s", 24, b"ftyp", b"avif") + bytes(90), "damaged AVIF"),
    ],
)
def test_other_kinds_are_called_by_name(content: bytes, name: str) -> None:
    assert name in refused(content)


def test_a_tga_is_not_found_in_what_is_none() -> None:
    image = Image.fromarray(noise(16, 16).astype(np.uint8))
    for kind in ("ICO", "PCX", "EPS", "PDF", "SGI", "DDS", "IM"):
        assert "photo cannot be used: " in refused(encoded(image, kind))
    random = np.random.default_rng(0)
    for _ in range(500):  # headers that Pillow takes
        head = bytearray(random.bytes(300))
        head[1], head[2], head[16], head[17] = random.integers(2), random.choice([1, 2, 3]), random.choice([8, 24, 32]), 0xC0
        assert "not an image" in refused(bytes(head))
    cursor = struct.pack("<HHHBBBBHHII", 0, 2, 1, 16, 16, 0, 0, 5, 7, 24 << 16 | 40, 22) + bytes(9000)
    assert Image.open(io.BytesIO(cursor), formats=("TGA",)).format == "TGA"  # so Pillow would
    assert "not an image" in refused(cursor)


# ---- nothing is believed -------------------------------------------------------------------------------------------------------


def claiming_jpeg2000(side: int) -> bytes:
    content = bytearray(encoded(photo(), "JPEG2000"))
    size = content.index(b"\xff\x51") + 6
    struct.pack_into(">II", content, content.index(b"ihdr") + 4, side, side)
    for at in (size, size + 16):
        struct.pack_into(">II", content, at, side, side)
    return bytes(content)


def claiming_avif(side: int) -> bytes:
    content = encoded(photo(), "AVIF")
    at = content.index(b"ispe") + 8
    return content[:at] + struct.pack(">II", side, side) + content[at + 8 :]


CLAIMS: dict[str, Callable[[], bytes]] = {
    "P6": lambda: b"P6 99999 99999 255\n" + bytes(300),
    "P2": lambda: b"P2 99999 99999 255\n1 2 3",
    "TGA": lambda: struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 12_000, 9_000, 24, 0) + bytes(900),
    "JPEG 2000": lambda: claiming_jpeg2000(60_000),
    "JPEG 2000, decoded": lambda: claiming_jpeg2000(9_000),  # 81 megapixels of 20 bytes
    "AVIF": lambda: claiming_avif(12_000),
    "AVIF, decoded": lambda: claiming_avif(9_500),
}


@pytest.mark.parametrize("kind", CLAIMS)
def test_what_a_header_claims_is_weighed_before_it_is_decoded(kind: str) -> None:
    said = refused(CLAIMS[kind]())
    assert "megapixels" in said and ("1 GB is the most" in said) == ("decoded" in kind)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "PPM", "TGA"])
def test_truncated_files_are_named(kind: str) -> None:
    content = encoded(Image.fromarray(noise(40, 40).astype(np.uint8)), kind)
    for length in (0, 1, 12, 40, len(content) // 2, len(content) * 9 // 10):
        assert refused(content[:length]).startswith("photo cannot be used: ")


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["AVIF", "JPEG2000", "PPM", "TGA", "JPEG"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=20),
    cut=st.integers(0, 4),
)
def test_damage_is_an_image_or_an_error(kind: str, changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(encoded(photo(24, 20), kind))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        pixels = read_image(bytes(content[: len(content) - cut]), "photo")
    except UnusableData as error:
        assert error.message.startswith("photo cannot be used: ")
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("iphone.heic", "HEIC"), ("rgb_f32.tif", "3 floating-point numbers of 32 bits"), ("trunc_eoi.jpg", ""), ("g12in16.png", "")],
)
def test_what_people_met(name: str, said: str) -> None:
    path: Path = CASES / name
    if not path.exists():
        pytest.skip(f"needs {name}, which is not part of the repository (looked in {CASES})")
    if said:
        assert said in refused(path.read_bytes())
    else:
        assert read_image(path).shape == (80, 96, 3)


def test_the_extras_module_is_found_by_its_name() -> None:
    """The reader is a module of the package that the extra brings."""
    if extras.has("heif"):
        assert hasattr(importlib.import_module("pillow_heif.as_plugin"), "HeifImageFile")
