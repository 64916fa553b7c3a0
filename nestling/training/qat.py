"""qat: quantisation-aware training. The network learns with its values rounded as they will be, then gets its integers.

fake_quant.py    values on a grid, with gradients
qat_network.py   the float Graph with these where the int8 Graph has Quants, and back
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from nestling.bundle import Bundle, Step
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, LeftOut, fingerprint
from nestling.data.images import images_of
from nestling.embedding.cache import Features, embed
from nestling.embedding.of_integers import integer_engine
from nestling.embedding.refit import refitted, training_views
from nestling.errors import NestlingError, UnusableData
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph
from nestling.models.backbones import build
from nestling.progress import Progress
from nestling.quantization.calibrate import batches, observe
from nestling.quantization.quantize import YARDSTICK, Quantized, measured, quantized
from nestling.scores.agree import rms
from nestling.training.fake_quant import LearnedGrid, Method
from nestling.training.loop import AfterStep, Batch, Changing, LoopConfig, Loss, classification, judged, rate_at, train
from nestling.training.loop_state import Epoch, curves_of
from nestling.training.norms import with_norms
from nestling.training.qat_network import FakeQuantised, placed
from nestling.training.samples import read_samples
from nestling.training.session import Session
from nestling.training.teach import TrainingConfig, augmentation, checkpoint_of, digest_of, loop_config, require_sensible
from nestling.training.zeros import keeping

Kept = Literal["qat", "post-training"]
TEMPERATURE = 4.0  # of distillation, as in distill.DistillConfig


def usual() -> TrainingConfig:
    """How long and how fast: the rate by short trials with MobileNetV1 0.25 at 96 pixels, see docs/qat.md."""
    return TrainingConfig(epochs=15, rate=2e-3, backbone_rate=0.5, ema=True)


@dataclass(frozen=True)
class QatConfig:
    """method: how grids move (fake_quant.py). quantize: bits, per_layer and the rest, as post-training quantisation has them.

    training: epochs, rates, augmentation, ...; not blocks, size or freeze_norm. fold_after: epochs in which batch norms learn their
    statistics, before these are frozen and folded; 0 trains the folded network from the beginning.
    distill: share of the loss that the float network's answers have, the rest is the labels'. grid_rate: share of the rate that
    grids and steps learn with. alpha_decay: of PACT's clipping values, relative, a unit of rate.
    """

    method: Method = "lsq"
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    training: TrainingConfig = field(default_factory=usual)
    fold_after: int = 0
    distill: float = 0.0
    grid_rate: float = 1.0
    alpha_decay: float = 0.01


@dataclass(frozen=True, eq=False)
class Qat:
    """kept: the better of the two on the validation part, and what it was made from; which: which of them that is.

    val_top1, post_val_top1, float_val_top1: of the training, of post-training quantisation with the same bits, and of the float
    network before. noise: rms logit difference of the int8 reference and the fake-quantised network, in float64, over that of the
    latter and the same numbers in float. trained: the bundle of the training, kept or not.
    """

    kept: Quantized
    which: Kept
    trained: Quantized
    val_top1: float
    post_val_top1: float
    float_val_top1: float
    noise: float
    history: tuple[Epoch, ...]
    best: Epoch
    resumed: int
    left_out: tuple[LeftOut, ...]

    @property
    def bundle(self) -> Bundle:
        """What is kept."""
        return self.kept.bundle


def qat(
    bundle: Bundle,
    data: Path | None = None,
    config: QatConfig | None = None,
    session: Session | None = None,
) -> Qat:
    """Train the bundle's network with its values rounded, give it those integers, and hold it against post-training quantisation.

    data: the folder that the bundle learned from; None for the one that its lineage names. The trained bundle's architecture is the
    float Graph that was trained, without its roundings; head, int8 graph and yardstick belong to it. Where it is no better on the
    validation part, the bundle of post-training quantisation is kept.
    Raises as teach and quantize do, and NestlingError for settings that cannot be.
    Sources: Jacob et al. 2018, Krishnamoorthi 2018 (training with rounded values, delayed folding), Choi et al. 2018 (PACT), Esser
    et al. 2020 (LSQ).
    """
    config, session = config or QatConfig(), session or Session()
    team, progress = session.team, session.progress
    _require_sound(bundle, config)
    training, head = config.training, bundle.head
    assert head is not None
    dataset = training_data(bundle, data)
    samples, bad = read_samples(part(dataset, bundle, "train"), bundle.preprocess, augmentation(bundle, training), progress)
    val, bad_val = read_samples(part(dataset, bundle, "val"), bundle.preprocess, progress=progress)
    if not samples.items or not val.items:
        raise UnusableData(f"{dataset.root} holds no photographs to learn from, or none to choose by.")

    post = quantized(bundle, dataset.root, config.quantize, progress)
    network = _network(bundle, post.float_graph, dataset, config, progress)
    loop = replace(loop_config(training), micro=training.micro)
    teacher = build(bundle)
    before, _ = judged(teacher, val, loop, team)
    run: dict[str, object] = {
        "network": digest_of(network),
        "data": fingerprint(dataset),
        "augment": training.augment,
        "method": config.method,
        "fold_after": config.fold_after,
        "distill": config.distill,
        "alpha_decay": config.alpha_decay,
        "grid_rate": config.grid_rate,
    }
    trained = train(
        network,
        samples,
        val,
        len(bundle.labels),
        loop,
        distilling(teacher.to(team.device), config.distill) if config.distill else classification,
        {"backbone.": training.backbone_rate, "grids.": config.grid_rate, "steps.": config.grid_rate},
        team,
        checkpoint_of(session, run),
        progress,
        session.told,
        keeping(bundle, _changing(config, loop)),
    )
    network.load_state_dict(trained.weights)
    made, noise = _with_integers(bundle, network.eval().with_norms_folded().eval(), dataset, progress)
    after = _val_top1(made.bundle, dataset, progress)
    post_top1 = _val_top1(post.bundle, dataset, progress)

    metrics = {"val_top1": after, "val_top1_post_training": post_top1, "val_top1_float": round(before, 6), "noise": round(noise, 6)}
    metrics |= {"best_epoch": trained.best.number} | _yardstick_metrics(made.bundle, dataset)
    step = Step("quantize", _settings(config, dataset), fingerprint(dataset), metrics, curves_of(trained.history))
    made = replace(made, bundle=replace(made.bundle, lineage=(*made.bundle.lineage, step)))
    which: Kept = "qat" if after > post_top1 else "post-training"
    return Qat(
        made if which == "qat" else _noted(post, step),
        which,
        made,
        after,
        post_top1,
        before,
        noise,
        trained.history,
        trained.best,
        trained.resumed,
        (*dataset.left_out, *bad, *bad_val),
    )


def _settings(config: QatConfig, dataset: Dataset) -> dict[str, object]:
    """What the lineage tells of it."""
    settings = asdict(config.quantize) | {"equalized": False, "bias_corrected": False, "folder": str(dataset.root.resolve())}
    settings |= {"qat": config.method, "fold_after": config.fold_after, "distill": config.distill}
    settings |= {"training": asdict(config.training), "grid_rate": config.grid_rate, "alpha_decay": config.alpha_decay}
    return settings | {"kept": "qat"}


def distilling(teacher: nn.Module, share: float) -> Loss:
    """(1 - share) CE(targets, p) + share T^2 KL(softmax(teacher / T) || softmax(student / T)), an image (Hinton et al. 2015)."""
    teacher.eval()

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        logits = network(batch.images).float()
        with torch.no_grad():
            theirs = teacher(batch.images).float()
        hard = cross_entropy(logits, batch.targets, reduction="none")
        ours, wanted = log_softmax(logits / TEMPERATURE, 1), log_softmax(theirs / TEMPERATURE, 1)
        soft = kl_div(ours, wanted, reduction="none", log_target=True).sum(1)
        return (1 - share) * hard + share * TEMPERATURE**2 * soft

    return loss


# ---- before the training ---------------------------------------------------------------------------------------------------------


def _require_sound(bundle: Bundle, config: QatConfig) -> None:
    require_sensible(bundle, config.training)
    if bundle.head is None:
        raise NestlingError("only a fitted network is quantised: its head is learned again.", "nestling fit PHOTOS -o my.nest")
    if config.method not in get_args(Method):
        raise NestlingError(f"--qat is one of {', '.join(get_args(Method))}; found {config.method!r}.")
    if not 0 <= config.distill <= 1:
        raise NestlingError(f"--distill is from 0 (the labels alone) to 1 (the float network alone); found {config.distill:g}.")
    if not 0 <= config.fold_after <= config.training.epochs:
        raise NestlingError(f"--fold-after is 0 to --epochs, here {config.training.epochs}; found {config.fold_after}.")
    if config.training.blocks is not None or config.training.size is not None or config.training.freeze_norm:
        raise NestlingError("quantisation-aware training trains the whole network, at its own size; --fold-after freezes norms.")


def _network(bundle: Bundle, prepared: Graph, dataset: Dataset, config: QatConfig, progress: Progress) -> FakeQuantised:
    """The network as calibration leaves it. prepared: what post-training quantisation chose to begin with, equalised or not."""
    assert bundle.head is not None
    images = images_of(part(dataset, bundle, "train", config.quantize.calibration), bundle.preprocess)
    start = placed(prepared, observe(prepared, images, config.quantize.seed, progress), config.quantize)
    graph = with_norms(prepared, images) if config.fold_after else prepared
    return FakeQuantised(graph, prepared, bundle.head, config.quantize, config.method, start)


def _changing(config: QatConfig, loop: LoopConfig) -> Changing:
    """After each step: PACT's clipping values decay, as weights in AdamW do; after config.fold_after epochs the norms freeze."""

    def changing(network: nn.Module) -> AfterStep:
        assert isinstance(network, FakeQuantised)
        decaying = [grid for grid in network.grids if isinstance(grid, LearnedGrid) and config.method == "pact"]

        def after(_: nn.Module, step: int, steps: int) -> None:
            if not bool(network.folded):
                network.keep_up()
            rate = loop.rate * rate_at(step, steps, round(loop.warmup * steps / loop.epochs))
            for grid in decaying:
                grid.log.sub_(rate * config.alpha_decay)
            if (step + 1) * loop.epochs >= config.fold_after * steps:
                network.folded.fill_(True)

        return after

    return changing


# ---- after it --------------------------------------------------------------------------------------------------------------------


def _with_integers(bundle: Bundle, network: FakeQuantised, dataset: Dataset, progress: Progress) -> tuple[Quantized, float]:
    """(the trained bundle without its line of lineage, the noise)."""
    with progress("quantising", 1) as advance:
        graph = network.float_graph()
        integers = network.integers(graph)
        advance(1)
    own = Head(network.head.weight.detach().numpy().copy(), network.head.bias.detach().numpy().copy())
    lineage = tuple(step for step in bundle.lineage if step.name != "quantize")
    made = replace(bundle, architecture=graph, arrays={}, head=own, graph=integers, yardstick=None, lineage=lineage)
    engine = integer_engine(integers)
    train_features = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, training_views(bundle), progress)
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)
    with progress("refitting the head", 1) as advance:
        again = refitted(made, (train_features, val)).head
        advance(1)
    assert again is not None
    made = replace(made, head=max((own, again), key=lambda head: _top1(head, val)))  # the first of equals: as it was trained
    made = replace(made, yardstick=measured(made, dataset, progress))
    return Quantized(made, graph), _noise(made, network, dataset)


def _noise(made: Bundle, network: FakeQuantised, dataset: Dataset) -> float:
    """See Qat; on the yardstick's images, all under the bundle's head."""
    assert made.yardstick is not None and made.head is not None
    network = network.in_double()
    images = images_of(part(dataset, made, "val", YARDSTICK), made.preprocess)
    with torch.inference_mode():
        rounded = np.concatenate([network.features(torch.from_numpy(batch)).numpy() for batch in batches(images)])
    logits = made.head.logits(rounded)
    return rms(made.yardstick.logits, logits) / max(rms(logits, made.yardstick.float_logits), 1e-12)


def _val_top1(bundle: Bundle, dataset: Dataset, progress: Progress) -> float:
    """Of the int8 graph and the head."""
    assert bundle.graph is not None and bundle.head is not None
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, integer_engine(bundle.graph), progress=progress)
    return _top1(bundle.head, val)


def _top1(head: Head, features: Features) -> float:
    truth = np.array([item.label for item in features.items], np.int64)
    return _share(head.logits(features.x[0]), truth)


def _share(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    return round(float((logits.argmax(1) == truth).mean()), 6) if len(truth) else 0.0


def _yardstick_metrics(bundle: Bundle, dataset: Dataset) -> dict[str, float]:
    assert bundle.yardstick is not None
    truth = {item.fingerprint: item.label for item in dataset.items}
    labels = np.array([truth[name] for name in bundle.yardstick.fingerprints], np.int64)
    stick = bundle.yardstick
    return {"yardstick_top1": _share(stick.logits, labels), "yardstick_float_top1": _share(stick.float_logits, labels)}


def _noted(post: Quantized, trained: Step) -> Quantized:
    """Post-training quantisation, whose line of lineage says what was tried instead."""
    *before, step = post.bundle.lineage
    settings = {name: value for name, value in trained.settings.items() if name not in step.settings} | {"kept": "post-training"}
    metrics = {"val_top1_qat": trained.metrics["val_top1"], "val_top1_float": trained.metrics["val_top1_float"]}
    noted = replace(step, settings={**step.settings, **settings}, metrics={**step.metrics, **metrics}, curves=trained.curves)
    return replace(post, bundle=replace(post.bundle, lineage=(*before, noted)))
