"""Mixed precision: bits of the weights, layer by layer, so that all of them fit in so many bytes and the answers change least.

sensitivities   what rounding one layer's weights alone costs, at each number of bits
least_cost      one number of bits a layer, the least sum of costs within the bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from math import prod

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle, fitted_head
from nestling.data.choose import part, training_data
from nestling.data.folders import Source
from nestling.data.images import images_of
from nestling.errors import NestlingError, UnusableData
from nestling.formats.tflite.floats import Value, step, stepwise
from nestling.graph.float_twin import real
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, bits_of, quantized_weight, weighted
from nestling.graph.ir import OUT_AXIS, Graph, Node
from nestling.graph.packed import FEW, FULL, packed_size
from nestling.models.float_graph import float_graph
from nestling.progress import Progress, silent
from nestling.quantization.calibrate import batches

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

WIDTHS = (*FEW, FULL)  # bits that weights are stored in
CHANNEL: Mapping[str, int] = {  # bytes that C keeps for an output channel besides its weights
    "conv2d": 9,  # bias and multiplier int32, shift int8
    "depthwise_conv2d": 9,
    "fully_connected": 12,  # bias int32, factor double
}
IMAGES = 32  # through the rest of the network once a layer and width; on EfficientNet-Lite0 about a minute
MOST = 2**17  # sums of bytes that least_cost goes on with


@dataclass(frozen=True)
class LayerBits:
    """The weights of one layer at one number of bits.

    layer: the node; source: the layer it came from, or "". weights: how many. bytes: of the packed weights, and of the constants
    of channels. cost: Kullback-Leibler divergence of the answers from the float network's, nats an image, when nothing else is
    rounded.
    """

    layer: str
    source: str
    op: str
    weights: int
    bits: int
    bytes: int
    cost: float


Options = Sequence[Sequence[LayerBits]]
"""For every layer with weights, in running order, a row for each number of bits that it may have."""


def bits_for(
    bundle: Bundle, data: Source | None, budget: int, config: QuantizeConfig, progress: Progress = silent
) -> tuple[LayerBits, ...]:
    """chosen_bits for a fitted bundle, on validation images of the folder that it learned from (data; None: its lineage names it).

    Raises as chosen_bits, and NestlingError for a bundle without a head, UnusableData without images.
    """
    head = fitted_head(bundle)
    dataset = training_data(bundle, data)
    images = images_of(part(dataset, bundle, "val", IMAGES), bundle.preprocess)
    if not images:
        raise UnusableData(f"no validation photograph in {dataset.root} can be read.")
    with progress("capturing", 1) as advance:
        graph = float_graph(bundle)
        advance(1)
    return chosen_bits(graph, images, head, budget, config, progress)


def chosen_bits(
    graph: Graph, images: Sequence[Image], head: Head, budget: int, config: QuantizeConfig, progress: Progress = silent
) -> tuple[LayerBits, ...]:
    """Of each layer with weights the bits that it should get, in running order.

    graph: float, prepared, image -> embedding. images: of the validation part, uint8 [H, W, C] each. budget: bytes for all weights
    and their channels' constants. Layers whose bits the config fixes (layer_bits, ends_at_8) keep those.
    Raises NestlingError where the budget is too small. Source: Dong et al. 2019 (HAWQ: sensitivity by layer, from the float
    network); costs are added because small errors of the logits add in squares, and the divergence is quadratic in them.
    """
    require_enough(options(graph, config), budget)
    return chosen(sensitivities(graph, images, head, config, progress), budget)


def layer_bits(rows: Sequence[LayerBits]) -> tuple[tuple[str, int], ...]:
    """As QuantizeConfig takes them."""
    return tuple((row.layer, row.bits) for row in rows)


def chosen(found: Options, budget: int) -> tuple[LayerBits, ...]:
    """Of each layer one row, the least cost within the budget. Raises NestlingError where that is too small."""
    require_enough(found, budget)
    places = least_cost([[row.bytes for row in rows] for rows in found], [[row.cost for row in rows] for rows in found], budget)
    return tuple(rows[place] for rows, place in zip(found, places, strict=True))


def require_enough(found: Options, budget: int) -> None:
    """Raises NestlingError where the fewest bits everywhere take more than the budget."""
    least, most = (sum(pick(row.bytes for row in rows) for rows in found) for pick in (min, max))
    if budget < least:
        hint = f"--budget {least} to {most}: from the fewest bits everywhere to the most"
        raise NestlingError(f"the weights need at least {least:,} bytes; the budget is {budget:,}.", hint)


# ---- what bits cost ------------------------------------------------------------------------------------------------------------


def options(graph: Graph, config: QuantizeConfig) -> tuple[tuple[LayerBits, ...], ...]:
    """Each layer's rows before anything is measured: WIDTHS, or the bits that the config fixes. Costs are 0."""
    ends = {node.name for node in (*weighted(graph)[:1], *weighted(graph)[-1:])} if config.ends_at_8 else set()
    fixed = {name: (bits,) for name, bits in bits_of(graph, config).items() if name in ends or name in dict(config.layer_bits)}
    return tuple(tuple(_row(graph, node, bits) for bits in fixed.get(node.name, WIDTHS)) for node in weighted(graph))


def _row(graph: Graph, node: Node, bits: int) -> LayerBits:
    weight = graph.tensors[node.inputs[1]]
    stored = next(width for width in WIDTHS if bits <= width)
    size = packed_size(prod(weight.shape), stored) + CHANNEL[node.op] * weight.shape[OUT_AXIS[node.op]]
    return LayerBits(node.name, node.source, node.op, prod(weight.shape), bits, size, 0.0)


def sensitivities(
    graph: Graph, images: Sequence[Image], head: Head, config: QuantizeConfig, progress: Progress = silent
) -> tuple[tuple[LayerBits, ...], ...]:
    """The options with their costs. Arguments as chosen_bits; the first IMAGES of the images are used.

    What comes before a layer is the same each time, so only the rest of the network is run again.
    """
    if not images:
        raise NestlingError("measuring what bits cost takes at least one image.")
    images, layers, found = images[:IMAGES], weighted(graph), options(graph, config)
    whole, places = stepwise(graph), {node.name: index for index, node in enumerate(graph.nodes)}
    carried = [
        [step(_with_weights(graph, node, _carried(graph, node, row.bits, config)), node) for row in rows]
        for node, rows in zip(layers, found, strict=True)
    ]
    costs = [[0.0] * len(rows) for rows in found]
    with progress("measuring what bits cost", len(layers) * len(images)) as advance:
        for batch in batches(images):
            values: dict[str, Value] = {}

            def keep(name: str, value: Value, values: dict[str, Value] = values) -> Value:
                values[name] = value
                return value

            wanted = _log_chances(whole(batch, hook=keep), head)
            for node, steps, sums in zip(layers, carried, costs, strict=True):
                for place, other in enumerate(steps):
                    answers = _log_chances(whole.go_on(values, places[node.name], instead={node.name: other}), head)
                    sums[place] += float((np.exp(wanted) * (wanted - answers)).sum())
                advance(len(batch))
    return tuple(
        tuple(replace(row, cost=total / len(images)) for row, total in zip(rows, sums, strict=True))
        for rows, sums in zip(found, costs, strict=True)
    )


def _carried(graph: Graph, node: Node, bits: int, config: QuantizeConfig) -> NDArray[np.float32]:
    """The layer's weights as so many bits carry them."""
    weight = graph.tensors[node.inputs[1]].data
    assert weight is not None
    return real(quantized_weight(weight, None, OUT_AXIS[node.op], 1.0, bits, config.per_layer))


def _with_weights(graph: Graph, node: Node, data: NDArray[np.float32]) -> Graph:
    """The graph with other weights for that node; only for its step, for others may share them."""
    weight = replace(graph.tensors[node.inputs[1]], data=data)
    return replace(graph, tensors={**graph.tensors, weight.name: weight})


def _log_chances(embeddings: Value, head: Head) -> Floats:
    """float64 [N, classes]."""
    logits = head.logits(embeddings.astype(np.float64))
    logits -= logits.max(axis=1, keepdims=True)
    chances: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return chances


# ---- the choice ----------------------------------------------------------------------------------------------------------------


def least_cost(sizes: Sequence[Sequence[int]], costs: Sequence[Sequence[float]], budget: int) -> tuple[int, ...]:
    """The place of one choice a layer, so that their sizes sum up to the budget at most and their costs to the least.

    sizes, costs: for each layer, of each choice. The smallest choices must fit. The multiple-choice knapsack by dominance
    (Sinha and Zoltners 1979): layer after layer, of the sums of sizes those are kept that cost less than every smaller one.
    Exact up to MOST of them; of more, MOST evenly spaced ones, the smallest and the cheapest among them, are gone on with.
    """
    later = list(accumulate((min(size) for size in reversed(sizes)), initial=0))[-2::-1]  # of the layers behind, at least
    used, spent = np.zeros(1, np.int64), np.zeros(1)
    trail: list[NDArray[np.signedinteger]] = []
    for size, cost, needed in zip(sizes, costs, later, strict=True):
        sums = (used[:, None] + np.asarray(size)).ravel()
        totals = (spent[:, None] + np.asarray(cost)).ravel()
        order = np.argsort(sums, kind="stable")
        order = order[sums[order] <= budget - needed]
        before = np.minimum.accumulate(np.concatenate([[np.inf], totals[order]]))[:-1]
        order = order[totals[order] < before]
        if len(order) > MOST:
            order = order[np.linspace(0, len(order) - 1, MOST).astype(np.intp)]
        used, spent = sums[order], totals[order]
        trail.append(order.astype(np.int32))
    places: list[int] = []
    at = len(used) - 1
    for size, order in zip(reversed(sizes), reversed(trail), strict=True):
        at, place = divmod(int(order[at]), len(size))
        places.append(place)
    return tuple(reversed(places))
