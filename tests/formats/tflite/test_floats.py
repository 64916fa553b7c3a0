"""Float graphs in LiteRT, as a whole, with every value, node by node: judged by the NumPy reference and by torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nestling.errors import UnsupportedOp
from nestling.formats.tflite.floats import Value, every_value, reads, step, stepwise, whole
from nestling.formats.tflite.printing import print_graph
from nestling.formats.tflite.run import run
from nestling.graph import ir, reference
from nestling.graph.ir import Graph, Node, Tensor
from nestling.graph.spec import check, output_shape
from nestling.models.graph_module import GraphModule
from tests.helpers.seeds import small_graph
from tests.helpers.strategies import FOUR_DIMENSIONS, QUICK, STEPS, Draw, Sketch, fully_connected

KERNELS = ("reference", "builtin", "default")


def _odd_pool(s: Sketch, x: Tensor) -> Tensor:
    """A mean that leaves out what is padded, where it is padded neither as SAME nor as VALID: no .tflite can say it."""
    attrs = ir.AveragePool((2, 2), (s.draw(st.integers(1, 2)), 1), (1, 1, 1, 0), s.draw(st.sampled_from(("none", "relu"))))
    return s.node("average_pool", (x,), output_shape("average_pool", attrs, x.shape), None, attrs)


@st.composite
def float_graphs(draw: Draw) -> Graph:
    """From an image or numbers to one output, often with such a pool in the middle."""
    s = Sketch(draw, False, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    plane = (draw(st.integers(2, 9)), draw(st.integers(2, 9)), draw(st.integers(1, 6)))
    first = x = s.activation((1, *plane), None, draw(st.sampled_from(("uint8", "float32"))))
    if first.dtype == "uint8":
        values = s.rng.normal(size=(plane[2], 256)).astype(np.float32)
        x = s.node("table", (x, s.constant(values)), x.shape, None, ir.Table())
    for name in draw(st.lists(st.sampled_from((*STEPS, "odd pool", "odd pool", "odd pool")), min_size=1, max_size=5)):
        if name == "odd pool":
            x = _odd_pool(s, x) if len(x.shape) == 4 else x
        elif len(x.shape) == 4 or name not in FOUR_DIMENSIONS:
            x = STEPS[name](s, x)
    if not any(node.op not in ("table", "reshape") for node in s.nodes):
        x = fully_connected(s, x)
    return check(Graph(s.tensors, tuple(s.nodes), (first.name,), (x.name,)))


def images(graph: Graph, count: int, seed: int = 0) -> Value:
    tensor = graph.tensors[graph.inputs[0]]
    rng = np.random.default_rng(seed)
    shape = (count, *tensor.shape[1:])
    return rng.integers(0, 256, shape, np.uint8) if tensor.dtype == "uint8" else rng.normal(size=shape).astype(np.float32)


def assert_near(found: Value, wanted: Value, way: float) -> None:
    """way: the largest number on the way, whose rounding is left where it is all but cancelled."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * float(np.abs(wanted).max(initial=0)) + 1e-6 * way)


def ways(values: Mapping[str, Value]) -> float:
    return max(float(np.abs(value).max(initial=0)) for value in values.values())


@QUICK
@given(graph=float_graphs(), count=st.integers(1, 3))
def test_random_graphs_answer_as_the_reference(graph: Graph, count: int) -> None:
    batch = images(graph, count)
    each = [dict(reference.activations(graph, image[None])) for image in batch]
    wanted = {name: np.concatenate([values[name] for values in each]) for name in each[0]}
    out, way = graph.outputs[0], ways(wanted)
    by_itself, every, steps = whole(graph), every_value(graph), stepwise(graph)
    for i in range(count):
        one = batch[i : i + 1]
        assert_near(by_itself(one), wanted[out][i : i + 1], way)
        found = every(one)
        assert list(found) == list(wanted)
        for name, value in found.items():
            assert_near(value, wanted[name][i : i + 1], way)
    seen: dict[str, Value] = {}
    answer = steps(batch, hook=lambda name, value: seen.setdefault(name, value))
    assert list(seen) == list(wanted)
    for name, value in seen.items():
        assert_near(value, wanted[name], way)
    assert answer.tobytes() == seen[out].tobytes()
    assert all(steps(batch[i : i + 1]).tobytes() == answer[i : i + 1].tobytes() for i in range(count))  # as it would be alone


@QUICK
@given(graph=float_graphs(), data=st.data())
def test_a_hook_changes_values_as_it_does_in_torch(graph: Graph, data: st.DataObject) -> None:
    names = [node.name for node in graph.nodes]
    changed = data.draw(st.sets(st.sampled_from(names), min_size=1))
    batch = images(graph, 2)
    seen: list[float] = []

    def hook(name: str, value: Value) -> Value:
        seen.append(float(np.abs(value).max(initial=0)))
        return value * np.float32(-0.5) if name in changed else value

    module = GraphModule(graph).eval()
    module.observe = lambda name, value: value * -0.5 if name in changed else value
    with torch.no_grad():
        wanted = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in batch])
    assert_near(stepwise(graph)(batch, hook=hook), wanted, max(seen))


@QUICK
@given(graph=float_graphs(), data=st.data())
def test_it_goes_on_from_the_middle_with_another_step(graph: Graph, data: st.DataObject) -> None:
    """As the whole graph does in which that node answers otherwise; what was computed before is not computed again."""
    place = data.draw(st.integers(0, len(graph.nodes) - 1))
    node, batch = graph.nodes[place], images(graph, 2)
    steps, values = stepwise(graph), dict[str, Value]()
    steps(batch, hook=lambda name, value: values.setdefault(name, value))
    known = {name: values[name] for name in (*graph.inputs, *(before.name for before in graph.nodes[:place]))}
    asked: list[str] = []

    def other(arrays: tuple[Value, ...]) -> Value:
        assert len(arrays) == len(reads(node, graph))
        return step(graph, node)(arrays) + np.float32(1)

    def heard(name: str, value: Value) -> Value:
        asked.append(name)
        return value

    found = steps.go_on(known, place, heard, {node.name: other})
    wanted = steps(batch, hook=lambda name, value: value + np.float32(1) if name == node.name else value)
    assert found.tobytes() == wanted.tobytes()
    assert asked == [later.name for later in graph.nodes[place:]]
    assert set(known) == {*graph.inputs, *(before.name for before in graph.nodes[:place])}  # it is the caller's
    assert steps.go_on(known, place).tobytes() == values[graph.outputs[0]].tobytes()


def test_a_step_of_several_activations_takes_each_once_in_its_order() -> None:
    shape = (1, 4, 4, 2)
    tensors = {name: Tensor(name, shape, "float32") for name in ("x", "y", "z")} | {"all": Tensor("all", (1, 4, 4, 6), "float32")}
    nodes = (
        Node("hard_swish", ("x",), ("y",), ir.HardSwish()),
        Node("mul", ("y", "x"), ("z",), ir.Mul()),
        Node("concat", ("z", "x", "z"), ("all",), ir.Concat(3)),
    )
    graph = check(Graph(tensors, nodes, ("x",), ("all",)))
    x = images(graph, 2)
    y = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    assert reads(nodes[1], graph) == ("y", "x") and reads(nodes[2], graph) == ("z", "x")
    np.testing.assert_array_equal(step(graph, nodes[1])((y, x)), y * x)
    np.testing.assert_array_equal(step(graph, nodes[2])((y, x)), np.concatenate([y, x, y], axis=3))


def test_integers_that_no_tflite_holds_are_refused_by_their_node() -> None:
    body = small_graph(integer=True)
    x = body.tensors["x"]
    attrs = ir.AveragePool((2, 2), (1, 1), (1, 0, 0, 0))
    out = Tensor("odd", output_shape("average_pool", attrs, x.shape), "int8", None, x.quant)
    tensors = {name: body.tensors[name] for name in ("image", "table", "x")} | {"odd": out}
    graph = check(Graph(tensors, (body.nodes[0], Node("average_pool", ("x",), ("odd",), attrs)), ("image",), ("odd",)))
    with pytest.raises(UnsupportedOp, match="odd"):
        whole(graph)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_depthwise_without_a_bias_is_torchs_in_all_kernels(kernels: str, stride: int, times: int) -> None:
    """LiteRT's quick kernels end the process where the operator has none."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(1, 3, 3, 8 * times)).astype(np.float32), rng.normal(size=(1, 9, 9, 8)).astype(np.float32)
    attrs = ir.DepthwiseConv2d((stride, stride), padding=(1, 1, 1, 1))
    tensors = {"x": Tensor("x", x.shape, "float32"), "w": Tensor("w", weight.shape, "float32", weight)}
    tensors["y"] = Tensor("y", output_shape("depthwise_conv2d", attrs, x.shape, weight.shape), "float32")
    graph = check(Graph(tensors, (Node("depthwise_conv2d", ("x", "w"), ("y",), attrs),), ("x",), ("y",)))
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(weight).permute(3, 0, 1, 2), None, stride, 1, groups=8
    )
    (found,) = run(print_graph(graph), (x,), kernels)  # type: ignore[arg-type]  # one of the words
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), rtol=0, atol=1e-5)
