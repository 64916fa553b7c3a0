"""Weights of 4 and 2 bits in C: the same bytes as the reference's, less flash, and nothing new for 8-bit networks.

Graphs keep their weights as whole int8 numbers; the judge is the reference executor on them, which knows nothing of packing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.formats.c import host, virtual
from nestling.formats.c.folder import print_network, write
from nestling.formats.c.kernels.few_bits import with_packed_weights
from nestling.formats.c.kernels.layers import Program, Room
from nestling.formats.c.kernels.table import KERNELS
from nestling.formats.c.lower import lower
from nestling.formats.c.machines import machine as machine_of
from nestling.formats.c.plan.plan import Step, plan
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Tensor
from nestling.graph.packed import bits_for, pack, unpack
from nestling.graph.spec import check
from tests.formats.c.boards import assert_answers_are_the_reference, tools
from tests.formats.c.cases import SUMS, few, packed_cases, squares, windows, with_room, without_zeros
from tests.formats.c.kernel_library import Kernels, compiled
from tests.helpers.networks import Net, about_of, headed, imported, noise, printed, quant
from tests.helpers.strategies import graphs, old_graphs

HOST = replace(machine_of("host"), features=())  # with the kernels of every machine

Shared = Callable[[str], Path]
QUICK = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


# ---- the bytes ------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.sampled_from((2, 4)), st.integers(0, 2**32 - 1))
def test_values_come_back_and_stand_where_they_should(count: int, bits: int, seed: int) -> None:
    """Judge: Python's numbers, written in binary one after the other, the first one last."""
    values = np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), count).astype(np.int8)
    written = "".join(format(int(value) % 2**bits, f"0{bits}b") for value in reversed(values))
    expected = int(written or "0", 2).to_bytes(-(-count * bits // 8), "little")
    assert pack(values, bits).tobytes() == expected
    assert_array_equal(unpack(pack(values, bits), bits)[:count], values)


@pytest.mark.parametrize(
    ("values", "bits"), [((-2, 1), 2), ((-3, 0), 4), ((0, 2), 4), ((-8, 7), 4), ((-9,), 8), ((8,), 8), ((0,), 2)]
)
def test_bits_follow_from_the_values(values: tuple[int, ...], bits: int) -> None:
    assert bits_for(np.array(values, np.int8)) == bits


# ---- kernels --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["-DNST_TWO_IN_ONE=0", "-DNST_TWO_IN_ONE=1"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("kernels"), "-O2", request.param))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    return Kernels(compiled(tmp_path_factory.mktemp("quick"), "-O2"))


def assert_as_reference(kernels: Kernels, graph: Graph, image: NDArray[Any], program: Program) -> None:
    expected = dict(reference.activations(graph, image))
    for in_place in (False, True):
        for name, answer in kernels.run(program, {graph.inputs[0]: image}, in_place=in_place).items():
            if answer.dtype == np.int8:
                assert_array_equal(answer, expected[name], err_msg=f"{name} {program.layers}")


@settings(QUICK, max_examples=100)
@given(case=packed_cases(windows()))
def test_convolutions_of_any_size(case: tuple[Graph, NDArray[Any], Program], kernels: Kernels) -> None:
    assert_as_reference(kernels, *case)


@pytest.mark.parametrize("feature", ["dsp", "mve", "rv32"])
@QUICK
@given(data=st.data())
def test_convolutions_of_a_machine_of_its_own(feature: str, data: st.DataObject, quick: Kernels) -> None:
    """By the portable twins of its instructions."""
    drawn = windows() | windows("plain") | squares("depthwise_conv2d")
    assert_as_reference(quick, *data.draw(packed_cases(drawn, feature)))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("factor", [0.9, 1.5, 3.3])
def test_depthwise_sums_that_grow_on_their_way(size: int, factor: float, quick: Kernels) -> None:
    """As those of few bits do where scales are large: Cortex-M55's kernels have no shift to the left."""
    net = Net(12)
    net.tensors["a"] = Tensor("a", (1, 12, 12, 6), "int8", None, quant(0.05, 5))
    w = net.constant("w", net.rng.integers(-8, 8, (1, size, size, 6)).astype(np.int8), quant(0.5))
    b = net.constant("b", net.rng.integers(0, 90, 6).astype(np.int32), quant(0.05 * 0.5))
    attrs = ir.DepthwiseConv2d(padding=(size // 2,) * 4, clamp="relu")
    net.node("depthwise_conv2d", attrs, "y", "a", w, b, to=quant(0.05 * 0.5 / factor, -128))
    tensors = {name: tensor for name, tensor in net.tensors.items() if name in ("a", "w", "b", "y")}
    graph = check(Graph(tensors, (net.nodes[-1],), ("a",), ("y",)))
    program = lower(graph, replace(HOST, features=("mve",)))
    assert "_mve" in program.layers[0].function
    image = net.rng.integers(2, 9, (1, 12, 12, 6)).astype(np.int8)
    assert len(np.unique(dict(reference.activations(graph, image))["y"])) > 50
    assert_as_reference(quick, graph, image, with_room(program, max))


@pytest.mark.parametrize("op", SUMS)
@QUICK
@given(data=st.data())
def test_every_layer_with_weights(op: str, data: st.DataObject, kernels: Kernels) -> None:
    assert_as_reference(kernels, *data.draw(packed_cases(graphs(integer=True, op=op, most=2))))


@QUICK
@given(case=packed_cases(old_graphs()))
def test_old_networks_whose_weights_have_a_zero_point(case: tuple[Graph, NDArray[Any], Program], kernels: Kernels) -> None:
    assert_as_reference(kernels, *case)


@pytest.mark.parametrize("channels", [(3, 5), (11, 18), (20, 9)])
@pytest.mark.parametrize("window", ["dense", "1x1 1", "1x1 2", "1x1 5", "3x3 1", "3x3 4", "3x3 5"])
def test_channels_in_parts(channels: tuple[int, int], window: str, kernels: Kernels) -> None:
    """From four channels at once to all of them, each of a scale of its own, for odd numbers of pixels in a row and of channels."""
    rng, (depth, out) = np.random.default_rng(0), channels
    dense = window == "dense"
    size, pixels = (1, 1) if dense else (int(window[0]), int(window[-1]))
    plane, window_of = ((), ()) if dense else ((2, pixels), (size, size))
    before, weight, after = (1, *plane, depth), (out, *window_of, depth), (1, *plane, out)
    scales = ir.Quant(np.geomspace(0.01, 3, out).astype(np.float32), np.zeros(out, np.int32), 0)
    biases = ir.Quant((np.float32(0.03) * scales.scale).astype(np.float32), scales.zero_point, 0)
    tensors = [
        Tensor("x", before, "int8", None, quant(0.03, 5)),
        Tensor("w", weight, "int8", rng.integers(-8, 8, weight).astype(np.int8), scales),
        Tensor("b", (out,), "int32", rng.integers(-300, 300, out).astype(np.int32), biases),
        Tensor("y", after, "int8", None, quant(0.2, 1)),
    ]
    attrs = ir.FullyConnected() if dense else ir.Conv2d(padding=(size // 2,) * 4)
    node = ir.Node("fully_connected" if dense else "conv2d", ("x", "w", "b"), ("y",), attrs)
    graph = check(Graph({t.name: t for t in tensors}, (node,), ("x",), ("y",)))
    whole = lower(graph, HOST)
    (layer,) = with_packed_weights(whole, worth=1).layers
    least = layer.scratch_most - (-(-out // 4) - 1) * 4 * size * size * depth
    for room in np.linspace(least, layer.scratch_most, 4).astype(int).tolist():
        arguments = tuple(room if isinstance(argument, Room) else argument for argument in layer.arguments)
        program = replace(
            whole, layers=(replace(layer, arguments=arguments, scratch=room, over=layer.over if room >= layer.scratch else ()),)
        )
        assert_as_reference(kernels, graph, rng.integers(-128, 128, before).astype(np.int8), program)


def test_a_variant_of_the_same_layout_shares_the_twin(kernels: Kernels) -> None:
    """As one that looks for a processor's instructions when it runs: packed weights go to the portable twin."""
    net = Net()
    net.conv("a", "x", 9, 3)
    net.conv("b", "a", 13)
    graph = few(net.graph("b"), lambda _: 4)
    portable = next(one for one in KERNELS["conv2d"] if one.function == "nst_conv_1x1")
    own = replace(portable, function="nst_conv_1x1_quick", calls=("nst_conv_1x1.c", *portable.calls))
    with patch.dict(KERNELS, {"conv2d": (own, *KERNELS["conv2d"])}):
        whole = lower(graph, HOST)
    assert whole.layers[-1].function == "nst_conv_1x1_quick"
    program = with_packed_weights(whole, worth=1)
    assert [layer.function for layer in program.layers] == ["nst_conv_image_packed", "nst_conv_1x1_packed"]
    assert {"nst_conv_1x1.c", "nst_conv_1x1_packed.c", "nst_packed.c"} <= set(program.layers[-1].files)
    room = tuple(replace(one, arguments=tuple(one.scratch if x == Room() else x for x in one.arguments)) for one in program.layers)
    assert_as_reference(kernels, graph, noise(graph, 1), replace(program, layers=room))


# ---- the arena ------------------------------------------------------------------------------------------------------------------


def test_scratch_grows_into_what_is_free_anyhow() -> None:
    """Worked out by hand: step 0 takes all of 100 bytes, step 1 60 of them, which leaves 40 to a scratch of 8 to 64."""
    sizes = {"image": 60, "a": 40, "b": 20, "c": 10}
    steps = [Step("a", ("image",), "a"), Step("b", ("a",), "b", 8, None, 64), Step("c", ("b",), "c", 4, None, 30)]
    found = plan(steps, sizes, ("image",), ("c",), alignment=4)
    without = plan([replace(step, scratch_most=0) for step in steps], sizes, ("image",), ("c",), alignment=4)
    assert found.arena == without.arena == 100 and found.alive == without.alive
    assert without.room == {"b": 8, "c": 4}
    assert 8 < found.room["b"] <= 40 and found.room["c"] == 30
    place = found.scratch["b"]
    for name in ("a", "b"):
        assert place + found.room["b"] <= found.offsets[name] or found.offsets[name] + sizes[name] <= place


# ---- networks -------------------------------------------------------------------------------------------------------------------

BITS = {"stem": 4, "wide": 4, "groups": 2, "grow": 2, "three": 4, "five": 4, "seven": 2, "shrink": 4, "whole": 8, "dense": 4}


def mixed() -> Graph:
    """Every kernel that has a twin, in 4 or 2 bits, and one layer in 8."""
    net = Net(16)
    same: Mapping[int, ir.Sides] = {3: (1,) * 4, 5: (2,) * 4, 7: (3,) * 4}
    net.conv("stem", "x", 24, 7, stride=(2, 2), padding=(2, 3, 2, 3), clamp="relu", to=quant(0.05, -100))
    net.conv("wide", "stem", 32, 3, padding=same[3], to=quant(0.06, -20))
    weight = net.rng.integers(-90, 90, (32, 3, 3, 8)).astype(np.int8)
    net.node(
        "conv2d", ir.Conv2d(padding=same[3]), "groups", "wide", net.constant("groups.w", weight, quant(0.01)), to=quant(0.3, 4)
    )
    net.conv("grow", "groups", 192, to=quant(2.0, 7))
    before = "grow"
    for name, size in (("three", 3), ("five", 5), ("seven", 7)):
        weight = net.rng.integers(-90, 90, (1, size, size, 192)).astype(np.int8)
        stored = net.constant(f"{name}.w", weight, quant(0.01))
        before = net.node("depthwise_conv2d", ir.DepthwiseConv2d(padding=same[size]), name, before, stored, to=quant(4.0 + size, 3))
    net.conv("shrink", before, 24, to=quant(60.0))
    net.conv("whole", "shrink", 40, 3, stride=(2, 2), to=quant(200.0))
    net.node("mean", ir.Mean(), "m", "whole", to=quant(100.0))
    dense = net.constant("dense.w", net.rng.integers(-90, 90, (50, 40)).astype(np.int8), quant(0.01))
    net.node("fully_connected", ir.FullyConnected(), "dense", "m", dense, to=quant(200.0))
    return headed(few(net.graph("dense"), BITS.__getitem__))


def test_what_saves_no_flash_stays_as_it_is() -> None:
    """The small network's weights in 4 bits are fewer bytes than the code that would unpack them."""
    net = Net()
    net.conv("a", "x", 8, 3, stride=(2, 2), padding=(0, 1, 0, 1), clamp="relu")
    net.conv("b", "a", 10)
    net.node("mean", ir.Mean(), "e", "b")
    program = lower(headed(few(net.graph("e"), lambda _: 4)), HOST)
    assert not any("packed" in layer.function or "bit" in layer.kind for layer in program.layers)


def test_a_network_of_every_kind_on_this_computer(tmp_path: Path) -> None:
    graph = mixed()
    layers = {layer.writes: layer for layer in lower(graph, HOST).layers}
    assert {layer.function for layer in layers.values()} >= {
        "nst_conv_image_packed", "nst_conv_packed", "nst_conv_1x1_packed", "nst_depthwise_3_packed", "nst_depthwise_5_packed",
        "nst_depthwise_packed", "nst_fully_connected_packed", "nst_conv",
    }  # fmt: skip
    for name, bits in BITS.items():
        assert (f"{bits}-bit weights" in layers[name].kind) == (bits < 8)
    folder = tmp_path / "c"
    write(print_network(graph, about_of(graph), HOST), folder)
    said = (folder / "README.md").read_text(), (folder / "nestling_model.c").read_text()
    assert all("conv 7x7 s2 of image, 4-bit weights" in text for text in said)
    image = noise(graph, 1)[0]
    answers = host.load(folder).activations(image)
    expected = dict(reference.activations(graph, image[None]))
    for name, answer in answers.items():
        if answer.dtype == np.int8:
            assert answer.tobytes() == expected[name].tobytes(), name
    assert set(BITS) <= answers.keys()
    spread = {name: len(np.unique(expected[name])) for name in BITS}
    assert min(spread.values()) > 20, spread  # a network of clamped answers would show nothing


@pytest.mark.parametrize("board", ["cortex-m4", "cortex-m55", "rv32imc"])
def test_a_network_of_every_kind_on_small_machines(board: str, tmp_path: Path) -> None:
    assert_answers_are_the_reference(mixed(), board, tmp_path / "c")


def test_flash_falls_by_a_quarter_and_ram_does_not_grow(shared_data: Shared, tmp_path: Path) -> None:
    """MobileNetV1 0.25 at 96 pixels in 4 bits, code included, for hardly more instructions; the answer is the reference's.

    Of weights none of which is 0, and by the machine's own kernels both times, which leave out channels that answer one byte.
    """
    machine, whole = tools("cortex-m4"), without_zeros(imported(shared_data("vww_96_int8.tflite")))
    packed = without_zeros(few(whole, lambda _: 4))
    image = noise(whole, 1)[0]
    flash, arena, ran = {}, {}, {}
    for name, graph in (("whole", whole), ("packed", packed)):
        folder = printed(graph, tmp_path / name, "cortex-m4")
        place = tmp_path / f"{name}.o"
        place.mkdir()
        built = virtual.build(folder, machine, place)
        assert built.code is not None and built.constants is not None
        flash[name] = built.code + built.constants
        arena[name] = int((folder / "nestling_model.h").read_text().split("ARENA_BYTES ")[1].split()[0])
        ran[name] = virtual.answer(built, image)
    assert flash["packed"] <= 0.75 * flash["whole"]
    assert arena["packed"] <= arena["whole"]
    taken = {name: sum(layer.instructions or 0 for layer in one.layers) for name, one in ran.items()}
    assert 0 < taken["packed"] <= 1.25 * taken["whole"]
    expected = dict(reference.activations(packed, image[None]))
    assert ran["packed"].embedding.tobytes() == expected[lower(packed, HOST).embedding].tobytes()
