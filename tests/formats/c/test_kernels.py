"""Every kernel and its naive twin against the reference executor, byte for byte, on graphs that hypothesis draws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c.kernels.table import KERNELS
from nestling.formats.c.kernels.variant import Variant
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import Machine
from nestling.formats.c.machines import machine as machine_of
from nestling.graph import ir, reference
from nestling.graph.edit import tidy
from nestling.graph.ir import Clamp, Graph, Node, Tensor
from nestling.graph.spec import check
from tests.formats.c.cases import Case, of_op, valid, windows, with_room
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import Net, quant
from tests.helpers.strategies import STEPS, graphs, old_graphs

HOST = replace(machine_of("host"), features=())  # with the kernels of every machine

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONGER = settings(QUICK, max_examples=300)
SHARES = quant(1 / 256, -128)


@pytest.fixture(scope="module", params=["-DNST_TWO_IN_ONE=0", "-DNST_TWO_IN_ONE=1"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """As they are compiled for processors without and with 64-bit products in one instruction."""
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2", request.param))


def assert_as_reference(kernels: Kernels, graph: Graph, image: NDArray[Any], machine: Machine = HOST) -> None:
    """The quick kernels with the least scratch, the same in place with the most, and the naive twins."""
    expected = dict(reference.activations(check(graph), image))
    program = lower(graph, machine)
    for in_place, twin in ((False, False), (True, False), (False, True)):
        how = f"in_place={in_place} twin={twin}"
        roomy = with_room(program, max) if in_place else program
        answers = kernels.run(roomy, {graph.inputs[0]: image}, in_place=in_place, twin=twin)
        assert answers.keys() <= expected.keys()
        for name, answer in answers.items():
            if answer.dtype == np.float32:
                assert_allclose(answer, expected[name], rtol=1e-5, atol=0, err_msg=f"{name} {how}")
            else:
                assert_array_equal(answer, expected[name], err_msg=f"{name} {how}")


@pytest.mark.parametrize("op", STEPS)
@QUICK
@given(data=st.data())
def test_a_kernel_gives_the_reference_bytes(op: str, data: st.DataObject, kernels: Kernels) -> None:
    assert_as_reference(kernels, *valid(data.draw(graphs(integer=True, op=op, most=1))))


# Of every op that hypothesis draws; the head, tables and what leaves the integers have tests of their own.
# Those for hosts, by every set of instructions: test_kits.py and test_host_others.py.
OTHERS = ("", "nst_head")
VARIANTS = [(op, v) for op in STEPS for v in KERNELS.get(op, ()) if v.function not in OTHERS and v.needs != "host"]


@pytest.mark.parametrize(("op", "variant"), VARIANTS, ids=[f"{op}-{variant.function}" for op, variant in VARIANTS])
@QUICK
@given(data=st.data())
def test_every_variant_gives_the_reference_bytes(op: str, variant: Variant, data: st.DataObject, kernels: Kernels) -> None:
    """Each on nodes that it takes, whether or not another would have come first; what it needs, this machine is said to have.

    A kernel for a processor's own instructions has a portable twin in its file, and that is what runs here; on its machine the
    instructions do, see test_boards.py.
    """
    graph, image = valid(data.draw(of_op(op, variant.function)))
    assume(any(node.op == op and variant.takes(node, graph) for node in graph.nodes))
    others = tuple(other for other in KERNELS[op] if other.function != variant.function)
    with patch.dict(KERNELS, {op: (variant, *others)}):
        assert_as_reference(kernels, graph, image, replace(HOST, features=(variant.needs,)))


@LONGER
@given(case=graphs(integer=True, most=6))
def test_chains_of_kernels_give_the_reference_bytes(case: Case, kernels: Kernels) -> None:
    assert_as_reference(kernels, *valid(case))


@LONGER
@given(case=old_graphs())
def test_kernels_of_old_uint8_networks_give_the_reference_bytes(case: Case, kernels: Kernels) -> None:
    assert_as_reference(kernels, *valid(case))


@LONGER
@given(case=windows())
def test_convolutions_of_any_size_give_the_reference_bytes(case: Case, kernels: Kernels) -> None:
    assert_as_reference(kernels, *valid(case))


@pytest.mark.parametrize("x", [-128, 127])
@pytest.mark.parametrize("w", [-128, -127, 127])
@pytest.mark.parametrize("depth", [251, 252, 253, 600])
def test_the_largest_sums_that_there_can_be(x: int, w: int, depth: int, kernels: Kernels) -> None:
    """All bytes extreme and of one sign, as deep as a 64-bit sum holds two of them, and deeper."""
    tensors = [
        Tensor("x", (1, 1, 3, depth), "int8", None, quant(0.01, 5)),
        Tensor("w", (6, 1, 1, depth), "int8", np.full((6, 1, 1, depth), w, np.int8), quant(0.01)),
        Tensor("y", (1, 1, 3, 6), "int8", None, quant(0.9, 1)),
    ]
    graph = Graph({t.name: t for t in tensors}, (Node("conv2d", ("x", "w"), ("y",), ir.Conv2d()),), ("x",), ("y",))
    one = np.full((1, 1, 3, depth), x, np.int8)
    one[0, 0, 1] = -1 - x  # the neighbour's sum has the other sign
    assert_as_reference(kernels, graph, one)


@pytest.mark.parametrize("scale", [1e-4, 0.0217, 0.25, 30.0])
@pytest.mark.parametrize("zero", [-128, -3, 127])
def test_every_byte_through_a_table(scale: float, zero: int, kernels: Kernels) -> None:
    """Two in a row become one: what hard-sigmoid is made of; and those that have kernels of their own elsewhere."""
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    of, six = quant(scale, zero), quant(6 / 255, -128)
    tensors = [Tensor(name, (1, 256), "int8", None, q) for name, q in (("x", of), ("a", six), ("b", quant(1 / 256, -128)))]
    tensors += [
        Tensor("three", (1, 1), "int8", np.array([[127]], np.int8), quant(3 / 127)),
        Tensor("c", (1, 256), "int8", None, of),
    ]
    tensors += [Tensor("sixth", (1, 1), "int8", np.array([[127]], np.int8), quant(1 / 6 / 127))]
    nodes = (
        Node("add", ("x", "three"), ("a",), ir.Add("relu6")),
        Node("mul", ("sixth", "a"), ("b",), ir.Mul()),
        Node("hard_swish", ("x",), ("c",), ir.HardSwish()),
    )
    for outputs, left in ((("b", "c"), ["b", "c"]), (("a", "b", "c"), ["a", "b", "c"])):
        graph = Graph({t.name: t for t in tensors}, nodes, ("x",), outputs)
        assert [layer.writes for layer in lower(graph, HOST).layers] == left
        assert_as_reference(kernels, graph, every)


@pytest.mark.parametrize("classes", [2, 10, 400, 3000])
@pytest.mark.parametrize("spread", [1, 20, 128])
def test_softmax_of_few_and_of_many(classes: int, spread: int, kernels: Kernels) -> None:
    """Also of so many that TFLite gives up: there the formula goes on."""
    rng = np.random.default_rng(0)
    for scale in (1e-4, 0.05, 1.3):
        shape = (1, 2, classes)
        tensors = [Tensor("x", shape, "int8", None, quant(scale, 5)), Tensor("y", shape, "int8", None, SHARES)]
        graph = Graph({t.name: t for t in tensors}, (Node("softmax", ("x",), ("y",), ir.Softmax(0.7)),), ("x",), ("y",))
        assert_as_reference(kernels, graph, rng.integers(-spread, spread, shape).astype(np.int8))


@pytest.mark.parametrize("axes", [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)])
@pytest.mark.parametrize("scale", [0.0211, 0.9, 0.0001])
def test_means_over_any_sides(axes: tuple[int, ...], scale: float, kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    for keep in (False, True):
        x = (1, 5, 7, 6)
        y = np.zeros(x).mean(axis=axes, keepdims=keep).shape
        tensors = [Tensor("x", x, "int8", None, quant(0.037, -11)), Tensor("y", y, "int8", None, quant(scale, 4))]
        graph = Graph({t.name: t for t in tensors}, (Node("mean", ("x",), ("y",), ir.Mean(axes, keep)),), ("x",), ("y",))
        assert_as_reference(kernels, graph, rng.integers(-128, 128, x).astype(np.int8))


@pytest.mark.parametrize("shapes", [((7, 5, 6), (1, 1, 6)), ((7, 5, 6), (1, 5, 1)), ((7, 1, 6), (1, 5, 6)), ((7, 5, 1), (1, 1, 6))])
@pytest.mark.parametrize("op", ["add", "mul"])
def test_two_activations_that_broadcast(op: str, shapes: tuple[tuple[int, ...], ...], kernels: Kernels) -> None:
    """A gate a channel, a map a row, and two that each repeat the other."""
    rng = np.random.default_rng(0)
    a, b = ((1, *shape) for shape in shapes)
    out = np.broadcast_shapes(a, b)
    tensors = [Tensor("x", a, "int8", None, quant(0.03, 7)), Tensor("y", out, "int8", None, quant(0.04, -20))]
    other = Tensor("b", b, "int8", rng.integers(-128, 128, b).astype(np.int8), quant(0.05, -9))
    attrs: ir.Attrs = ir.Add("relu") if op == "add" else ir.Mul("relu6")
    for order in (("x", "b"), ("b", "x")):
        graph = Graph({t.name: t for t in (*tensors, other)}, (Node(op, order, ("y",), attrs),), ("x",), ("y",))
        assert_as_reference(kernels, graph, rng.integers(-128, 128, a).astype(np.int8))


def test_an_old_uint8_concat_of_other_scales(kernels: Kernels) -> None:
    rng = np.random.default_rng(0)
    shape, own = (1, 4, 4, 3), quant(0.1, -4)
    tensors = [
        Tensor("x", shape, "int8", None, own),
        Tensor("p", shape, "int8", None, own),
        Tensor("other", shape, "int8", rng.integers(-128, 128, shape).astype(np.int8), quant(0.033, 90)),
        Tensor("y", (1, 4, 4, 9), "int8", None, own),
    ]
    nodes = (
        Node("average_pool", ("x",), ("p",), ir.AveragePool((2, 2), (1, 1), (0, 1, 0, 1), unsigned=True)),
        Node("concat", ("p", "other", "x"), ("y",), ir.Concat(3)),
    )
    graph = Graph({t.name: t for t in tensors}, nodes, ("x",), ("y",))
    assert_as_reference(kernels, graph, rng.integers(-128, 128, shape).astype(np.int8))


def test_an_image_enters_through_its_table(kernels: Kernels) -> None:
    """Into a convolution of one and of three channels with padding, and into a layer that takes no table."""
    rng = np.random.default_rng(0)
    for channels in (1, 3):
        net = Net()
        net.tensors["image"] = Tensor("image", (1, 12, 12, channels), "uint8")
        net.tensors["norm"] = replace(net.tensors["norm"], data=net.tensors["norm"].data[:channels], shape=(channels, 256))
        net.tensors["x"] = replace(net.tensors["x"], shape=(1, 12, 12, channels))
        net.conv("a", "x", 5, 3, stride=(2, 2), dilation=(2, 1), padding=(2, 1, 0, 3))
        first = lower(net.graph("a"), HOST)
        assert [layer.function for layer in first.layers] == ["nst_conv_image"]
        net.conv("b", "x", 5)
        net.node("max_pool", ir.MaxPool((12, 12), (1, 1)), "m", "b")
        net.node("reshape", ir.Reshape(), "e", "m", shape=(1, 5))
        for output in ("a", "e"):
            graph = net.graph("a", "e") if output == "a" else tidy(replace(net.graph("a", "e"), outputs=("e",)))
            assert_as_reference(kernels, graph, rng.integers(0, 256, (1, 12, 12, channels), dtype=np.uint8))


@pytest.mark.parametrize("exponent", [-31, -30, -7, -1, 0, 1, 9, 30])
def test_rescaling_any_number_by_any_factor(exponent: int, kernels: Kernels) -> None:
    """Judge: the formula in Python's whole numbers, two roundings, halves away from zero in the second."""
    rng = np.random.default_rng(0)
    numbers = [-(2**31), 2**31 - 1, 2**30, -(2**30), *range(-40, 40), *rng.integers(-(2**31), 2**31, 2000).tolist()]
    numbers += [k << max(-exponent, 0) for k in range(-40, 40)]  # with a factor of 1/2 these lie right between two answers
    for multiplier in (0, 2**30, 2**30 + 1, 1715713173, 2**31 - 1):
        for x in (number for number in numbers if -(2**31) <= number < 2**31):
            wide = (x << max(exponent, 0)) % 2**32
            high = ((wide - 2**32 * (wide >= 2**31)) * multiplier + 2**30) >> 31
            half = 2 ** max(-exponent, 0) >> 1
            expected = (abs(high) + half >> max(-exponent, 0)) * (1 if high >= 0 else -1)
            assert kernels.library.nst_rescale(x, multiplier, exponent) == expected, (x, multiplier)


@pytest.mark.parametrize("bias", [2**30 - 200_000, 2**30 + 200_000, 2**31 - 1_000_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_beyond_what_may_be_doubled(bias: int, sign: int, kernels: Kernels) -> None:
    """Large sums whose answers still lie inside int8, right between two of them."""
    rng = np.random.default_rng(0)
    scale = 0.01 * 0.01 * bias / 100.5
    values = np.array([sign * bias] * 5, np.int32)
    for op, shape in (("conv2d", (5, 1, 1, 5)), ("depthwise_conv2d", (1, 3, 3, 5)), ("conv2d", (5, 3, 3, 5))):
        attrs = ir.Conv2d() if op == "conv2d" else ir.DepthwiseConv2d()
        out = (1, 5, 5, 5) if shape[1] == 1 else (1, 3, 3, 5)
        tensors = [
            Tensor("x", (1, 5, 5, 5), "int8", None, quant(0.01, 5)),
            Tensor("w", shape, "int8", rng.integers(-127, 128, shape).astype(np.int8), quant(0.01)),
            Tensor("b", (5,), "int32", values, quant(0.01 * 0.01)),
            Tensor("y", out, "int8", None, quant(scale, 1)),
        ]
        graph = Graph({t.name: t for t in tensors}, (Node(op, ("x", "w", "b"), ("y",), attrs),), ("x",), ("y",))
        assert_as_reference(kernels, graph, rng.integers(-128, 128, (1, 5, 5, 5)).astype(np.int8))


@pytest.mark.parametrize("needs", ["", "dsp", "mve", "rv32"])
@pytest.mark.parametrize(
    ("op", "size", "out"), [("conv2d", 1, 6), ("conv2d", 3, 6), ("depthwise_conv2d", 3, 5), ("depthwise_conv2d", 5, 5)]
)
@pytest.mark.parametrize("clamp", ["none", "relu"])
def test_sums_right_between_two_answers(op: str, size: int, out: int, clamp: Clamp, needs: str, kernels: Kernels) -> None:
    """Every eighth sum, of both signs: each kernel rounds in its own way."""
    rng = np.random.default_rng(0)
    shape = (out, size, size, 5) if op == "conv2d" else (1, size, size, out)
    attrs = (ir.Conv2d if op == "conv2d" else ir.DepthwiseConv2d)(padding=(size // 2,) * 4, clamp=clamp)
    tensors = [
        Tensor("x", (1, 9, 9, 5), "int8", None, quant(0.25, 3)),
        Tensor("w", shape, "int8", rng.integers(-9, 10, shape).astype(np.int8), quant(0.125)),
        Tensor("y", (1, 9, 9, out), "int8", None, quant(0.25, -7)),
    ]
    graph = Graph({t.name: t for t in tensors}, (Node(op, ("x", "w"), ("y",), attrs),), ("x",), ("y",))
    machine = replace(HOST, features=(needs,))
    assert needs in lower(graph, machine).layers[0].function or (needs, size) == ("rv32", 5)
    assert_as_reference(kernels, graph, rng.integers(-30, 31, (1, 9, 9, 5)).astype(np.int8), machine)


@pytest.mark.parametrize("channels", [(5, 11), (11, 5), (8, 8), (1, 9), (9, 1)])
@pytest.mark.parametrize("pixels", [1, 2, 7])
def test_a_1x1_convolution_over_its_own_input(channels: tuple[int, int], pixels: int, kernels: Kernels) -> None:
    """Pixels that grow and that shrink, also when their number is odd."""
    rng = np.random.default_rng(0)
    depth, out = channels
    tensors = [
        Tensor("x", (1, 1, pixels, depth), "int8", None, quant(0.03, 5)),
        Tensor("w", (out, 1, 1, depth), "int8", rng.integers(-127, 128, (out, 1, 1, depth)).astype(np.int8), quant(0.01)),
        Tensor("y", (1, 1, pixels, out), "int8", None, quant(0.07, 1)),
    ]
    graph = Graph({t.name: t for t in tensors}, (Node("conv2d", ("x", "w"), ("y",), ir.Conv2d()),), ("x",), ("y",))
    assert_as_reference(kernels, graph, rng.integers(-128, 128, (1, 1, pixels, depth)).astype(np.int8))
