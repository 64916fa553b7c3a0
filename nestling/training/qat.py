"""qat: quantisation-aware training. The network learns with its values rounded as they will be, then gets its integers.

fake_quant.py    values on a grid, with gradients
qat_network.py   the float Graph with these where the int8 Graph has Quants, and back
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from nestling.brief import as_table, in_short
from nestling.bundle import Bundle, Step, Yardstick, fitted_head, int8_graph, yardstick_of
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, LeftOut, Source, fingerprint, labels_of
from nestling.data.images import images_of
from nestling.embedding.cache import Features, embed
from nestling.embedding.engine import graph_engine
from nestling.embedding.refit import refitted, training_views
from nestling.errors import UnusableData
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.models.backbones import build
from nestling.progress import Progress
from nestling.quantization.calibrate import batches, observe
from nestling.quantization.quantize import YARDSTICK, Quantized, measured, quantized, yardstick_metrics
from nestling.scores.agree import rms
from nestling.scores.evaluate import top1
from nestling.training.config import DistillConfig, QatConfig, require_trainable
from nestling.training.distill import by_teacher
from nestling.training.fake_quant import LearnedGrid
from nestling.training.finetune import augmentation, digest_of, loop_config
from nestling.training.loop import AfterStep, Batch, Changing, LoopConfig, Loss, Task, classification, judged, rate_at, train
from nestling.training.loop_state import Epoch, curves_of
from nestling.training.norms import with_norms
from nestling.training.qat_network import FakeQuantised, placed
from nestling.training.samples import read_samples
from nestling.training.session import Session
from nestling.training.zeros import keeping

Kept = Literal["qat", "post-training"]
TEMPERATURE = DistillConfig.temperature


@dataclass(frozen=True, eq=False)
class Qat:
    """kept: the better of the two on the validation part, and what it was made from; which: which of them that is.

    val_top1, post_val_top1, float_val_top1: of the training, of post-training quantisation with the same bits, and of the float
    network before. noise: rms logit difference of the int8 reference and the fake-quantised network, in float64, over that of the
    latter and the same numbers in float. trained: the bundle of the training, kept or not.
    """

    __repr__, _repr_html_ = in_short, as_table

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
    data: Source | None = None,
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
    training = config.training
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
    task = Task(
        samples,
        val,
        len(bundle.labels),
        distilling(teacher.to(team.device), config.distill) if config.distill else classification,
        {"backbone.": training.backbone_rate, "grids.": config.grid_rate, "steps.": config.grid_rate},
        keeping(bundle, _changing(config, loop)),
        run=run,
    )
    trained = train(network, task, loop, session)
    network.load_state_dict(trained.weights)
    made, noise = _with_integers(bundle, network.eval().with_norms_folded().eval(), dataset, progress)
    after = _val_top1(made.bundle, dataset, progress)
    post_top1 = _val_top1(post.bundle, dataset, progress)

    metrics = {"val_top1": after, "val_top1_post_training": post_top1, "val_top1_float": round(before, 6), "noise": round(noise, 6)}
    metrics |= {"best_epoch": trained.best.number} | yardstick_metrics(yardstick_of(made.bundle), dataset)
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
    """by_teacher of the float network, which answers each batch as it comes."""
    teacher.eval()

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        logits = network(batch.images).float()
        with torch.no_grad():
            theirs = teacher(batch.images).float()
        return by_teacher(logits, theirs, batch.targets, share, TEMPERATURE)

    return loss


# ---- before the training ---------------------------------------------------------------------------------------------------------


def _require_sound(bundle: Bundle, config: QatConfig) -> None:
    require_trainable(bundle)
    fitted_head(bundle)


def _network(bundle: Bundle, prepared: Graph, dataset: Dataset, config: QatConfig, progress: Progress) -> FakeQuantised:
    """The network as calibration leaves it. prepared: what post-training quantisation chose to begin with, equalised or not."""
    images = images_of(part(dataset, bundle, "train", config.quantize.calibration), bundle.preprocess)
    start = placed(prepared, observe(prepared, images, config.quantize.seed, progress), config.quantize)
    graph = with_norms(prepared, images) if config.fold_after else prepared
    return FakeQuantised(graph, prepared, fitted_head(bundle), config.quantize, config.method, start)


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
    engine = graph_engine(integers)
    train_features = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, training_views(bundle), progress)
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)
    with progress("refitting the head", 1) as advance:
        again = fitted_head(refitted(made, (train_features, val)))
        advance(1)
    made = replace(made, head=max((own, again), key=lambda head: _top1(head, val)))  # the first of equals: as it was trained
    yardstick = measured(made, dataset, progress)
    return Quantized(replace(made, yardstick=yardstick), graph), _noise(made, yardstick, network, dataset)


def _noise(made: Bundle, yardstick: Yardstick, network: FakeQuantised, dataset: Dataset) -> float:
    """See Qat; on the yardstick's images, all under the bundle's head."""
    network = network.in_double()
    images = images_of(part(dataset, made, "val", YARDSTICK), made.preprocess)
    with torch.inference_mode():
        rounded = np.concatenate([network.features(torch.from_numpy(batch)).numpy() for batch in batches(images)])
    logits = fitted_head(made).logits(rounded)
    return rms(yardstick.logits, logits) / max(rms(logits, yardstick.float_logits), 1e-12)


def _val_top1(bundle: Bundle, dataset: Dataset, progress: Progress) -> float:
    """Of the int8 graph and the head."""
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, graph_engine(int8_graph(bundle)), progress=progress)
    return _top1(fitted_head(bundle), val)


def _top1(head: Head, features: Features) -> float:
    return top1(head.logits(features.x[0]), labels_of(features.items))


def _noted(post: Quantized, trained: Step) -> Quantized:
    """Post-training quantisation, whose line of lineage says what was tried instead."""
    *before, step = post.bundle.lineage
    settings = {name: value for name, value in trained.settings.items() if name not in step.settings} | {"kept": "post-training"}
    metrics = {"val_top1_qat": trained.metrics["val_top1"], "val_top1_float": trained.metrics["val_top1_float"]}
    noted = replace(step, settings={**step.settings, **settings}, metrics={**step.metrics, **metrics}, curves=trained.curves)
    return replace(post, bundle=replace(post.bundle, lineage=(*before, noted)))
