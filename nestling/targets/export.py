"""export: from a bundle to files for a target, each compared with the network it was printed from before it is put in place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.bundle import Bundle, save
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset
from nestling.errors import GateFailed, NestlingError, UnusableData
from nestling.files import write_atomically
from nestling.graph.heads import with_head, with_int8_head
from nestling.graph.integers import Range
from nestling.graph.ir import Graph
from nestling.graph.quantize import images_of, quantize
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph
from nestling.models.runner import float_runner
from nestling.preprocess import to_plain
from nestling.progress import Progress, silent
from nestling.report.agree import compare, rms
from nestling.targets import executorch, tflite
from nestling.targets.about import about
from nestling.targets.runner import Runner

Image = NDArray[np.uint8]

GATE_IMAGES = 100
MOST_DIFFERENCE = 1e-3  # of an fp32 format's logits, relative to the image's largest


@dataclass(frozen=True)
class ExportConfig:
    """features: print the embedding as a second output. int8_head: the head in integers, too. force: keep what fails its gate."""

    features: bool = False
    int8_head: bool = False
    force: bool = False


@dataclass(frozen=True)
class Artifact:
    """One exported file. agreement and differences: with the network it was printed from, on `images` validation photographs.

    noise_ratio: rms(this file - int8 reference) / rms(float - int8 reference), for what was printed from the int8 Graph.
    delegated: share of an ExecuTorch program's operations that XNNPACK runs. forced: it failed its gate and was kept all the same.
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
    delegated: float | None = None
    forced: bool = False


@dataclass(frozen=True)
class Job:
    """What a printer needs: the bundle, its training photographs where they are at hand, the settings, the bar."""

    bundle: Bundle
    dataset: Dataset | None
    config: ExportConfig
    progress: Progress


@dataclass(frozen=True, eq=False)
class Printed:
    """A file's bytes; delegated: see Artifact."""

    content: bytes
    delegated: float | None = None


# ---- the printers, one a line of the table -----------------------------------------------------------------------------------


def _pte_fp32(job: Job) -> Printed:
    return _program(build(job.bundle), job.bundle)


def _pte_int8(job: Job) -> Printed:
    from nestling.targets.executorch_graph import QdqModule

    return _program(QdqModule(_with_integers(job)).eval(), job.bundle)


def _program(module: torch.nn.Module, bundle: Bundle) -> Printed:
    printed = executorch.print_program(module, about(bundle))
    return Printed(printed.content, printed.delegated / printed.operations)


def _tflite_float(precision: tflite.Precision) -> Callable[[Job], Printed]:
    def print_float(job: Job) -> Printed:
        assert job.bundle.head is not None
        graph = with_head(float_graph(job.bundle), job.bundle.head, job.config.features)
        return Printed(tflite_bytes(graph, job.bundle, precision))

    return print_float


def _tflite_int8(job: Job) -> Printed:
    return Printed(tflite_bytes(_with_integers(job), job.bundle))


def _with_integers(job: Job) -> Graph:
    """The bundle's int8 Graph with the head that the settings ask for."""
    bundle = job.bundle
    assert bundle.graph is not None and bundle.head is not None
    if not job.config.int8_head:
        return with_head(bundle.graph, bundle.head, job.config.features)
    if bundle.yardstick is None or job.config.features:
        raise NestlingError("--int8-head needs a bundle that nestling quantised, and gives no features.")
    logits = bundle.yardstick.logits
    return with_int8_head(bundle.graph, bundle.head, Range(float(logits.min()), float(logits.max())))


def tflite_bytes(graph: Graph, bundle: Bundle, precision: tflite.Precision = "as-is") -> bytes:
    """A .tflite of a Graph that ends in logits, with what the bundle says about itself."""
    what = about(bundle)
    origin = {"seed": what.seed, "data": what.data}
    return tflite.print_graph(graph, precision, labels=what.labels, preprocess=to_plain(what.preprocess), learned_from=origin)


PRINTERS: Mapping[tuple[str, str], Callable[[Job], Printed]] = {
    ("pte", "fp32"): _pte_fp32,
    ("pte", "int8"): _pte_int8,
    ("tflite", "fp32"): _tflite_float("as-is"),
    ("tflite", "fp16"): _tflite_float("fp16"),
    ("tflite", "dynamic"): _tflite_float("dynamic"),
    ("tflite", "int8"): _tflite_int8,
}
PRECISIONS = tuple(dict.fromkeys(precision for _, precision in PRINTERS))
FORMATS = tuple(dict.fromkeys(form for form, _ in PRINTERS))
INTEGERS = "int8"  # the precision that is printed from the bundle's int8 Graph
LOADERS: Mapping[str, Callable[[bytes, str], Runner]] = {"pte": executorch.load_bytes, "tflite": tflite.load_bytes}


def quantized_first(bundle: Bundle, kept: Path, data: Path | None = None, progress: Progress = silent) -> Bundle:
    """The bundle with integers: itself where it has them, else as `quantize` makes it, kept at `kept`."""
    if bundle.graph is not None:
        return bundle
    quantized = quantize(bundle, data, progress=progress)
    save(quantized, kept)
    return quantized


# ---- the verb ----------------------------------------------------------------------------------------------------------------


def export(
    bundle: Bundle,
    out: Path,
    name: str,
    form: str,
    precision: str,
    data: Path | None = None,
    config: ExportConfig | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Print out/NAME-PRECISION.FORM and note it in out/manifest.json.

    data: the folder that the bundle learned from; None for the one that its lineage names. Where it is not there, files are judged
    on images of noise. int8 needs a quantised bundle (see quantized_first).
    Raises GateFailed where an fp32 file differs by more than 1e-3 relative in a logit (unless config.force), UnusableData where
    `data` is not what the bundle learned from, NestlingError.
    """
    config = config or ExportConfig()
    if (form, precision) not in PRINTERS:
        possible = ", ".join(f"{f} {p}" for f, p in PRINTERS)
        raise NestlingError(f"{form} {precision} is not printed; there is: {possible}.")
    if bundle.head is None:
        raise NestlingError("this bundle has no head of its own to print.", "nestling fit PHOTOS --backbone THIS.nest -o my.nest")
    if precision == INTEGERS and bundle.graph is None:
        raise NestlingError("int8 files are printed from a quantised bundle.", "nestling quantize my.nest -o my8.nest")
    dataset = _dataset(bundle, data)
    with progress(f"printing {form} {precision}", 1) as advance:
        printed = PRINTERS[form, precision](Job(bundle, dataset, config, progress))
        advance(1)
    file = f"{name}-{precision}.{form}"
    artifact = _judged(bundle, dataset, LOADERS[form](printed.content, file), Artifact(
        file, form, precision, len(printed.content), 0.0, None, 0.0, 0.0, 0, printed.delegated
    ))  # fmt: skip
    failed = precision == "fp32" and artifact.max_relative_difference > MOST_DIFFERENCE
    if failed and not config.force:
        raise GateFailed(
            f"{file} differs from the network it was printed from: the largest logit difference is "
            f"{artifact.max_relative_difference:.2e} relative, at most {MOST_DIFFERENCE:.0e} is allowed. It was not kept.",
            "keep it all the same with --force",
        )
    artifact = replace(artifact, forced=failed)
    write_atomically(out / file, printed.content)
    _note(out / "manifest.json", artifact)
    return artifact


def _judged(bundle: Bundle, dataset: Dataset | None, runner: Runner, artifact: Artifact) -> Artifact:
    """The artifact with its figures: against the stored reference where it was printed from integers, else against float."""
    yardstick = bundle.yardstick if artifact.precision == INTEGERS else None
    images = _yardstick_images(bundle, dataset) if yardstick and dataset else None
    if yardstick is not None and images is not None:
        answers = runner(images)
        reference, floats = yardstick.logits, yardstick.float_logits
        noise = rms(answers, reference) / max(rms(floats, reference), 1e-12)
    else:
        images = _gate_images(bundle, dataset)
        answers, noise = runner(images), None
        reference = float_runner(bundle)(images)
    found = compare(reference, answers)
    return replace(
        artifact,
        agreement=found.agreement,
        noise_ratio=noise,
        max_relative_difference=found.max_relative_difference,
        rms_logit_difference=found.rms_logit_difference,
        images=found.images,
    )


def _yardstick_images(bundle: Bundle, dataset: Dataset) -> Image | None:
    """The photographs whose reference logits the bundle stores, in their order; None where one is missing."""
    assert bundle.yardstick is not None
    places = {item.fingerprint: item for item in reversed(dataset.items)}
    if not all(print_ in places for print_ in bundle.yardstick.fingerprints):
        return None
    images = images_of([places[print_] for print_ in bundle.yardstick.fingerprints], bundle.preprocess)
    return np.stack(images) if len(images) == len(bundle.yardstick.fingerprints) else None


def _gate_images(bundle: Bundle, dataset: Dataset | None) -> Image:
    """Validation photographs; noise where there are none at hand."""
    found = images_of(part(dataset, bundle, "val", GATE_IMAGES), bundle.preprocess) if dataset else []
    if found:
        return np.stack(found)
    shape = (20, *bundle.preprocess.size, bundle.preprocess.channels)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _dataset(bundle: Bundle, data: Path | None) -> Dataset | None:
    try:
        return training_data(bundle, data)
    except UnusableData:
        if data is not None:
            raise
        return None


# ---- the manifest ------------------------------------------------------------------------------------------------------------


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
