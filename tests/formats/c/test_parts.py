"""Layers that are computed part by part, in any order: together the bytes of the whole, and no part writes a byte of another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nestling.formats.c.kernels.layers import Layer, Program, Struct
from nestling.formats.c.kernels.table import KERNELS
from nestling.formats.c.kernels.variant import Variant
from nestling.formats.c.lower import lower
from nestling.graph import reference
from nestling.graph.spec import check
from tests.formats.c.cases import HOST, Case, of_op, packed_cases, valid, windows, with_room
from tests.formats.c.kernel_library import Kernels, Part, Range, Split, compiled
from tests.helpers.networks import Net
from tests.helpers.strategies import Draw

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
SLIDING = ("conv2d", "depthwise_conv2d", "average_pool", "max_pool")
SLIDE = [(op, variant) for op in SLIDING for variant in KERNELS[op] if variant.needs != "host"]  # which take no parts
FEW_BITS = [(op, variant) for op, variant in SLIDE if variant.few_bits]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2"))


# ---- parts ----------------------------------------------------------------------------------------------------------------------


def ranges(data: st.DataObject, begins: list[int], end: int) -> list[Range]:
    """All of 0 to end in pieces; each begins at one of `begins`."""
    cuts = sorted(data.draw(st.sets(st.sampled_from(begins)))) if begins else []
    return list(pairwise([0, *cuts, end]))


def shape_of(layer: Layer) -> tuple[int, int, int]:
    return field(layer, "out")  # type: ignore[return-value]  # of the kind that it has


def field(layer: Layer, name: str) -> object:
    struct = next(argument for argument in layer.arguments if isinstance(argument, Struct))
    inner = struct.fields.get("conv", struct)
    assert isinstance(inner, Struct)
    return inner.fields[name]


def channel_begins(layer: Layer) -> list[int]:
    """Where a range of channels may begin, besides 0: see nst_part."""
    channels = shape_of(layer)[2]
    if "depthwise" in layer.function or "pool" in layer.function:
        return list(range(1, channels))
    sums = field(layer, "sums")
    assert isinstance(sums, Struct) and isinstance(sums.fields["channels"], int)
    group = sums.fields["channels"]
    return [first + four for first in range(0, channels, group) for four in range(0, group, 4) if first + four]


def drawn(data: st.DataObject) -> Split:
    """Parts of a layer in any order, of which the rows of one range of channels need not be those of another; one may be empty."""

    def split(layer: Layer) -> list[Part]:
        height, _, channels = shape_of(layer)
        columns = ranges(data, channel_begins(layer), channels)
        parts = [(rows, some) for some in columns for rows in ranges(data, list(range(1, height)), height)]
        empty = [((height, height), (0, channels))] if data.draw(st.booleans()) else []
        return data.draw(st.permutations([*parts, *empty]))

    return split


def in_place(data: st.DataObject) -> Split:
    """Parts and their order as nst_kernels.h allows them where the answer lies over what it is made of."""

    def split(layer: Layer) -> list[Part]:
        height, _, channels = shape_of(layer)
        rows = ranges(data, list(range(1, height)), height)
        if "depthwise" in layer.function:
            return [((0, height), some) for some in data.draw(st.permutations(ranges(data, channel_begins(layer), channels)))]
        if "pool" in layer.function:
            return [(some, c) for c in data.draw(st.permutations(ranges(data, channel_begins(layer), channels))) for some in rows]
        if layer.lead:
            return list(product(rows, [(0, channels)]))
        depth = field(layer, "sums").fields["depth"]  # type: ignore[attr-defined]  # of the kind that it has
        ordered = data.draw(st.permutations(rows)) if depth == channels else rows if depth > channels else rows[::-1]
        return list(product(ordered, [(0, channels)]))

    return split


# ---- tests ----------------------------------------------------------------------------------------------------------------------


def assert_parts_are_the_whole(kernels: Kernels, case: Case, program: Program, data: st.DataObject) -> None:
    """Of the naive twins, where there are some, and of the reference executor, which knows no C. Also in place."""
    graph, image = case
    feeds = {graph.inputs[0]: image}
    expected = dict(reference.activations(graph, image))
    twins = kernels.run(program, feeds, twin=True)
    for over, split in ((False, drawn(data)), (True, in_place(data))):
        for name, answer in kernels.run(program, feeds, in_place=over, split=split).items():
            if answer.dtype == np.int8:
                assert_array_equal(answer, twins[name], err_msg=name)
                assert_array_equal(answer, expected[name], err_msg=name)


@contextmanager
def first_comes(op: str, variant: Variant) -> Iterator[None]:
    """Whether or not another variant would have been chosen."""
    others = tuple(other for other in KERNELS[op] if other.function != variant.function)
    with patch.dict(KERNELS, {op: (variant, *others)}):
        yield


@pytest.mark.parametrize(("op", "variant"), SLIDE, ids=lambda one: getattr(one, "function", one))
@QUICK
@given(data=st.data())
def test_parts_are_the_whole(op: str, variant: Variant, data: st.DataObject, kernels: Kernels) -> None:
    case = valid(data.draw(of_op(op, variant.function)))
    assume(any(node.op == op and variant.takes(node, case[0]) for node in case[0].nodes))
    with first_comes(op, variant):
        program = lower(check(case[0]), replace(HOST, features=(variant.needs,)))
    program = with_room(program, lambda least, most: data.draw(st.just(most) | st.integers(least, most)))
    assert_parts_are_the_whole(kernels, case, program, data)


@pytest.mark.parametrize(("op", "variant"), FEW_BITS, ids=lambda one: getattr(one, "function", one))
@QUICK
@given(data=st.data())
def test_parts_of_packed_weights_are_the_whole(op: str, variant: Variant, data: st.DataObject, kernels: Kernels) -> None:
    with first_comes(op, variant):
        graph, image, program = data.draw(packed_cases(of_op(op, variant.function)))
    assume(any(layer.function == variant.few_bits for layer in program.layers))
    assert_parts_are_the_whole(kernels, (graph, image), program, data)


@pytest.mark.parametrize("feature", ["dsp", "mve", "rv32"])
@QUICK
@given(data=st.data())
def test_parts_of_packed_weights_on_a_machine_of_its_own(feature: str, data: st.DataObject, kernels: Kernels) -> None:
    """By the portable twins of its instructions."""
    graph, image, program = data.draw(packed_cases(windows() | windows("plain") | of_images(), feature))
    assert_parts_are_the_whole(kernels, (graph, image), program, data)


@st.composite
def of_images(draw: Draw) -> Case:
    """One convolution that takes the image itself."""
    net = Net(rng=np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    size, stride = draw(st.sampled_from((1, 2, 3, 5))), (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, 3)) for _ in range(4))
    net.conv("a", "x", draw(st.integers(1, 19)), size, stride=stride, padding=padding)
    return net.graph("a"), net.rng.integers(0, 256, (1, net.side, net.side, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("function", "feature"), [("nst_conv_image", ""), ("nst_conv_image_dsp", "dsp"), ("nst_conv_image_mve", "mve")]
)
@QUICK
@given(data=st.data())
def test_parts_of_a_convolution_of_the_image_are_the_whole(
    function: str, feature: str, data: st.DataObject, kernels: Kernels
) -> None:
    case = data.draw(of_images())
    program = with_room(lower(case[0], replace(HOST, features=(feature,))), lambda least, most: data.draw(st.integers(least, most)))
    assume([layer.function for layer in program.layers] == [function])
    assert_parts_are_the_whole(kernels, case, program, data)


@QUICK
@given(data=st.data())
def test_parts_of_a_packed_convolution_of_the_image_are_the_whole(data: st.DataObject, kernels: Kernels) -> None:
    graph, image, program = data.draw(packed_cases(of_images()))
    assume([layer.function for layer in program.layers] == ["nst_conv_image_packed"])
    assert_parts_are_the_whole(kernels, (graph, image), program, data)
