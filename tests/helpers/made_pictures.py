"""Image files and colour profiles written by hand, byte by byte: judges of what reads them; and by Pillow, of noise."""

import io
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file's bytes, as Pillow writes them."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int, width: int, channels: int = 3, most: int = 255, seed: int = 0) -> NDArray[np.uint16]:
    """Values of any size up to `most`, [height, width, channels]."""
    return np.random.default_rng(seed).integers(0, most + 1, (height, width, channels)).astype(np.uint16)


def png(values: NDArray[np.uint16]) -> bytes:
    """uint16 [H, W, C] as a PNG of 16 bits; C: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values: NDArray[np.uint16], order: str = "<", packed: bool = False, planes: bool = False) -> bytes:
    """uint16 [H, W, C] as a TIFF of 16 bits; order: < or >; packed: deflated; planes: a plane a colour."""
    height, width, channels = values.shape
    parts = [values[:, :, c] for c in range(channels)] if planes else [values]
    strips = [part.astype(f"{order}u2").tobytes() for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    content = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4))

    def put(form: str, *numbers: int) -> int:
        content.extend(b"\0" * (len(content) % 2))
        content.extend(struct.pack(order + form, *numbers))
        return len(content) - struct.calcsize(order + form)

    starts = [put(f"{len(strip)}B", *strip) for strip in strips]
    lengths = [len(strip) for strip in strips]
    several = len(strips) > 1
    short = lambda value: struct.unpack(f"{order}I", struct.pack(f"{order}HH", value, 0))[0]  # noqa: E731  # a short name for one line
    bits = put(f"{channels}H", *[16] * channels) if channels > 2 else short(16)
    entries = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, channels, bits), (259, 3, 1, short(8 if packed else 1)),
        (262, 3, 1, short({1: 1, 3: 2, 4: 5}[channels])),
        (273, 4, len(strips), put(f"{len(strips)}I", *starts) if several else starts[0]),
        (277, 3, 1, short(channels)), (278, 4, 1, height),
        (279, 4, len(strips), put(f"{len(strips)}I", *lengths) if several else lengths[0]),
        (284, 3, 1, short(2 if planes else 1)),
    ]  # fmt: skip
    directory = put("H", len(entries))
    for entry in entries:
        content.extend(struct.pack(f"{order}HHII", *entry))
    content.extend(bytes(4))
    content[4:8] = struct.pack(f"{order}I", directory)
    return bytes(content)


# ---- ICC profiles, version 2 (ICC.1:2001-04) -----------------------------------------------------------------------------------

D50 = (0.9642, 1.0, 0.8249)


def _profile(kind: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    text = b"made by hand"
    described = b"desc" + bytes(4) + struct.pack(">I", len(text) + 1) + text + bytes(1 + 8 + 3 + 67)
    tags = {b"desc": described, b"wtpt": _xyz(D50), b"cprt": b"text" + bytes(4) + b"none\0"} | tags
    place, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", place + len(data), len(value))
        data += value
    header = (
        struct.pack(">I4sI4s4s4s", place + len(data), b"lcms", 0x02400000, kind, space, connection)
        + bytes(12)
        + b"acsp"
        + bytes(28)
    )
    header += b"".join(_fixed(value) for value in D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(_fixed(value) for value in values)


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(to_xyz: NDArray[np.float64], gamma: float) -> bytes:
    """to_xyz: float64 [3, 3], linear RGB -> XYZ at D50."""
    colorants = {name: _xyz(tuple(to_xyz[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return _profile(b"mntr", b"RGB ", b"XYZ ", colorants | {name: _gamma(gamma) for name in (b"rTRC", b"gTRC", b"bTRC")})


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """Of inks of which black alone is seen: L* = 100 (1 - k), a* = b* = 0."""
    table = b"".join(bytes((0 if corner & 1 else 255, 128, 128)) for corner in range(16))  # the last ink changes first
    line = bytes(range(256))
    lut = (
        b"mft1"
        + bytes(4)
        + bytes((4, 3, 2, 0))
        + b"".join(_fixed(float(i % 4 == 0)) for i in range(9))
        + line * 4
        + table
        + line * 3
    )
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})
