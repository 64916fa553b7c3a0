import io
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import timm.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from nestling.errors import UnusableData, UnusableFile
from nestling.preprocess.image import ImagePreprocess, Interpolation, from_plain, load, resize, table, to_plain
from nestling.preprocess.pictures import Reading, Uint8Array, read_image
from tests.helpers.horrors import png_claiming

# pytest puts its own warning filters in place of the one that preprocess.py sets; that one is tested in a program of its own below
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
SMALL = ImagePreprocess((96, 96), 3, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> Uint8Array:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def largest_difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())


# ---- timm is the judge of resizing and normalising ---------------------------------------------------------------------------


def by_timm(p: ImagePreprocess, image: Image.Image) -> Uint8Array:
    transform = timm.data.create_transform(
        (p.channels, *p.size),
        is_training=False,
        interpolation=p.interpolation,
        crop_pct=p.crop,
        crop_mode="center",
        normalize=False,
    )
    pixels: Uint8Array = transform(image.convert("L" if p.channels == 1 else "RGB")).numpy()
    return pixels.transpose(1, 2, 0)


@settings(max_examples=150, deadline=None)
@given(
    source=st.tuples(st.integers(1, 400), st.integers(1, 400)),
    size=st.tuples(st.integers(8, 160), st.integers(8, 160)) | st.integers(8, 160).map(lambda side: (side, side)),
    channels=st.sampled_from([1, 3]),
    crop=st.sampled_from([0.875, 0.9, 0.95, 1.0, 0.5]) | st.floats(0.2, 1),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    seed=st.integers(0, 9),
)
def test_resize_equals_timm_on_any_size_and_shape(
    source: tuple[int, int], size: tuple[int, int], channels: Literal[1, 3], crop: float, interpolation: Interpolation, seed: int
) -> None:
    p = ImagePreprocess(size, channels, crop, interpolation, (0.5,) * channels, (0.5,) * channels)
    image = noise(*source, seed=seed)
    assert largest_difference(resize(p, image), by_timm(p, Image.fromarray(image))) <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("side", "crop"), [(224, 0.875), (96, 1.0), (299, 0.9)])
def test_load_equals_timm_on_photographs(
    shared_data: Callable[[str], Path], tmp_path: Path, side: int, crop: float, interpolation: Interpolation
) -> None:
    p = replace(SMALL, size=(side, side), crop=crop, interpolation=interpolation)
    with tarfile.open(shared_data("cifar10_small.tar.gz")) as archive:
        archive.extractall(tmp_path, members=archive.getmembers()[:30], filter="data")
    photographs = sorted(tmp_path.rglob("*.jpg")) + elpv_photographs()[:30]
    assert len(photographs) > 20
    for path in photographs:
        with Image.open(path) as image:
            assert largest_difference(load(p, path), by_timm(p, image)) <= 1


def elpv_photographs() -> list[Path]:
    elpv_dataset = pytest.importorskip("elpv_dataset")
    return sorted((Path(elpv_dataset.__file__).parent / "data" / "images").glob("*.png"))


@pytest.mark.parametrize("channels", [1, 3])
def test_load_is_read_then_resize(channels: Literal[1, 3]) -> None:
    p = replace(SMALL, channels=channels)
    for mode in ("L", "RGB", "1", "P", "LA"):
        content = encoded(Image.fromarray(noise(70, 50)).convert(mode), "PNG")
        np.testing.assert_array_equal(load(p, content), resize(p, read_image(content)))
    assert load(p, content).shape == (96, 96, channels)
    assert load(p, content).flags.writeable and read_image(content).flags.writeable  # as torch.from_numpy wants them


def test_a_grey_array_is_taken_too() -> None:
    grey = noise(50, 60, 1)
    np.testing.assert_array_equal(resize(SMALL, grey), resize(SMALL, np.repeat(grey, 3, axis=2)))


@pytest.mark.parametrize("shape", [(1, 200_000), (200_000, 1), (1, 1)])
def test_a_line_of_pixels_needs_no_line_of_memory(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    assert (resize(SMALL, image) == 77).all()


def test_table_equals_timms_normalisation() -> None:
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)  # [256, 1, 3]
    transform = timm.data.create_transform((3, 256, 1), is_training=False, mean=SMALL.mean, std=SMALL.std, crop_pct=1.0)
    torch.testing.assert_close(torch.from_numpy(table(SMALL)), transform(Image.fromarray(values))[:, :, 0], rtol=1e-6, atol=1e-6)
    assert table(SMALL).dtype == np.float32


# ---- reading: Pillow's own pixels, before they were written, are the judge ----------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_formats_without_loss_give_the_pixels_back(kind: str) -> None:
    pixels = noise(31, 47)
    np.testing.assert_array_equal(
        read_image(encoded(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))), pixels
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_is_three_equal_channels(kind: str, mode: str) -> None:
    image = Image.fromarray(noise(31, 47)).convert(mode)
    pixels = read_image(encoded(image, kind))
    np.testing.assert_array_equal(pixels, np.repeat(np.asarray(image.convert("L"))[:, :, None], 3, axis=2))


def test_jpeg() -> None:
    smooth = Image.fromarray(noise(6, 8)).resize((320, 240), Image.Resampling.BICUBIC)
    assert np.abs(read_image(encoded(smooth, "JPEG", quality=95)).astype(int) - np.asarray(smooth)).mean() < 2


def test_cmyk_jpeg_shows_its_colours() -> None:
    colours = Image.new("RGB", (32, 32), (220, 40, 90))
    assert largest_difference(read_image(encoded(colours.convert("CMYK"), "JPEG", quality=95)), np.asarray(colours)) <= 4


def test_gif_gives_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    pixels = read_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert pixels.shape == (10, 20, 3)
    assert (pixels == (255, 0, 0)).all()


def test_transparency_lies_on_white() -> None:
    clear = np.dstack([noise(8, 8), np.zeros((8, 8), np.uint8)])
    half = np.dstack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 128, np.uint8)])
    for kind in ("PNG", "TIFF", "WEBP"):
        assert (read_image(encoded(Image.fromarray(clear), kind, **({"lossless": True} if kind == "WEBP" else {}))) == 255).all()
    assert (read_image(encoded(Image.fromarray(half), "PNG")) == 127).all()  # 255 * (1 - 128 / 255)
    assert (read_image(encoded(Image.fromarray(half).convert("LA"), "PNG")) == 127).all()


def test_palette_with_and_without_transparency() -> None:
    image = Image.new("P", (9, 5), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert (read_image(encoded(image, "PNG")) == (10, 200, 30)).all()
    assert (read_image(encoded(image, "PNG", transparency=1)) == 255).all()
    assert (read_image(encoded(image, "PNG", transparency=bytes([255, 0]))) == 255).all()
    assert (read_image(encoded(image, "GIF", transparency=1)) == 255).all()
    assert (read_image(encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "PNG", transparency=(1, 2, 3))) == 255).all()


@pytest.mark.parametrize(
    ("kind", "mode", "order"), [("PNG", "I;16", "<u2"), ("TIFF", "I;16", "<u2"), ("TIFF", "I;16B", ">u2"), ("TIFF", "I", "<i4")]
)
def test_sixteen_bits_are_scaled_not_clipped(kind: str, mode: str, order: str) -> None:
    values = np.arange(65536).reshape(256, 256)
    image = Image.frombytes(mode, (256, 256), values.astype(order).tobytes())
    pixels = read_image(encoded(image, kind))
    assert largest_difference(pixels, np.repeat(values[:, :, None] / 257, 3, axis=2)) <= 0.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(kind: str, orientation: int) -> None:
    # EXIF 2.32: which corner and direction of the scene the file's first row and first column are
    upright = np.asarray(Image.fromarray(noise(2, 3)).resize((48, 32), Image.Resampling.NEAREST))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    said: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    pixels = read_image(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif, **said.get(kind, {})))
    assert largest_difference(pixels, upright) <= (8 if kind == "JPEG" else 0)


def test_damaged_exif_does_not_cost_the_photograph() -> None:
    pixels = noise(8, 8)
    assert (
        largest_difference(read_image(encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")), pixels)
        == 0
    )


# ---- what can't be read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_named(kind: str, tmp_path: Path) -> None:
    content = encoded(Image.fromarray(noise(40, 40)), kind)
    path = tmp_path / "cut.jpg"
    for length in (0, 1, 12, 40, len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:length])
        with pytest.raises(UnusableData, match=r"cut\.jpg cannot be used: "):
            read_image(path)


def test_other_formats_are_not_let_in() -> None:
    for kind in ("ICO", "PCX", "EPS", "SGI"):
        with pytest.raises(UnusableData, match="photo cannot be used: not an image"):
            read_image(encoded(Image.fromarray(noise(16, 16)), kind), "photo")


def test_float_and_32_bit_pixels_are_refused() -> None:
    for pixels, reason in ((np.zeros((4, 4), np.float32), "floating-point"), (np.full((4, 4), 70_000, np.int32), "32 bits")):
        with pytest.raises(UnusableData, match=reason):
            read_image(encoded(Image.fromarray(pixels), "TIFF"))


@pytest.mark.parametrize(("width", "reason"), [(9_000, "truncated|damaged"), (10_100, "101 megapixels"), (60_000, "megapixels")])
def test_size_is_judged_by_the_header(width: int, reason: str) -> None:
    with pytest.raises(UnusableData, match=reason):
        read_image(png_claiming(width, 10_000))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match=r"none\.png.*No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(UnusableData, match="cannot be read"):
        read_image(tmp_path)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=20),
    length=st.integers(0, 10_000),
)
def test_damage_is_an_image_or_an_error(kind: str, changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(encoded(Image.fromarray(noise(24, 20)), kind))
    for place, value in changes:
        content[place % len(content)] = value
    try:
        pixels = read_image(bytes(content[:length]) if length < len(content) // 2 else bytes(content))
    except UnusableData as error:
        assert error.message.startswith("the image cannot be used: ")
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


def test_no_warning_of_pillow_leaks(tmp_path: Path) -> None:
    """In a program of its own, as pytest sets up warnings anew for each test."""
    palette = Image.new("P", (9, 5), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    (tmp_path / "a.png").write_bytes(encoded(palette, "PNG", transparency=bytes([255, 0])))
    exif = b"Exif\0\0II\x2a\0\x08\0\0\0\x01\0\x0f\x01\x02\0\xff\0\0\0\xf0\xff\0\0"  # a tag whose text lies behind the end
    (tmp_path / "b.jpg").write_bytes(encoded(Image.fromarray(noise(9, 9)), "JPEG", exif=exif))
    header = encoded(Image.new("L", (1, 1)), "BMP")
    (tmp_path / "c.bmp").write_bytes(header[:18] + (9_500).to_bytes(4, "little") + (10_000).to_bytes(4, "little") + header[26:])
    loop = "\n".join(
        (
            "from pathlib import Path; from PIL import Image; from nestling.preprocess.pictures import read_image, UnusableData",
            f"for path in sorted(Path({str(tmp_path)!r}).iterdir()):",
            "    try: READ",
            "    except (OSError, UnusableData) as error: print(error)",
        )
    )
    by_pillow = run(loop.replace("READ", "import warnings; warnings.simplefilter('always'); Image.open(path).convert('RGB')"))
    assert by_pillow.stderr.count("Warning: ") >= 3  # so the files are such that it would have warned
    by_us = run(loop.replace("READ", "read_image(path)"))
    assert (by_us.returncode, by_us.stderr) == (0, "")
    assert "c.bmp cannot be used: " in by_us.stdout


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


# ---- as plain values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "p",
    [
        SMALL,
        ImagePreprocess((32, 64), 1, 1.0, "bilinear", (0.5,), (0.5,)),
        replace(SMALL, reading=Reading(4095)),
        replace(SMALL, reading=Reading(colour="srgb")),
    ],
)
def test_plain_and_back(p: ImagePreprocess) -> None:
    assert to_plain(p)["kind"] == "image"
    assert from_plain(to_plain(p)) == p


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kind", "sound"),
        ("size", [96]),
        ("size", [96, 7]),
        ("size", [96, 5000]),
        ("size", [96.0, 96]),
        ("size", [True, 96]),
        ("size", None),
        ("channels", 2),
        ("channels", True),
        ("channels", "3"),
        ("crop", 0),
        ("crop", 1.5),
        ("crop", float("nan")),
        ("interpolation", "nearest"),
        ("interpolation", ["bicubic"]),
        ("mean", [0.5, 0.5]),
        ("mean", [0.5, 0.5, float("inf")]),
        ("mean", "abc"),
        ("std", [0.5, 0.5, 0.0]),
        ("std", [0.5, 0.5, -1]),
        ("std", [0.5, 0.5, float("nan")]),
        ("levels", 254),
        ("levels", 65536),
        ("levels", 4095.0),
        ("levels", True),
        ("colour", "adobe"),
        ("colour", ["srgb"]),
    ],
)
def test_nonsense_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UnusableFile, match=key):
        from_plain(to_plain(SMALL) | {key: value})


def test_bundles_of_before_read_files_as_they_did() -> None:
    plain = to_plain(replace(SMALL, reading=Reading()))
    assert plain.keys() == {"kind", "size", "channels", "crop", "interpolation", "mean", "std"}
    assert from_plain(plain).reading == Reading(65535, "as stored")


def test_what_is_no_dictionary_is_refused() -> None:
    damaged: tuple[Any, ...] = ({}, {"kind": "image"}, [], None)
    for plain in damaged:
        with pytest.raises(UnusableFile):
            from_plain(plain)


def test_a_giant_before_the_crop_is_refused() -> None:
    with pytest.raises(UnusableFile, match="size / crop"):
        from_plain(to_plain(SMALL) | {"size": [4096, 4096], "crop": 0.1})
