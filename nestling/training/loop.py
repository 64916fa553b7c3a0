"""The one training loop: whatever is trained, and by whatever loss, goes through train().

augment.py      how images are varied and mixed
samples.py      images and labels, the same whoever prepares them
team.py         several processes as one
loop_state.py   what a checkpoint holds
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from nestling.errors import NestlingError, WrongOption
from nestling.models.graph_module import GraphModule
from nestling.progress import Progress
from nestling.training.augment import Mixing, mixed, seeded
from nestling.training.loop_state import (
    Epoch,
    State,
    best_of,
    load_state,
    moments_of,
    require_fitting,
    restore_moments,
    save_state,
)
from nestling.training.samples import Inputs, batches, in_order, shuffled
from nestling.training.session import Session
from nestling.training.team import Team

JUDGED = 64  # validation images that go through at a time
MIXING, MODEL = 1, 2  # beside seed, epoch and place: what random numbers are for


@dataclass(frozen=True)
class Batch:
    """images: uint8 [N, h, w, C], or what stands for them. targets: float32 [N, classes], rows add up to 1.

    indices: int64 [N], of the samples. variation: with them it says which images these were (Samples.image), before they were
    mixed.
    """

    images: Tensor
    targets: Tensor
    indices: Tensor
    variation: int = 0


Loss = Callable[[nn.Module, Batch], Tensor]
"""(network, batch) -> the loss of each image, float32 [N]. It calls the network itself, once: a team needs that."""

AfterStep = Callable[[nn.Module, int, int], None]
"""(network, step, steps): changes its weights in place after step 0..steps-1 of the optimiser; without gradients."""

Changing = Callable[[nn.Module], AfterStep]
"""(network before its first step, or as a checkpoint left it) -> what changes it after each step from there on."""


def classification(network: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of logits, where the network gives them."""
    return cross_entropy(network(batch.images).float(), batch.targets, reduction="none")


@dataclass(frozen=True)
class LoopConfig:
    """batch: images a step, over all processes. micro: of these, images that go through the network at a time, the rest is
    accumulated; None for batch / processes. rate: of the optimiser after the warm-up; warmup: epochs of it.
    weight_decay: of weights, not of biases and norms. smoothing: of labels. average: decay of the weights' moving average, a step;
    None for none. patience: epochs without a better validation after which it ends. freeze_norm: BatchNorm keeps its statistics
    (its scale and shift go on learning). precision: bfloat16 is autocast; auto is that on a GPU that has it, else float32.
    variations: of each image, gone through again and again; None to vary it anew in each epoch.
    workers: processes that prepare images, of each training process; they change nothing but the time.
    """

    epochs: int = 10
    batch: int = 32
    micro: int | None = None
    optimiser: Literal["adamw", "sgd"] = "adamw"
    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.01
    warmup: float = 1.0
    smoothing: float = 0.0
    mixing: Mixing = field(default_factory=Mixing)
    average: float | None = None
    patience: int | None = None
    freeze_norm: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    variations: int | None = None
    seed: int = 0
    workers: int = 0


@dataclass(frozen=True, eq=False)
class Task:
    """What is learned, and from what. samples: to learn from. val: to judge each epoch by, None for none.

    multipliers: of the rate, by the beginning of a parameter's name ("backbone." -> 0.1), the longest that fits; 1 for all others.
    changing: what changes weights after each step. settled: the first epoch, from 1, that may be the best. run: what tells it from
    other tasks (data, network), as plain values; a checkpoint of another is refused.
    """

    samples: Inputs
    val: Inputs | None
    classes: int
    loss: Loss = classification
    multipliers: Mapping[str, float] = field(default_factory=dict)
    changing: Changing | None = None
    settled: int = 1
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trained:
    """weights: the state dict after the best epoch, of the moving average where there is one. history: every epoch.

    best: the epoch that the weights are of. resumed: epochs that a checkpoint brought.
    """

    weights: Mapping[str, Tensor]
    history: tuple[Epoch, ...]
    best: Epoch
    resumed: int


def train(module: nn.Module, task: Task, config: LoopConfig, session: Session | None = None) -> Trained:
    """Train a copy of the module, uint8 [N, h, w, C] -> logits [N, classes]; `module` itself stays as it is.

    Only parameters that require a gradient learn; BatchNorm in front of which nothing learns is frozen with them. The same
    arguments give the same bits on one machine with one number of threads, whatever the number of workers, interrupted and resumed
    or not. In a team with frozen norms they give what one process gives that accumulates the same micro-batches, up to the order of
    sums; other micro-batches differ by rounding, which a rate that is too high makes large.
    Raises NestlingError where a batch cannot be divided so, or the loss is no longer a number.
    """
    session = session or Session()
    team, checkpoint = session.team, session.checkpoint
    run = _run(task, config)
    start = _start(session, run)
    micro = min(start.micro if start else config.micro or config.batch, config.batch // team.size)
    _require_divisible(config, micro, team)
    network = channels_last(copy.deepcopy(module).to(team.device))
    optimiser = optimiser_of(network, config, task.multipliers)
    if start and checkpoint:
        require_fitting(checkpoint, start, network, optimiser, bool(config.average))
        network.load_state_dict(start.weights)
        restore_moments(optimiser, start.moments)
    averaged = _copied(network.state_dict()) if config.average else {}
    for name, value in averaged.items():
        value.copy_(start.average[name] if start else value)
    after_step = task.changing(network) if task.changing else None
    course = _Course(team.wrap(network), network, optimiser, averaged, task, micro, config, team, after_step)
    best_weights = dict(start.best) if start else {}
    history = start.history if start else ()
    while len(history) < config.epochs and not _patience_ended(history, config.patience, task.settled):
        began = perf_counter()
        mean = _epoch(course, len(history), session.progress)
        weights = averaged or network.state_dict()
        top1, val_loss = judged(network, task.val, config, team, weights) if task.val else (math.nan, math.nan)
        epoch = Epoch(len(history) + 1, mean, top1, val_loss, perf_counter() - began)
        history = (*history, epoch)
        if best_of(history, task.settled) is epoch:
            best_weights = _copied(weights)
        if checkpoint and team.leads:
            state = State(history, network.state_dict(), averaged, best_weights, moments_of(optimiser), micro)
            save_state(checkpoint, state, run)
        session.told(epoch)
    best_weights = {name: value.cpu().contiguous() for name, value in best_weights.items()}
    return Trained(best_weights, history, best_of(history, task.settled), len(start.history) if start else 0)


@dataclass(frozen=True, eq=False)
class _Course:
    """What stays the same from epoch to epoch. wrapped: the network as the team trains it. averaged: moves with the weights."""

    wrapped: nn.Module
    network: nn.Module
    optimiser: torch.optim.Optimizer
    averaged: Mapping[str, Tensor]
    task: Task
    micro: int
    config: LoopConfig
    team: Team
    after_step: AfterStep | None


def _epoch(course: _Course, number: int, progress: Progress) -> float:
    """Every sample once; the mean loss. Micro-batch k belongs to process k % size, and its random numbers to k."""
    config, team, task, parts = course.config, course.team, course.task, course.config.batch // course.micro
    train_mode(course.network, config.freeze_norm)
    whole = shuffled(len(task.samples.labels), config.batch, config.seed, number)
    order = [batch[i : i + course.micro] for batch in whole for i in range(0, config.batch, course.micro)]
    mine = range(team.rank, len(order), team.size)
    labels = torch.from_numpy(task.samples.labels)
    total = torch.zeros((), dtype=torch.float64)
    with progress(f"epoch {number + 1} of {config.epochs}", len(whole) * config.batch) as advance:
        variation = number % (config.variations or config.epochs)
        stream = batches(task.samples, [order[place] for place in mine], config.seed, variation, config.workers)
        for place, (images, indices) in zip(mine, stream, strict=True):
            step, part = divmod(place, parts)
            last = part + team.size >= parts
            with seeded(config.seed, number, place, MIXING):
                images, targets = mixed(images, labels[indices], task.classes, config.mixing, config.smoothing)
            batch = Batch(images.to(team.device), targets.to(team.device), indices, variation)
            with seeded(config.seed, number, place, MODEL), _gathered(course.wrapped, last):
                with autocast(team.device, config.precision):
                    losses = task.loss(course.wrapped, batch)
                # a team's gradients are averaged, not added: so each one's share counts `size` times
                (losses.sum() * (team.size / config.batch)).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            total += losses.detach().sum().double().cpu()
            if last:
                _step(course, number * len(whole) + step, len(whole))
            advance(len(indices) * team.size)
    mean = float(team.sums(total)) / (len(whole) * config.batch)
    if not math.isfinite(mean):
        raise NestlingError(f"the loss is no longer a number in epoch {number + 1}.", f"try a lower rate than {config.rate:g}")
    return mean


def _step(course: _Course, step: int, an_epoch: int) -> None:
    """step: from 0 over all epochs; an_epoch: how many each has."""
    config = course.config
    share = rate_at(step, config.epochs * an_epoch, round(config.warmup * an_epoch))
    for group in course.optimiser.param_groups:
        group["lr"] = group["initial_lr"] * share
    course.optimiser.step()
    course.optimiser.zero_grad(set_to_none=True)
    if course.after_step:
        with torch.no_grad():
            course.after_step(course.network, step, config.epochs * an_epoch)
    if config.average:
        _average(course.averaged, course.network, config.average, step)


# ---- the pieces ------------------------------------------------------------------------------------------------------------------


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Share of the rate in step 0..steps-1: linear up to 1 at step `warmup`, then half a cosine down to 0 at `steps`.

    Source: Loshchilov and Hutter 2017 (SGDR), without restarts; warm-up: Goyal et al. 2017.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def optimiser_of(network: nn.Module, config: LoopConfig, multipliers: Mapping[str, float]) -> torch.optim.Optimizer:
    """The optimiser of the parameters that learn, in groups of one rate and one weight decay; vectors do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            fitting = max((start for start in multipliers if name.startswith(start)), key=len, default=None)
            rate = config.rate * (multipliers[fitting] if fitting is not None else 1.0)
            groups.setdefault((rate, config.weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    plain = [
        {"params": parameters, "lr": rate, "initial_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
    if config.optimiser == "sgd":
        return torch.optim.SGD(plain, lr=config.rate, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(plain, lr=config.rate)


def channels_last(network: nn.Module) -> nn.Module:
    """The network itself, its convolutions' weights in channels_last, which is quickest here; a GraphModule's are so already."""
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)
    return network


def train_mode(network: nn.Module, freeze_norm: bool) -> None:
    """Training mode, but for norms that keep their statistics: all, or those that do not learn themselves.

    A GraphModule's norms are frozen together: it has one mode.
    """
    network.train()
    for part in network.modules():
        learns = any(parameter.requires_grad for parameter in part.parameters())
        if isinstance(part, _BatchNorm) and (freeze_norm or not learns):
            part.eval()
        if isinstance(part, GraphModule) and (freeze_norm or not all(p.requires_grad for p in part.parameters())):
            part.eval()


def _average(averaged: Mapping[str, Tensor], network: nn.Module, decay: float, step: int) -> None:
    """average += (1 - d) (weights - average), d rising to `decay`: min(decay, (1 + step) / (10 + step)), as TensorFlow's."""
    share = 1 - min(decay, (1 + step) / (10 + step))
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            averaged[name].lerp_(value, share)
        else:
            averaged[name].copy_(value)


def judged(
    network: nn.Module, val: Inputs, config: LoopConfig, team: Team, weights: Mapping[str, Tensor] | None = None
) -> tuple[float, float]:
    """(top-1, mean cross-entropy) of the network, with other weights for the moment, in evaluation mode; a team divides the images.

    The network is left in evaluation mode.
    """
    own = _copied(network.state_dict())
    network.load_state_dict(weights or own)
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64)
    order = in_order(len(val.labels), JUDGED)[team.rank :: team.size]
    with torch.no_grad():
        for images, indices in batches(val, order, config.seed, 0, config.workers):
            truth = torch.from_numpy(val.labels)[indices]
            logits = network(images.to(team.device)).float().cpu()
            sums += torch.stack(
                [(logits.argmax(1) == truth).sum().double(), cross_entropy(logits, truth, reduction="sum").double()]
            )
    network.load_state_dict(own)
    top1, loss = (team.sums(sums) / len(val.labels)).tolist()
    return top1, loss


def autocast(device: torch.device, precision: Literal["auto", "float32", "bfloat16"]) -> torch.autocast:
    """bfloat16 where it is wanted; "auto" wants it on a GPU that computes in it. On CPUs it was no quicker."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16" or (precision == "auto" and able))


def _gathered(wrapped: nn.Module, last: bool) -> Any:
    """Gradients are exchanged once a step, with its last micro-batch."""
    no_sync: Callable[[], Any] = getattr(wrapped, "no_sync", nullcontext)
    return nullcontext() if last else no_sync()


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.items()}


def _patience_ended(history: tuple[Epoch, ...], patience: int | None, settled: int) -> bool:
    return patience is not None and len(history) > 0 and history[-1].number - best_of(history, settled).number >= patience


def _start(session: Session, run: Mapping[str, Any]) -> State | None:
    if session.checkpoint is None or not session.resume:
        return None
    state = load_state(session.checkpoint, run) if session.checkpoint.exists() else None
    found = len(state.history) if state else 0
    if found != session.team.leaders(found):
        raise NestlingError(f"{session.checkpoint} is not the same for every process.", "write to a folder that all machines share")
    return state


def _run(task: Task, config: LoopConfig) -> dict[str, Any]:
    """What must be the same to go on: not the workers, and not what is divided how."""
    return {**{name: v for name, v in asdict(config).items() if name not in ("workers", "micro")}, **task.run}


def _require_divisible(config: LoopConfig, micro: int, team: Team) -> None:
    if micro < 1 or config.batch % (micro * team.size):
        raise WrongOption(
            f"a batch of {config.batch} cannot be divided among {team.size} processes, {max(micro, 1)} images at a time.",
            f"try --batch {math.ceil(config.batch / (max(micro, 1) * team.size)) * max(micro, 1) * team.size}",
        )
    if config.mixing and micro % 2:
        raise WrongOption(f"images are mixed in pairs; {micro} at a time is an odd number.", "try an even --batch")
