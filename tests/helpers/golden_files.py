"""The files that earlier nestlings wrote (see golden/write.py): an archive a month of writing."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from tests import ROOT

ARCHIVES = sorted((ROOT / "tests" / "golden").glob("*.tar.gz"))
assert ARCHIVES, "no archive of golden files is there: the tests that read them would be none"


def recorded(archive: Path) -> dict[str, Any]:
    """What each of its files answered when it was written, by the file's name."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("answers.json")
        assert member is not None
        return dict(json.load(member))


def unpacked(archive: Path, place: Path) -> Path:
    """Its files, in a folder of their own."""
    with tarfile.open(archive) as tar:
        tar.extractall(place, filter="data")
    return place
