"""Options of the verbs as keywords: each the fields of a config, whose docstring says what they are and what they are without."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from pathlib import Path

    from nestling.graph.integers import Choice, QuantizeConfig, RangeMethod
    from nestling.preprocess.image import Size
    from nestling.training.config import TrainingConfig
    from nestling.words import (
        Augment,
        HeadOptimizer,
        Importance,
        Mode,
        Momentum,
        OnnxWeights,
        Optimiser,
        Ranking,
        Rounding,
        RunBy,
        SavedAs,
        System,
        Views,
        Zeros,
    )


class Fit(TypedDict, total=False):
    """See training.fit.FitConfig."""

    backbone: str
    weights: str | None
    size: Size | None
    seed: int
    views: Views
    balanced: bool
    classes: tuple[str, ...] | None
    parts: bool | None
    strict: bool
    levels: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


class Update(TypedDict, total=False):
    """See training.update.UpdateConfig."""

    classes: tuple[str, ...] | None
    parts: bool | None
    strict: bool


class Training(TypedDict, total=False):
    """See training.config.TrainingConfig."""

    epochs: int
    rate: float
    backbone_rate: float
    weight_decay: float
    blocks: int | None
    freeze_norm: bool
    size: Size | None
    batch: int
    micro: int | None
    augment: Augment
    variations: int | None
    mixup: float
    cutmix: float
    smoothing: float
    ema: bool
    patience: int | None
    optimiser: Optimiser
    seed: int
    workers: int


class Distill(TypedDict, total=False):
    """See training.config.DistillConfig."""

    temperature: float
    alpha: float
    features: float
    teacher_size: Size | None
    training: TrainingConfig | None


class Qat(TypedDict, total=False):
    """See training.config.QatConfig."""

    method: Rounding
    quantize: QuantizeConfig
    training: TrainingConfig
    fold_after: int
    distill: float
    grid_rate: float
    alpha_decay: float


class Prune(TypedDict, total=False):
    """See compress.config.PruneConfig."""

    macs: float
    importance: Importance
    round_to: int
    steps: int
    images: int
    seed: int


class Sparse(TypedDict, total=False):
    """See compress.config.SparseConfig."""

    method: Zeros
    sparsity: float
    ranking: Ranking


class Search(TypedDict, total=False):
    """See compress.config.SearchConfig."""

    macs: float
    params: float | None
    candidates: int
    images: int
    round_to: int
    seed: int


class Quantize(TypedDict, total=False):
    """See graph.integers.QuantizeConfig."""

    bits_weights: int
    bits_activations: int
    symmetric: bool
    per_layer: bool
    range: RangeMethod
    equalize: Choice
    bias_correction: Choice
    calibration: int
    seed: int
    modes: tuple[Mode, ...]
    layer_bits: tuple[tuple[str, int], ...]
    ends_at_8: bool


class Export(TypedDict, total=False):
    """See formats.format.ExportConfig."""

    features: bool
    int8_head: bool
    onnx_weights: OnnxWeights
    force: bool
    ram: int | None
    flash: int | None
    name: str


class Compare(TypedDict, total=False):
    """See pages.compare.compare.CompareConfig."""

    wanted: tuple[tuple[str, str], ...]
    quantise: bool
    machine: str | None
    rounds: int
    keep: Path | None


class Prepare(TypedDict, total=False):
    """See data.prepare.PrepareConfig."""

    format: SavedAs
    size: int | None
    classes: tuple[str, ...] | None
    strip: int
    least: int
    keep_tiny: bool
    parts: bool | None
    force: bool
    levels: int | None


class Pack(TypedDict, total=False):
    """See device.package.PackConfig."""

    system: System
    machine: str | None
    runner: RunBy
    max_classes: int | None
    momentum: Momentum
    optimizer: HeadOptimizer
    untrained: bool
    replay: int | None
    force: bool


class Push(TypedDict, total=False):
    """See device.push.PushConfig."""

    identity: Path | None
    ssh_options: tuple[str, ...]
    retries: int
    pause: float
    trust: bool


class Learn(TypedDict, total=False):
    """See device.learn.LearnConfig."""

    begin_with: Path | None
    output: Path | None
    cycles: int | None
    batch: int | None
    optimizer: HeadOptimizer | None
    rate: float | None
    stop_accuracy: float | None
    save_every: int
    replay: int | None
    resume: bool
