"""quantize: from a fitted bundle to one that carries the int8 Graph, a head that was learned on its embeddings, and the yardstick.

models/float_graph.py   the backbone as a float Graph
calibrate.py            images -> statistics -> ranges
equalize.py, bias_correction.py   the float Graph made easier to quantise; kept where they help
integers.py             float Graph + ranges -> int8 Graph
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short
from nestling.bundle import Bundle, Step, Yardstick, fitted_head, int8_graph
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, Source, fingerprint, labels_of
from nestling.data.images import images_of, read_images
from nestling.embedding.cache import embed
from nestling.embedding.engine import exact_engine, graph_engine
from nestling.embedding.of_bundle import engine_for
from nestling.embedding.refit import judged_by, refitted, training_views
from nestling.errors import NestlingError, UnusableData
from nestling.graph import reference
from nestling.graph.integers import Choice, QuantizeConfig, with_integers
from nestling.graph.ir import Graph
from nestling.models.float_graph import float_graph
from nestling.progress import Progress, silent
from nestling.quantization.bias_correction import bias_corrected
from nestling.quantization.calibrate import Statistics, choose_ranges, observe
from nestling.quantization.equalize import equalized
from nestling.scores.evaluate import top1

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

YARDSTICK = 200  # validation images whose answers every later gate is judged on
TRIAL_TRAIN, TRIAL_VAL = 400, 200  # images on which equalisation and bias correction are tried
HELPS = 0.99  # of the cross-entropy without it: less of a gain is noise
CHECKED = 2  # images on which LiteRT's reference kernels must give the reference's own bytes to stand in for it
CHOICES: Mapping[Choice, tuple[bool, ...]] = {"off": (False,), "on": (True,), "auto": (False, True)}


@dataclass(frozen=True, eq=False)
class Quantized:
    """bundle: as quantize returns it. float_graph: what the integers were made from, equalised or not, biases not corrected."""

    __repr__, _repr_html_ = in_short, as_table

    bundle: Bundle
    float_graph: Graph


@dataclass(frozen=True, eq=False)
class _Plan:
    """One way of making the int8 graph."""

    equalized: bool
    corrected: bool
    float_graph: Graph
    integers: Graph


def quantize(
    bundle: Bundle, data: Source | None = None, config: QuantizeConfig | None = None, progress: Progress = silent
) -> Bundle:
    """Give the bundle's network integers, learn its head again on what they answer, and measure the yardstick.

    data: the folder that the bundle learned from; None for the one that its lineage names.
    Returns the bundle with graph (int8: uint8 image -> int8 embedding), head, yardstick and a line of lineage more; its float
    network stays what it was. yardstick: up to 200 validation images; the reference's embeddings and the float network's under the
    same head, so that their difference is what quantisation did.
    Raises UnusableData without training images, NestlingError for a bundle without head, UnsupportedOp for a network that holds
    what the Graph does not.
    Source: Jacob et al. 2018 (arithmetic); Nagel et al. 2019 (equalisation, bias correction).
    """
    return quantized(bundle, data, config, progress).bundle


def quantized(
    bundle: Bundle, data: Source | None = None, config: QuantizeConfig | None = None, progress: Progress = silent
) -> Quantized:
    """As quantize, with the float graph that the integers were made from: what explain compares with."""
    config = config or QuantizeConfig()
    fitted_head(bundle)
    dataset = training_data(bundle, data)
    images = images_of(part(dataset, bundle, "train", config.calibration), bundle.preprocess)
    if not images:
        raise UnusableData(f"no training photograph in {dataset.root} can be read.")
    with progress("capturing", 1) as advance:
        graph = float_graph(bundle)
        advance(1)

    plans = _plans(graph, images, config, progress)
    trials = [_trial(bundle, plan.integers, dataset, progress) for plan in plans] if len(plans) > 1 else [0.0]
    chosen = _chosen(plans, trials)

    engine = graph_engine(chosen.integers)
    train = embed(part(dataset, bundle, "train"), bundle.preprocess, engine, training_views(bundle), progress)
    val = embed(part(dataset, bundle, "val"), bundle.preprocess, engine, progress=progress)
    with progress("refitting the head", 1) as advance:
        made = replace(refitted(bundle, (train, val)), graph=chosen.integers)
        advance(1)
    yardstick = measured(made, dataset, progress)
    settings = asdict(config) | {"equalized": chosen.equalized, "bias_corrected": chosen.corrected}
    metrics = {"val_top1": judged_by(made, val).top1} | yardstick_metrics(yardstick, dataset)
    step = Step("quantize", settings, fingerprint(dataset), metrics)
    return Quantized(replace(made, yardstick=yardstick, lineage=(*bundle.lineage, step)), chosen.float_graph)


# ---- the ways, and the choice among them ---------------------------------------------------------------------------------------


def _plans(graph: Graph, images: Sequence[Image], config: QuantizeConfig, progress: Progress) -> list[_Plan]:
    """The plainest first."""
    plans: list[_Plan] = []
    statistics = observe(graph, images, config.seed, progress)
    for equalize in CHOICES[config.equalize]:
        base, found = graph, statistics
        if equalize:
            base = _equalized(graph, statistics)
            found = observe(base, images, config.seed, progress)
        plain = _integers(base, found, config)
        for correct in CHOICES[config.bias_correction]:
            with progress("correcting biases" if correct else "quantising", 1) as advance:
                corrected = bias_corrected(base, plain, images) if correct else base
                integers = _integers(corrected, found, config) if correct else plain
                advance(1)
            plans.append(_Plan(equalize, correct, base, integers))
    return plans


def _equalized(graph: Graph, statistics: Mapping[str, Statistics]) -> Graph:
    return equalized(graph, {name: some.channel_high for name, some in statistics.items()})


def float_network(bundle: Bundle, dataset: Dataset, progress: Progress = silent) -> Graph:
    """The float graph that a quantised bundle's integers were made from, biases not corrected: what explain compares with."""
    settings = next((step.settings for step in reversed(bundle.lineage) if step.name == "quantize"), {})
    graph = float_graph(bundle)
    if not settings.get("equalized"):
        return graph
    if settings.get("calibration", 0) < 1 or settings.get("seed", -1) < 0:
        raise NestlingError("the bundle does not say on which images it was equalised.", "nestling quantize my.nest -o my8.nest")
    images = images_of(part(dataset, bundle, "train", settings["calibration"]), bundle.preprocess)
    return _equalized(graph, observe(graph, images, settings["seed"], progress))


def _integers(graph: Graph, statistics: Mapping[str, Statistics], config: QuantizeConfig) -> Graph:
    return with_integers(graph, choose_ranges(statistics, config.range, config.bits_activations, config.symmetric), config)


def _trial(bundle: Bundle, integers: Graph, dataset: Dataset, progress: Progress) -> float:
    """Cross-entropy on some validation images, with a head learned on some training images' int8 embeddings.

    Not top-1, which moves in steps of one image.
    """
    engine = graph_engine(integers)
    train = embed(part(dataset, bundle, "train", TRIAL_TRAIN), bundle.preprocess, engine, progress=progress)
    val = embed(part(dataset, bundle, "val", TRIAL_VAL), bundle.preprocess, engine, progress=progress)
    logits = fitted_head(refitted(bundle, (train, val))).logits(val.x[0]).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    chances = logits[np.arange(len(logits)), labels_of(val.items)] - np.log(np.exp(logits).sum(axis=1))
    return -float(chances.mean())


def _chosen(plans: Sequence[_Plan], trials: Sequence[float]) -> _Plan:
    """The plan with the lowest cross-entropy; one that does more only where that helps."""
    best = 0
    for index, loss in enumerate(trials):
        if loss < trials[best] * HELPS:
            best = index
    return plans[best]


# ---- the yardstick -------------------------------------------------------------------------------------------------------------


def measured(bundle: Bundle, dataset: Dataset, progress: Progress = silent) -> Yardstick:
    """What the reference and the float network answer on up to 200 validation images, both under the bundle's head."""
    head = fitted_head(bundle)
    read = list(read_images(part(dataset, bundle, "val", YARDSTICK), bundle.preprocess))
    items, images = [item for item, _ in read], [image for _, image in read]
    embeddings = reference_embeddings(int8_graph(bundle), images, progress)
    real = embed(items, bundle.preprocess, engine_for(bundle, dataset), progress=progress).x[0]
    prints = tuple(item.fingerprint for item in items)
    return Yardstick(prints, head.logits(embeddings), head.logits(real))


def reference_embeddings(graph: Graph, images: Sequence[Image], progress: Progress = silent) -> Floats:
    """The real numbers of the int8 embeddings that reference.py gives, float32 [N, D].

    C or LiteRT's reference kernels compute them, many times as fast, where on the first images they give the reference's own bytes;
    else reference.py does.
    """
    engine = exact_engine(graph, len(images))
    quick = engine(np.stack(images[:CHECKED])) if images else np.empty((0, engine.width), np.float32)
    same = all(np.array_equal(row, _reference(graph, image)) for row, image in zip(quick, images, strict=False))
    rows: list[Floats] = []
    with progress("measuring the yardstick", len(images)) as advance:
        for row in engine.embed(iter(images)) if same else (_reference(graph, image) for image in images):
            rows.append(row)
            advance(1)
    return np.array(rows, np.float32).reshape(len(images), engine.width)


def _reference(graph: Graph, image: Image) -> Floats:
    embedding = graph.tensors[graph.outputs[0]]
    assert embedding.quant is not None
    return embedding.quant.real(reference.run(graph, image[None])[embedding.name][0])


def yardstick_metrics(yardstick: Yardstick, dataset: Dataset) -> dict[str, float]:
    """As the lineage keeps them."""
    label_of = {item.fingerprint: item.label for item in dataset.items}
    truth = np.array([label_of[print_] for print_ in yardstick.fingerprints], np.int64)
    return {"yardstick_top1": top1(yardstick.logits, truth), "yardstick_float_top1": top1(yardstick.float_logits, truth)}
