"""finetune: the backbone learns, too. From a fitted bundle to a bundle of the same architecture with other numbers.

finetune, distill and the pruning of single weights are lessons that teach() gives: they differ in the loss, and in what happens
after each step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any

import torch
from torch import nn

from nestling.brief import as_table, in_short
from nestling.bundle import PARTS, Bundle, Step, Timm
from nestling.data.choose import part, places, training_data
from nestling.data.folders import Dataset, LeftOut, Source, fingerprint
from nestling.embedding.cache import embed
from nestling.embedding.of_bundle import engine_for
from nestling.embedding.refit import judged_by, refitted, training_views
from nestling.errors import NestlingError, UnusableData, WrongOption
from nestling.models.backbones import build, preprocess_of
from nestling.models.graph_module import GraphModule
from nestling.preprocess.image import Size, as_option, of_photographs, sides_of
from nestling.progress import Progress
from nestling.scores.evaluate import Evaluation
from nestling.training.augment import AUGMENTATIONS, Augmentation, Mixing
from nestling.training.blocks import learning, quickest, with_weights
from nestling.training.config import TrainingConfig, require_trainable
from nestling.training.frozen import Stage, without_front
from nestling.training.loop import (
    Changing,
    LoopConfig,
    Loss,
    Task,
    Trained,
    classification,
    judged,
    train,
)
from nestling.training.loop_state import Epoch, curves_of
from nestling.training.samples import Samples, read_samples
from nestling.training.session import Session
from nestling.training.team import Team
from nestling.training.zeros import keeping

VARIATIONS = 8  # of each photograph, where only the last blocks learn: the frozen part sees each once
AVERAGE = 0.998  # decay of the weights' moving average: it reaches back some hundred steps


LossOf = Callable[[Bundle, Samples, Team, Progress], Loss]


def by_labels(bundle: Bundle, samples: Samples, team: Team, progress: Progress) -> Loss:
    """The loss of a lesson without a teacher."""
    return classification


@dataclass(frozen=True, eq=False)
class Lesson:
    """What makes one training different from another.

    name, settings: of its step in the lineage. loss_of: (the bundle at its size, training samples, team, progress) -> the loss; a
    teacher answers the samples here. run: what else a checkpoint belongs to, as plain values.
    changing: what changes weights after each step of the optimiser; the zeros of a sparse bundle are kept besides. settled: the
    first epoch, from 1, that may be kept as the best: before it the network is not yet what was asked for.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss_of: LossOf = by_labels
    run: Mapping[str, Any] = field(default_factory=dict)
    changing: Changing | None = None
    settled: int = 1


@dataclass(frozen=True, eq=False)
class Taught:
    """bundle; test: its answers on the test part; images: how many are in each part; val_top1_before: of what it began with.

    resumed: epochs that came from a checkpoint. seconds: of each phase.
    """

    __repr__, _repr_html_ = in_short, as_table

    bundle: Bundle
    test: Evaluation
    images: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    val_top1_before: float
    history: tuple[Epoch, ...]
    best: Epoch
    resumed: int
    seconds: Mapping[str, float]


def finetune(
    bundle: Bundle, data: Source | None = None, config: TrainingConfig | None = None, session: Session | None = None
) -> Taught:
    """Train the bundle's float network on, by the labels alone. See teach() for what comes in and out."""
    return teach(bundle, data, config or TrainingConfig(), Lesson("finetune"), session)


def teach(
    bundle: Bundle,
    data: Source | None,
    config: TrainingConfig,
    lesson: Lesson,
    session: Session | None = None,
) -> Taught:
    """Train the bundle's float network on, beginning with its frozen head (learned anew where `size` changes or there is none).

    data: the folder that the bundle learned from, None for the one that its lineage names; its split stays, so that test stays
    unseen.
    The result has the same kind of architecture, new numbers and head, and neither int8 graph nor yardstick: quantise it again.
    The weights are those of the epoch with the best validation.
    Raises NestlingError for a bundle without float network or split and for settings that it can't have, UnusableData for a folder
    that it did not learn from.
    """
    session = session or Session()
    team, progress = session.team, session.progress
    require_trainable(bundle)
    if config.epochs < 1:
        raise WrongOption(f"--epochs is 1 or more; found {config.epochs}.")
    config = _with_variations(config)
    started = perf_counter()
    dataset = training_data(bundle, data)
    parts = {name: part(dataset, bundle, name) for name in PARTS}
    sized = _sized(bundle, config.size)
    if sized is not bundle or bundle.head is None:
        sized = _refitted(sized, dataset, progress)
    samples, bad = read_samples(parts["train"], sized.preprocess, augmentation(bundle, config), progress)
    val, bad_val = read_samples(parts["val"], sized.preprocess, progress=progress)
    if not samples.items or not val.items:
        raise UnusableData(f"{dataset.root} holds no photographs to learn from, or none to choose by.")
    read = perf_counter()

    network = learning(build(sized), config.blocks)
    stage, loop = Stage(network, samples, val), loop_config(config)
    if config.blocks is not None and config.variations and not loop.mixing and lesson.changing is None:
        variations = min(config.variations, config.epochs)
        stage = without_front(stage, sized, variations, config.seed, config.workers, team, progress)
    loop = replace(loop, micro=_micro(stage, config, len(bundle.labels), team, progress))
    if stage.front and isinstance(network.get_submodule("backbone"), GraphModule):
        loop = replace(loop, freeze_norm=True)  # as train_mode has it for one that learns in part: its back does not know
    frozen, _ = judged(stage.network, stage.val, loop, team)
    run = {"network": digest_of(network), "data": fingerprint(dataset), "augment": config.augment, "size": sized.preprocess.size}
    task = Task(
        stage.samples,
        stage.val,
        len(bundle.labels),
        lesson.loss_of(sized, samples, team, progress),
        {"backbone.": config.backbone_rate},
        keeping(bundle, lesson.changing),
        lesson.settled,
        run | {"blocks": config.blocks, "front": stage.front} | dict(lesson.run),
    )
    trained = train(stage.network, task, loop, session)
    done = perf_counter()

    network.load_state_dict(network.state_dict() | dict(trained.weights))
    made = with_weights(sized, network)
    evaluation, bad_test = _tested(made, dataset, progress)
    step = _step(lesson, config, sized, dataset, trained, frozen, evaluation)
    left_out = (*dataset.left_out, *bad, *bad_val, *bad_test)
    counts = {"train": len(samples.items), "val": len(val.items), "test": evaluation.images, "left_out": len(left_out)}
    return Taught(
        replace(made, lineage=(*made.lineage, step)),
        evaluation,
        counts,
        left_out,
        frozen,
        trained.history,
        trained.best,
        trained.resumed,
        {"images": read - started, "training": done - read, "test": perf_counter() - done},
    )


def _micro(stage: Stage, config: TrainingConfig, classes: int, team: Team, progress: Progress) -> int | None:
    """Photographs at a time: as told; where norms are frozen, so that it changes nothing, as many as are quickest here."""
    if config.micro is not None or not config.freeze_norm:
        return config.micro
    image = torch.from_numpy(stage.samples.image(0, config.seed, 0))
    return team.leaders(quickest(stage.network, image, classes, config.batch // team.size, team, progress))


def _step(
    lesson: Lesson, config: TrainingConfig, sized: Bundle, dataset: Dataset, trained: Trained, before: float, test: Evaluation
) -> Step:
    """Its line in the lineage."""
    settings = asdict(config) | dict(lesson.settings) | {"size": list(sized.preprocess.size)} | places(dataset)
    del settings["workers"]  # they change nothing
    metrics = {
        "val_top1_before": round(before, 6),
        "val_top1": round(trained.best.val_top1, 6),
        "test_top1": round(test.top1, 6),
        "best_epoch": trained.best.number,
    }
    return Step(lesson.name, settings, fingerprint(dataset), metrics, curves_of(trained.history))


# ---- before and after ------------------------------------------------------------------------------------------------------------


def _with_variations(config: TrainingConfig) -> TrainingConfig:
    """Where only the last blocks learn, a photograph comes in the same few variations again: in one, where nothing varies it."""
    if config.blocks is None or Mixing(config.mixup, config.cutmix):
        return config
    return replace(config, variations=1 if config.augment == "none" else config.variations or VARIATIONS)


def _sized(bundle: Bundle, size: Size | None) -> Bundle:
    if size is None or bundle.preprocess.size == sides_of(size):
        return bundle
    if not isinstance(bundle.architecture, Timm):
        height, width = bundle.preprocess.size
        raise NestlingError(
            f"this network is a graph for {height}x{width} pixels; found --size {as_option(size)}.", "leave out --size"
        )
    sized = replace(of_photographs(bundle.preprocess), size=preprocess_of(bundle.architecture.name, size).size)
    return replace(bundle, preprocess=sized)


def _refitted(bundle: Bundle, dataset: Dataset, progress: Progress) -> Bundle:
    """The bundle with its head learned on the frozen backbone's embeddings, as fit does."""
    views = training_views(bundle)
    engine = engine_for(bundle, dataset)
    train_features = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, views, progress)
    return refitted(bundle, (train_features, embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)))


def _tested(bundle: Bundle, dataset: Dataset, progress: Progress) -> tuple[Evaluation, tuple[LeftOut, ...]]:
    features = embed(part(dataset, bundle, "test"), bundle.preprocess, engine_for(bundle, dataset), progress=progress)
    return judged_by(bundle, features), features.left_out


def augmentation(bundle: Bundle, config: TrainingConfig) -> Augmentation:
    """What has no up and no down (fit --views flips) is turned over, too."""
    chosen = AUGMENTATIONS[config.augment]
    return replace(chosen, upturn=chosen.mirror) if "up-down" in training_views(bundle) else chosen


def loop_config(config: TrainingConfig) -> LoopConfig:
    """What of the settings is the loop's."""
    return LoopConfig(
        epochs=config.epochs,
        batch=config.batch,
        micro=config.micro,
        optimiser="sgd" if config.optimiser == "sgd" else "adamw",
        rate=config.rate,
        weight_decay=config.weight_decay,
        warmup=min(1.0, config.epochs / 10),
        smoothing=config.smoothing,
        mixing=Mixing(config.mixup, config.cutmix),
        average=AVERAGE if config.ema else None,
        patience=config.patience,
        freeze_norm=config.freeze_norm,
        variations=config.variations,
        seed=config.seed,
        workers=config.workers,
    )


def digest_of(network: nn.Module) -> str:
    """16 hex digits of SHA-256 of the network's numbers."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
