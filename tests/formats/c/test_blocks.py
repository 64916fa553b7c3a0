"""1x1 convolutions whose zeros are skipped: when they are, what is stored, and their answers on the boards.

test_kernels.py and test_parts.py draw such layers for every kernel's portable twin.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from nestling.formats.c.kernels import host_blocks
from nestling.formats.c.kernels.blocks import WIDTH
from nestling.formats.c.kernels.layers import Layer
from nestling.formats.c.kernels.table import KERNELS
from nestling.formats.c.kernels.variant import Variant
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Node, Quant, Tensor
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.formats.c.cases import HOST, with_room, with_zeros
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import Net, headed, quant

# That of computers, whose blocks are others: test_kits.py.
SPARSE = [variant for variant in KERNELS["conv2d"] if "_blocks" in variant.function and variant.needs != "host"]


def of_depth(depth: int, channels: int, pixels: int, alive: dict[int, list[int]], largest: int = 127) -> Graph:
    """One 1x1 convolution. alive: the blocks that are not zero, by channel."""
    rng = np.random.default_rng(0)
    weight = np.zeros((channels, 1, 1, depth), np.int8)
    for channel, blocks in alive.items():
        for block in blocks:
            values = rng.choice([-largest - 1, largest], 4) if block > blocks[0] else np.full(4, -largest - 1)
            weight[channel, 0, 0, 4 * block : 4 * block + 4] = values[: depth - 4 * block]
    tensors = [
        Tensor("x", (1, 1, pixels, depth), "int8", None, quant(0.01, 5)),
        Tensor("w", weight.shape, "int8", weight, quant(0.01)),
        Tensor("y", (1, 1, pixels, channels), "int8", None, quant(0.09, 1)),
    ]
    return Graph({t.name: t for t in tensors}, (Node("conv2d", ("x", "w"), ("y",), ir.Conv2d()),), ("x",), ("y",))


def of_blocks(graph: Graph, name: str) -> list[Layer]:
    return [layer for layer in lower(graph, machine(name)).layers if "_blocks" in layer.function]


@pytest.mark.parametrize("variant", SPARSE, ids=lambda variant: variant.function)
def test_blocks_far_from_one_another(variant: Variant, tmp_path: Path) -> None:
    """More than 255 blocks, which a byte does not say; a block that is cut short; a channel of none. All weights are extreme.

    With the most scratch pixels are computed eight at once, and seven, six or five are left.
    """
    graphs = [of_depth(1023, 3, pixels, {0: [0, 255], 2: [1, 2, 254, 255]}) for pixels in (14, 15)]
    far = of_depth(2401, 3, 13, {0: [0, 256], 1: [600], 2: [255, 511, 520]})
    kernels = Kernels(compiled(tmp_path, "-O2"))
    of_needs = {"dsp": machine("cortex-m4"), "mve": machine("cortex-m55")}
    target = of_needs.get(variant.needs, HOST)
    for one in graphs if variant.needs == "mve" else (*graphs, far):  # where places are counted from the first, one says no more
        image = np.random.default_rng(1).choice(np.array([-128, 127], np.int8), one.tensors["x"].shape)
        image[0, 0, :2] = -128  # so that a block's products are as large as they can be
        program = lower(one, target)
        assert "_blocks" in program.layers[0].function
        expected = dict(reference.activations(one, image))["y"]
        assert len(np.unique(expected)) > 3
        for room in (min, max):
            assert_array_equal(kernels.run(with_room(program, room), {"x": image})["y"], expected)


def network(largest: float = 20.0) -> Graph:
    """1x1 convolutions of odd depths with many zeros, on 25, 15 and 6 pixels, with every kind of clamp and scale.

    largest: a scale of weights, for which no short way is found.
    """
    net = Net(side=10)
    places = (("a", (2, 2)), ("b", (1, 2)), ("c", (2, 2)))
    last = "x"
    for name, stride in places:
        net.conv(name, last, 21, 3, stride=stride, padding=(1, 1, 1, 1), to=quant(0.09, -100), clamp="relu")
        net.conv(f"{name}.up", name, 67, clamp="relu", to=quant(0.05, -128))
        net.conv(f"{name}.same", f"{name}.up", 67, clamp="relu6", to=quant(0.03, -77))
        net.conv(f"{name}.down", f"{name}.same", 9, to=quant(0.08, 3))
        net.conv(f"{name}.again", f"{name}.down", 130, to=quant(0.02, 11))
        last = f"{name}.again"
    net.node("mean", ir.Mean(), "e", last)
    graph = headed(net.graph("e"))
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        weight = tensors[node.inputs[1]] if node.op == "conv2d" else None
        if weight is not None and weight.shape[1] == 1:
            spread = np.where(np.arange(weight.shape[0]) % 11, 0.01, largest).astype(np.float32)
            bias = tensors[node.inputs[2]]
            x = tensors[node.inputs[0]].quant
            assert x is not None
            scale = Quant(spread, np.zeros(len(spread), np.int32), 0)
            tensors[weight.name] = replace(with_zeros(weight, 0.8, net.rng), quant=scale)
            tensors[bias.name] = replace(bias, quant=replace(scale, scale=(spread * x.scale[0]).astype(np.float32)))
    return replace(graph, tensors=tensors)


@pytest.mark.parametrize("board", ["cortex-m4", "cortex-m55", "rv32imc"])
def test_the_boards_skip_zeros_and_answer_as_the_reference(board: str, tmp_path: Path) -> None:
    tools(board)
    graph = network()
    layers = of_blocks(graph, board)
    assert len(layers) >= 6
    assert any(layer.long for layer in layers), "no channel takes the long way"
    assert_answers_are_the_reference(graph, board, tmp_path / "c")


@pytest.mark.parametrize("isa", ["neon", "dotprod", "portable"])
def test_arm64_skips_zeros_and_answers_as_the_reference(isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools("linux-arm64")
    monkeypatch.setenv("NESTLING_ISA", isa)
    monkeypatch.setattr(host_blocks, "A_BLOCK", -1000)  # whether or not that pays
    graph = network(0.02)
    assert len(of_blocks(graph, "linux-arm64")) >= 6
    assert_answers_are_the_reference(graph, "linux-arm64", tmp_path / "c")


@pytest.mark.parametrize("board", ["host", "cortex-m4", "cortex-m55", "rv32imc"])
def test_four_fifths_of_zeros_are_skipped_and_none_is_where_there_are_none(board: str) -> None:
    """A byte for a place, two on computers, and four for a block: 0.25 of the weights, and a little for what is rounded up."""
    some = {channel: [(5 * i + channel) % 64 for i in range(12)] for channel in range(64)}
    (layer,) = of_blocks(of_depth(256, 64, 16, some, 60), board)
    places = next(constant for constant in layer.constants if constant.role == "places")
    stored = places.bytes + places.data.size * WIDTH
    assert stored <= 0.4 * 64 * 256
    assert not of_blocks(of_depth(128, 64, 16, {channel: list(range(32)) for channel in range(64)}), board)
