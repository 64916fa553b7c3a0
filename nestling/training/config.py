"""Settings of the trainings: plain values, checked when they are made. Without torch, so that what is wrong is said at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError, WrongOption
from nestling.graph.integers import QuantizeConfig
from nestling.preprocess.image import Size
from nestling.words import Augment, Optimiser, Rounding


@dataclass(frozen=True)
class TrainingConfig:
    """rate: of the head; backbone_rate: share of it that the backbone learns with. blocks: only the last so many (of an imported or
    pruned network: layers with weights) and the head learn; None for all. freeze_norm: BatchNorm keeps its statistics.
    size: of the input in pixels, None for the bundle's. batch: images a step; micro: of these, how many go through at a time,
    None for the quickest with frozen norms, else all of a process's. mixup, cutmix: alphas, 0 for none.
    variations: a number to go through so many variations of a photograph again and again, so
    that what is computed of them can be kept; None to vary it anew in each epoch, but for VARIATIONS where `blocks` is given and
    nothing is mixed. ema: keep the weights' moving average. workers: processes that prepare images.

    Raises WrongOption for a value that none of them can have.
    """

    epochs: int = 10
    rate: float = 2e-3
    backbone_rate: float = 0.5
    weight_decay: float = 0.05
    blocks: int | None = None
    freeze_norm: bool = False
    size: Size | None = None
    batch: int = 32
    micro: int | None = None
    augment: Augment = "light"
    variations: int | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    smoothing: float = 0.0
    ema: bool = False
    patience: int | None = None
    optimiser: Optimiser = "adamw"
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        require_word("--augment", self.augment, get_args(Augment))
        require_word("--optimiser", self.optimiser, get_args(Optimiser))
        for name, value, least in (
            ("epochs", self.epochs, 0),
            ("batch", self.batch, 1),
            ("rate", self.rate, 0),
            ("variations", self.variations or 1, 1),
        ):
            if not value >= least:
                raise WrongOption(f"--{name} is {least} or more; found {value}.")


@dataclass(frozen=True)
class DistillConfig:
    """How the teacher is listened to, and how the student learns.

    temperature: what both networks' logits are divided by; above 1 it shows what the teacher thinks of the other classes.
    alpha: share of the loss that is the teacher's, the rest is the labels'. features: weight of the embeddings' similarities
    beside them, 0 for none. teacher_size: of the input of a teacher by timm's name, None for its own.
    training: None for what is usual for the bundle. Raises WrongOption for a value that cannot be.
    """

    temperature: float = 4.0
    alpha: float = 0.9
    features: float = 0.0
    teacher_size: Size | None = None
    training: TrainingConfig | None = None

    def __post_init__(self) -> None:
        if self.training is not None and (self.training.mixup or self.training.cutmix):
            raise WrongOption("the teacher was not asked about mixed photographs.", "leave out --mixup and --cutmix")
        if not self.temperature > 0:
            raise WrongOption(f"--temperature is above 0; found {self.temperature:g}.")
        if not 0 <= self.alpha <= 1:
            raise WrongOption(f"--alpha is from 0 (the labels alone) to 1 (the teacher alone); found {self.alpha:g}.")
        if not self.features >= 0:
            raise WrongOption(f"--features is 0 or more; found {self.features:g}.")


def usual_for_distilling(bundle: Bundle) -> TrainingConfig:
    """Settings to distill this bundle with; those for a network of random weights differ from those for one that has learned."""
    if from_scratch(bundle):
        return TrainingConfig(epochs=30, rate=4e-3, backbone_rate=1.0, variations=8)
    return TrainingConfig(epochs=10, variations=8)


def from_scratch(bundle: Bundle) -> bool:
    """Whether the backbone's weights are random."""
    random = isinstance(bundle.architecture, Timm) and bundle.architecture.weights.startswith("none")
    return random and not any(step.name in ("finetune", "distill", "prune", "search") for step in bundle.lineage)


def usual_for_qat() -> TrainingConfig:
    """How long and how fast: the rate by short trials with MobileNetV1 0.25 at 96 pixels, see docs/qat.md."""
    return TrainingConfig(epochs=15, rate=2e-3, backbone_rate=0.5, ema=True)


@dataclass(frozen=True)
class QatConfig:
    """method: how grids move (fake_quant.py). quantize: bits, per_layer and the rest, as post-training quantisation has them.

    training: epochs, rates, augmentation, ...; not blocks, size or freeze_norm. fold_after: epochs in which batch norms learn their
    statistics, before these are frozen and folded; 0 trains the folded network from the beginning.
    distill: share of the loss that the float network's answers have, the rest is the labels'. grid_rate: share of the rate that
    grids and steps learn with. alpha_decay: of PACT's clipping values, relative, a unit of rate.
    Raises WrongOption for a value that cannot be.
    """

    method: Rounding = "lsq"
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    training: TrainingConfig = field(default_factory=usual_for_qat)
    fold_after: int = 0
    distill: float = 0.0
    grid_rate: float = 1.0
    alpha_decay: float = 0.01

    def __post_init__(self) -> None:
        require_word("--qat", self.method, get_args(Rounding))
        if not 0 <= self.distill <= 1:
            raise WrongOption(f"--distill is from 0 (the labels alone) to 1 (the float network alone); found {self.distill:g}.")
        if not 0 <= self.fold_after <= self.training.epochs:
            raise WrongOption(f"--fold-after is 0 to --epochs, here {self.training.epochs}; found {self.fold_after}.")
        if self.training.blocks is not None or self.training.size is not None or self.training.freeze_norm:
            raise WrongOption("quantisation-aware training trains the whole network, at its own size; --fold-after freezes norms.")


def require_word(option: str, found: str, known: tuple[str, ...]) -> None:
    """Raises WrongOption where it is none of those."""
    if found not in known:
        raise WrongOption(f"{option} is one of {', '.join(known)}; found {found!r}.")


def require_trainable(bundle: Bundle) -> None:
    """Raises NestlingError for a bundle without float network, or that has learned no classes yet."""
    if bundle.architecture is None:
        raise NestlingError(
            "this bundle's network is an integer one, made elsewhere: it has no float weights.", "import the float one"
        )
    if bundle.split is None or not bundle.labels:
        raise NestlingError("this bundle has not learned any classes yet.", "nestling fit PHOTOS --backbone THIS.nest -o my.nest")
