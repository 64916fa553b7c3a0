"""explain: which layers of a quantised network cost most, as rows and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nestling.bundle import fitted_head, int8_graph
from nestling.data.choose import part, training_data
from nestling.data.folders import Source
from nestling.data.images import read_images
from nestling.errors import NestlingError
from nestling.files import write_atomically
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.floats import Stepwise, Value, every_value, stepwise
from nestling.graph.head import Head
from nestling.graph.integers import SHARING
from nestling.graph.ir import Graph, Node
from nestling.printable import shown
from nestling.progress import Progress, silent
from nestling.quantization.calibrate import batches, sqnr
from nestling.quantization.quantize import Quantized
from nestling.quantization.simulate import carrying, with_carried_constants

Image = NDArray[np.uint8]

SQNR_IMAGES = 8  # through the integers themselves, which takes LiteRT's reference kernels a while
GAIN_IMAGES = 32  # through the network once a layer; on EfficientNet-Lite0 about a minute
DRAWN = 30  # layers in the picture


@dataclass(frozen=True)
class LayerCost:
    """What the integers of one layer cost.

    sqnr: of its output in the int8 graph against the float one, dB: all the noise that has come together up to here.
    top1_gain: top-1 that is gained when this layer alone (weights and output) is left in float;
    error_gain: the share of the rms logit error that goes away then.
    """

    layer: str
    op: str
    sqnr: float
    top1_gain: float
    error_gain: float


def explained(made: Quantized, data: Source | None = None, progress: Progress = silent) -> tuple[LayerCost, ...]:
    """explain for a bundle that was just quantised, on validation images of the folder that it learned from."""
    bundle = made.bundle
    items = part(training_data(bundle, data), bundle, "val", GAIN_IMAGES)
    found = list(read_images(items, bundle.preprocess))
    images, labels = [image for _, image in found], [item.label for item, _ in found]
    return explain(made.float_graph, int8_graph(bundle), fitted_head(bundle), images, labels, progress)


def explain(
    graph: Graph, integers: Graph, head: Head, images: Sequence[Image], labels: Sequence[int], progress: Progress = silent
) -> tuple[LayerCost, ...]:
    """A row for every layer with integers of its own, in running order.

    graph, integers: float and int8, uint8 image -> embedding (quantize.quantized gives both). images: uint8 [H, W, C] each, of the
    validation part; labels: their classes. The first GAIN_IMAGES of them are used.
    """
    images, labels = images[:GAIN_IMAGES], labels[:GAIN_IMAGES]
    if not images:
        raise NestlingError("explaining a network takes at least one image.")
    layers = [node for node in graph.nodes if node.op not in SHARING]
    noise = _sqnr(graph, integers, images[:SQNR_IMAGES], progress)
    floats = stepwise(graph)
    wanted = np.concatenate([head.logits(floats(batch)) for batch in batches(images)])
    logits = _left_out_one_by_one(floats, integers, layers, images, head, progress)
    truth = np.asarray(labels)

    def top1(answers: NDArray[np.float32]) -> float:
        return float((answers.argmax(1) == truth).mean())

    def error(answers: NDArray[np.float32]) -> float:
        return float(np.sqrt(np.mean((answers.astype(np.float64) - wanted) ** 2)))

    whole = logits[""]
    return tuple(
        LayerCost(
            node.source or node.name,
            node.op,
            noise[node.name],
            top1(logits[node.name]) - top1(whole),
            1 - error(logits[node.name]) / max(error(whole), 1e-12),
        )
        for node in layers
    )


def _sqnr(graph: Graph, integers: Graph, images: Sequence[Image], progress: Progress) -> Mapping[str, float]:
    """Of every activation; the integers are LiteRT's reference kernels', which are the reference's."""
    model = tflite.print_graph(integers)
    signal: dict[str, list[float]] = {}
    values = every_value(graph)
    with progress("comparing layers", len(images)) as advance:
        for image in images:
            steps = tflite_run.activations(model, (image[None],))
            for name, value in values(image[None]).items():
                quant = integers.tensors[name].quant if name in integers.tensors else None
                if quant is not None and name in steps:
                    carried = (steps[name].astype(np.float64) - quant.zero_point[0]) * quant.scale[0]
                    signal.setdefault(name, []).append(sqnr(value, carried))
            advance(1)
    return {name: float(np.mean(found)) for name, found in signal.items()}


def _left_out_one_by_one(
    floats: Stepwise, integers: Graph, layers: Sequence[Node], images: Sequence[Image], head: Head, progress: Progress
) -> dict[str, NDArray[np.float32]]:
    """Logits of the simulated integers ("") and of the same with one layer left in float, by the layer's name.

    What comes before that layer is the same each time, so only the rest of the network is run again.
    """
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in ("", *(node.name for node in layers))}
    rounded, carry = stepwise(with_carried_constants(floats.graph, integers)), carrying(integers)
    places = {node.name: index for index, node in enumerate(floats.graph.nodes)}
    with progress("leaving one layer in float", len(layers) * len(images)) as advance:
        for batch in batches(images):
            values: dict[str, Value] = {}

            def keep(name: str, value: Value, values: dict[str, Value] = values) -> Value:
                values[name] = carry(name, value)
                return values[name]

            parts[""].append(head.logits(rounded(batch, hook=keep)))
            for node in layers:
                in_float, others = {node.name: floats.steps[node.name]}, carrying(integers, off=(node.name,))
                parts[node.name].append(head.logits(rounded.go_on(values, places[node.name], others, in_float)))
                advance(len(batch))
    return {name: np.concatenate(found) for name, found in parts.items()}


def draw(costs: Sequence[LayerCost], path: Path) -> None:
    """An SVG: the layers whose float twin would help most, each with its share of the error and its SQNR."""
    listed = sorted(costs, key=lambda cost: -cost.error_gain)[:DRAWN][::-1]
    figure = Figure(figsize=(9, 1.2 + 0.25 * len(listed)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [shown(f"{cost.layer} ({cost.op})").replace("$", r"\$") for cost in listed]  # a pair of $ would be mathematics
    places = np.arange(len(listed))
    left.barh(places, [100 * cost.error_gain for cost in listed], color="#b2543a")
    left.set_yticks(places, names, fontsize=7)
    left.set_xlabel("% of the logit error that goes away\nwith this layer in float")
    right.barh(places, [cost.sqnr for cost in listed], color="#3a6fb2")
    right.set_xlabel("signal to noise of its output, dB")
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_atomically(path, buffer.getvalue())
