"""The gates that every exported file passes before it is put in place.

File gate: what is inside is the Graph. A .tflite is read back, and gives the reference's bytes under LiteRT's reference kernels;
a folder of C, compiled here, gives them at every layer; of an .onnx each node, given the runtime's own inputs, answers within one
step of the reference; in .onnx and .pte every weight and scale of the Graph is found.
Runtime gate: its answers add no more noise than quantisation itself did, and lose no more than 0.5 points of top-1, near ties that
may have fallen either way not counted. Where they do, it may be the runtime's doing and not the file's: its kernels round as they
please on this processor. Such a file is put in place, and told of, if it is proven right without them (PROVEN); else it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.artifacts.yardstick import Expected
from nestling.bundle import Bundle
from nestling.formats.c import host
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.symmetric import symmetric_weights
from nestling.formats.onnx import run as onnx_run
from nestling.formats.printers import FEATURES, Printed
from nestling.formats.runner import Runner
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.compare import first_difference, layer
from nestling.graph.float_twin import float_twin
from nestling.graph.ir import Array, Graph
from nestling.processor import processor
from nestling.quantization.simulate import simulated
from nestling.scores.agree import compare, rms

Image = NDArray[np.uint8]
Logits = NDArray[np.float32]

MOST_NOISE = 1.0  # times the noise of quantisation itself
NEAR = 0.5  # times that noise: what near ties in float sums came to in the most fragile networks was 0.33
MOST_DROP = 0.005  # of top-1 on the yardstick
CHANCE = 0.05  # a larger drop that chance brings about more often than this is none
MOST_DIFFERENCE: Mapping[str, float] = {"fp32": 1e-3}  # of a float format's logits, relative to the image's largest
BYTE_IMAGES = 2  # on which a .tflite must give the reference's bytes; the reference takes about a second for each
C_IMAGES = 50  # plain C is slow, and its bytes have been seen by then

LOADERS: Mapping[str, Callable[[bytes, str], Runner]] = {
    "pte": lambda content, name: executorch_run.load_bytes(content, name, threads=1),
    FEATURES: lambda content, name: executorch_run.load_bytes(content, name, threads=1),
    "tflite": tflite_run.load_bytes,
    "onnx": lambda content, name: onnx_run.load_bytes(content, name, threads=1),
}


def _loaded(printed: Printed, file: str, form: str) -> Runner:
    if isinstance(printed.content, bytes):
        return LOADERS[form](printed.content, file)
    with TemporaryDirectory() as place:
        for name, content in printed.content.items():
            (Path(place) / name).write_bytes(content)
        return host.load(Path(place), Path(file))


def _inside(printed: Printed, form: str, runner: Runner, graph: Graph, images: Image) -> list[str]:
    """What is wrong inside a file, or a folder of C."""
    if isinstance(printed.content, bytes):
        return FILE_GATES[form](printed.content, graph, images)
    return _c_inside(runner, graph, images)


@dataclass(frozen=True)
class Judgement:
    """How a file answered. problems: why it is refused, if it is. ms: median of one image, one thread, measured on the way.

    noise_ratio: rms(file - int8 reference) / rms(float - int8 reference), of what was printed from the int8 Graph.
    coarse: of a file that is proven right, what its runtime makes of it on this processor. rounded: an int8 file is refused for
    its answers alone; nothing wrong was found inside.
    """

    agreement: float
    noise_ratio: float | None
    max_logit_difference: float
    max_relative_difference: float
    rms_logit_difference: float
    images: int
    ms: float
    problems: tuple[str, ...]
    coarse: tuple[str, ...] = ()
    rounded: bool = False


def judge(
    printed: Printed, file: str, form: str, precision: str, bundle: Bundle, graph: Graph | None, expected: Expected
) -> Judgement:
    """graph: of an int8 file what it was to be printed from. Raises UnusableFile where its runtime does not take the file."""
    runner = _loaded(printed, file, form)
    if not isinstance(printed.content, bytes):
        expected = expected.first(C_IMAGES)
    problems = [*_said_wrongly(runner, bundle)]
    if graph is not None:
        problems += _inside(printed, form, runner, graph, expected.images)
    answers, ms = _timed(runner, expected.images, form, bundle)
    found = compare(expected.answers, answers)
    if found.max_relative_difference > MOST_DIFFERENCE.get(precision, np.inf):
        problems.append(
            f"the largest logit difference to the network it was printed from is {found.max_relative_difference:.2e} relative, "
            f"{MOST_DIFFERENCE[precision]:.0e} is allowed"
        )
    strays = [*strayed(answers, expected)]
    proof = None
    if strays and graph is not None and not problems:
        proof = PROVEN[form.partition("-")[0]](printed, form, graph, bundle, answers, expected)
    return Judgement(
        found.agreement,
        noise_ratio(answers, expected),
        found.max_logit_difference,
        found.max_relative_difference,
        found.rms_logit_difference,
        found.images,
        ms,
        problems=(*problems, *(() if proof else strays)),
        coarse=tuple(f"{stray}; the file is right ({proof}), its runtime is coarse on {processor()}" for stray in strays if proof),
        rounded=graph is not None and bool(strays) and not proof and not problems,
    )


def _said_wrongly(runner: Runner, bundle: Bundle) -> Iterator[str]:
    if runner.labels != bundle.labels:
        at = next((i for i, (a, b) in enumerate(zip(runner.labels, bundle.labels, strict=False)) if a != b), len(runner.labels))
        found, wanted = (labels[at] if at < len(labels) else "nothing" for labels in (runner.labels, bundle.labels))
        yield f"its label {at} is {found!r}, not {wanted!r}"
    if runner.preprocess != bundle.preprocess:
        yield f"it asks for images made by {runner.preprocess}, not by {bundle.preprocess}"


def _timed(runner: Runner, images: Image, form: str, bundle: Bundle) -> tuple[Logits, float]:
    """(logits, median milliseconds of one image)."""
    rows, times = [], []
    for image in images:
        start = perf_counter()
        rows.append(runner.features(image[None]) if form == FEATURES else runner(image[None]))
        times.append((perf_counter() - start) * 1e3)
    return _logits(np.concatenate(rows), form, bundle), float(np.median(times))


def _logits(answers: NDArray[np.float32], form: str, bundle: Bundle) -> Logits:
    """Of what a file gives: a backbone alone gives the embedding."""
    if form != FEATURES or bundle.head is None:
        return answers
    logits: Logits = bundle.head.logits(answers)
    return logits


def noise_ratio(answers: Logits, expected: Expected) -> float | None:
    """rms(answers - reference) / rms(float - reference); None of float files."""
    if expected.floats is None:
        return None
    return rms(answers, expected.answers) / max(rms(expected.floats, expected.answers), 1e-12)


def strayed(answers: Logits, expected: Expected, allowed: float = MOST_NOISE) -> Iterator[str]:
    """How the answers are further from what was expected than a runtime's roundings may take them."""
    noise = noise_ratio(answers, expected)
    if noise is not None and noise > allowed:
        yield f"its answers differ from the reference's by {noise:.2f} times the noise of quantisation, {allowed:g} is allowed"
    yield from dropped(answers, expected)


def dropped(answers: Logits, expected: Expected) -> Iterator[str]:
    """Top-1 on few photographs moves by near ties alone: two correct files differ on these, one way as often as the other."""
    if expected.truth is None:
        return
    before, after = (logits.argmax(1) == expected.truth for logits in (expected.answers, answers))
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    if lost - won > MOST_DROP * len(answers) and chance_of(lost, won) < CHANCE:
        yield (
            f"it is right on {after.sum()} of {len(answers)} images, the network it was printed from on {before.sum()}: "
            f"{lost} right answers became wrong, {won} wrong ones right"
        )


def chance_of(lost: int, won: int) -> float:
    """How often at least `lost` of `lost + won` fair coins fall on one side: the exact one-sided test of McNemar 1947."""
    changed = lost + won
    return float(sum(comb(changed, count) for count in range(lost, changed + 1)) / 2**changed)


# ---- file gates: (the file, the Graph that it was to be printed from, images) -> what is wrong -----------------------------------


def _tflite_inside(content: bytes, graph: Graph, images: Image) -> list[str]:
    inside, _ = read_tflite(content, "the printed file")
    different = first_difference(graph, inside)
    if different:
        return [f"read back it is another network: {different}"]
    nodes = {node.name: node for node in graph.nodes if graph.tensors[node.name].dtype == "int8"}
    for image in images[:BYTE_IMAGES]:
        steps = tflite_run.activations(content, (image[None],))
        for name, expected in reference.activations(graph, image[None]):
            if name in nodes and name in steps:
                off = int((_signed(steps[name]) != expected).sum())
                if off:
                    place = layer(nodes[name])
                    return [f"under LiteRT's reference kernels {off} of {expected.size} bytes differ from the reference at {place}"]
    return []


def _signed(steps: Array) -> Array:
    """Old uint8 networks are printed as uint8 again: the same real numbers, 128 higher."""
    return (np.asarray(steps, np.uint8) ^ np.uint8(128)).view(np.int8) if steps.dtype == np.uint8 else steps


def _onnx_inside(content: bytes, graph: Graph, images: Image) -> list[str]:
    steps: dict[str, Array] = {graph.inputs[0]: images[:1], **onnx_run.activations(content, images[:1], as_written=True)}
    steps |= {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    for node in graph.nodes:
        if graph.tensors[node.name].dtype == "int8" and all(name in steps for name in (node.name, *node.inputs)):
            expected = reference.step(graph, node, tuple(steps[name] for name in node.inputs))
            off = int(np.abs(steps[node.name].astype(np.int64) - expected.astype(np.int64)).max())
            if off > 1:
                return [f"computed as written, {layer(node)} is up to {off} steps off the reference for the same inputs"]
    return _not_found(content, graph)


def _c_inside(runner: Runner, graph: Graph, images: Image) -> list[str]:
    """Built for this computer, every layer gives the reference's bytes."""
    assert isinstance(runner, host.CRunner)
    nodes = {node.name: node for node in graph.nodes if graph.tensors[node.name].dtype == "int8"}
    for image in images[:BYTE_IMAGES]:
        steps = runner.activations(image)
        for name, expected in reference.activations(graph, image[None]):
            if name in nodes and name in steps:
                off = int((steps[name].reshape(-1) != expected.reshape(-1)).sum())
                if off:
                    return [f"compiled here, {off} of {expected.size} bytes differ from the reference at {layer(nodes[name])}"]
    return []


def _pte_inside(content: bytes, graph: Graph, images: Image) -> list[str]:
    for node in graph.nodes:
        quant = graph.tensors[node.name].quant
        # XNNPACK's tensors hold a scale in 4 bytes, operators outside the delegate in 8
        if quant is not None and not any(quant.scale.astype(kind).tobytes() in content for kind in ("<f4", "<f8")):
            return [f"the scale of what {layer(node)} gives is not in the file"]
    return _not_found(content, symmetric_weights(graph)[0])


def _not_found(content: bytes, graph: Graph) -> list[str]:
    """The first layer whose int8 weights or scales are not in the file; the formats differ in layout, and in .onnx by 128."""
    for node in graph.nodes:
        weight = graph.tensors[node.inputs[1]] if node.op in LAYOUTS else None
        if weight is None or weight.quant is None or weight.data is None:
            continue
        forms = [weight.data.transpose(order) for order in LAYOUTS[node.op]]
        forms += [(form.astype(np.int16) + 128).astype(np.uint8) for form in forms]
        if not any(form.tobytes() in content for form in forms):
            return [f"the weights of {layer(node)} are not in the file"]
        if weight.quant.scale.tobytes() not in content:
            return [f"the weights' scales of {layer(node)} are not in the file"]
    return []


LAYOUTS: Mapping[str, tuple[tuple[int, ...], ...]] = {  # how the formats lay a layer's weights out
    "conv2d": ((0, 1, 2, 3), (0, 3, 1, 2), (3, 1, 2, 0)),  # the last: of one input channel, which ExecuTorch takes for depthwise
    "depthwise_conv2d": ((0, 1, 2, 3), (3, 0, 1, 2)),
    "fully_connected": ((0, 1), (1, 0)),
}
FILE_GATES: Mapping[str, Callable[[bytes, Graph, Image], list[str]]] = {
    "tflite": _tflite_inside,
    "onnx": _onnx_inside,
    "pte": _pte_inside,
    FEATURES: _pte_inside,
}


# ---- proofs that a file is right whose runtime strays: (...) -> how it is known, "" where it is not ---------------------------


def _by_bytes(printed: Printed, form: str, graph: Graph, bundle: Bundle, answers: Logits, expected: Expected) -> str:
    """The file gate has seen it."""
    return "it gives the reference's bytes under reference kernels"


def _by_rounding_once(printed: Printed, form: str, graph: Graph, bundle: Bundle, answers: Logits, expected: Expected) -> str:
    """What these answers are near to is what quantise, dequantise and float operators between them say, each layer rounded once.

    The reference rounds twice, as TFLite's does. In a network that feels single steps the two lie as far apart as quantisation is.
    """
    module = simulated(float_twin(graph), graph)
    with torch.inference_mode():
        rows = [module(torch.from_numpy(image[None])).numpy().reshape(1, -1) for image in expected.images]
    once = replace(expected, answers=_logits(np.concatenate(rows), form, bundle))
    return "" if any(strayed(answers, once, NEAR)) else "it gives the integers' answers, each layer rounded once"


def _by_rounding_once_with_its_weights(
    printed: Printed, form: str, graph: Graph, bundle: Bundle, answers: Logits, expected: Expected
) -> str:
    """A .pte's weights are symmetric, whatever the Graph's are."""
    return _by_rounding_once(printed, form, symmetric_weights(graph)[0], bundle, answers, expected)


def _as_written(printed: Printed, form: str, graph: Graph, bundle: Bundle, answers: Logits, expected: Expected) -> str:
    """As rounding once, of the file's operators one by one: no kernel of the processor's takes part, whatever it makes of them."""
    assert isinstance(printed.content, bytes)
    written = onnx_run.load_bytes(printed.content, "the printed file", threads=1, runtime="as written")
    return _by_rounding_once(printed, form, graph, bundle, written(expected.images), expected)


Proof = Callable[[Printed, str, Graph, Bundle, Logits, Expected], str]
PROVEN: Mapping[str, Proof] = {
    "tflite": _by_bytes,
    "c": _by_bytes,
    "onnx": _as_written,
    "pte": _by_rounding_once_with_its_weights,
    FEATURES: _by_rounding_once_with_its_weights,
}
