"""A teacher: a network that knows the classes already. It answers each variation of each training photograph once.

The answers are kept in the user's cache folder, one file a variation, named by all that it depends on (teacher, photographs, how
they are varied): a second run begins at once, an interrupted one keeps what was done, a damaged file is one that is not there.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as to_safetensors

from nestling import outside
from nestling.bundle import Bundle
from nestling.bundle import load as load_bundle
from nestling.data.choose import part
from nestling.data.folders import Dataset, labels_of
from nestling.embedding.cache import Embedder, default_cache, embed
from nestling.embedding.engine import graph_engine
from nestling.embedding.of_bundle import bundle_engine, engine_for
from nestling.embedding.refit import refitted, training_views
from nestling.errors import NestlingError, UnusableData, UnusableFile
from nestling.files import write_atomically
from nestling.formats.nest.integers import integer_runner
from nestling.graph.ends import ending, ending_in
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.models.known import created, weights_for
from nestling.preprocess.image import Preprocess, Size, of_photographs
from nestling.progress import Progress, silent
from nestling.temporary import sweep
from nestling.training.samples import Samples, batches, in_order, read_samples
from nestling.training.team import Team

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]
TOGETHER = 32  # images that a worker prepares before it hands them on


@dataclass(frozen=True, eq=False)
class Teacher:
    """What answers. preprocess: what it sees. engine: an image -> its embedding; head: embedding -> logits, None where the engine
    gives logits. order: int64 [classes], where in them each label of the student stands.
    """

    preprocess: Preprocess
    engine: Embedder
    head: Head | None
    order: NDArray[np.int64]

    @property
    def name(self) -> str:
        """16 hex digits of everything but the image that its answers depend on."""
        head = (self.head.weight.tobytes(), self.head.bias.tobytes()) if self.head else ()
        parts = (self.engine.name.encode(), *head, self.order.tobytes(), repr(self.preprocess).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def logits(self, embeddings: Floats) -> Floats:
        """Of embeddings float32 [N, D]: float32 [N, classes], in the student's order."""
        scores = self.head.logits(embeddings) if self.head else embeddings
        return np.ascontiguousarray(scores[:, self.order], np.float32)


@dataclass(frozen=True, eq=False)
class Answers:
    """Of K variations of N training images. logits: float32 [K, N, classes]. embeddings: float32 [K, N, D], None if not kept."""

    logits: Floats
    embeddings: Floats | None


# ---- who teaches -----------------------------------------------------------------------------------------------------------------


def teacher_bundle(wanted: str, student: Bundle, dataset: Dataset, size: Size | None = None, progress: Progress = silent) -> Bundle:
    """wanted: a bundle (NAME.nest), or a timm name: then ImageNet's weights (from a package, else timm's hub), with a head that is
    learned on the student's own training photographs. size: of its input in pixels, None for the backbone's own.

    Raises NestlingError for an unknown name, weights that cannot be had, a size for a bundle; UnusableFile for a damaged bundle.
    """
    if wanted.endswith(".nest"):
        if size is not None:
            raise NestlingError(f"{wanted} brings its own size.", "leave out --teacher-size")
        return load_bundle(Path(wanted))
    try:
        made = created(wanted, weights_for(wanted), size)
    except NestlingError as error:
        if "weights" not in error.message:
            raise
        hint = f"a bundle can teach, too:  nestling fit PHOTOS --backbone {wanted} --weights FILE -o teacher.nest"
        raise NestlingError(error.message, hint) from error
    preprocess = replace(of_photographs(made.preprocess), reading=student.preprocess.reading)
    bare = replace(
        student, architecture=made.architecture, arrays=made.arrays, preprocess=preprocess, head=None, graph=None, yardstick=None
    )
    views, engine = training_views(student), engine_for(bare, dataset)
    train = embed(part(dataset, student, "train"), preprocess, engine, views, progress)
    return refitted(bare, (train, embed(part(dataset, student, "val"), preprocess, engine, progress=progress)))


def teacher_of(bundle: Bundle, labels: tuple[str, ...], count: int) -> Teacher:
    """The bundle as a teacher of these labels, ready for `count` images. Its float network, where it has one, else its int8 one.

    Raises NestlingError where it does not know the same classes.
    """
    if sorted(bundle.labels) != sorted(labels):
        raise NestlingError(
            f"the teacher knows the classes {_listed(bundle.labels)}; the student {_listed(labels)}.",
            "teacher and student learn from the same folders:  nestling fit PHOTOS -o teacher.nest",
        )
    order = np.array([bundle.labels.index(label) for label in labels], np.int64)
    return Teacher(bundle.preprocess, _engine(bundle, count), bundle.head, order)


def _engine(bundle: Bundle, count: int) -> Embedder:
    if bundle.architecture is not None and bundle.head is not None:
        return bundle_engine(bundle, count)
    if isinstance(bundle.architecture, Graph):  # one that keeps its own end: up to the softmax
        return bundle_engine(
            replace(bundle, architecture=ending_in(bundle.architecture, ending(bundle.architecture).logits)), count
        )
    if bundle.graph is not None and bundle.head is not None:
        return graph_engine(bundle.graph)
    return _Whole(bundle)


class _Whole:
    """The engine of an int8 network that keeps its own end: its scores."""

    def __init__(self, bundle: Bundle) -> None:
        self.runner = integer_runner(bundle, quick=True)
        digest = hashlib.sha256(repr([node.attrs for node in self.runner.graph.nodes]).encode())
        for tensor in self.runner.graph.tensors.values():
            digest.update(repr((tensor.shape, tensor.dtype, tensor.quant)).encode())
            digest.update(tensor.data.tobytes() if tensor.data is not None else b"")
        self.name = f"integer {digest.hexdigest()[:16]}"
        self.width = math.prod(self.runner.graph.tensors[self.runner.end.logits].shape)

    def embed(self, images: Iterator[Image]) -> Iterator[Floats]:
        """uint8 [H, W, C] each -> scores float32 [classes] each."""
        return (self.runner(image[None])[0] for image in images)


def _listed(labels: tuple[str, ...]) -> str:
    return (", ".join(labels[:8]) + (", ..." if len(labels) > 8 else "")) or "of no photographs yet"


def warn_of_seen(teacher: Bundle, student: Bundle) -> None:
    """A warning where the teacher learned from photographs that the student is judged on."""
    if teacher.split is None or student.split is None:
        return
    learned = set(teacher.split.train)
    seen = {name: len(learned.intersection(getattr(student.split, name))) for name in ("val", "test")}
    if any(seen.values()):
        warnings.warn(
            f"the teacher learned from {seen['val']} of the photographs that this bundle is validated on, and from {seen['test']} "
            "that it is tested on: it may look better than it is",
            stacklevel=3,
        )


def top1(teacher: Teacher, student: Bundle, dataset: Dataset, progress: Progress = silent) -> float:
    """The teacher's share of right answers on the student's validation part."""
    features = embed(part(dataset, student, "val"), teacher.preprocess, teacher.engine, progress=progress)
    right = teacher.logits(features.x[0]).argmax(1) == labels_of(features.items)
    return float(right.mean())


# ---- what it answers -------------------------------------------------------------------------------------------------------------


def asked(
    teacher: Teacher,
    samples: Samples,
    seed: int,
    variations: int,
    embeddings: bool = False,
    workers: int = 0,
    team: Team | None = None,
    progress: Progress = silent,
    cache: Path | None = None,
) -> Answers:
    """The teacher's answers to variations 0..K-1 of the student's samples (Samples.image with this seed).

    embeddings: keep them, too. What the cache has is read; a team divides the rest. cache: a folder; None for the user's.
    Raises NestlingError for a teacher whose images have another shape.
    """
    team = team or Team()
    seen = _as_seen(teacher.preprocess, samples)
    place = cache or default_cache() / "teachers"
    sweep(place)  # also where nothing is missing
    paths = [_path(place, teacher, seen, samples, seed, k) for k in range(variations)]
    names = ("logits", "embeddings") if embeddings else ("logits",)
    widths = (len(teacher.order), teacher.engine.width)[: len(names)]
    known = [_read(path, names, len(samples.items), widths) for path in paths]
    here = torch.tensor([float(found is not None) for found in known])
    missing = [k for k, processes in enumerate(team.sums(here).tolist()) if processes < team.size]
    if missing:
        theirs = _samples(seen, samples, progress)
        with progress("asking the teacher", len(missing) * len(samples.items)) as advance:
            for k in missing:
                vectors = torch.from_numpy(_embedded(teacher, theirs, seed, k, workers, team))
                whole = team.sums(vectors).numpy()  # zeros but in one process each: nothing is rounded
                known[k] = {"logits": teacher.logits(whole)} | ({"embeddings": whole} if embeddings else {})
                write_atomically(paths[k], to_safetensors(known[k] or {}))
                advance(len(samples.items))
    logits, *more = (np.stack([found[name] for found in known if found is not None]) for name in names)
    return Answers(logits, more[0] if more else None)


def _as_seen(preprocess: Preprocess, samples: Samples) -> Preprocess:
    """How photographs are decoded for a teacher: at its size, the part of them that the student's samples show.

    Where size and channels are the student's, it sees the student's very images, whatever filter made them small.
    """
    (height, width), (theirs, across) = samples.preprocess.size, preprocess.size
    if height * across != width * theirs:
        raise NestlingError(
            f"the teacher takes images of {theirs}x{across} pixels, the student of {height}x{width}: they have other shapes.",
            "take a teacher whose images are as wide for their height",
        )
    if (preprocess.size, preprocess.channels) == (samples.preprocess.size, samples.preprocess.channels):
        return samples.preprocess
    return replace(of_photographs(preprocess), crop=samples.preprocess.crop)


def _samples(seen: Preprocess, samples: Samples, progress: Progress) -> Samples:
    """The student's samples as the teacher sees them."""
    if seen == samples.preprocess:
        return samples
    theirs, bad = read_samples(samples.items, seen, samples.augmentation, progress)
    if bad:
        raise UnusableData(f"{bad[0].path} can no longer be read: {bad[0].reason}.")
    return replace(theirs, drawn_on=samples.decoding.size)


def _embedded(teacher: Teacher, samples: Samples, seed: int, variation: int, workers: int, team: Team) -> Floats:
    """float32 [N, D]: of this process's share of the images, zeros elsewhere."""
    count = len(samples.items)
    order = in_order(count, TOGETHER)[team.rank :: team.size]
    ours = [index for some in order for index in some]
    images = (image.numpy() for some, _ in batches(samples, order, seed, variation, workers) for image in some)
    first, *rest = teacher.engine.embed(images) if ours else (np.zeros(1, np.float32),)
    vectors = np.zeros((count, len(first)), np.float32)
    vectors[ours] = [first, *rest][: len(ours)]
    return vectors


# ---- on disk ---------------------------------------------------------------------------------------------------------------------


def _path(folder: Path, teacher: Teacher, seen: Preprocess, samples: Samples, seed: int, variation: int) -> Path:
    versions = tuple(f"{package} {version(package)}" for package in ("pillow", "timm"))  # they vary the images
    drawn = (samples.preprocess.size, samples.decoding, samples.augmentation)
    digest = hashlib.sha256(repr((teacher.name, seen, drawn, seed, variation, versions)).encode())
    digest.update("".join(item.fingerprint for item in samples.items).encode())  # in order: a variation depends on the place
    return folder / f"{digest.hexdigest()[:32]}.safetensors"


def _read(path: Path, names: tuple[str, ...], count: int, widths: tuple[int, ...]) -> dict[str, Floats] | None:
    """The arrays, float32 [count, width] each, or None where there is no such file, one without them, or a damaged one."""
    try:
        found = outside.arrays(outside.content(path), str(path))
        outside.require_sound(found, str(path))
    except UnusableFile:
        return None
    shapes = {name: (count, width) for name, width in zip(names, widths, strict=True)}
    fitting = all(name in found and found[name].shape == shapes[name] and found[name].dtype == np.float32 for name in names)
    return {name: found[name] for name in names} if fitting else None
