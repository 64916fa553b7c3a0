"""Channels of large sums: those that answer one byte get small ones; others are refused by name where they may leave 32 bits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nestling.errors import UnsupportedOp
from nestling.formats.c import host
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.formats.c.settled import with_settled_channels
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Node, Quant, Tensor
from nestling.graph.spec import check
from tests.helpers.networks import Net, headed, noise, printed, quant
from tests.helpers.strategies import CLAMPS, LONGER, ZERO_POINTS, Draw

HOST = replace(machine("host"), features=())  # with the kernels of every machine
LARGEST = 2**31 - 1
OPS = ("conv2d", "depthwise_conv2d", "fully_connected")


def layer(
    op: str,
    weight: Any,
    bias: Any,
    scales: Any,
    zero: int = 0,
    clamp: ir.Clamp = "none",
    weight_zero: int = 0,
    y: Quant | None = None,
    scale: float = 1.0,
) -> Graph:
    """One layer over a map of 4 x 4, or for fully_connected a row. weight: [O, taps]; scales: of weights, one or one a channel.

    zero, scale: the input's; the output, if y is None, has scale 1 and -3. weight_zero: of an old uint8 network.
    """
    rows, axis = np.array(weight, np.int8), {"depthwise_conv2d": 3}.get(op, 0)
    out, taps = rows.shape
    x = (1, taps) if op == "fully_connected" else (1, 4, 4, out if op == "depthwise_conv2d" else 1)
    shape = (out, taps) if op == "fully_connected" else (out, 1, taps, 1)
    data = rows.T.reshape(1, 1, taps, out) if op == "depthwise_conv2d" else rows.reshape(shape)
    attrs: ir.Attrs = ir.FullyConnected(clamp)
    if op != "fully_connected":
        kind = ir.DepthwiseConv2d if op == "depthwise_conv2d" else ir.Conv2d
        attrs = kind(padding=(0, 0, taps // 2, (taps - 1) // 2), clamp=clamp, unsigned=weight_zero != 0)
    many = np.array(scales, np.float32).reshape(-1)
    zeros = np.full(len(many), weight_zero, np.int32)
    of_weight = Quant(many, zeros, axis if len(many) > 1 else None)
    of_bias = Quant(many * np.float32(scale), np.zeros(len(many), np.int32), 0 if len(many) > 1 else None)
    tensors = [
        Tensor("x", x, "int8", None, quant(scale, zero)),
        Tensor("w", data.shape, "int8", data, of_weight),
        Tensor("b", (out,), "int32", np.array(bias, np.int32), of_bias),
        Tensor("y", (1, out) if op == "fully_connected" else (1, 4, 4, out), "int8", None, y or quant(1.0, -3)),
    ]
    return check(Graph({t.name: t for t in tensors}, (Node(op, ("x", "w", "b"), ("y",), attrs),), ("x",), ("y",)))


def answers(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """The reference's, to noise, to the two extremes, and to what is at each place the worst for a channel."""
    rng, shape = np.random.default_rng(seed), graph.tensors["x"].shape
    images = [rng.choice(np.array([-128, 127], np.int8), shape) for _ in range(6)]
    images += [np.full(shape, value, np.int8) for value in (-128, 127)] + [rng.integers(-128, 128, shape).astype(np.int8)]
    return [dict(reference.activations(graph, image))["y"] for image in images]


@st.composite
def extremes(draw: Draw) -> Graph:
    """Biases near the edges of 32 bits and of where sums begin to wrap, scales from nothing to what saturates everything."""
    op = draw(st.sampled_from(OPS))
    out, taps = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = rng.integers(-128, 128, (out, taps)) // draw(st.sampled_from((1, 1, 128, 200)))
    zero, old = draw(ZERO_POINTS), op != "fully_connected" and draw(st.integers(0, 3)) == 0
    weight_zero = draw(ZERO_POINTS) if old else 0
    reach = np.abs(weight - weight_zero).sum(axis=1) * max(127 - zero, zero + 128)
    near = [draw(st.sampled_from((LARGEST, LARGEST - int(most), -LARGEST - 1 + int(most), 2**30, 0))) for most in reach]
    bias = np.clip([edge + draw(st.integers(-300, 300)) for edge in near], -LARGEST - 1, LARGEST)
    scales = [10.0 ** draw(st.one_of(st.floats(-11, -8), st.floats(-20, 3))) for _ in range(1 if old else out)]
    y = quant(1.0, draw(ZERO_POINTS))
    return layer(op, weight, bias, scales, zero, draw(CLAMPS), weight_zero, y)


@LONGER
@given(graph=extremes(), seed=st.integers(0, 99))
def test_other_sums_give_the_reference_bytes(graph: Graph, seed: int) -> None:
    other = with_settled_channels(graph)
    for answer, expected in zip(answers(other, seed), answers(graph, seed), strict=True):
        assert_array_equal(answer, expected)
    try:
        lower(graph, HOST)
    except UnsupportedOp:
        event("refused")
    else:
        event("printed as it is" if other is graph else "settled")


@pytest.mark.parametrize("op", OPS)
def test_a_scale_of_nothing_settles_any_sum(op: str) -> None:
    """The zero point, whatever wraps: a multiplier of 0 asks for no sum."""
    weight = [[127] * 3, [-128] * 3, [5, -6, 7]]
    graph = layer(op, weight, [LARGEST, -LARGEST - 1, LARGEST - 5], [1e-16, 1e-25, 0.1])
    assert all((answer[..., :2] == -3).all() for answer in answers(graph))
    with pytest.raises(UnsupportedOp, match=r"channel 2 of 3 may leave 32 bits"):
        lower(graph, HOST)
    lower(layer(op, weight[:2], [LARGEST, -LARGEST - 1], [1e-16, 1e-25]), HOST)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_is_settled_up_to_where_it_wraps(op: str, sign: int) -> None:
    """Saturated it answers the clamp's end; from the first sum that wraps on also the other end, and is refused."""
    most = 127 * 255  # of one weight, with the input's zero point at an end
    edge = LARGEST if sign > 0 else -LARGEST - 1
    clamped = layer(op, [[127]], [edge - sign * most], 0.01, -128 if sign > 0 else 127)
    assert {int(byte) for answer in answers(clamped) for byte in answer.reshape(-1)} == {127 if sign > 0 else -128}
    other = with_settled_channels(clamped)
    assert not np.any(other.tensors["w"].data) and abs(int(np.asarray(other.tensors["b"].data)[0])) < 14_000
    lower(clamped, HOST)
    wraps = layer(op, [[127]], [edge - sign * (most - 1)], 0.01, -128 if sign > 0 else 127)
    assert {int(byte) for answer in answers(wraps) for byte in answer.reshape(-1)} == {-128, 127}
    with pytest.raises(UnsupportedOp, match=r"y': the sums of channel 0 of 1 may leave 32 bits"):
        lower(wraps, HOST)


def test_both_ends_alike_is_no_proof_where_a_zero_point_wraps() -> None:
    """A factor of 1 - 1e-8: the largest sum, scaled, lies inside 32 bits; with the zero point it does not, and is the least one."""

    def with_factor(weight: int, bias: int) -> Graph:
        return layer("conv2d", [[weight]], [bias], 1 - 5 * 2.0**-24, scale=5 + 3 * 2.0**-21, y=quant(5.0, 100))

    for edge in (LARGEST, -LARGEST - 1):
        assert all((answer == -128).all() for answer in answers(with_factor(0, edge)))
    graph = with_factor(1, LARGEST - 100)
    assert {int(byte) for answer in answers(graph) for byte in answer.reshape(-1)} == {-128, 127}
    with pytest.raises(UnsupportedOp, match="channel 0 of 1"):
        lower(graph, HOST)


def test_both_ends_alike_is_no_proof_where_the_sum_wraps_between() -> None:
    """Only the outermost 8,192 of all 32-bit numbers round to 1 and -1; here they lie inside, and both ends, wrapped, answer 0."""
    graph = layer("conv2d", [[127]], [LARGEST], 2.0**-32 * (1 + 2.0**-18))
    assert {int(byte) for answer in answers(graph) for byte in answer.reshape(-1)} == {-4, -3, -2}
    with pytest.raises(UnsupportedOp, match="channel 0 of 1"):
        lower(graph, HOST)


def test_constants_that_another_layer_reads_stay_its_own() -> None:
    graph = layer("conv2d", [[127] * 3], [LARGEST], 1e-16)
    z = replace(graph.tensors["y"], name="z", quant=quant(1e-11, -3))
    both = replace(graph, tensors={**graph.tensors, "z": z}, nodes=(*graph.nodes, replace(graph.nodes[0], outputs=("z",))))
    both = check(replace(both, outputs=("y", "z")))
    other = with_settled_channels(both)
    assert other.nodes[0].inputs != both.nodes[0].inputs and other.nodes[1].inputs == both.nodes[1].inputs
    assert_array_equal(other.tensors["w"].data, both.tensors["w"].data)


def test_what_is_not_large_is_left_as_it_is() -> None:
    graph = layer("conv2d", [[127] * 3, [127] * 3], [2**25, -5], [1e-16, 0.1])
    assert with_settled_channels(graph) is graph


def test_a_sum_too_large_for_the_short_way_of_scaling_becomes_small() -> None:
    """As of most channels of MobileNetV1's late layers after training with weight decay."""
    graph = layer("conv2d", [[0] * 3, [127] * 3], [-(2**30) - 128, -5], [1e-11, 0.1], clamp="relu")
    assert_array_equal(with_settled_channels(graph).tensors["b"].data, [0, -5])


def test_refused_channels_are_named_up_to_a_few() -> None:
    graph = layer("conv2d", [[127] * 3] * 20, [LARGEST] * 19 + [0], [0.1] * 20)
    with pytest.raises(UnsupportedOp, match=r"channels 0, 1, 2, 3, 4, 5, 6, 7 and 11 more of 20 may.*\.tflite works"):
        lower(graph, HOST)


def test_a_network_with_dead_channels_answers_as_the_reference(tmp_path: Path) -> None:
    """Printed and compiled, with biases of 2^31 and a scale of 1e-16, as a public MCUNet has them."""
    net = Net()
    net.conv("a", "x", 4, 3, padding=(1, 1, 1, 1), clamp="relu6")
    net.conv("b", "a", 6)
    for name, dead in (("a", [0, 3]), ("b", [2])):
        weight, bias = net.tensors[f"{name}.w"], net.tensors[f"{name}.b"]
        data, scales = np.array(bias.data), np.full(len(weight.data), 0.01, np.float32)
        data[dead], scales[dead] = [LARGEST, -LARGEST - 1][: len(dead)], 1e-16
        zeros = np.zeros(len(scales), np.int32)
        net.tensors[weight.name] = replace(weight, quant=Quant(scales, zeros, 0))
        net.tensors[bias.name] = replace(bias, data=data, quant=Quant(scales * np.float32(0.02), zeros, 0))
    net.node("mean", ir.Mean(), "e", "b")
    graph = headed(net.graph("e"))
    runner = host.load(printed(graph, tmp_path))
    for image in noise(graph, 3):
        expected = dict(reference.activations(graph, image[None]))
        for name, answer in runner.activations(image).items():
            if answer.dtype == np.int8:
                assert answer.tobytes() == expected[name].tobytes(), name
