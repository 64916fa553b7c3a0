"""prune: from a fitted bundle to one with fewer channels, and what that saved and cost.

layers.py     the float Graph as torch's own layers
channels.py   which channels go
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import get_args

import numpy as np
from ai_edge_litert import __version__ as litert

from nestling.bundle import Bundle, Step, Timm
from nestling.compress.channels import Batch, Importance, Thinned, thinned, total_macs
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, LeftOut, fingerprint
from nestling.data.stream import stream
from nestling.errors import NestlingError, UnusableData
from nestling.graph.capture import capture
from nestling.graph.ir import Graph
from nestling.graph.passes import prepare
from nestling.models.backbones import build, build_backbone
from nestling.models.float_graph import float_graph
from nestling.models.graph_module import GraphModule
from nestling.preprocess import table as normalisation
from nestling.progress import Progress, silent
from nestling.report.evaluate import Evaluation, judge
from nestling.targets.tflite import open_interpreter, print_graph
from nestling.training.bundle_engine import bundle_engine
from nestling.training.engine import Engine
from nestling.training.features import Features, embed
from nestling.training.fit import refitted, training_views

BATCH = 32
ROUNDS, RUNS = 7, 15  # of timing: so many turns of so many images
NOISE = 0.97  # a share of the time that a clock on a busy computer cannot tell from 1


@dataclass(frozen=True)
class PruneConfig:
    """macs: share of the multiply-accumulates that stay at most, between 0 and 1.

    importance: what a channel is judged by: l1 (its weights), taylor (weights times gradients on training photographs),
    norm (BatchNorm's scales). round_to: layers keep multiples of so many channels. steps: channels go in so many steps and are
    judged anew in each. images: training photographs for taylor, drawn with `seed`.
    """

    macs: float = 0.5
    importance: Importance = "taylor"
    round_to: int = 8
    steps: int = 5
    images: int = 256
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Measured:
    """A network's costs and answers.

    macs: of the backbone, one image. parameters: learned numbers of backbone and head. bytes: of the float32 numbers that a device
    holds (batch norms folded). ms: of one embedding, the median; see Pruned.runtime. val_top1: 0 to 1. test: on the test part.
    """

    macs: int
    parameters: int
    bytes: int
    ms: float
    val_top1: float
    test: Evaluation


@dataclass(frozen=True, eq=False)
class Pruned:
    """bundle: with fewer channels. before, after: what it was and is. runtime: the format and runtime of the milliseconds.

    untouched: layers with weights that kept all their channels, of `layers` in all. images: how many are in each part.
    seconds: of each phase.
    """

    bundle: Bundle
    before: Measured
    after: Measured
    runtime: str
    untouched: tuple[str, ...]
    layers: int
    images: dict[str, int]
    left_out: tuple[LeftOut, ...]
    seconds: dict[str, float]


def prune(bundle: Bundle, data: Path | None = None, config: PruneConfig | None = None, progress: Progress = silent) -> Pruned:
    """Remove the channels that matter least for what they cost, until the multiply-accumulates are the share asked for.

    data: the folder that the bundle learned from; None for the one that its lineage names.
    The result's architecture is a float Graph that keeps its batch norms. Only the head is learned again, on train and val: what
    the missing channels cost is won back by fine-tuning, which is a step of its own. An int8 graph and its yardstick are left out.
    The same bundle, photographs and config give the same bundle.
    Raises NestlingError for a config out of range, a bundle without head or float network, a share that cannot be reached;
    UnusableData without training photographs; UnsupportedOp for a network that the Graph does not hold.
    """
    config = config or PruneConfig()
    _require_sound(config)
    if bundle.head is None:
        raise NestlingError("only a fitted network is pruned: its head is learned again.", "nestling fit PHOTOS -o my.nest")
    start = perf_counter()
    with progress("capturing", 1) as advance:
        graph = unfolded_graph(bundle)
        advance(1)
    dataset = training_data(bundle, data)
    batches = _batches(bundle, graph, dataset, config) if config.importance == "taylor" else ()
    with progress("pruning", 1) as advance:
        goal = int(total_macs(graph) * config.macs)
        thin = thinned(graph, bundle.head, goal, config.importance, config.round_to, config.steps, batches)
        advance(1)
    made = replace(bundle, architecture=thin.graph, arrays={}, head=thin.head, graph=None, yardstick=None)
    pruned = perf_counter()

    old, new = _engine(bundle, dataset), _engine(made, dataset)
    train, val = (
        embed(part(dataset, bundle, "train"), bundle.preprocess, new, training_views(bundle), progress),
        embed(part(dataset, bundle, "val"), bundle.preprocess, new, progress=progress),
    )
    made = refitted(made, (train, val))
    embedded = perf_counter()
    times = in_turns([_invoked(float_graph(bundle)), _invoked(float_graph(made))], progress)
    timed = perf_counter()
    before, _ = _measured(bundle, graph, times[0], dataset, old, progress)
    after, judged = _measured(made, thin.graph, times[1], dataset, new, progress)
    left_out = tuple({entry.path: entry for some in (train, val, judged) for entry in some.left_out}.values())
    metrics: dict[str, float] = {"macs_before": before.macs, "macs": after.macs}
    metrics |= {"parameters_before": before.parameters, "parameters": after.parameters}
    metrics |= {"val_top1_before": round(before.val_top1, 6), "val_top1": round(after.val_top1, 6)}
    metrics |= {"test_top1_before": round(before.test.top1, 6), "test_top1": round(after.test.top1, 6)}
    step = Step("prune", {"method": "structured"} | asdict(config), fingerprint(dataset), metrics)
    untouched, layers = _untouched(graph, thin)
    return Pruned(
        replace(made, lineage=(*bundle.lineage, step)),
        before,
        after,
        f"float32 .tflite in LiteRT {litert}",
        untouched,
        layers,
        {"train": len(train.items), "val": len(val.items), "test": after.test.images, "left_out": len(left_out)},
        left_out,
        {"pruning": pruned - start, "embeddings": embedded - pruned + perf_counter() - timed, "timing": timed - embedded},
    )


def unfolded_graph(bundle: Bundle) -> Graph:
    """The float Graph of the bundle's backbone with its batch norms: float32 image (uint8 where it begins so) -> embedding.

    Raises NestlingError for a bundle that has integers only.
    """
    if isinstance(bundle.architecture, Timm):
        shape = (*bundle.preprocess.size, bundle.preprocess.channels)
        return capture(build_backbone(bundle.architecture, bundle.arrays), shape)
    graph = bundle.architecture
    if graph is None or any(tensor.dtype == "int8" for tensor in graph.tensors.values()):
        raise NestlingError(
            "this bundle's network is an int8 one, made elsewhere; there are no float weights to prune.",
            "import the float .tflite instead",
        )
    return graph


def no_gain(pruned: Pruned) -> tuple[str, ...]:
    """Where pruning gained nothing, a sentence each."""
    said = []
    if pruned.after.ms > NOISE * pruned.before.ms:
        said.append(f"milliseconds: {pruned.before.ms:.2f} before, {pruned.after.ms:.2f} after ({pruned.runtime})")
    if pruned.untouched:
        named = ", ".join(pruned.untouched[:8]) + (", ..." if len(pruned.untouched) > 8 else "")
        said.append(f"{len(pruned.untouched)} of {pruned.layers} layers kept all their channels: {named}")
    return tuple(said)


def in_turns(work: Sequence[Callable[[], object]], progress: Progress = silent) -> list[float]:
    """Milliseconds of each piece of work, the median; they take turns, so that the computer's drift falls on all."""
    times: list[list[float]] = [[] for _ in work]
    with progress("timing", ROUNDS) as advance:
        for _ in range(ROUNDS):
            for one, own in zip(work, times, strict=True):
                one()  # the processor's caches are still another's
                for _ in range(RUNS):
                    start = perf_counter()
                    one()
                    own.append((perf_counter() - start) * 1e3)
            advance(1)
    return [float(np.median(own)) for own in times]


# ---- the parts ------------------------------------------------------------------------------------------------------------------


def _require_sound(config: PruneConfig) -> None:
    if not 0 < config.macs < 1:
        raise NestlingError(
            f"--macs is the share that stays, above 0% and below 100%; found {config.macs:.0%}.", "half of them:  --macs 50%"
        )
    if config.importance not in get_args(Importance):
        raise NestlingError(f"--importance is one of {', '.join(get_args(Importance))}; found {config.importance!r}.")
    if min(config.round_to, config.steps, config.images) < 1:
        raise NestlingError("--round, --steps and --images are 1 at least.")


def _batches(bundle: Bundle, graph: Graph, dataset: Dataset, config: PruneConfig) -> list[Batch]:
    """Training photographs as the graph takes them."""
    learned = part(dataset, bundle, "train")
    drawn = np.random.default_rng(config.seed).permutation(len(learned))[: config.images]
    items = [learned[i] for i in sorted(drawn)]
    read = [(image, items[i].label) for i, image in stream(items, bundle.preprocess, workers=2) if not isinstance(image, LeftOut)]
    if not read:
        raise UnusableData(f"no training photograph in {dataset.root} can be read.")
    images, labels = np.stack([image for image, _ in read]), np.array([label for _, label in read], np.int64)
    if graph.tensors[graph.inputs[0]].dtype == "float32":
        values = normalisation(bundle.preprocess)
        images = np.stack([row[images[..., channel]] for channel, row in enumerate(values)], axis=-1)
    return [(images[at : at + BATCH], labels[at : at + BATCH]) for at in range(0, len(images), BATCH)]


def _engine(bundle: Bundle, dataset: Dataset) -> Engine:
    count = len(dataset.items) * len(training_views(bundle))  # as fit counted, so that the cache knows the same engine's
    return bundle_engine(bundle, count)


def _invoked(graph: Graph) -> Callable[[], object]:
    """One run of the graph as a device would have it: printed as .tflite, in LiteRT on one thread, of one image."""
    interpreter = open_interpreter(print_graph(graph), "the float network")
    image = interpreter.get_input_details()[0]
    interpreter.set_tensor(image["index"], np.random.default_rng(0).integers(0, 256, image["shape"], np.uint8))
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


def _measured(
    bundle: Bundle, graph: Graph, ms: float, dataset: Dataset, engine: Engine, progress: Progress
) -> tuple[Measured, Features]:
    """With the features of the test part."""
    assert bundle.head is not None
    val, test = (embed(part(dataset, bundle, which), bundle.preprocess, engine, progress=progress) for which in ("val", "test"))
    judged = [
        judge(
            some.x[0] @ bundle.head.weight.T + bundle.head.bias,
            np.array([item.label for item in some.items], np.int64),
            [item.path for item in some.items],
            bundle.labels,
        )
        for some in (val, test)
    ]
    head = bundle.head.weight.size + bundle.head.bias.size
    folded = sum(t.data.size for t in prepare(graph).tensors.values() if t.data is not None and t.dtype == "float32")
    learned = sum(parameter.numel() for parameter in GraphModule(graph).parameters())
    return Measured(total_macs(graph), learned + head, 4 * (folded + head), ms, judged[0].top1, judged[1]), test


def _untouched(graph: Graph, thin: Thinned) -> tuple[tuple[str, ...], int]:
    """(layers with weights that kept all their channels, how many layers with weights there are)."""
    weighted = [node for node in graph.nodes if node.name in thin.kept and node.op != "batch_norm"]
    same = (node.source or node.name for node in weighted if len(thin.kept[node.name]) == graph.tensors[node.name].shape[-1])
    return tuple(same), len(weighted)
