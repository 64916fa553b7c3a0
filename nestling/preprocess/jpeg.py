"""JPEGs without their end: some cameras leave the last marker away, and no pixel is missing.

A decoder cannot tell: where bits are missing it makes some up. Here they are made up in several ways; where all give the same
picture, none was missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from io import BytesIO

from PIL import Image

END = b"\xff\xd9"
ROWS = 256  # of a part whose bytes are summed
COEFFICIENTS = 64  # of a block

# markers of ISO/IEC 10918-1, table B.1
SOS, RST, TEM = 0xDA, range(0xD0, 0xD8), 0x01
# for bits that are missing, if any: nothing, which is read as zeros, and bytes that differ from their first bits on, with the
# markers between that a file with restarts waits for
FILLINGS = (
    b"",
    *(
        b"".join(bytes((first + 73 * i) % 255 for i in range(250)) + bytes((0xFF, rst)) for rst in RST) * 2
        for first in (0xB4, 0x5A, 0xE1)
    ),
)
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def completed(content: bytes, opener: Callable[[BytesIO], Image.Image]) -> Image.Image | None:
    """The picture, loaded, of a JPEG that lacks nothing but its end; None for one that lacks more."""
    body = content.removesuffix(b"\xff")  # the first half of the marker
    if not _every_scan(body):
        return None
    sums = set()
    for filling in FILLINGS:
        image = opener(BytesIO(body + filling + END))
        image.load()
        sums.add(_sum(image))
        if len(sums) > 1:
            image.close()
            return None
    return image


def _sum(image: Image.Image) -> bytes:
    found = hashlib.sha256()
    for top in range(0, image.height, ROWS):
        found.update(image.crop((0, top, image.width, min(top + ROWS, image.height))).tobytes())
    return found.digest()


def _every_scan(content: bytes) -> bool:
    """Whether the file has scans for all bits of all coefficients of each of its components: a progressive one is never without."""
    left: dict[int, set[int]] = {}  # of each component the coefficients whose last bit has not come
    try:
        for marker, body in _segments(content):
            if marker in SOF:
                left = {body[6 + 3 * i]: set(range(COEFFICIENTS)) for i in range(body[5])}
            if marker == SOS:
                count = body[0]
                first, last, bits = body[1 + 2 * count : 4 + 2 * count]
                for i in range(count) if bits & 15 == 0 else ():
                    left[body[1 + 2 * i]] -= set(range(first, last + 1))
    except (IndexError, KeyError, ValueError):
        return False
    return bool(left) and not any(left.values())


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, what follows its length) of every segment, what is between them passed over."""
    at = 2
    while (at := content.find(b"\xff", at)) >= 0 and at + 4 <= len(content):
        marker = content[at + 1]
        if marker in (0, 0xFF, TEM) or marker in RST:
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(content[at + 2 : at + 4])
        yield marker, content[at + 4 : at + 2 + length]
        at += 2 + length
