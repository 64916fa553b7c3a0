"""Depthwise convolutions, adds and pools for processors with SMLAD: what the tests of all kernels do not reach.

Judge: the reference executor.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c.kernels.dsp_depthwise import FINE, LONG, NEGATIVE
from nestling.formats.c.kernels.layers import Layer
from nestling.formats.c.lower import lower
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Quant
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.formats.c.cases import HOST, with_room
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import Net, headed, noise, quant

DSP = replace(HOST, features=("dsp",))
Pair = tuple[int, int]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2"))


def depthwise(net: Net, name: str, x: str, size: int, stride: Pair, to: Quant, clamp: ir.Clamp = "none") -> str:
    """Channels whose scales lie far apart: some need more bits, and some have no short way."""
    channels, scale, pad = net.tensors[x].shape[3], net.tensors[x].quant.scale[0], size // 2
    scales = (0.02 / size * np.exp(net.rng.normal(size=channels) * 2)).astype(np.float32)
    zeros = np.zeros(channels, np.int32)
    weight = net.rng.integers(-127, 128, (1, size, size, channels)).astype(np.int8)
    w = net.constant(f"{name}.w", weight, Quant(scales, zeros, 3))
    b = net.constant(f"{name}.b", net.rng.integers(-900, 900, channels).astype(np.int32), Quant(scales * scale, zeros, 0))
    attrs = ir.DepthwiseConv2d(stride, (1, 1), (pad, pad, pad - stride[1] % 2, pad), clamp)
    return net.node("depthwise_conv2d", attrs, name, x, w, b, to=to)


def odd(side: int) -> Graph:
    """Rows of sixes, threes and less, all sizes and strides, clamps within int8; eleven channels, which are no fours."""
    net = Net(side)
    net.conv("first", "x", 11, to=quant(0.04, 3))
    net.conv("second", "x", 11)
    net.node("add", ir.Add("relu6"), "sum", "first", "second", to=quant(0.03, -90))
    x = net.node("max_pool", ir.MaxPool((3, 2), (1, 1), (1, 1, 0, 1)), "high", "sum", to=quant(0.03, -90))
    for i, (size, last) in enumerate(((3, (1, 2)), (5, (2, 2)), (7, (2, 1)))):
        for j, stride in enumerate(((1, 1), last)):
            to = (quant(0.07, -128), quant(0.1, 9), quant(0.05, -60))[(i + j) % 3]
            x = depthwise(net, f"d{size}{j}", x, size, stride, to, ("relu", "none", "relu6")[(i + j) % 3])
    net.node("average_pool", ir.AveragePool((3, 2), (2, 1), (1, 1, 0, 1)), "smooth", x, to=net.tensors[x].quant)
    net.node("mean", ir.Mean(), "e", "smooth")
    return headed(net.graph("e"))


def ways(layer: Layer) -> NDArray[np.int8]:
    return next(np.asarray(constant.data) for constant in layer.constants if constant.role == "way")


@pytest.mark.parametrize("side", [13, 31, 48])
def test_a_network_of_odd_sizes_here_and_on_a_board(side: int, kernels: Kernels, tmp_path: Path) -> None:
    """Every way from a sum to a byte is gone. The twin here, the instructions in QEMU."""
    graph = odd(side)
    program = lower(graph, DSP)
    others = ("add", "max_pool", "average_pool", "mean")
    assert {layer.function for layer in program.layers} >= {f"nst_{other}_dsp" for other in others}
    layers = [layer for layer in program.layers if layer.kind.startswith("depthwise")]
    assert {layer.function for layer in layers} == {f"nst_depthwise_{size}_dsp" for size in (3, 5, 7)}
    gone = np.concatenate([ways(layer) for layer in layers])
    for some in (gone == LONG, (gone >= 0) & (gone < FINE), gone & FINE > 0, gone & NEGATIVE > 0):
        assert some.any()
    assert sum(layer.long or 0 for layer in layers) == (gone == LONG).sum()
    image = noise(graph, 1)
    expected = dict(reference.activations(graph, image))
    answers = kernels.run(with_room(program, lambda least, most: (least + most) // 2), {graph.inputs[0]: image}, in_place=True)
    for layer in program.layers[:-1]:
        assert_array_equal(answers[layer.writes], expected[layer.writes], err_msg=layer.kind)
    tools("cortex-m4")
    assert_answers_are_the_reference(graph, "cortex-m4", tmp_path / "c")
