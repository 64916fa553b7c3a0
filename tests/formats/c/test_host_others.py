"""Adds, products, tables, pools and means for hosts: every kit of this processor.

Judge: the reference executor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Node, Quant, Tensor
from nestling.graph.spec import check
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import quant
from tests.helpers.strategies import CLAMPS

KITS = ("portable", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod")
SOME = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
EVERY = np.arange(-128, 128).astype(np.int8)
SCALES = st.sampled_from((0.003, 0.0217, 0.05, 0.31))
ZEROS = st.sampled_from((-128, -17, 0, 5, 127))


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2", "-DNST_AVXVNNI_AS_AVX512VL"))


def assert_as_reference(kernels: Kernels, graph: Graph, feeds: dict[str, NDArray[Any]], function: str) -> None:
    """By every kit, in place and not. function: the kernel that is tried; "" for any."""
    expected = dict(reference.activations(graph, feeds))
    program = lower(graph, machine("host"))
    assert not function or [layer.function for layer in program.layers] == [function]
    for kit in filter(kernels.kit, KITS):
        for in_place in (False, True):
            for name, answer in kernels.run(program, feeds, in_place=in_place, kit=kit).items():
                assert_array_equal(answer, expected[name], err_msg=f"{kit} {in_place=}")


def one(op: str, attrs: ir.Attrs, inputs: list[Tensor], shape: tuple[int, ...], to: Quant) -> Graph:
    tensors = [*inputs, Tensor("y", shape, "int8", None, to)]
    moving = tuple(x.name for x in inputs if x.data is None)
    return check(Graph({t.name: t for t in tensors}, (Node(op, tuple(x.name for x in inputs), ("y",), attrs),), moving, ("y",)))


def moving(name: str, shape: tuple[int, ...], to: Quant) -> Tensor:
    return Tensor(name, shape, "int8", None, to)


QUANTS = st.builds(quant, SCALES, ZEROS)
CHANNELS = st.integers(1, 100) | st.sampled_from((32, 48, 64, 96))
SEEDS = st.integers(0, 2**32 - 1)


def noise(seed: int, graph: Graph) -> dict[str, NDArray[np.int8]]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(-128, 128, graph.tensors[name].shape).astype(np.int8) for name in graph.inputs}


def every_pair(graph: Graph) -> dict[str, NDArray[np.int8]]:
    """Of two inputs of 65536 bytes."""
    pairs = (np.repeat(EVERY, 256), np.tile(EVERY, 256))
    return {name: values.reshape(graph.tensors[name].shape) for name, values in zip(graph.inputs, pairs, strict=True)}


@pytest.mark.parametrize("op", ["add", "mul"])
@SOME
@given(a=QUANTS, b=QUANTS, y=QUANTS, clamp=CLAMPS)
def test_every_pair_of_bytes(op: str, a: Quant, b: Quant, y: Quant, clamp: ir.Clamp, kernels: Kernels) -> None:
    attrs = ir.Add(clamp) if op == "add" else ir.Mul(clamp)
    graph = one(op, attrs, [moving("a", (1, 256, 256), a), moving("b", (1, 256, 256), b)], (1, 256, 256), y)
    assert_as_reference(kernels, graph, every_pair(graph), "")


@pytest.mark.parametrize("op", ["add", "mul"])
def test_their_factors_are_found_for_what_networks_have(op: str, kernels: Kernels) -> None:
    """So that one cannot fall back on the portable kernels unseen."""
    for scales in ((0.0217, 0.0331, 0.0409), (0.0513, 0.0039, 0.0307), (0.103, 0.0571, 0.117)):
        a, b, y = (quant(scale, zero) for scale, zero in zip(scales, (3, -128, -7), strict=True))
        graph = one(
            op,
            ir.Add() if op == "add" else ir.Mul(),
            [moving("a", (1, 256, 256), a), moving("b", (1, 256, 256), b)],
            (1, 256, 256),
            y,
        )
        assert_as_reference(kernels, graph, every_pair(graph), f"nst_{op}_host")


@SOME
@given(channels=CHANNELS, sides=st.tuples(st.integers(1, 9), st.integers(1, 9)), swapped=st.booleans(), seed=SEEDS)
def test_a_factor_a_channel(channels: int, sides: tuple[int, int], swapped: bool, seed: int, kernels: Kernels) -> None:
    whole, gate = moving("x", (1, *sides, channels), quant(0.04, 5)), moving("g", (1, 1, 1, channels), quant(0.0039, -128))
    graph = one("mul", ir.Mul(), [gate, whole] if swapped else [whole, gate], whole.shape, quant(0.03, 9))
    assert_as_reference(kernels, graph, noise(seed, graph), "nst_mul_host")


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65, 256, 1000])
def test_a_table(count: int, kernels: Kernels) -> None:
    graph = one("hard_swish", ir.HardSwish(), [moving("x", (1, count), quant(0.05, -9))], (1, count), quant(0.04, -100))
    assert_as_reference(kernels, graph, {"x": np.resize(EVERY, (1, count))}, "nst_lookup_host")


@SOME
@given(data=st.data(), channels=CHANNELS, seed=SEEDS)
def test_pools(data: st.DataObject, channels: int, seed: int, kernels: Kernels) -> None:
    draw = data.draw
    high, wide = size = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    shape = (1, draw(st.integers(high, 9)), draw(st.integers(wide, 9)), channels)
    pads = [draw(st.integers(0, size[i // 2] - 1)) for i in range(4)]
    padding = (pads[0], pads[1], pads[2], pads[3])
    plane = [(shape[1 + i] + sum(pads[2 * i : 2 * i + 2]) - size[i]) // stride[i] + 1 for i in (0, 1)]
    to = quant(0.03, draw(st.integers(-128, 127)))
    for op, attrs in (("average_pool", ir.AveragePool), ("max_pool", ir.MaxPool)):
        graph = one(op, attrs(size, stride, padding, draw(CLAMPS)), [moving("x", shape, to)], (1, *plane, channels), to)
        assert_as_reference(kernels, graph, noise(seed, graph), f"nst_{op}_host" if channels >= 32 else "")


@pytest.mark.parametrize(("rows", "channels"), [(2, 32), (49, 61), (7, 130), (255, 40), (256, 40), (600, 33)])
@pytest.mark.parametrize("extreme", [False, True])
def test_a_mean(rows: int, channels: int, extreme: bool, kernels: Kernels) -> None:
    """Of more rows than have room in 16 bits, too."""
    graph = one("mean", ir.Mean(), [moving("x", (1, rows, 1, channels), quant(0.02, 4))], (1, channels), quant(0.019, -3))
    feeds = {"x": np.full((1, rows, 1, channels), -128, np.int8)} if extreme else noise(rows, graph)
    assert_as_reference(kernels, graph, feeds, "nst_mean_host")
    whole = one("average_pool", ir.AveragePool((rows, 1), (1, 1)), [graph.tensors["x"]], (1, 1, 1, channels), quant(0.02, 4))
    assert_as_reference(kernels, whole, feeds, "nst_average_pool_host")
