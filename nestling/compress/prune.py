"""prune: from a fitted bundle to one with fewer channels, or with zeros among its weights, and what that saved and cost.

layers.py     the float Graph as torch's own layers
channels.py   which channels go
sparse.py     which weights become zero, when, and that they stay so
measure.py    both networks beside each other
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch

from nestling.brief import as_table, in_short
from nestling.bundle import Bundle, Step, fitted_head
from nestling.compress.channels import Batch, Thinned, thinned, total_macs
from nestling.compress.config import PruneConfig, SparseConfig
from nestling.compress.measure import RUNTIME, Measured, compare_costs, no_gain, photographs
from nestling.compress.sparse import growing, prunable, ramp_of
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, LeftOut, Source, fingerprint
from nestling.errors import NestlingError, WrongOption
from nestling.graph.ir import Graph
from nestling.models.backbones import build
from nestling.models.float_graph import unfolded_graph
from nestling.models.graph_module import GraphModule, to_graph
from nestling.preprocess.image import table as normalisation
from nestling.progress import Progress, silent
from nestling.training.config import TrainingConfig
from nestling.training.finetune import Lesson, Taught, teach
from nestling.training.session import Session

BATCH = 32


SPARSE_TRAINING = TrainingConfig(epochs=10)


@dataclass(frozen=True, eq=False)
class Pruned:
    """bundle: with fewer channels. before, after: what it was and is. runtime: the format and runtime of the milliseconds.

    no_gain: where nothing was gained, a sentence each. images: how many are in each part. seconds: of each phase.
    """

    __repr__, _repr_html_ = in_short, as_table

    bundle: Bundle
    before: Measured
    after: Measured
    runtime: str
    no_gain: tuple[str, ...]
    images: dict[str, int]
    left_out: tuple[LeftOut, ...]
    seconds: dict[str, float]


def prune(bundle: Bundle, data: Source | None = None, config: PruneConfig | None = None, progress: Progress = silent) -> Pruned:
    """Remove the channels that matter least for what they cost, until the multiply-accumulates are the share asked for.

    data: the folder that the bundle learned from; None for the one that its lineage names.
    The result's architecture is a float Graph that keeps its batch norms; their statistics are set anew from training photographs.
    Only the head is learned again, on train and val: what the missing channels cost is won back by fine-tuning, which is a step
    of its own. An int8 graph and its yardstick are left out. The same bundle, photographs and config give the same bundle.
    Raises NestlingError for a config out of range, a bundle without head or float network, a share that cannot be reached;
    UnusableData without training photographs; UnsupportedOp for a network that the Graph does not hold.
    """
    config = config or PruneConfig()
    head = fitted_head(bundle)
    start = perf_counter()
    with progress("capturing", 1) as advance:
        graph = unfolded_graph(bundle)
        advance(1)
    dataset = training_data(bundle, data)
    batches = _batches(bundle, graph, dataset, config)
    with progress("pruning", 1) as advance:
        goal = int(total_macs(graph) * config.macs)
        thin = thinned(graph, head, goal, config.importance, config.round_to, config.steps, batches)
        advance(1)
    settled = renormed(thin.graph, [images for images, _ in batches])
    made = replace(bundle, architecture=settled, arrays={}, head=thin.head, graph=None, yardstick=None)
    pruned = perf_counter()

    compared = compare_costs(bundle, graph, made, settled, dataset, progress)
    step = Step("prune", {"method": "structured"} | asdict(config), fingerprint(dataset), compared.metrics())
    return Pruned(
        replace(compared.bundle, lineage=(*bundle.lineage, step)),
        compared.before,
        compared.after,
        RUNTIME,
        no_gain(compared.before, compared.after, *_untouched(graph, thin)),
        compared.images,
        compared.left_out,
        {"pruning": pruned - start} | compared.seconds,
    )


def sparsify(
    bundle: Bundle,
    data: Source | None = None,
    config: SparseConfig | None = None,
    training: TrainingConfig = SPARSE_TRAINING,
    session: Session | None = None,
) -> Taught:
    """Make more and more of the weights zero while the network learns, then let it recover. See teach() for what comes in and out.

    The zeros grow over the first three fifths of the steps; only epochs after that may be the best. The architecture stays what it
    was: zeros are numbers like others. Later trainings of the bundle keep them.
    Raises NestlingError for a config out of range, and for a bundle that has more zeros than that.
    """
    config = config or SparseConfig()
    _require_sparse(bundle, config, training)
    settings = asdict(config)
    lesson = Lesson(
        "prune",
        settings,
        run=settings,
        changing=growing(config.method, config.sparsity, config.ranking),
        settled=ramp_of(training.epochs),
    )
    made = teach(bundle, data, training, lesson, session)
    step = made.bundle.lineage[-1]
    step = replace(step, metrics=dict(step.metrics) | {"sparsity": round(sparsity_of(made.bundle), 6)})
    return replace(made, bundle=replace(made.bundle, lineage=(*made.bundle.lineage[:-1], step)))


def sparsity_of(bundle: Bundle) -> float:
    """Share of zeros among the weights that sparsify() would prune."""
    weights = prunable(build(bundle)).values()
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


def renormed(graph: Graph, batches: Sequence[np.ndarray]) -> Graph:
    """The graph with the statistics of its batch norms set anew: their mean over the batches, each as the graph's input [N, ...].

    What a norm sees is another once channels in front of it are gone.
    """
    module = GraphModule(graph).train()
    with torch.no_grad():
        for count, images in enumerate(batches, start=1):
            module.momentum = 1 / count  # so that the running mean is the mean of all so far
            module(torch.from_numpy(images))
    return to_graph(module)


# ---- the parts ------------------------------------------------------------------------------------------------------------------


def _require_sparse(bundle: Bundle, config: SparseConfig, training: TrainingConfig) -> None:
    if training.ema:
        raise WrongOption("a moving average of weights that become zero is not zero.", "leave out --ema; finetune takes it later")
    if training.blocks is not None:
        raise WrongOption("weights become zero in every layer, so that every layer learns.", "leave out --blocks")
    if bundle.architecture is not None and (now := sparsity_of(bundle)) >= config.sparsity:
        raise NestlingError(f"{now:.1%} of this bundle's weights are zero already.", "ask for more:  --sparsity")


def _batches(bundle: Bundle, graph: Graph, dataset: Dataset, config: PruneConfig) -> list[Batch]:
    """Training photographs as the graph takes them."""
    learned = part(dataset, bundle, "train")
    images, labels = photographs(learned, bundle.preprocess, config.images, config.seed, dataset.root)
    given: np.ndarray = images
    if graph.tensors[graph.inputs[0]].dtype == "float32":
        values = normalisation(bundle.preprocess)
        given = np.stack([row[images[..., channel]] for channel, row in enumerate(values)], axis=-1)
    return [(given[at : at + BATCH], labels[at : at + BATCH]) for at in range(0, len(given), BATCH)]


def _untouched(graph: Graph, thin: Thinned) -> tuple[tuple[str, ...], int]:
    """(layers with weights that kept all their channels, how many layers with weights there are)."""
    weighted = [node for node in graph.nodes if node.name in thin.kept and node.op != "batch_norm"]
    same = (node.source or node.name for node in weighted if len(thin.kept[node.name]) == graph.tensors[node.name].shape[-1])
    return tuple(same), len(weighted)
