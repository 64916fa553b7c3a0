"""The gates that every exported file passes before it is put in place.

File gate: what is inside is the Graph. A .tflite is read back, and gives the reference's bytes under LiteRT's reference kernels;
a folder of C, compiled here, gives them at every layer; of an .onnx each node, given the runtime's own inputs, answers within one
step of the reference; in .onnx and .pte every weight and scale of the Graph is found.
Runtime gate: its answers add no more noise than quantisation itself did, and lose no more than 0.5 points of top-1, near ties that
may have fallen either way not counted. Where they do, it may be the runtime's doing and not the file's: its kernels round as they
please on this processor. Such a file is put in place, and told of, if it is proven right without them (proof_of); else it is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nestling.artifacts.yardstick import Expected
from nestling.bundle import Bundle
from nestling.formats.format import Format, Image, Printed
from nestling.formats.runner import Runner
from nestling.formats.tflite.floats import stepwise
from nestling.graph.float_twin import float_twin
from nestling.graph.ir import Graph
from nestling.processor import processor
from nestling.quantization.calibrate import batches
from nestling.quantization.simulate import carrying, with_carried_constants
from nestling.scores.agree import agreement, rms
from nestling.scores.chance import LIKELY, chance_of

Logits = NDArray[np.float32]

MOST_NOISE = 1.0  # times the noise of quantisation itself
NEAR = 0.5  # times that noise: what near ties in float sums came to in the most fragile networks was 0.33
MOST_DROP = 0.005  # of top-1 on the yardstick; a larger one that chance may have brought about (LIKELY) is none
MOST_DIFFERENCE: Mapping[str, float] = {"fp32": 1e-3}  # of a float format's logits, relative to the image's largest
C_IMAGES = 50  # plain C is slow, and its bytes have been seen by then


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
    printed: Printed, file: str, form: Format, precision: str, bundle: Bundle, graph: Graph | None, expected: Expected
) -> Judgement:
    """graph: of an int8 file what it was to be printed from. Raises UnusableFile where its runtime does not take the file."""
    assert form.loaded is not None and form.wrong is not None  # it is printed, so it is judged
    if missing := form.missing():
        return Judgement(0.0, None, 0.0, 0.0, 0.0, 0, 0.0, problems=(f"its answers were not looked at: {missing}",))
    runner = form.loaded(printed, file)
    if not isinstance(printed.content, bytes):
        expected = expected.first(C_IMAGES)
    problems = [*_said_wrongly(runner, bundle)]
    if graph is not None:
        problems += form.wrong(printed, graph, expected.images, runner)
    answers, ms = _timed(runner, expected.images, form, bundle)
    found = agreement(expected.answers, answers)
    if found.max_relative_difference > MOST_DIFFERENCE.get(precision, np.inf):
        problems.append(
            f"the largest logit difference to the network it was printed from is {found.max_relative_difference:.2e} relative, "
            f"{MOST_DIFFERENCE[precision]:.0e} is allowed"
        )
    strays = [*strayed(answers, expected)]
    proof = None
    if strays and graph is not None and not problems:
        proof = proof_of(form, printed, graph, bundle, answers, expected)
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


def _timed(runner: Runner, images: Image, form: Format, bundle: Bundle) -> tuple[Logits, float]:
    """(logits, median milliseconds of one image)."""
    rows, times = [], []
    for image in images:
        start = perf_counter()
        rows.append(runner.features(image[None]) if form.embedding == "alone" else runner(image[None]))
        times.append((perf_counter() - start) * 1e3)
    return _logits(np.concatenate(rows), form, bundle), float(np.median(times))


def _logits(answers: NDArray[np.float32], form: Format, bundle: Bundle) -> Logits:
    """Of what a file gives: a backbone alone gives the embedding."""
    if form.embedding != "alone" or bundle.head is None:
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
    if lost - won > MOST_DROP * len(answers) and chance_of(lost, won) < LIKELY:
        yield (
            f"it is right on {after.sum()} of {len(answers)} images, the network it was printed from on {before.sum()}: "
            f"{lost} right answers became wrong, {won} wrong ones right"
        )


# ---- proofs that a file is right whose runtime strays --------------------------------------------------------------------------


def proof_of(form: Format, printed: Printed, graph: Graph, bundle: Bundle, answers: Logits, expected: Expected) -> str:
    """How it is known that an int8 file is right in which nothing wrong was found; "" where it is not known.

    Where not every byte was compared: by what quantise, dequantise and float operators between them say, each layer rounded once,
    as the runtimes round. The reference rounds twice, as TFLite's does; in a network that feels single steps the two lie as far
    apart as quantisation is. Near to it must be the answers or, where the format's operators can be run one by one as they are
    defined, those: no kernel of the processor's takes part then, whatever it makes of them.
    """
    if form.exact:
        return "it gives the reference's bytes under reference kernels"
    if form.as_written is not None:
        answers = _logits(form.as_written(printed)(expected.images), form, bundle)
    as_printed = form.as_printed(graph)
    steps, hook = stepwise(with_carried_constants(float_twin(as_printed), as_printed)), carrying(as_printed)
    rows = [steps(batch, hook=hook).reshape(len(batch), -1) for batch in batches(list(expected.images))]
    once = replace(expected, answers=_logits(np.concatenate(rows), form, bundle))
    return "" if any(strayed(answers, once, NEAR)) else "it gives the integers' answers, each layer rounded once"
