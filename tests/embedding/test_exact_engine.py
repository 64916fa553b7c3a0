"""The engine that gives an int8 graph's own bytes: by compiled C where that is worth it. Judge: the reference executor."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nestling.embedding import engine
from nestling.embedding.engine import exact_engine
from nestling.formats.c import host
from nestling.graph import reference
from tests.helpers.quantization_cases import Everything, calibrated, captured, pictures, seeded


@pytest.mark.parametrize(("worth", "compiler", "by"), [(0, True, "c int8"), (0, False, "litert"), (1e12, True, "litert")])
def test_its_embeddings_are_the_reference_s(worth: float, compiler: bool, by: str) -> None:
    graph = calibrated(captured(seeded(Everything)), pictures(4))[0]
    images = np.random.default_rng(0).integers(0, 256, (5, *graph.tensors[graph.inputs[0]].shape[1:])).astype(np.uint8)
    with patch.object(engine, "WORTH_COMPILING", worth), patch.object(host, "COMPILERS", host.COMPILERS if compiler else ()):
        made = exact_engine(graph, len(images))
        assert made.name.startswith(by)
        found = made(images)
    output = graph.outputs[0]
    quant = graph.tensors[output].quant
    for row, image in zip(found, images, strict=True):
        assert_array_equal(row, quant.real(reference.run(graph, image[None])[output]).reshape(-1))
