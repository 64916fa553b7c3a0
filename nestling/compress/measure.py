"""What a network costs, and what its weights take: for everything that makes one smaller."""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
from ai_edge_litert import __version__ as litert
from numpy.typing import NDArray

from nestling.bundle import Bundle, fitted_head
from nestling.compress.channels import total_macs
from nestling.data.choose import part
from nestling.data.folders import Dataset, Item, LeftOut
from nestling.data.stream import stream
from nestling.embedding.cache import Features, embed
from nestling.embedding.engine import Engine
from nestling.embedding.of_bundle import engine_for
from nestling.embedding.refit import judged_by, refitted, training_views
from nestling.errors import UnusableData
from nestling.formats.tflite.printing import print_graph
from nestling.formats.tflite.run import open_interpreter
from nestling.graph.integers import quantized_weight
from nestling.graph.ir import OUT_AXIS, Graph
from nestling.graph.macs import macs
from nestling.graph.passes import prepare
from nestling.models.float_graph import float_graph
from nestling.models.graph_module import GraphModule
from nestling.preprocess.image import Preprocess
from nestling.progress import Progress, silent
from nestling.scores.evaluate import Evaluation

RUNTIME = f"float32 .tflite in LiteRT {litert}"  # of every `ms` here
ROUNDS, RUNS = 7, 15  # of timing: so many turns of so many images
NOISE = 0.97  # a share of the time that a clock on a busy computer cannot tell from 1

Int8Array = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Measured:
    """A network's costs and answers.

    macs: of the backbone, one image. parameters: learned numbers of backbone and head. bytes: of the float32 numbers that a device
    holds (batch norms folded). ms: of one embedding, the median; see RUNTIME. val_top1: 0 to 1. test: on the test part.
    """

    macs: int
    parameters: int
    bytes: int
    ms: float
    val_top1: float
    test: Evaluation


@dataclass(frozen=True)
class Packed:
    """What zeros save of a backbone's weights, were they int8 (symmetric, a scale a channel; biases and scales not counted).

    weights, zeros: how many, and the share of zeros among them (float ones, rounding makes more). macs: for one image; macs_left:
    those with weights that are not zero. encoded: bytes after each of ENCODINGS.
    """

    weights: int
    zeros: float
    macs: int
    macs_left: int
    encoded: Mapping[str, int]

    @property
    def best(self) -> tuple[str, int]:
        """The encoding that takes the fewest bytes, and how many."""
        return min(self.encoded.items(), key=lambda item: item[1])


@dataclass(frozen=True, eq=False)
class Compared:
    """bundle: the smaller one, its head learned again where that was asked for. before, after: what it was and is.

    images: how many are in each part. seconds: of each phase.
    """

    bundle: Bundle
    before: Measured
    after: Measured
    images: dict[str, int]
    left_out: tuple[LeftOut, ...]
    seconds: dict[str, float]

    def metrics(self) -> dict[str, float]:
        """As the lineage keeps them."""
        before, after = self.before, self.after
        return {
            "macs_before": before.macs,
            "macs": after.macs,
            "parameters_before": before.parameters,
            "parameters": after.parameters,
            "val_top1_before": round(before.val_top1, 6),
            "val_top1": round(after.val_top1, 6),
            "test_top1_before": round(before.test.top1, 6),
            "test_top1": round(after.test.top1, 6),
        }


def compare_costs(
    old: Bundle,
    old_graph: Graph,
    new: Bundle,
    new_graph: Graph,
    dataset: Dataset,
    progress: Progress = silent,
    refit: bool = True,
) -> Compared:
    """Both bundles, with their unfolded graphs, beside each other; the new one's head is first learned again on its embeddings."""
    start = perf_counter()
    engines = engine_for(old, dataset), engine_for(new, dataset)
    train = embed(part(dataset, new, "train"), new.preprocess, engines[1], training_views(new), progress) if refit else None
    val = embed(part(dataset, new, "val"), new.preprocess, engines[1], progress=progress)
    made = refitted(new, (train, val)) if train else new
    embedded = perf_counter()
    folded = [float_graph(replace(old, architecture=graph, arrays={})) for graph in (old_graph, new_graph)]  # not captured anew
    times = in_turns([invoked(graph) for graph in folded], progress)
    timed = perf_counter()
    before, _ = measured(old, old_graph, times[0], dataset, engines[0], progress)
    after, test = measured(made, new_graph, times[1], dataset, engines[1], progress)
    read = [some for some in (train, val, test) if some]
    left_out = tuple({entry.path: entry for some in read for entry in some.left_out}.values())
    learned_from = len(train.items) if train else len(part(dataset, new, "train"))
    images = {"train": learned_from, "val": len(val.items), "test": after.test.images, "left_out": len(left_out)}
    seconds = {"embeddings": embedded - start + perf_counter() - timed, "timing": timed - embedded}
    return Compared(made, before, after, images, left_out, seconds)


def no_gain(before: Measured, after: Measured, untouched: Sequence[str], layers: int) -> tuple[str, ...]:
    """Where fewer channels gained nothing, a sentence each. untouched: layers that kept all theirs, of so many in all."""
    said = []
    if after.ms > NOISE * before.ms:
        said.append(f"milliseconds: {before.ms:.2f} before, {after.ms:.2f} after ({RUNTIME})")
    if untouched:
        named = ", ".join(untouched[:8]) + (", ..." if len(untouched) > 8 else "")
        said.append(f"{len(untouched)} of {layers} layers kept all their channels: {named}")
    return tuple(said)


def learned(graph: Graph) -> int:
    """Numbers of a float graph that training changes."""
    return sum(parameter.numel() for parameter in GraphModule(graph).parameters())


def photographs(
    items: Sequence[Item], preprocess: Preprocess, count: int, seed: int, root: Path
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(uint8 [N, H, W, C], labels int64 [N]) of at most `count` of the items, drawn with `seed`.

    Raises UnusableData where none can be read; root: the folder that it names.
    """
    drawn = np.random.default_rng(seed).permutation(len(items))[:count]
    chosen = [items[i] for i in sorted(drawn)]
    read = [(image, chosen[i].label) for i, image in stream(chosen, preprocess, workers=2) if not isinstance(image, LeftOut)]
    if not read:
        raise UnusableData(f"none of the photographs in {root} that are wanted here can be read.")
    return np.stack([image for image, _ in read]), np.array([label for _, label in read], np.int64)


def invoked(graph: Graph) -> Callable[[], object]:
    """One run of the graph as a device would have it: printed as .tflite, in LiteRT on one thread, of one image."""
    interpreter = open_interpreter(print_graph(graph), "the float network")
    image = interpreter.get_input_details()[0]
    interpreter.set_tensor(image["index"], np.random.default_rng(0).integers(0, 256, image["shape"], np.uint8))
    invoke: Callable[[], object] = interpreter.invoke
    return invoke


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


def measured(
    bundle: Bundle, graph: Graph, ms: float, dataset: Dataset, engine: Engine, progress: Progress
) -> tuple[Measured, Features]:
    """What the bundle with this unfolded graph costs and answers, with the features of the test part."""
    val, test = (embed(part(dataset, bundle, which), bundle.preprocess, engine, progress=progress) for which in ("val", "test"))
    judged = [judged_by(bundle, some) for some in (val, test)]
    head = fitted_head(bundle).weight.size + fitted_head(bundle).bias.size
    folded = sum(t.data.size for t in prepare(graph).tensors.values() if t.data is not None and t.dtype == "float32")
    return Measured(total_macs(graph), learned(graph) + head, 4 * (folded + head), ms, judged[0].top1, judged[1]), test


# ---- what zeros save -------------------------------------------------------------------------------------------------------------


def packed(graph: Graph) -> Packed:
    """Zeros of a float backbone's weights, and how small its int8 weights become. See Packed."""
    graph = prepare(graph)
    weights = zeros = left = 0
    integers: list[Int8Array] = []
    for node in graph.nodes:
        data = graph.tensors[node.inputs[1]].data if node.op in OUT_AXIS else None
        if data is None:
            continue
        weights, zeros = weights + data.size, zeros + int((data == 0).sum())
        left += macs(node, graph) // data.size * int((data != 0).sum())  # every weight is multiplied as often
        held = quantized_weight(data, None, OUT_AXIS[node.op], 1.0, 8, per_layer=False).data
        assert held is not None
        integers.append(held.astype(np.int8).ravel())
    stored = np.concatenate(integers) if integers else np.zeros(0, np.int8)
    encoded = {name: len(encode(stored)) for name, encode in ENCODINGS.items()}
    return Packed(weights, zeros / max(weights, 1), total_macs(graph), left, encoded)


def mapped(stored: Int8Array) -> bytes:
    """A bit a weight, 1 where it is not zero (the first weight is the highest bit), then the bytes of those that are not."""
    where, values = np.packbits(stored != 0), stored[stored != 0]
    return bytes(where.tobytes() + values.tobytes())


ENCODINGS: Final[Mapping[str, Callable[[Int8Array], bytes]]] = {  # all by Python's standard library
    "zlib": lambda stored: zlib.compress(stored.tobytes(), 9),
    "lzma": lambda stored: lzma.compress(stored.tobytes(), preset=9),
    "map + zlib": lambda stored: zlib.compress(mapped(stored), 9),  # zlib alone spends a whole code on each zero
}
