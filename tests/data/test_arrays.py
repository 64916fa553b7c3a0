"""Images in memory are read as files of the same pixels would be."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nestling.data.arrays import photographs
from nestling.data.folders import require_enough
from nestling.data.stream import stream
from nestling.errors import UnusableData
from nestling.preprocess.image import ImagePreprocess, resize
from nestling.preprocess.pictures import Reading, look, read_image
from tests.helpers.made_pictures import grey_profile

SMALL = ImagePreprocess((24, 32), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (12, 40, 50, 3), dtype=np.uint8)
LABELS = ["good"] * 6 + ["bad"] * 6


def test_arrays_are_resized_as_they_are() -> None:
    forms: dict[str, Any] = {
        "RGB": COLOURS,
        "a list": list(COLOURS),
        "PIL": [Image.fromarray(image) for image in COLOURS],
        "grey": COLOURS[..., :1],
        "grey without channels": COLOURS[..., 0],
    }
    prints = {}
    for name, images in forms.items():
        found = photographs(images, LABELS)
        require_enough(found)
        assert found.labels == ("bad", "good") and [str(item.path) for item in found.items][:2] == ["images[0]", "images[10]"]
        prints[name] = {str(item.path): item.fingerprint for item in found.items}
        for index, image in stream(found.items, SMALL, workers=2):
            place = int(str(found.items[index].path)[7:-1])
            assert found.labels[found.items[index].label] == LABELS[place]
            expected = COLOURS[place] if "grey" not in name else COLOURS[place][..., :1]
            np.testing.assert_array_equal(image, resize(SMALL, expected))
    assert prints["RGB"] == prints["a list"] == prints["PIL"] and prints["grey"] == prints["grey without channels"]
    assert len({*prints["RGB"].values(), *prints["grey"].values()}) == 24


def test_what_pil_knows_of_an_image_counts(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(COLOURS[0, :, :, 0]).save(file, "PNG", exif=exif, icc_profile=grey_profile(1.0))
    deep = Image.fromarray(RNG.integers(0, 4096, (30, 40)).astype(np.uint16))
    palette = Image.fromarray(COLOURS[1]).convert("P")
    clear = Image.fromarray(COLOURS[2]).convert("RGBA")
    clear.putalpha(0)
    Image.fromarray(COLOURS[3]).save(tmp_path / "x.png")
    images = [Image.open(file), deep, palette, clear, tmp_path / "x.png", str(tmp_path / "none.png")]
    found = photographs(images, ["a"] * 6)
    of = {item.path.name: item.file for item in found.items}
    assert [entry.path.name for entry in found.left_out] == ["none.png"]
    srgb = Reading(4095, "srgb")
    np.testing.assert_array_equal(read_image(of["images[0]"], reading=srgb), read_image(file.getvalue(), reading=srgb))
    assert look(of["images[1]"]) == (True, "") and read_image(of["images[1]"], reading=srgb).max() > 200
    np.testing.assert_array_equal(read_image(of["images[2]"]), np.asarray(palette.convert("RGB")))
    assert (read_image(of["images[3]"]) == 255).all()
    np.testing.assert_array_equal(read_image(of["x.png"]), COLOURS[3])


def test_the_same_image_in_two_classes_is_left_out_of_both() -> None:
    found = photographs([*COLOURS, COLOURS[0]], [*LABELS, "bad"])
    assert {str(entry.path) for entry in found.left_out} == {"images[0]", "images[12]"}


@pytest.mark.parametrize(
    ("images", "labels", "said", "hint"),
    [
        (COLOURS / 255, LABELS, r"images\[0\] is float64 \[40, 50, 3\]; expected uint8", "round"),
        (COLOURS.transpose(0, 3, 1, 2), LABELS, r"\[3, 40, 50\]; expected uint8 \[H, W, 3\]", "channels come last"),
        (COLOURS.astype(np.int64), LABELS, "int64", ""),
        ([COLOURS[0], None], ["a", "b"], r"images\[1\]", ""),
        (np.empty((2, 0, 5, 3), np.uint8), ["a", "b"], "expected uint8", ""),
        ([Image.new("F", (4, 4))], ["a"], "mode F", ""),
        (COLOURS, LABELS[:-1], "12 images and 11 labels", ""),
        (COLOURS, list(range(12)), r"labels\[0\] is 0; expected the name of a class", "str"),
        (COLOURS, ["a\nb"] * 12, "line break", ""),
    ],
)
def test_what_is_no_image_or_no_name_is_said(images, labels, said: str, hint: str) -> None:
    with pytest.raises(UnusableData, match=said) as caught:
        photographs(images, labels)
    assert hint in caught.value.hint
