"""Convolutions for computers with every set of instructions that this processor has. Judge: the reference executor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c.kernels import host, host_blocks
from nestling.formats.c.kernels.layers import Layer, Struct
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Node, Tensor
from nestling.graph.spec import check
from tests.formats.c.cases import Case, valid, windows
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import quant
from tests.helpers.strategies import CLAMPS

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
COMPUTER = machine("host")
# AVX-VNNI is tried as the same instruction of AVX-512 (see nst_kit_avxvnni.c).
FLAGS = ("-O2", "-DNST_AVXVNNI_AS_AVX512VL")
X_SCALE = 0.05
KITS = ("portable", "avx2", "avxvnni", "avx512vnni", "neon", "dotprod")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), *FLAGS))


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest, kernels: Kernels) -> str:
    if not kernels.kit(request.param):
        pytest.skip(f"this processor has no {request.param}")
    return str(request.param)


@contextmanager
def unproven(every: int) -> Iterator[None]:
    """Each so many-th channel has no short way."""
    true = host.ends

    def found(*arguments: Any) -> host.Ends:
        ends = true(*arguments)
        ends.factor[every - 1 :: every] = 0
        return ends

    with patch.object(host, "ends", found):
        yield


def assert_as_reference(kernels: Kernels, kit: str, graph: Graph, image: NDArray[Any]) -> tuple[Layer, ...]:
    program = lower(check(graph), COMPUTER)
    expected = dict(reference.activations(graph, image))
    for name, answer in kernels.run(program, {graph.inputs[0]: image}, kit=kit).items():
        assert_array_equal(answer, expected[name], err_msg=name)
    return program.layers


def sums_of(layer: Layer) -> dict[str, Any]:
    fields = next(argument.fields for argument in layer.arguments if isinstance(argument, Struct))
    sums = fields["sums"]
    assert isinstance(sums, Struct)
    return dict(sums.fields)


@st.composite
def wide(draw: st.DrawFn, depthwise: bool) -> Case:
    """A convolution with as many channels as fill vectors, and a few more or fewer."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels = 8 * draw(st.integers(1, 26)) if depthwise else draw(st.integers(1, 70))
    out = channels if depthwise else draw(st.integers(2, 70))
    size = (
        draw(st.sampled_from(((3, 3), (5, 5), (3, 1), (2, 4), (1, 5), (7, 7))))
        if depthwise
        else draw(st.sampled_from(((1, 1), (3, 3), (2, 3))))
    )
    stride, dilation = draw(st.sampled_from(((1, 1), (2, 2), (1, 2), (3, 3)))), draw(st.sampled_from(((1, 1), (1, 1), (2, 2))))
    top, bottom, left, right = (draw(st.integers(0, 2)) for _ in range(4))
    pads = (top, bottom, left, right)
    if not depthwise and size == (1, 1) and draw(st.booleans()):
        stride, dilation, pads = (1, 1), (1, 1), (0, 0, 0, 0)
    sides = [(k - 1) * d + 1 + draw(st.integers(0, 14)) for k, d in zip(size, dilation, strict=True)]
    plane = [(sides[i] + sum(pads[2 * i : 2 * i + 2]) - (size[i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in (0, 1)]
    values = np.array([-128, -127, 127] if draw(st.booleans()) else range(-128, 128), np.int8)

    def bytes_of(shape: tuple[int, ...]) -> NDArray[Any]:
        return np.asarray(rng.choice(values, shape))

    shape = (1, *size, out) if depthwise else (out, *size, channels)
    weight = bytes_of(shape)
    depth = np.prod(size) * (1 if depthwise else channels)
    # sums are about 74 * 74 * sqrt(depth): their bytes fill the range, or a part of it, or leave it on either side
    scale = draw(st.sampled_from((1.0, 0.2, 8.0))) * rng.uniform(0.5, 2, out) * 60 / (74 * 74 * np.sqrt(depth) * X_SCALE)
    x_zero, y_zero = draw(st.sampled_from((-128, 0, 5))), draw(st.sampled_from((-128, -3, 127)))
    clamp = draw(CLAMPS)
    attrs = ir.DepthwiseConv2d(stride, dilation, pads, clamp) if depthwise else ir.Conv2d(stride, dilation, pads, clamp)
    bias = rng.integers(-2000, 2000, out).astype(np.int32)
    scales, zeros = scale.astype(np.float32), np.zeros(out, np.int32)
    tensors = [
        Tensor("x", (1, *sides, channels), "int8", None, quant(X_SCALE, x_zero)),
        Tensor("w", shape, "int8", weight, ir.Quant(scales, zeros, 3 if depthwise else 0)),
        Tensor("b", (out,), "int32", bias, ir.Quant(scales * np.float32(X_SCALE), zeros, 0)),
        Tensor("y", (1, *plane, out), "int8", None, quant(1.0, y_zero)),
    ]
    op = "depthwise_conv2d" if depthwise else "conv2d"
    graph = Graph({t.name: t for t in tensors}, (Node(op, ("x", "w", "b"), ("y",), attrs),), ("x",), ("y",))
    return graph, bytes_of((1, *sides, channels))


@pytest.mark.parametrize("depthwise", [False, True])
@QUICK
@given(data=st.data(), every=st.sampled_from((0, 0, 1, 3)))
def test_wide_convolutions_give_the_reference_bytes(
    depthwise: bool, kit: str, data: st.DataObject, every: int, kernels: Kernels
) -> None:
    """every: each so many-th channel goes the long way."""
    graph, image = data.draw(wide(depthwise))
    with unproven(every) if every else nullcontext():
        (layer,) = assert_as_reference(kernels, kit, graph, image)
    assert layer.function.endswith("_host")
    assert sums_of(layer)["long_ones"] >= (graph.tensors["y"].shape[3] // every if every else 0)


@QUICK
@given(case=windows())
def test_convolutions_of_any_kind_give_the_reference_bytes(kit: str, case: Case, kernels: Kernels) -> None:
    assert_as_reference(kernels, kit, *valid(case))


# ---- zeros ----------------------------------------------------------------------------------------------------------------------


def with_zeros(rng: np.random.Generator, sides: tuple[int, int], depth: int, out: int, density: float, clamp: ir.Clamp) -> Graph:
    """A 1x1 convolution with so many of its blocks of four weights alive."""
    blocks = rng.integers(-128, 128, (out, -(-depth // 4), 4)) * (rng.random((out, -(-depth // 4), 1)) < density)
    weight = blocks.reshape(out, -1)[:, :depth].reshape(out, 1, 1, depth).astype(np.int8)
    scales, zeros = (
        rng.uniform(0.5, 2, out).astype(np.float32) * np.float32(0.3 / np.sqrt(depth * density + 1)),
        np.zeros(out, np.int32),
    )
    tensors = [
        Tensor("x", (1, *sides, depth), "int8", None, quant(0.05, int(rng.integers(-128, 128)))),
        Tensor("w", weight.shape, "int8", weight, ir.Quant(scales, zeros, 0)),
        Tensor("b", (out,), "int32", rng.integers(-900, 900, out).astype(np.int32), ir.Quant(scales * np.float32(0.05), zeros, 0)),
        Tensor("y", (1, *sides, out), "int8", None, quant(1.0, int(rng.integers(-128, 128)))),
    ]
    node = Node("conv2d", ("x", "w", "b"), ("y",), ir.Conv2d(clamp=clamp))
    return Graph({t.name: t for t in tensors}, (node,), ("x",), ("y",))


@QUICK
@given(
    sides=st.tuples(st.integers(1, 12), st.integers(1, 12)), depth=st.integers(1, 150), out=st.integers(2, 70),
    density=st.sampled_from((0.0, 0.1, 0.3, 1.0)), clamp=CLAMPS, seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_they_give_the_reference_bytes(
    kit: str,
    sides: tuple[int, int],
    depth: int,
    out: int,
    density: float,
    clamp: ir.Clamp,
    seed: int,
    kernels: Kernels,
) -> None:
    """Whether or not that pays."""
    rng = np.random.default_rng(seed)
    graph, image = valid(
        (with_zeros(rng, sides, depth, out, density, clamp), rng.integers(-128, 128, (1, *sides, depth)).astype(np.int8))
    )
    with patch.multiple(host_blocks, A_BLOCK=-100, A_CHANNEL=-100, AN_INPUT=-100):
        layers = assert_as_reference(kernels, kit, graph, image)
    assert [layer.function for layer in layers] in (["nst_conv_1x1_blocks_host"], ["nst_conv_1x1_host"])


@pytest.mark.parametrize(("depth", "density", "skipped"), [(256, 0.2, True), (512, 0.3, True), (64, 0.2, False), (256, 0.9, False)])
def test_zeros_are_skipped_where_that_pays(depth: int, density: float, skipped: bool) -> None:
    graph = with_zeros(np.random.default_rng(0), (4, 4), depth, 64, density, "none")
    (layer,) = lower(graph, COMPUTER).layers
    assert ("_blocks" in layer.function) == skipped
    if skipped:
        dense = lower(with_zeros(np.random.default_rng(0), (4, 4), depth, 64, 1.0, "none"), COMPUTER).layers[0]
        assert sum(x.bytes for x in layer.constants) < 0.6 * sum(x.bytes for x in dense.constants)
