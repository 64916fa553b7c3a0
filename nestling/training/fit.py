"""fit: from a folder of photographs to a bundle. The backbone stays as it is; the head is learned on its embeddings."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import PARTS, Bundle, Split, Step, Timm
from nestling.bundle import load as load_bundle
from nestling.data.folders import LeftOut, copies, fingerprint, require_enough, scan, without
from nestling.data.split import split
from nestling.data.survey import Survey, reading_of, said_of_set, survey
from nestling.embedding.cache import default_cache, embed
from nestling.embedding.head import Embeddings, fit_head
from nestling.embedding.of_bundle import bundle_engine
from nestling.embedding.refit import VIEW_SETS, embeddings_of
from nestling.errors import NestlingError, UnusableData
from nestling.graph.head import Head
from nestling.models.known import DEFAULT, created, require_made, weights_for
from nestling.models.lacking import Lacking, lacking
from nestling.preprocess.levels import SIXTEEN_BITS
from nestling.progress import Progress, silent
from nestling.scores import doubts
from nestling.scores.evaluate import Evaluation, judge


@dataclass(frozen=True)
class FitConfig:
    """backbone: a timm name, or a bundle (NAME.nest), whose float network is taken with its weights and size.

    weights: package, hub, none or a file; None for package where there is one, else hub. size: side of the input in pixels, None
    for the backbone's own. views: key of VIEW_SETS, the training photographs are also learned from so mirrored. balanced: each
    class weighs the same. classes: only these. parts: whether folders that are called like parts are parts; None: found out (see
    data.layout). strict: a file that cannot be used is an error. levels: of photographs of 16 bits the value that is white, None
    for that of the bits (8, 10, 12, 14 or 16) that the largest value of all needs.
    """

    backbone: str = DEFAULT
    weights: str | None = None
    size: int | None = None
    seed: int = 0
    views: str = "none"
    balanced: bool = False
    classes: tuple[str, ...] | None = None
    parts: bool | None = None
    strict: bool = False
    levels: int | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """bundle; test: its answers on the test part; images: how many are in each part; seconds: of each phase.

    copies: photographs that lie in their class more than once. one_answer: the class that all of val gets, None where it gets
    several. doubts: what the figures leave open, in words. lacking: why the backbone cannot be quantised, None where it can. said:
    lines on how the photographs were read.
    """

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


def fit(data: Path, config: FitConfig | None = None, progress: Progress = silent) -> Fitted:
    """Learn the classes of a folder of photographs (see data.folders.scan for how it may be laid out).

    Raises UnusableData for a folder that can't be learned from, NestlingError for a backbone or weights that can't be had.
    """
    config = config or FitConfig()
    if config.views not in VIEW_SETS:
        raise NestlingError(f"--views is one of {', '.join(VIEW_SETS)}; found {config.views!r}.")
    if not config.backbone.endswith(".nest"):
        require_made(config.backbone, config.weights or weights_for(config.backbone))
    start = perf_counter()
    dataset = scan(data, config.classes, config.parts)
    parts = split(dataset, config.seed)
    found = survey(dataset.items, progress, default_cache())
    scanned = perf_counter()

    backbone, weights = _backbone(config)
    lost = lacking(backbone)
    if lost is not None:
        warnings.warn(str(lost), stacklevel=2)
    backbone = _reading_as(backbone, found, config)
    preprocess = backbone.preprocess
    views = VIEW_SETS[config.views]
    engine = bundle_engine(backbone, count=len(dataset.items) * len(views))
    side = parts.part_of()
    first = {item.fingerprint: item for item in reversed(dataset.items)}
    learned = [item for item in first.values() if side[item.fingerprint] == "train"]
    judged = [item for item in first.values() if side[item.fingerprint] != "train"]
    features = (embed(learned, preprocess, engine, views, progress), embed(judged, preprocess, engine, progress=progress))
    embedded = perf_counter()

    left_out = tuple(entry for some in features for entry in some.left_out)
    used = without(dataset, left_out)
    require_enough(used)
    if config.strict and used.left_out:
        raise UnusableData(
            f"{len(used.left_out)} files in {data} cannot be used:\n" + "\n".join(f"  {e.path}: {e.reason}" for e in used.left_out),
            "mend or remove them, or leave out --strict",
        )
    sources = {"train": features[0], "val": features[1], "test": features[1]}
    train, val, test = (embeddings_of(sources[part], side, part) for part in PARTS)
    with progress("fitting the head", 1) as advance:
        fitted = fit_head(train, val, len(dataset.labels), config.balanced)
        advance(1)
    paths = [item.path for item in features[1].items if side[item.fingerprint] == "test"]
    evaluation = judge(_logits(fitted.head, test), test.y, paths, dataset.labels)
    alone = doubts.one_answer(_logits(fitted.head, val), dataset.labels)
    done = perf_counter()

    kept = {item.fingerprint for item in used.items}
    whole = Split(parts.seed, *(tuple(print_ for print_ in getattr(parts, part) if print_ in kept) for part in PARTS))
    settings = {name: value for name, value in asdict(config).items() if name != "strict"} | {"levels": preprocess.reading.levels}
    step = Step(
        "fit",
        settings | {"folder": str(data.resolve()), "weights": weights, "weight_decay": fitted.weight_decay},
        fingerprint(dataset),
        {"val_top1": round(fitted.val_top1, 6), "test_top1": round(evaluation.top1, 6)},
    )
    return Fitted(
        replace(backbone, head=fitted.head, labels=dataset.labels, split=whole, lineage=(*backbone.lineage, step)),
        evaluation,
        {part: len(getattr(whole, part)) for part in PARTS} | {"left_out": len(used.left_out)},
        used.left_out,
        sum(some.computed for some in features),
        {"scan": scanned - start, "embeddings": embedded - scanned, "head": done - embedded},
        copies(used),
        alone,
        _doubts(evaluation, alone, Counter(dataset.labels[item.label] for item in features[0].items), config.balanced),
        lost,
        said_of_set(found, preprocess.reading, chosen=config.levels is not None),
    )


def _doubts(test: Evaluation, alone: str | None, train: Mapping[str, int], balanced: bool) -> tuple[str, ...]:
    answers = doubts.of_answers(test)
    if alone is not None:
        advice = "add photographs, or take another --backbone or --size" + ("" if balanced else ", or --balanced")
        answers = (f"{doubts.of_one_answer(alone, 'the validation part')}; {advice}",)
    return (*answers, *doubts.of_classes(test, train, balanced))


def _logits(head: Head, part: Embeddings) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = head.logits(part.x)
    return logits


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
    return replace(backbone, preprocess=replace(backbone.preprocess, reading=reading_of(found, levels)))
