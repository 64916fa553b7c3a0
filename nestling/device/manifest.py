"""A package's manifest.json: what is in it, made from what, for which machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from nestling.errors import UnusableFile
from nestling.files import digest_of
from nestling.printable import json_text
from nestling.temporary import restored

NAME, RUNNER = "manifest.json", "net_runner"
SCRIPTS = ("eval_untrained.sh", "train.sh", "eval.sh")  # in the order in which they are run
SCHEMA = 1
System = Literal["linux", "android", "mcu"]
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
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        if plain.pop("package") != SCHEMA:
            raise ValueError("of another version")
        files = {str(name): PackedFile(int(file["bytes"]), str(file["sha256"])) for name, file in plain.pop("files").items()}
        if wrong := [name for name in files if Path(name).name != name or name.startswith(("-", "."))]:
            raise ValueError(f"{wrong[0]!r} is not the name of a file beside it")
        labels, failed = tuple(plain.pop("labels")), tuple(plain.pop("failed", ()))
        return Manifest(labels=labels, files=files, failed=failed, **plain)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}; {package} is no package.", AGAIN) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{path} is not the manifest of a package ({error}).", AGAIN) from error


def require_whole(package: Path) -> Manifest:
    """The manifest, every file of which has its checksum. Raises UnusableFile, naming the first one that has not."""
    manifest = read(package)
    for name, file in manifest.files.items():
        try:
            found = digest_of(package / name)
        except OSError as error:
            raise UnusableFile(f"{package / name} cannot be read: {error.strerror}.", AGAIN) from error
        if found != file.sha256:
            raise UnusableFile(f"{package / name} is not the file that was packed: its checksum differs.", AGAIN)
    return manifest
