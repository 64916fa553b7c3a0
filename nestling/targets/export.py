"""export: from a bundle to files for a target, each checked before it is put in place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.bundle import Bundle, Timm
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, Item, LeftOut
from nestling.data.stream import stream
from nestling.errors import GateFailed, NestlingError, UnusableData
from nestling.files import write_atomically
from nestling.models.backbones import Network, Normalise, build, build_backbone
from nestling.models.runner import float_runner
from nestling.preprocess import Preprocess
from nestling.progress import Progress, silent
from nestling.report.agree import compare
from nestling.targets import executorch
from nestling.targets._pt2e import quantized
from nestling.targets.about import about
from nestling.training.features import embed
from nestling.training.fit import refitted, training_views

Precision = Literal["fp32", "int8"]
Image = NDArray[np.uint8]

CALIBRATION_IMAGES = 128
GATE_IMAGES = 100
MOST_DIFFERENCE = 1e-3  # of a float format's logits, relative to the image's largest


@dataclass(frozen=True)
class Artifact:
    """One exported file. agreement, difference: with the float network, on `images` validation photographs.

    delegated: share of the program's operations that XNNPACK runs. forced: it failed its gate and was kept all the same.
    """

    file: str
    format: str
    precision: str
    bytes: int
    agreement: float
    noise_ratio: float | None
    max_relative_difference: float
    rms_logit_difference: float
    images: int
    delegated: float
    forced: bool = False


def export(
    bundle: Bundle,
    out: Path,
    name: str,
    precision: Precision,
    data: Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Print out/NAME-PRECISION.pte and note it in out/manifest.json.

    data: the folder that the bundle learned from; None for the one that its lineage names. int8 needs it (calibration, and the
    head's refit on int8 embeddings); fp32 is judged on images of noise without it.
    Raises GateFailed where an fp32 program differs by more than 1e-3 relative in a logit (unless force), UnusableData where int8
    has no images, NestlingError.
    """
    if not isinstance(bundle.architecture, Timm) or bundle.head is None:
        raise NestlingError("only a fitted timm network can be exported to .pte so far.", "nestling fit PHOTOS -o my.nest")
    dataset = _dataset(bundle, data, needed=precision == "int8")
    if precision == "int8":
        assert dataset is not None
        printed = _int8(bundle, dataset, progress)
    else:
        with progress("exporting the float program", 1) as advance:
            printed = executorch.print_program(build(bundle), about(bundle))
            advance(1)
    file = f"{name}-{precision}.pte"
    images = _gate_images(bundle, dataset)
    agreement = compare(float_runner(bundle)(images), executorch.load_bytes(printed.content, file)(images))
    failed = precision == "fp32" and agreement.max_relative_difference > MOST_DIFFERENCE
    if failed and not force:
        raise GateFailed(
            f"{file} differs from the network it was printed from: the largest logit difference is "
            f"{agreement.max_relative_difference:.2e} relative, at most {MOST_DIFFERENCE:.0e} is allowed. It was not kept.",
            "keep it all the same with --force",
        )
    artifact = Artifact(
        file, "pte", precision, len(printed.content), agreement.agreement, None, agreement.max_relative_difference,
        agreement.rms_logit_difference, len(images), printed.delegated / printed.operations, failed,
    )  # fmt: skip
    write_atomically(out / file, printed.content)
    _note(out / "manifest.json", artifact)
    return artifact


def read_manifest(path: Path) -> list[dict[str, object]]:
    """The artifacts that a manifest lists; none where there is no manifest or it is damaged."""
    try:
        artifacts = json.loads(path.read_text())["artifacts"]
        return [entry for entry in artifacts if isinstance(entry["file"], str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _note(manifest: Path, artifact: Artifact) -> None:
    others = [entry for entry in read_manifest(manifest) if entry["file"] != artifact.file]
    plain = {"artifacts": sorted([*others, asdict(artifact)], key=lambda entry: str(entry["file"]))}
    write_atomically(manifest, json.dumps(plain, indent=2).encode())


def _dataset(bundle: Bundle, data: Path | None, needed: bool) -> Dataset | None:
    try:
        return training_data(bundle, data)
    except UnusableData:
        if needed or data is not None:
            raise
        return None


def _int8(bundle: Bundle, dataset: Dataset, progress: Progress) -> executorch.Printed:
    """Quantise the backbone, learn the head again on its int8 embeddings, print both as one program."""
    assert isinstance(bundle.architecture, Timm)
    normalise = Normalise(bundle.preprocess)
    calibration = images_of(part(dataset, bundle, "train", CALIBRATION_IMAGES), bundle.preprocess)
    if not calibration:
        raise UnusableData(f"no training photograph in {dataset.root} can be read.")
    with progress("quantising", 1) as advance:
        inputs = (normalise(torch.from_numpy(image[None])) for image in calibration)
        backbone = quantized(build_backbone(bundle.architecture, bundle.arrays), inputs)
        features_program = executorch.print_program(Network(normalise, backbone, None), about(bundle))
        advance(1)
    engine = _ProgramEngine(executorch.load_bytes(features_program.content, "the int8 features"))
    train = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, training_views(bundle), progress)
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)
    with progress("refitting the head, exporting the int8 program", 1) as advance:
        head = refitted(bundle, (train, val)).head
        printed = executorch.print_program(Network(normalise, backbone, head), about(bundle))
        advance(1)
    return printed


@dataclass(frozen=True, eq=False)
class _ProgramEngine:
    """A features program as a training.features.Engine."""

    program: executorch.Program

    @property
    def name(self) -> str:
        return f"executorch int8 {self.program.digest}"

    def embed(self, images: Iterator[Image]) -> Iterator[NDArray[np.float32]]:
        for image in images:
            yield self.program(image[None])[0]


def images_of(items: Sequence[Item], preprocess: Preprocess) -> list[Image]:
    """The photographs that can be read, as the network takes them."""
    return [image for _, image in stream(items, preprocess, workers=2) if not isinstance(image, LeftOut)]


def _gate_images(bundle: Bundle, dataset: Dataset | None) -> Image:
    """Validation photographs; noise where there are none at hand."""
    found = images_of(part(dataset, bundle, "val", GATE_IMAGES), bundle.preprocess) if dataset else []
    if found:
        return np.stack(found)
    shape = (20, *bundle.preprocess.size, bundle.preprocess.channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
