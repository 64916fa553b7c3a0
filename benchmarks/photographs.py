"""Where a benchmark's photographs come from."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nestling.bundle import Bundle
from nestling.data.demo_set import elpv
from nestling.embedding.cache import default_cache


@contextmanager
def folder(data: Path | None) -> Iterator[Path]:
    """The photographs' folder; an archive is unpacked for as long as it is needed."""
    if data is None:
        yield elpv(default_cache().parent)
    elif data.is_dir():
        yield data
    else:
        with tempfile.TemporaryDirectory() as place, tarfile.open(data) as archive:
            archive.extractall(place, filter="data")
            yield next(path for path in Path(place).iterdir() if path.is_dir())


def named(bundle: Bundle) -> Path:
    """The folder that the bundle learned from last."""
    return Path(str(next(step.settings["folder"] for step in reversed(bundle.lineage) if "folder" in step.settings)))
