"""search: from a fitted bundle to one whose layers are as wide as FastNAS finds best within limits, and what that saved and cost.

subnets.py   which widths
images.py    the float Graph in the form that Model Optimizer traces
measure.py   what both networks cost and answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.brief import as_table, in_short
from nestling.bundle import Bundle, Step, fitted_head
from nestling.compress.channels import total_macs
from nestling.compress.config import SearchConfig
from nestling.compress.images import Images
from nestling.compress.measure import RUNTIME, Measured, compare_costs, learned, no_gain, photographs
from nestling.compress.subnets import Limit, Subnet, captured, find, require_modelopt
from nestling.data.choose import part, training_data
from nestling.data.folders import Item, LeftOut, Source, fingerprint
from nestling.graph.passes import prepare
from nestling.models.float_graph import unfolded_graph
from nestling.preprocess.image import Preprocess
from nestling.preprocess.image import table as normalisation
from nestling.progress import Progress, silent

BATCH = 16  # on few cores the quickest: what a layer writes, the next one still finds in the processor's caches
STATISTICS = 128  # training photographs that BatchNorm's statistics are set anew from


@dataclass(frozen=True, eq=False)
class Searched:
    """bundle: the subnet's. before, after: what it was and is. runtime: the format and runtime of the milliseconds.

    widths: of each group of layers that share one, by the layer that leads it: (channels that it has, that it had).
    tried: subnets that were judged. gained_nothing: where, a sentence each. images: how many are in each part.
    seconds: of each phase.
    """

    __repr__, _repr_html_ = in_short, as_table

    bundle: Bundle
    before: Measured
    after: Measured
    runtime: str
    widths: Mapping[str, tuple[int, int]]
    tried: int
    gained_nothing: tuple[str, ...]
    images: dict[str, int]
    left_out: tuple[LeftOut, ...]
    seconds: dict[str, float]


def search(bundle: Bundle, data: Source | None = None, config: SearchConfig | None = None, progress: Progress = silent) -> Searched:
    """Find how wide each layer should be, so that the network keeps its answers as well as it can within the limits.

    data: the folder that the bundle learned from; None for the one that its lineage names.
    A candidate is scored by its top-1 on validation photographs, with the bundle's head and BatchNorm statistics set anew from
    training photographs; test is not looked at. The result's architecture is a float Graph that keeps its batch norms; its weights
    are the bundle's, its head is learned again. Fine-tuning is a step of its own. An int8 graph and its yardstick are left out.
    The same bundle, photographs and config give the same bundle.
    Raises NestlingError for a config out of range, a bundle without head or float network, a missing package, a limit that cannot
    be reached; UnusableData without photographs; UnsupportedOp for a network that the Graph does not hold.
    """
    config = config or SearchConfig()
    head = fitted_head(bundle)
    start = perf_counter()
    with progress("capturing", 1) as advance:
        graph = unfolded_graph(bundle)
        advance(1)
    require_modelopt()
    dataset = training_data(bundle, data)
    preprocess = None if graph.tensors[graph.inputs[0]].dtype == "uint8" else bundle.preprocess

    def shown(items: Sequence[Item], most: int) -> Photographs:
        return Photographs(*photographs(items, bundle.preprocess, most, config.seed, dataset.root), preprocess)

    own = shown(part(dataset, bundle, "train"), STATISTICS)
    judges = shown(part(dataset, bundle, "val"), config.images)
    with progress("candidates", config.candidates) as advance:
        found = find(
            graph,
            head,
            _limits(Subnet(graph, head), config),
            lambda subnet: top1(settled(subnet, own), judges),
            config.candidates,
            config.round_to,
            lambda: advance(1),
        )
    subnet = settled(found.subnet, own)
    searched = perf_counter() - start

    made = replace(bundle, architecture=subnet.graph, arrays={}, head=subnet.head, graph=None, yardstick=None)
    compared = compare_costs(bundle, graph, made, subnet.graph, dataset, progress)
    metrics = compared.metrics() | {"candidates": found.tried}
    step = Step("search", {"method": "fastnas"} | asdict(config), fingerprint(dataset), metrics)
    untouched = [name for name, (width, whole) in found.widths.items() if width == whole]
    return Searched(
        replace(compared.bundle, lineage=(*bundle.lineage, step)),
        compared.before,
        compared.after,
        RUNTIME,
        found.widths,
        found.tried,
        no_gain(compared.before, compared.after, untouched, len(found.widths)),
        compared.images,
        compared.left_out,
        {"search": searched} | compared.seconds,
    )


# ---- how a candidate is judged --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Photographs:
    """images: uint8 [N, H, W, C]. labels: [N]. preprocess: how they are normalised, None where the network takes bytes."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    preprocess: Preprocess | None

    def batches(self) -> Iterator[torch.Tensor]:
        """As Images takes them: [BATCH or fewer, C, H, W], channels last in memory."""
        values = None if self.preprocess is None else normalisation(self.preprocess)
        for at in range(0, len(self.images), BATCH):
            some: NDArray[np.uint8] | NDArray[np.float32] = self.images[at : at + BATCH]
            if values is not None:
                some = np.stack([row[some[..., channel]] for channel, row in enumerate(values)], axis=-1)
            yield torch.from_numpy(some).permute(0, 3, 1, 2)


def settled(subnet: Subnet, own: Photographs) -> Subnet:
    """The subnet with BatchNorm's statistics set anew, to the mean of the batches': channels that went change what others see."""
    images = Images(subnet.graph, subnet.head)
    norms = [module for module in images.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return subnet
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean of all batches
        norm.train()
    with torch.no_grad():
        for batch in own.batches():
            images(batch)
    return captured(images)


def top1(subnet: Subnet, judges: Photographs) -> float:
    """Share of the photographs that it names."""
    images = Images(prepare(subnet.graph), subnet.head)  # without batch norms it is more than twice as quick
    with torch.inference_mode():
        answers = np.concatenate([images(batch).argmax(1).numpy() for batch in judges.batches()])
    return float((answers == judges.labels).mean())


# ---- what is asked for ----------------------------------------------------------------------------------------------------------


def _limits(whole: Subnet, config: SearchConfig) -> list[Limit]:
    asked: dict[str, tuple[Callable[[Subnet], int], float | None]] = {
        "multiply-accumulates": (lambda some: total_macs(some.graph), config.macs),
        "parameters": (lambda some: learned(some.graph) + some.head.weight.size + some.head.bias.size, config.params),
    }
    kept = ((what, count, count(whole), share) for what, (count, share) in asked.items() if share is not None)
    return [Limit(what, count, all_of_it, int(share * all_of_it)) for what, count, all_of_it, share in kept]
