"""teach: the whole network learns. From a fitted bundle to a bundle of the same architecture with other numbers.

finetune, distill and the pruning of single weights are lessons: they differ in the loss, and in what happens after each step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from timm.models import group_parameters
from torch import nn

from nestling.bundle import PARTS, Bundle, Head, Part, Step, Timm
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, LeftOut, fingerprint
from nestling.errors import NestlingError, UnusableData
from nestling.models.backbones import Network, build, preprocess_of, to_arrays
from nestling.models.graph_module import GraphModule, to_graph
from nestling.progress import Progress, silent
from nestling.report.evaluate import Evaluation, judge
from nestling.training.augment import AUGMENTATIONS, Augmentation, Mixing
from nestling.training.engine import engine_of
from nestling.training.features import embed
from nestling.training.fit import refitted, training_views
from nestling.training.loop import (
    AfterStep,
    Checkpoint,
    LoopConfig,
    Loss,
    autocast,
    channels_last,
    classification,
    judged,
    train,
    train_mode,
)
from nestling.training.loop import Batch as LoopBatch
from nestling.training.loop_state import Epoch, curves_of
from nestling.training.samples import Samples, read_samples
from nestling.training.team import Team

AVERAGE = 0.998  # decay of the weights' moving average: it reaches back some hundred steps
MICRO = (64, 32, 16, 8)  # images at a time that are tried
TRIED = 2  # times each


@dataclass(frozen=True)
class TrainingConfig:
    """rate: of the head; backbone_rate: share of it that the backbone learns with. blocks: only the last so many (of an imported or
    pruned network: layers with weights) and the head learn; None for all. freeze_norm: BatchNorm keeps its statistics.
    size: side of the input in pixels, None for the bundle's. batch: images a step; micro: of these, how many go through at a time,
    None for the quickest with frozen norms, else all of a process's. augment: key of AUGMENTATIONS.
    mixup, cutmix: alphas, 0 for none. variations: None to vary a photograph anew in each epoch; a number to go through so many
    variations of it again and again, so that what is computed of them can be kept. ema: keep the weights' moving average.
    workers: processes that prepare images.
    """

    epochs: int = 10
    rate: float = 2e-3
    backbone_rate: float = 0.5
    weight_decay: float = 0.05
    blocks: int | None = None
    freeze_norm: bool = False
    size: int | None = None
    batch: int = 32
    micro: int | None = None
    augment: str = "light"
    variations: int | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    ema: bool = False
    patience: int | None = None
    optimiser: str = "adamw"
    seed: int = 0
    workers: int = 0


LossOf = Callable[[Bundle, Samples, Team, Progress], Loss]


def by_labels(bundle: Bundle, samples: Samples, team: Team, progress: Progress) -> Loss:
    """The loss of a lesson without a teacher."""
    return classification


@dataclass(frozen=True, eq=False)
class Lesson:
    """What makes one training different from another.

    name, settings: of its step in the lineage. loss_of: (the bundle at its size, training samples, team, progress) -> the loss; a
    teacher answers the samples here. run: what else a checkpoint belongs to, as plain values.
    after_step: changes the network's weights after each step of the optimiser. settled: the first epoch, from 1, that may be kept
    as the best: before it the network is not yet what was asked for.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    loss_of: LossOf = by_labels
    run: Mapping[str, Any] = field(default_factory=dict)
    after_step: AfterStep | None = None
    settled: int = 1


@dataclass(frozen=True, eq=False)
class Taught:
    """bundle; test: its answers on the test part; images: how many are in each part; val_top1_before: of what it began with.

    resumed: epochs that came from a checkpoint. seconds: of each phase.
    """

    bundle: Bundle
    test: Evaluation
    images: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    val_top1_before: float
    history: tuple[Epoch, ...]
    best: Epoch
    resumed: int
    seconds: Mapping[str, float]


def teach(
    bundle: Bundle,
    data: Path | None,
    config: TrainingConfig,
    lesson: Lesson,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    resume: bool = False,
    team: Team | None = None,
    told: Callable[[Epoch], None] = lambda epoch: None,
) -> Taught:
    """Train the bundle's float network on, beginning with its frozen head (learned anew where `size` changes or there is none).

    data: the folder that the bundle learned from, None for the one that its lineage names; its split stays, so that test stays
    unseen. checkpoint: a file that is replaced after each epoch, resume goes on from it. told: called after each epoch.
    The result has the same kind of architecture, new numbers and head, and neither int8 graph nor yardstick: quantise it again.
    The weights are those of the epoch with the best validation.
    Raises NestlingError for a bundle without float network or split and for settings that it can't have, UnusableData for a folder
    that it did not learn from.
    """
    team = team or Team()
    _require_sensible(bundle, config)
    started = perf_counter()
    dataset = training_data(bundle, data)
    parts = {name: part(dataset, bundle, name) for name in PARTS}
    sized = _sized(bundle, config.size)
    if sized is not bundle or bundle.head is None:
        sized = _refitted(sized, dataset, progress)
    samples, bad = read_samples(parts["train"], sized.preprocess, _augmentation(bundle, config), progress)
    val, bad_val = read_samples(parts["val"], sized.preprocess, progress=progress)
    if not samples.items or not val.items:
        raise UnusableData(f"{dataset.root} holds no photographs to learn from, or none to choose by.")
    read = perf_counter()

    network = _learning(build(sized), config.blocks)
    micro = config.micro
    if micro is None and config.freeze_norm:
        micro = team.leaders(_quickest(network, sized, config, team, progress))
    loop = _loop_config(config, micro)
    frozen, _ = judged(network, val, loop, team)
    run = {"network": _digest(network), "data": fingerprint(dataset), "augment": config.augment, "size": sized.preprocess.size}
    trained = train(
        network,
        samples,
        val,
        len(bundle.labels),
        loop,
        lesson.loss_of(sized, samples, team, progress),
        {"backbone.": config.backbone_rate},
        team,
        Checkpoint(checkpoint, resume, run | {"blocks": config.blocks} | dict(lesson.run)) if checkpoint else None,
        progress,
        told,
        lesson.after_step,
        lesson.settled,
    )
    done = perf_counter()

    network.load_state_dict(trained.weights)
    made = with_weights(sized, network)
    evaluation, bad_test = _tested(made, dataset, progress)
    settings = asdict(config) | dict(lesson.settings) | {"size": list(sized.preprocess.size), "folder": str(dataset.root.resolve())}
    metrics = {
        "val_top1_before": round(frozen, 6),
        "val_top1": round(trained.best.val_top1, 6),
        "test_top1": round(evaluation.top1, 6),
        "best_epoch": trained.best.number,
    }
    del settings["workers"]  # they change nothing
    step = Step(lesson.name, settings, fingerprint(dataset), metrics, curves_of(trained.history))
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


def with_weights(bundle: Bundle, network: nn.Module) -> Bundle:
    """The bundle with the numbers of its network (models.build's, trained); without what was made from the old ones."""
    assert isinstance(network, Network) and isinstance(network.head, nn.Linear)
    head = Head(*(p.detach().cpu().numpy().copy() for p in (network.head.weight, network.head.bias)))
    lineage = tuple(step for step in bundle.lineage if step.name != "quantize")
    made = replace(bundle, head=head, graph=None, yardstick=None, lineage=lineage)
    if isinstance(network.backbone, GraphModule):
        return replace(made, architecture=to_graph(network.backbone))
    return replace(made, arrays=to_arrays(network.backbone))


# ---- what learns -----------------------------------------------------------------------------------------------------------------


def blocks_of(backbone: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The names of the backbone's parameters, block by block from the image on.

    A block is what timm calls one (its group_matcher): a residual block; stem and last convolution are blocks of their own. Of a
    float Graph it is a layer with weights, with the norm behind it.
    """
    if isinstance(backbone, GraphModule):
        return _graph_blocks(backbone)
    matcher: Any = backbone.group_matcher
    groups: Mapping[int, list[str]] = group_parameters(backbone, matcher(coarse=False))
    return tuple(tuple(groups[number]) for number in sorted(groups))


def _graph_blocks(module: GraphModule) -> tuple[tuple[str, ...], ...]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    blocks: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for node in module.graph.nodes:
        held = [module.constant(name) for name in node.inputs if module.graph.tensors[name].data is not None]
        own = tuple(names[id(value)] for value in held if id(value) in names and names[id(value)] not in seen)
        seen.update(own)
        if own and node.op == "batch_norm" and blocks:
            blocks[-1] += own
        elif own:
            blocks.append(own)
    return tuple(blocks)


def _learning(network: nn.Module, blocks: int | None) -> nn.Module:
    """The network with the first blocks' parameters fixed."""
    assert isinstance(network, Network)
    if blocks is None:
        return network
    found = blocks_of(network.backbone)
    if not 0 <= blocks <= len(found):
        raise NestlingError(f"this network has {len(found)} blocks; found --blocks {blocks}.", "leave out --blocks for all of them")
    fixed = {name for block in found[: len(found) - blocks] for name in block}
    for name, parameter in network.backbone.named_parameters():
        parameter.requires_grad_(name not in fixed)
    return network


# ---- before and after ------------------------------------------------------------------------------------------------------------


def _require_sensible(bundle: Bundle, config: TrainingConfig) -> None:
    if bundle.architecture is None:
        raise NestlingError(
            "this bundle's network is an integer one, made elsewhere: it has no float weights.", "import the float one"
        )
    if bundle.split is None or not bundle.labels:
        raise NestlingError("this bundle has not learned any classes yet.", "nestling fit PHOTOS --backbone THIS.nest -o my.nest")
    if config.augment not in AUGMENTATIONS:
        raise NestlingError(f"--augment is one of {', '.join(AUGMENTATIONS)}; found {config.augment!r}.")
    if config.optimiser not in ("adamw", "sgd"):
        raise NestlingError(f"--optimiser is adamw or sgd; found {config.optimiser!r}.")
    for name, value, least in (
        ("epochs", config.epochs, 1),
        ("batch", config.batch, 1),
        ("rate", config.rate, 0),
        ("variations", config.variations or 1, 1),
    ):
        if not value >= least:
            raise NestlingError(f"--{name} is {least} or more; found {value}.")


def _sized(bundle: Bundle, size: int | None) -> Bundle:
    if size is None or bundle.preprocess.size == (size, size):
        return bundle
    if not isinstance(bundle.architecture, Timm):
        height, width = bundle.preprocess.size
        raise NestlingError(f"this network is a graph for {height}x{width} pixels; found --size {size}.", "leave out --size")
    return replace(bundle, preprocess=replace(bundle.preprocess, size=preprocess_of(bundle.architecture.name, size).size))


def _refitted(bundle: Bundle, dataset: Dataset, progress: Progress) -> Bundle:
    """The bundle with its head learned on the frozen backbone's embeddings, as fit does."""
    views = training_views(bundle)
    engine = _engine(bundle, dataset)
    train_features = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, views, progress)
    return refitted(bundle, (train_features, embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)))


def _engine(bundle: Bundle, dataset: Dataset) -> Any:
    shape = (*bundle.preprocess.size, bundle.preprocess.channels)
    return engine_of(build(replace(bundle, head=None)), shape, len(dataset.items) * len(training_views(bundle)))


def _tested(bundle: Bundle, dataset: Dataset, progress: Progress) -> tuple[Evaluation, tuple[LeftOut, ...]]:
    assert bundle.head is not None
    test: Part = "test"
    features = embed(part(dataset, bundle, test), bundle.preprocess, _engine(bundle, dataset), progress=progress)
    truth = np.array([item.label for item in features.items], np.int64)
    logits = features.x[0] @ bundle.head.weight.T + bundle.head.bias
    return judge(logits, truth, [item.path for item in features.items], bundle.labels), features.left_out


def _augmentation(bundle: Bundle, config: TrainingConfig) -> Augmentation:
    """What has no up and no down (fit --views flips) is turned over, too."""
    chosen = AUGMENTATIONS[config.augment]
    return replace(chosen, upturn=chosen.mirror) if "up-down" in training_views(bundle) else chosen


def _loop_config(config: TrainingConfig, micro: int | None) -> LoopConfig:
    return LoopConfig(
        epochs=config.epochs,
        batch=config.batch,
        micro=micro,
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


def _quickest(network: nn.Module, bundle: Bundle, config: TrainingConfig, team: Team, progress: Progress) -> int:
    """How many images at a time train quickest here. With frozen norms that changes nothing else."""
    share = config.batch // team.size
    tried = [m for m in MICRO if m <= share and share % m == 0] or [max(1, share)]
    if len(tried) == 1:
        return tried[0]
    seconds: dict[int, float] = {}
    loop = _loop_config(config, None)
    trial = channels_last(build(bundle).to(team.device))
    for ours, theirs in zip(trial.parameters(), network.parameters(), strict=True):
        ours.requires_grad_(theirs.requires_grad)
    train_mode(trial, config.freeze_norm)
    with progress("trying batch sizes", len(tried)) as advance:
        for micro in tried:
            images = torch.zeros(micro, *bundle.preprocess.size, bundle.preprocess.channels, dtype=torch.uint8, device=team.device)
            batch = LoopBatch(images, torch.eye(len(bundle.labels), device=team.device)[:1].expand(micro, -1), torch.arange(micro))
            took = []
            for _ in range(1 + TRIED):  # the first one also prepares
                began = perf_counter()
                with autocast(team.device, loop.precision):
                    loss = classification(trial, batch).sum()
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
                loss.item()  # waits for a GPU
                took.append(perf_counter() - began)
            seconds[micro] = min(took[1:]) / micro
            advance(1)
    return min(tried, key=seconds.__getitem__)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
