"""out/manifest.json: what was exported into a folder, and how it was judged. bench and report read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from nestling.errors import UnusableFile
from nestling.files import write_atomically
from nestling.outside import Record, brief, content, is_file_name, parsed
from nestling.printable import json_text
from nestling.temporary import restored

NAME = "manifest.json"
MOST_ARTIFACTS = 10_000


@dataclass(frozen=True)
class Artifact:
    """One exported file.

    agreement and differences: with the network that it was printed from, on `images` images. noise_ratio: rms(this file - int8
    reference) / rms(float - int8 reference), for what was printed from the int8 Graph. ms: median of one image with one thread,
    measured on the way; `bench` does it properly. delegated: share of an ExecuTorch program's operations that XNNPACK runs.
    requantised: how many output channels had to get other weights, of how many. bundle: what it was printed from, a path from the
    manifest's folder. bytes: of a folder of C those of its constants; arena: bytes of RAM that it needs for activations. failed:
    why it did not pass its gates, where it was kept all the same. coarse: what its runtime made of it, a right file, on the
    processor that it was judged on. notes: what its printer chose, a sentence each.
    """

    file: str
    format: str
    precision: str
    bytes: int
    sha256: str
    agreement: float
    noise_ratio: float | None
    max_logit_difference: float
    max_relative_difference: float
    rms_logit_difference: float
    images: int
    ms: float
    bundle: str
    delegated: float | None = None
    arena: int | None = None
    requantised: tuple[int, int] | None = None
    failed: tuple[str, ...] = ()
    coarse: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read(folder: Path) -> tuple[Artifact, ...]:
    """What the folder's manifest lists, by file name. Raises UnusableFile where there is none, or it is not one of nestling's."""
    path, again = folder / NAME, "export again into a new folder:  nestling export my.nest -o out"
    if folder.is_dir() and not path.exists():
        raise UnusableFile(f"{folder} holds no {NAME}: nothing was exported into it.", "nestling export my.nest -o out")
    record = Record(parsed(content(path, again), f"{path}", again), f"{path} is not a manifest of nestling's", again)
    artifacts = tuple(map(_artifact, record.records("artifacts", MOST_ARTIFACTS)))
    for artifact in artifacts:
        restored(folder / artifact.file)
    return artifacts


def note(folder: Path, artifacts: Sequence[Artifact]) -> None:
    """Add artifacts to the folder's manifest; what it says of files of the same name is replaced. A damaged one is begun anew."""
    try:
        known = read(folder)
    except UnusableFile:
        known = ()
    new = {artifact.file for artifact in artifacts}
    kept = [artifact for artifact in known if artifact.file not in new and (folder / artifact.file).exists()]
    plain = {"artifacts": [asdict(artifact) for artifact in sorted([*kept, *artifacts], key=lambda artifact: artifact.file)]}
    write_atomically(folder / NAME, json_text(plain, ascii_only=True, indent=2).encode())


def _artifact(record: Record) -> Artifact:
    """Members that are unknown, as a newer nestling may write, are left out."""
    file, requantised = record.text("file"), record.optional("requantised", lambda name: record.list_of(name, int, 2))
    if not is_file_name(file):
        record.refuse(f"{brief(file)} is not the name of a file beside it")
    if requantised is not None and len(requantised) != 2:
        record.refuse("'requantised' is not how many channels of how many")
    return Artifact(
        file=file,
        format=record.text("format"),
        precision=record.text("precision"),
        bytes=record.whole("bytes"),
        sha256=record.text("sha256"),
        agreement=record.measured("agreement"),
        noise_ratio=record.optional("noise_ratio", record.measured),
        max_logit_difference=record.measured("max_logit_difference"),
        max_relative_difference=record.measured("max_relative_difference"),
        rms_logit_difference=record.measured("rms_logit_difference"),
        images=record.whole("images"),
        ms=record.measured("ms"),
        bundle=record.text("bundle"),
        delegated=record.optional("delegated", record.measured),
        arena=record.optional("arena", record.whole),
        requantised=requantised,
        failed=record.optional("failed", record.names, ()),
        coarse=record.optional("coarse", record.names, ()),
        notes=record.optional("notes", record.names, ()),
    )
