"""What a manifest says is read again, field by field: a new field that is not read would be lost at the next export."""

from __future__ import annotations

import os
from dataclasses import MISSING, fields, replace
from pathlib import Path

import pytest

from nestling.artifacts import manifest
from nestling.artifacts.manifest import Artifact
from nestling.device import manifest as packages
from nestling.device.manifest import Manifest, PackedFile
from nestling.errors import UnusableFile

WHOLE = Artifact(
    "a-int8.pte", "pte", "int8", 1000, "ab" * 32, 1.0, 0.5, 0.1, 0.2, 0.3, 200, 1.5, "../a.nest", 0.9, 4000, (1, 8), ("noise",),
    ("coarse",), ("short",),
)  # fmt: skip
PACKED = Manifest(
    "linux", "x86-64", "c", ("a", "ü"), {"kind": "image"}, "ab" * 32, 8, {"arena": 4000}, "30 photographs", {"nestling": "1"},
    {"head.nst": PackedFile(100, "ab" * 32)}, ("noise",),
)  # fmt: skip


@pytest.mark.parametrize("kind", [WHOLE, PACKED], ids=["artifact", "package"])
def test_the_example_leaves_nothing_at_its_default(kind: Artifact | Manifest) -> None:
    assert all(field.default is MISSING or getattr(kind, field.name) != field.default for field in fields(kind))


def test_an_artifact_comes_back(tmp_path: Path) -> None:
    bare = Artifact(*(getattr(WHOLE, field.name) for field in fields(WHOLE) if field.default is MISSING))
    bare = replace(bare, file="b.pte", noise_ratio=None)
    manifest.note(tmp_path, [bare, WHOLE])
    assert manifest.read(tmp_path) == (WHOLE, bare)


def test_a_package_comes_back(tmp_path: Path) -> None:
    (tmp_path / packages.NAME).write_bytes(packages.to_bytes(PACKED))
    assert packages.read(tmp_path) == PACKED


@pytest.mark.parametrize("name", ["../a.pte", "/a.pte", "..", "", "a/b", "a\0b"])
def test_files_lie_beside_their_manifest(name: str, tmp_path: Path) -> None:
    manifest.note(tmp_path, [replace(WHOLE, file=name)])
    with pytest.raises(UnusableFile, match=r"manifest\.json.*file beside it"):
        manifest.read(tmp_path)
    (tmp_path / packages.NAME).write_bytes(packages.to_bytes(replace(PACKED, files={name: PackedFile(1, "")})))
    with pytest.raises(UnusableFile, match=r"manifest\.json.*file beside it"):
        packages.read(tmp_path)


def test_a_package_of_a_pipe_is_not_waited_for(tmp_path: Path) -> None:

    os.mkfifo(tmp_path / "head.nst")
    (tmp_path / packages.NAME).write_bytes(packages.to_bytes(PACKED))
    with pytest.raises(UnusableFile, match=r"head\.nst cannot be read: it is no regular file"):
        packages.require_whole(tmp_path)
