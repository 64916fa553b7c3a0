"""The virtual machines, and a network on one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from nestling.formats.c import virtual
from nestling.formats.c.arrange import arrange
from nestling.formats.c.kernels.code import code_at_most
from nestling.formats.c.machines import Machine, machine
from nestling.graph import reference
from nestling.graph.ir import Graph
from tests.helpers.networks import noise, printed


def tools(name: str) -> Machine:
    """The machine; the test is skipped, naming the packages, where its tools are missing."""
    found = machine(name)
    if missing := virtual.toolchain_missing(found):
        pytest.skip(missing)
    return found


def assert_answers_are_the_reference(graph: Graph, board: str, folder: Path, *flags: str) -> None:
    image = noise(graph, 1)[0]
    ran = virtual.run(printed(graph, folder, board), tools(board), image, trace=True, flags=flags)
    assert flags or ran.code is None or ran.code <= code_at_most(arrange(graph, tools(board))[0])
    expected = dict(reference.activations(graph, image[None]))
    seen = 0
    for layer, answer in zip(ran.layers, ran.trace, strict=True):
        if expected[layer.name].dtype == np.int8:
            assert answer == expected[layer.name].tobytes(), layer.name
            seen += 1
    assert seen >= len(ran.layers) - 1
    logits = expected[graph.outputs[0]].reshape(-1)
    assert_allclose(ran.logits, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
