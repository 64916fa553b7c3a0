"""Heads on a graph: judged by LiteRT and by plain NumPy."""

import subprocess
import sys

import numpy as np
import pytest

from nestling.errors import NestlingError
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph.ends import with_head, with_int8_head
from nestling.graph.head import Head
from nestling.graph.integers import Range
from tests.helpers.quantization_cases import Inverted, calibrated, captured, litert, pictures, seeded, torch_float

IMAGES = pictures(20)


def head() -> Head:
    rng = np.random.default_rng(0)
    return Head(rng.normal(size=(5, 40)).astype(np.float32), rng.normal(size=5).astype(np.float32))


def test_a_float_head_on_float_and_on_integers() -> None:
    module, own = seeded(Inverted), head()
    graph = captured(module)
    integers, _ = calibrated(graph, IMAGES)
    for some, embeddings in ((graph, torch_float(module, IMAGES)), (integers, litert(integers, IMAGES))):
        np.testing.assert_allclose(litert(with_head(some, own), IMAGES), embeddings @ own.weight.T + own.bias, rtol=1e-3, atol=1e-4)


def test_features_are_a_second_output() -> None:
    integers, _ = calibrated(captured(seeded(Inverted)), IMAGES)
    logits, embedding = tflite_run.run(tflite.print_graph(with_head(integers, head(), features=True)), [IMAGES[0][None]])
    assert logits.shape == (1, 5)
    np.testing.assert_allclose(embedding, litert(integers, IMAGES[:1]), rtol=1e-6)


def test_an_int8_head_is_near_the_float_one() -> None:
    integers, _ = calibrated(captured(seeded(Inverted)), IMAGES)
    wanted = litert(with_head(integers, head()), IMAGES)
    span = Range(float(wanted.min()), float(wanted.max()))
    found = litert(with_int8_head(integers, head(), span), IMAGES)
    assert np.abs(found - wanted).max() < 3 * (span.high - span.low) / 255


def test_heads_that_do_not_fit_are_refused() -> None:
    graph = captured(seeded(Inverted))
    with pytest.raises(NestlingError, match="does not fit"):
        with_head(graph, Head(np.zeros((2, 7), np.float32), np.zeros(2, np.float32)))
    with pytest.raises(NestlingError, match="int8"):
        with_int8_head(graph, head(), Range(-1, 1))


def test_no_torch_is_needed() -> None:
    code = "import sys, nestling.graph.ends, nestling.quantization.equalize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
