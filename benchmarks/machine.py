"""What every benchmark says of the machine, and where its photographs come from."""

from __future__ import annotations

import platform
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nestling.data.demo_set import elpv
from nestling.training.features import default_cache


def cpu() -> str:
    """The processor's name, and the vector instructions that matter here."""
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    known = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_bf16") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.processor() or platform.machine())} ({', '.join(known) or platform.machine()})"


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
