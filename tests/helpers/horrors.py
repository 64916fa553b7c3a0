"""A folder with everything that goes wrong in people's folders, for the tests of data and of the command line."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

GOOD_EACH = 12
CLASSES = ("good", "schlecht ß 不良")
USED = 4  # besides the plain photographs: CMYK JPEG, 16-bit PNG, one pixel, a copy of a photograph


def make_horrors(root: Path) -> dict[str, str]:
    """Fill `root` with two classes: GOOD_EACH photographs each, USED odd but readable files, and files that can't be used.

    Returns the latter: path relative to root -> part of the reason that should be given.
    """
    good, bad = (root / name for name in CLASSES)
    for folder, darkest in ((good, 0), (bad, 128)):
        folder.mkdir(parents=True)
        for index in range(GOOD_EACH):
            photograph(darkest + index, darkest).save(folder / f"{index:02}.jpg", quality=90)

    photograph(300, 0).convert("CMYK").save(good / "cmyk.jpg")
    wide = np.random.default_rng(301).integers(0, 65536, (40, 50)).astype(np.uint16)
    Image.fromarray(wide).save(good / "sixteen bits.png")
    Image.new("RGB", (1, 1), (250, 250, 250)).save(bad / "one pixel.png")
    (bad / "copy of 00.jpg").write_bytes((bad / "00.jpg").read_bytes())

    whole = (good / "00.jpg").read_bytes()
    (good / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (good / "zero.jpg").write_bytes(b"")
    (good / "notes.jpg").write_text("a list of things to do\n")
    (bad / "huge.png").write_bytes(png_claiming(20_000, 10_000))
    (bad / "broken link.jpg").symlink_to("nowhere.jpg")
    (bad / "own tail.jpg").symlink_to("own tail.jpg")
    (good / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(bad / "pipe.jpg")
    return {
        f"{good.name}/truncated.jpg": "truncated",
        f"{good.name}/zero.jpg": "0 bytes",
        f"{good.name}/notes.jpg": "not an image",
        f"{bad.name}/huge.png": "megapixels",
        f"{bad.name}/broken link.jpg": "No such file",
        f"{bad.name}/own tail.jpg": "symbolic links",
        f"{good.name}/loop": "link back",
        f"{bad.name}/pipe.jpg": "not a file",
    }


def photograph(seed: int, darkest: int) -> Image.Image:
    """A blurred random picture, 60 x 80, its values from `darkest` to `darkest` + 127."""
    coarse = np.random.default_rng(seed).integers(darkest, darkest + 128, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 60), Image.Resampling.BICUBIC)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG (ISO/IEC 15948) of a few bytes whose IHDR claims 8-bit RGB of this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
