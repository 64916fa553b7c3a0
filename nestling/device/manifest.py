"""A package's manifest.json: what is in it, made from what, for which machine."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from nestling.brief import as_table, in_short
from nestling.bundle import MOST_LABELS
from nestling.errors import UnusableFile
from nestling.files import digest_of
from nestling.outside import Record, brief, content, is_file_name, parsed
from nestling.printable import json_text
from nestling.temporary import restored
from nestling.words import System

NAME, RUNNER = "manifest.json", "net_runner"
SCRIPTS = ("eval_untrained.sh", "train.sh", "eval.sh")  # in the order in which they are run
SCHEMA = 1
AGAIN = "pack it again:  nestling pack my8.nest -o pkg/"


@dataclass(frozen=True)
class PackedFile:
    """bytes, and SHA-256 of the content, 64 hex digits."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """system, machine: what the package is for. runner: what runs the network there, c or executorch. preprocess: to_plain's.

    graph: digest (graph.file) of the int8 Graph. ram: bytes that the device needs, by what for. centred_on: what the head's inputs
    were centred and scaled by, in words. versions: of what made it. failed: gates that a file did not pass and was kept all the
    same. files: all others of the package, by name.
    """

    __repr__, _repr_html_ = in_short, as_table

    system: System
    machine: str
    runner: str
    labels: tuple[str, ...]
    preprocess: Mapping[str, Any]
    graph: str
    max_classes: int
    ram: Mapping[str, int]
    centred_on: str
    versions: Mapping[str, str]
    files: Mapping[str, PackedFile]
    failed: tuple[str, ...] = ()


def to_bytes(manifest: Manifest) -> bytes:
    """The file's content; the same for the same manifest."""
    plain = {"package": SCHEMA} | asdict(manifest)
    return (json_text(plain, indent=2) + "\n").encode()


def read(package: Path) -> Manifest:
    """The manifest of a package. Raises UnusableFile, naming it, where there is none or it is not one of nestling's."""
    path = restored(package) / NAME
    if not path.exists():
        raise UnusableFile(f"{path} is not there: {package} is no package.", AGAIN)
    record = Record(parsed(content(path, AGAIN), f"{path}", AGAIN), f"{path} is not the manifest of a package", AGAIN)
    if record.whole("package") != SCHEMA:
        record.refuse("it is of another version")
    system, ram, versions, files = record.text("system"), *(record.record(name) for name in ("ram", "versions", "files"))
    if system not in get_args(System):
        record.refuse(f"there is no system {brief(system)}")
    if wrong := [name for name in files.plain if not is_file_name(name) or name.startswith(("-", "."))]:
        record.refuse(f"{brief(wrong[0])} is not the name of a file beside it")
    return Manifest(
        system=system,  # type: ignore[arg-type]  # one of the three
        machine=record.text("machine"),
        runner=record.text("runner"),
        labels=record.names("labels", MOST_LABELS),
        preprocess=record.get("preprocess", dict),
        graph=record.text("graph"),
        max_classes=record.whole("max_classes"),
        ram={name: ram.whole(name) for name in ram.plain},
        centred_on=record.text("centred_on"),
        versions={name: versions.text(name) for name in versions.plain},
        files={name: PackedFile(file.whole("bytes"), file.text("sha256")) for name in files.plain for file in [files.record(name)]},
        failed=record.optional("failed", record.names, ()),
    )


def require_whole(package: Path) -> Manifest:
    """The manifest, every file of which has its checksum. Raises UnusableFile, naming the first one that has not."""
    manifest = read(package)
    for name, file in manifest.files.items():
        try:
            if (package / name).exists() and not (package / name).is_file():
                raise OSError(errno.EINVAL, "it is no regular file")  # a pipe would be waited for
            found = digest_of(package / name)
        except OSError as error:
            raise UnusableFile(f"{package / name} cannot be read: {error.strerror}.", AGAIN) from error
        if found != file.sha256:
            raise UnusableFile(f"{package / name} is not the file that was packed: its checksum differs.", AGAIN)
    return manifest
