"""Convolutions for processors with SMLAD: what the tests of all kernels do not reach. Judge: the reference executor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c.kernels import dsp_convolutions
from nestling.formats.c.kernels.layers import Constant, Program, plane
from nestling.formats.c.kernels.rescaling import Short, short
from nestling.formats.c.lower import lower
from nestling.graph import ir, reference
from nestling.graph.ir import Graph
from nestling.graph.spec import check
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.formats.c.cases import HOST, Case, valid, windows, with_room
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import Net, headed, noise, quant

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
DSP = replace(HOST, features=("dsp",))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2"))


def assert_as_reference(kernels: Kernels, case: Case, program: Program) -> None:
    graph, image = case
    expected = dict(reference.activations(graph, image))
    for in_place in (False, True):
        for name, answer in kernels.run(program, {graph.inputs[0]: image}, in_place=in_place).items():
            if answer.dtype == np.int8:
                assert_array_equal(answer, expected[name], err_msg=name)


def dsp_program(graph: Graph) -> Program:
    program = lower(check(graph), DSP)
    assume(all(layer.function.endswith("_dsp") and "depthwise" not in layer.function for layer in program.layers))
    return program


@contextmanager
def unproven(every: int) -> Iterator[None]:
    """Each so many-th channel has no short way."""

    def found(*arguments: object) -> Short:
        whole = short(*arguments)  # type: ignore[arg-type]  # as they are
        proven = whole.proven & (np.arange(len(whole.proven)) % every != every - 1)
        start, left, multiplier, addend, negative = (
            np.where(proven, x, 0) for x in (whole.start, whole.left, whole.multiplier, whole.addend, whole.negative)
        )
        return Short(start, left, multiplier, addend, negative, proven)

    with patch.object(dsp_convolutions, "short", found):
        yield


@QUICK
@given(case=windows(), every=st.integers(1, 6), data=st.data())
def test_channels_that_are_not_proven_go_the_long_way(case: Case, every: int, data: st.DataObject, kernels: Kernels) -> None:
    graph, image = valid(case)
    with unproven(every):
        program = dsp_program(graph)
    (layer,) = program.layers
    assert layer.long is not None and layer.long >= graph.tensors[layer.writes].shape[3] // every
    assert_as_reference(kernels, (graph, image), with_room(program, lambda least, most: data.draw(st.integers(least, most))))


@QUICK
@given(case=windows())
def test_wide_weights_need_no_room(case: Case, kernels: Kernels) -> None:
    graph, image = valid(case)
    narrow = dsp_program(graph)
    program = replace(narrow, layers=tuple(map(dsp_convolutions.wide, narrow.layers)))
    assert_as_reference(kernels, (graph, image), with_room(program, max))
    (before,), (after,) = narrow.layers, program.layers
    assert after.scratch <= before.scratch and after.over == after.reads

    def stream(layer: object) -> Constant:
        return next(x for x in layer.constants if x.role == "stream")  # type: ignore[attr-defined]  # of a Layer

    assert stream(after).bytes > stream(before).bytes


def emptied(graph: Graph, channels: Callable[[str, int], NDArray[np.bool_]]) -> Graph:
    """The graph with weights of 0 in these channels of its layers, which then answer one byte. channels: of a name and a count."""
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.op == "conv2d":
            weight = tensors[node.inputs[1]]
            data = np.array(weight.data)
            data[channels(node.name, len(data))] = 0
            tensors[weight.name] = replace(weight, data=data)
    return check(replace(graph, tensors=tensors))


@QUICK
@given(case=windows(), every=st.integers(1, 9), share=st.sampled_from((0.3, 0.7, 1.0)), data=st.data())
def test_channels_of_one_answer_are_left_out(case: Case, every: int, share: float, data: st.DataObject, kernels: Kernels) -> None:
    """All at once, and part by part; among channels that take the long way, too."""
    graph, image = valid(case)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    graph = emptied(graph, lambda _, count: rng.random(count) < share)
    with unproven(every) if every < 4 else nullcontext():
        program = dsp_program(graph)
    (layer,) = program.layers
    assume(any(constant.role == "known" for constant in layer.constants))
    program = with_room(program, lambda least, most: data.draw(st.integers(least, most)))
    assert_as_reference(kernels, (graph, image), program)
    height, _, channels = plane(program.tensors[layer.writes])
    cut, row = data.draw(st.integers(0, channels // 4)) * 4, data.draw(st.integers(0, height))
    parts = [(rows, some) for some in ((0, cut), (cut, channels)) for rows in ((row, height), (0, row))]
    answers = kernels.run(program, {graph.inputs[0]: image}, split=lambda _: parts)
    assert_array_equal(answers[layer.writes], dict(reference.activations(graph, image))[layer.writes])


def odd() -> Graph:
    """Channels that fill no group of four or answer one byte, rows of odd lengths, windows that are dilated or reach out of the
    map, clamps within int8, answers with and without a relu."""
    net = Net(17)
    net.conv("first", "x", 5, 5, stride=(2, 1), padding=(3, 2, 1, 2), to=quant(0.05, -3))
    net.conv("grow", "first", 17, to=quant(0.1, -7), clamp="relu")
    net.conv("three", "grow", 9, 3, padding=(1,) * 4, to=quant(0.25, 20))
    halves = net.constant("ties.w", net.rng.integers(-20, 21, (9, 1, 1, 9)).astype(np.int8), quant(2.0**-6))
    net.node("conv2d", ir.Conv2d(), "ties", "three", halves, to=quant(0.25 * 2.0**-6 * 32, -5))  # a 32nd: many ties of both signs
    net.conv("dilated", "ties", 3, 3, padding=(2,) * 4, dilation=(2, 2), to=quant(0.5))
    net.conv("one", "dilated", 1, to=quant(0.9, 4))
    net.conv("high", "one", 7, 7, padding=(3,) * 4, to=quant(1.0), clamp="relu6")
    net.conv("far", "high", 8, 3, stride=(3, 4), padding=(2,) * 4, to=quant(1.7, -128), clamp="relu")
    net.conv("even", "far", 12, 2, to=quant(4.0, -128), clamp="relu")
    net.conv("last", "even", 40, to=quant(9.0))
    net.node("mean", ir.Mean(), "e", "last", to=quant(9.0))
    empty = {"grow": np.arange(17) % 3 > 0, "even": np.arange(12) < 10}
    return headed(emptied(net.graph("e"), lambda name, count: empty.get(name, np.zeros(count, bool))))


@pytest.mark.parametrize("every", [2, 11, 1000])
def test_a_network_of_odd_sizes_here(every: int, kernels: Kernels) -> None:
    graph = odd()
    with unproven(every):
        program = lower(graph, DSP)
    assert {layer.function for layer in program.layers} >= {"nst_conv_image_dsp", "nst_conv_dsp", "nst_conv_1x1_dsp"}
    assert_as_reference(kernels, (graph, noise(graph, 1)), with_room(program, lambda least, most: (least + most) // 2))


@pytest.mark.parametrize("every", [2, 1000])
def test_a_network_of_odd_sizes_on_a_board(every: int, tmp_path: Path) -> None:
    """Judge: the reference on this computer, QEMU runs the instructions."""
    tools("cortex-m4")
    with unproven(every):
        assert_answers_are_the_reference(odd(), "cortex-m4", tmp_path / "c")
