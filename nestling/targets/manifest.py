"""out/manifest.json: what was exported into a folder, and how it was judged. bench and report read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from nestling.errors import UnusableFile
from nestling.files import write_atomically
from nestling.printable import json_text
from nestling.temporary import restored

NAME = "manifest.json"


@dataclass(frozen=True)
class Artifact:
    """One exported file.

    agreement and differences: with the network that it was printed from, on `images` images. noise_ratio: rms(this file - int8
    reference) / rms(float - int8 reference), for what was printed from the int8 Graph. ms: median of one image with one thread,
    measured on the way; `bench` does it properly. delegated: share of an ExecuTorch program's operations that XNNPACK runs.
    requantised: how many output channels had to get other weights, of how many. bundle: what it was printed from, a path from the
    manifest's folder. bytes: of a folder of C those of its constants; arena: bytes of RAM that it needs for activations. failed:
    why it did not pass its gates, where it was kept all the same. coarse: what its runtime made of it, a right file, on the
    processor that it was judged on.
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


def read(folder: Path) -> tuple[Artifact, ...]:
    """What the folder's manifest lists, by file name. Raises UnusableFile where there is none, or it is not one of nestling's."""
    path = folder / NAME
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["artifacts"]
        artifacts = tuple(_artifact(entry) for entry in listed)
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}.", f"make it:  nestling export my.nest -o {folder}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{path} is not a manifest of nestling's ({error}).", "export again into a new folder") from error
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


def _artifact(plain: dict[str, object]) -> Artifact:
    known = {field.name for field in fields(Artifact)}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items() if key in known}
    artifact = Artifact(**values)  # type: ignore[arg-type]  # checked below
    if not isinstance(artifact.file, str) or Path(artifact.file).name != artifact.file:
        raise ValueError(f"{artifact.file!r} is not the name of a file beside it")
    return artifact
