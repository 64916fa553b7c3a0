"""fit: from a folder of photographs to a bundle. The backbone stays as it is; the head is learned on its embeddings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import get_args

from nestling.brief import as_table, in_short
from nestling.bundle import PARTS, Bundle, Step, Timm
from nestling.bundle import load as load_bundle
from nestling.data.arrays import Images, photographs
from nestling.data.choose import places
from nestling.data.folders import Dataset, LeftOut, Source, copies, fingerprint, scan
from nestling.data.split import split
from nestling.data.survey import Survey, reading_of, said_of_set, survey
from nestling.embedding.cache import default_cache
from nestling.errors import NestlingError, UnusableData, WrongOption
from nestling.graph.ir import Graph
from nestling.models.known import DEFAULT, created, require_made, weights_for
from nestling.models.lacking import Lacking, lacking
from nestling.preprocess.image import Size, normalised, of_photographs
from nestling.preprocess.levels import SIXTEEN_BITS
from nestling.progress import Progress, silent
from nestling.scores.evaluate import Evaluation
from nestling.training.config import require_word
from nestling.training.on_embeddings import Learned, learned
from nestling.words import Views


@dataclass(frozen=True)
class FitConfig:
    """backbone: a timm name, or a bundle (NAME.nest), whose float network is taken with its weights and size.

    weights: package, hub, none or a file; None for package where there is one, else hub. size: of the input in pixels, a side or
    (height, width), None for the backbone's own. views: key of VIEW_SETS, the training photographs are also learned from so
    mirrored. balanced: each class weighs the same. classes: only these. parts: whether folders that are called like parts are
    parts; None: found out (see data.layout). strict: a file that cannot be used is an error. levels: of photographs of 16 bits the
    value that is white, None for that of the bits (8, 10, 12, 14 or 16) that the largest value of all needs. mean, std: what the
    weights were trained with where that is not the backbone's own, one number or one a channel, for values in 0..1:
    input = (v / 255 - mean) / std.
    """

    backbone: str = DEFAULT
    weights: str | None = None
    size: Size | None = None
    seed: int = 0
    views: Views = "none"
    balanced: bool = False
    classes: tuple[str, ...] | None = None
    parts: bool | None = None
    strict: bool = False
    levels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        require_word("--views", self.views, get_args(Views))
        if (self.mean is None) != (self.std is None):
            raise WrongOption("--mean and --std belong together; only one of them was given.")


@dataclass(frozen=True, eq=False)
class Fitted:
    """bundle; test: its answers on the test part; images: how many are in each part; seconds: of each phase.

    copies: photographs that lie in their class more than once. one_answer: the class that all of val gets, None where it gets
    several. doubts: what the figures leave open, in words. lacking: why the backbone cannot be quantised, None where it can. said:
    lines on how the photographs were read.
    """

    __repr__, _repr_html_ = in_short, as_table

    bundle: Bundle
    test: Evaluation
    images: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    computed: int
    seconds: Mapping[str, float]
    copies: tuple[tuple[Path, ...], ...] = ()
    one_answer: str | None = None
    doubts: tuple[str, ...] = ()
    lacking: Lacking | None = None
    said: tuple[str, ...] = ()


def fit(
    data: Source | Images, labels: Sequence[str] | None = None, config: FitConfig | None = None, progress: Progress = silent
) -> Fitted:
    """Learn the classes of a folder of photographs (see data.folders.scan for what else it may be, and how it may be laid out).

    labels: where data are images in memory (see data.arrays), the class of each; None for a folder, whose folders say it.
    Raises UnusableData for what can't be learned from, NestlingError for a backbone or weights that can't be had.
    """
    config = config or FitConfig()
    if not config.backbone.endswith(".nest"):
        require_made(config.backbone, config.weights or weights_for(config.backbone))
    start = perf_counter()
    dataset = scan(_photographs(data, labels), config.classes, config.parts)
    parts = split(dataset, config.seed)
    found = survey(dataset.items, progress, default_cache())
    scanned = perf_counter()

    backbone, weights = _backbone(config)
    lost = lacking(backbone)
    if lost is not None:
        warnings.warn(str(lost), stacklevel=2)
    backbone = _normalised(_reading_as(backbone, found, config), config)
    made = learned(backbone, dataset, parts, config.views, config.balanced, config.strict, progress)
    levels = backbone.preprocess.reading.levels
    settings = {name: value for name, value in asdict(config).items() if name != "strict"}  # it changes nothing in the bundle
    step = step_of("fit", settings | {"weights": weights, "levels": levels}, dataset, made)
    return fitted(
        replace(backbone, lineage=(*backbone.lineage, step)),
        made,
        scanned - start,
        lost,
        said_of_set(found, backbone.preprocess.reading, chosen=config.levels is not None),
    )


def step_of(name: str, settings: Mapping[str, object], dataset: Dataset, made: Learned) -> Step:
    """The line of a head's learning in the lineage."""
    own = dict(settings) | places(dataset) | {"weight_decay": made.weight_decay}
    metrics = {"val_top1": round(made.val_top1, 6), "test_top1": round(made.test.top1, 6)}
    return Step(name, own, fingerprint(dataset), metrics)


def fitted(backbone: Bundle, made: Learned, scanned: float, lost: Lacking | None, said: tuple[str, ...]) -> Fitted:
    """backbone: with its lineage; the rest of its bundle is what was learned. scanned: seconds. lost: Fitted's lacking."""
    used = made.used
    here = {item.fingerprint for item in used.items}
    return Fitted(
        replace(backbone, head=made.head, labels=used.labels, split=made.split),
        made.test,
        {part: len(here.intersection(getattr(made.split, part))) for part in PARTS} | {"left_out": len(used.left_out)},
        used.left_out,
        made.computed,
        {"scan": scanned} | dict(made.seconds),
        copies(used),
        made.one_answer,
        made.doubts,
        lost,
        said,
    )


def _photographs(data: Source | Images, labels: Sequence[str] | None) -> Source:
    if isinstance(data, Path | Dataset):
        if labels is not None:
            raise UnusableData("labels belong to images in memory; a folder says its classes itself.", "fit(folder)")
        return data
    if isinstance(data, str):
        return Path(data)
    if labels is None:
        raise UnusableData("images in memory need a label each.", "fit(images, labels)")
    return photographs(data, labels)


def _normalised(backbone: Bundle, config: FitConfig) -> Bundle:
    """The backbone with the mean and std that were asked for."""
    if config.mean is None or config.std is None:
        return backbone
    graph = backbone.architecture
    if isinstance(graph, Graph) and graph.tensors[graph.inputs[0]].dtype == "uint8":
        raise NestlingError(f"{config.backbone} normalises its image itself.", "leave out --mean and --std")
    return replace(backbone, preprocess=normalised(backbone.preprocess, config.mean, config.std))


def _backbone(config: FitConfig) -> tuple[Bundle, str]:
    """(a bundle without head and labels: the backbone and how it got here; where its weights are from)."""
    if not config.backbone.endswith(".nest"):
        made = created(config.backbone, config.weights or weights_for(config.backbone), config.size, config.seed)
        assert isinstance(made.architecture, Timm)
        return made, made.architecture.weights
    if config.weights is not None or config.size is not None:
        raise NestlingError(f"{config.backbone} brings its own weights and its own size.", "leave out --weights and --size")
    path = Path(config.backbone)
    found = load_bundle(path)
    if found.architecture is None:
        raise NestlingError(
            f"{path} holds an integer network: there are no float weights to learn on.", "import the float .tflite instead"
        )
    lineage = tuple(step for step in found.lineage if step.name not in ("fit", "quantize"))  # those were of its old classes
    weights = found.architecture.weights if isinstance(found.architecture, Timm) else f"bundle:{path.name}"
    return Bundle(found.architecture, found.arrays, None, (), found.preprocess, lineage=lineage), weights


def _reading_as(backbone: Bundle, found: Survey, config: FitConfig) -> Bundle:
    """The backbone for this set; a bundle keeps its own levels where the set has no photographs of 16 bits to tell others."""
    own = backbone.preprocess.reading.levels
    levels = config.levels if config.levels is not None or found.deep or own == SIXTEEN_BITS else own
    return replace(backbone, preprocess=replace(of_photographs(backbone.preprocess), reading=reading_of(found, levels)))
