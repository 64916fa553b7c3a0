"""Helium's own instructions, in QEMU, on sizes that no other test has. Their twins are tested in test_kernels.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.formats.c.lower import lower
from nestling.graph import ir
from nestling.graph.ir import Clamp, Graph, Quant
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.helpers.networks import Net, headed, quant

M55 = "cortex-m55"
WIDE = quant(0.05, -3)
PORTABLE = {"nst_dequantize", "nst_head", "nst_table"}


def depthwise(
    net: Net, name: str, x: str, size: int, stride: int = 1, copies: int = 1, clamp: Clamp = "none", to: Quant = WIDE
) -> str:
    channels, of = net.tensors[x].shape[3], net.tensors[x].quant
    assert of is not None
    weight = net.rng.integers(-127, 128, (1, size, size, channels * copies)).astype(np.int8)
    w = net.constant(f"{name}.w", weight, quant(0.01))
    bias = net.constant(
        f"{name}.b", net.rng.integers(-3000, 3000, channels * copies).astype(np.int32), quant(float(of.scale[0]) * 0.01)
    )
    pad = size // 2
    pads = (pad, pad, pad, pad - (stride > 1))
    attrs = ir.DepthwiseConv2d((stride, stride), (1, 1), pads, clamp)
    return net.node("depthwise_conv2d", attrs, name, x, w, bias, to=to)


def of_odd_sizes(side: int) -> Graph:
    """Channels that are no multiple of 4, 8 or 16; windows, strides and clamps of every kind; answers that leave their bytes."""
    net = Net(side, np.random.default_rng(side))
    net.conv("a", "x", 9, 3, stride=(2, 2), padding=(0, 1, 0, 1), clamp="relu", to=quant(0.03, -128))
    depthwise(net, "b", "a", 3, clamp="relu", to=quant(0.25, -128))
    halves = net.constant("c.w", net.rng.integers(-20, 21, (17, 1, 1, 9)).astype(np.int8), quant(2.0**-6))
    net.node("conv2d", ir.Conv2d(), "c", "b", halves, to=quant(0.25 * 2.0**-6 * 32, 5))  # a 32nd: many ties of both signs
    depthwise(net, "d", "c", 5)
    depthwise(net, "e", "d", 7, clamp="relu6", to=quant(0.05, -100))
    net.node("add", ir.Add("relu6"), "f", "d", "e", to=quant(0.04, -20))
    net.conv("g", "f", 6, 3, padding=(2, 2, 2, 2), dilation=(2, 2), clamp="relu", to=quant(0.04, -128))
    depthwise(net, "h", "g", 3, copies=3, clamp="relu", to=quant(0.05, 4))
    net.node("max_pool", ir.MaxPool((3, 3), (1, 1), (1, 1, 1, 1), "relu6"), "i", "h", to=quant(0.05, 4))
    net.node("average_pool", ir.AveragePool((3, 2), (1, 1), (1, 0, 1, 1)), "j", "i", to=quant(0.05, 4))
    depthwise(net, "k", "j", 3, 2)
    depthwise(net, "l", "k", 5, 2, clamp="relu", to=quant(0.05, -128))
    net.conv("m", "l", 3, to=quant(0.5, 1))
    net.conv("n", "m", 33, 2, padding=(1, 1, 1, 0), to=quant(0.02, -1))
    depthwise(net, "o", "n", 7, 2)
    net.conv("p", "o", 35, clamp="relu", to=quant(0.02, -128))
    net.node("mean", ir.Mean(), "q", "p")
    return headed(net.graph("q"))


@pytest.mark.parametrize("side", [29, 38])
def test_odd_sizes(side: int, tmp_path: Path) -> None:
    graph = of_odd_sizes(side)
    called = {layer.function for layer in lower(graph, tools(M55)).layers}
    assert {name for name in called if "mve" not in name} <= PORTABLE
    assert_answers_are_the_reference(graph, M55, tmp_path / "c")
