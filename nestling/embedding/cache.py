"""Embeddings of many images, remembered by content: an image that was embedded once is not embedded again.

One small file an embedding in the user's cache folder, named by what it depends on (engine, weights, preprocessing, view, image):
written in a temporary folder and renamed, so an interrupted run keeps what it had; a damaged file is one that is not there. A
cache that cannot be written costs time, and nothing else.
"""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from nestling.data.folders import Item, LeftOut
from nestling.data.stream import stream
from nestling.errors import NestlingError
from nestling.files import make_folder, naming
from nestling.preprocess.image import Preprocess
from nestling.processor import cores
from nestling.progress import Progress, silent
from nestling.temporary import NEW, sweep, temporary

Image = NDArray[np.uint8]
Vector = NDArray[np.float32]

VIEWS: Mapping[str, Callable[[Image], Image]] = {
    "as-is": lambda image: image,
    "left-right": lambda image: image[:, ::-1],
    "up-down": lambda image: image[::-1],
    "turned": lambda image: image[::-1, ::-1],
}


class Embedder(Protocol):
    """What turns images into embeddings. name: whatever else the numbers depend on (runtime, version, weights). width: D."""

    @property
    def name(self) -> str:
        """Of everything but image and preprocessing that the numbers depend on."""
        ...

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        ...

    def embed(self, images: Iterator[Image]) -> Iterator[Vector]:
        """Embeddings, float32 [D] each, in the order of the images (uint8 [H, W, C])."""
        ...


@dataclass(frozen=True, eq=False)
class Features:
    """items: those that could be read; x: float32 [views, items, D]; left_out: the others; computed: how many the cache lacked."""

    items: tuple[Item, ...]
    x: NDArray[np.float32]
    left_out: tuple[LeftOut, ...]
    computed: int


def embed(
    items: Sequence[Item],
    preprocess: Preprocess,
    engine: Embedder,
    views: Sequence[str] = ("as-is",),
    progress: Progress = silent,
    cache: Path | None = None,
) -> Features:
    """Embed every view of every item; what the cache has is read, the rest computed with decoding beside the network.

    views: keys of VIEWS. cache: folder; None for `default_cache()`. Raises NestlingError for an embedding that is not finite.
    """
    root = cache or default_cache()
    sweep(root)  # also where nothing is missing
    folder = root / _digest(engine.name, repr(preprocess))
    known = {(i, view): _read(_entry(folder, item, view), engine.width) for i, item in enumerate(items) for view in views}
    missing = [i for i in range(len(items)) if any(known[i, view] is None for view in views)]
    left_out: dict[int, LeftOut] = {}
    pending: deque[tuple[int, str]] = deque()

    def decoded() -> Iterator[Image]:
        for position, image in stream([items[i] for i in missing], preprocess, workers=cores()):
            if isinstance(image, LeftOut):
                left_out[missing[position]] = image
                continue
            for view in views:
                if known[missing[position], view] is None:
                    pending.append((missing[position], view))
                    yield np.ascontiguousarray(VIEWS[view](image))

    computed = 0
    if missing:
        with progress("embedding", len(missing) * len(views)) as advance, _keeping(root) as keep:
            for vector in engine.embed(decoded()):
                i, view = pending.popleft()
                if not np.isfinite(vector).all():
                    raise NestlingError(f"what the network answers to {items[i].path} is not finite: its weights are broken.")
                known[i, view] = vector
                keep(_entry(folder, items[i], view), vector)
                computed += 1
                advance(1)
    kept = [i for i in range(len(items)) if i not in left_out]
    x = np.array([[known[i, view] for i in kept] for view in views], dtype=np.float32)
    return Features(tuple(items[i] for i in kept), x, tuple(left_out[i] for i in sorted(left_out)), computed)


def default_cache() -> Path:
    """The user's cache folder; the environment variable NESTLING_CACHE names another one."""
    named = os.environ.get("NESTLING_CACHE")
    return Path(named) if named else user_cache_path("nestling") / "embeddings"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _entry(folder: Path, item: Item, view: str) -> Path:
    return folder / item.fingerprint[:2] / f"{item.fingerprint}-{view}"


def _read(path: Path, width: int) -> Vector | None:
    """The embedding, or None where there is none, or it is damaged or of another length.

    Layout: CRC-32 of the rest, then float32 little-endian.
    """
    try:
        if path.stat().st_size != 4 + 4 * width or not path.is_file():
            return None
        content = path.read_bytes()
    except OSError:
        return None
    if len(content) != 4 + 4 * width or struct.unpack("<I", content[:4])[0] != zlib.crc32(content[4:]):
        return None
    vector = np.frombuffer(content, "<f4", offset=4).astype(np.float32)
    return vector if np.isfinite(vector).all() else None


@contextmanager
def _keeping(root: Path) -> Iterator[Callable[[Path, Vector], None]]:
    """Gives what writes an entry. Where the cache can't be written, or no more, that is said once, and the work goes on."""
    with ExitStack() as stack:
        place: Path | None = None

        def keep(path: Path, vector: Vector) -> None:
            nonlocal place
            if place is not None:
                try:
                    _write(path, vector, place)
                except OSError as error:
                    place = None
                    _warn_of(root, error)

        try:
            make_folder(root)
            place = stack.enter_context(temporary(root))
        except OSError as error:
            _warn_of(root, error)
        yield keep


def _warn_of(root: Path, error: OSError) -> None:
    lost = "what is embedded is not remembered, and takes its time again"
    warnings.warn(f"{root} cannot be written ({error.strerror}): {lost}; NESTLING_CACHE names another folder", stacklevel=4)


def _write(path: Path, vector: Vector, place: Path) -> None:
    """Renamed into place but not flushed to the disk each time: after a power cut the CRC finds what is not whole.

    place: a temporary folder. Raises OSError, naming `path`.
    """
    content = vector.astype("<f4").tobytes()
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = place / NEW
        beside.write_bytes(struct.pack("<I", zlib.crc32(content)) + content)
        beside.replace(path)
