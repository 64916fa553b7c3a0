"""Nodes and tables printed as ONNX, against the Graph's reference and NumPy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import UnsupportedOp
from nestling.formats.onnx.printing import print_graph
from nestling.formats.onnx.run import activations, load_bytes
from nestling.formats.onnx.runtimes import Runtime
from nestling.formats.tflite.read_builder import DTYPES
from nestling.graph import ir, reference
from nestling.graph.ir import Array, Graph, Node, Quant, Tensor
from nestling.preprocess.image import of_photographs
from nestling.words import OnnxWeights
from tests.formats.onnx.onnx_cases import (
    EMBEDDING,
    RUNTIMES,
    SIXTEEN,
    WEIGHTS,
    as_input,
    judge,
    one_node,
    outputs,
    quant,
    steps_off,
)
from tests.helpers.strategies import STEPS, graphs, old_graphs

# ---- node by node ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(graphs(integer=False))
def test_float_graphs_answer_as_the_reference(case: tuple[Graph, Array]) -> None:
    """Within 1e-4 of the largest number of an output, or 1e-6 of the largest on the way, where that was all but cancelled."""
    graph, value = case
    largest = max(float(np.abs(array).max()) for _, array in reference.activations(graph, value))
    expected = reference.run(graph, value).values()
    for found, wanted in zip(outputs(print_graph(graph, SIXTEEN), value), expected, strict=True):
        assert found.dtype == np.float32 and found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, rtol=0, atol=max(1e-4 * np.abs(wanted).max(), 1e-6 * largest))


@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=100, deadline=None)
@given(graphs(integer=True))
def test_int8_nodes_are_at_most_a_step_off(weights: OnnxWeights, case: tuple[Graph, Array]) -> None:
    judge(*case, weights)


@pytest.mark.parametrize("op", STEPS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_every_op_alone_is_at_most_a_step_off(op: str, data: st.DataObject) -> None:
    """So is its answer in a run that is not asked for integers, in which ONNX Runtime may fuse more.

    It merges two roundings there to one, to a grid of its own, which may be a little further off: networks are judged by noise.
    """
    graph, value = data.draw(graphs(integer=True, op=op, most=1))
    judge(graph, value, "uint8")
    content = print_graph(graph, SIXTEEN)
    steps = activations(content, as_input(value))
    for name, found in zip(graph.outputs, outputs(content, as_input(value)), strict=True):
        node = graph.producer(name)
        tensor = graph.tensors[node.inputs[0] if node.op == "dequantize" else name]
        if tensor.name in steps and op != "quantize":
            real = (steps[tensor.name].astype(np.float64) - tensor.quant.zero_point) * tensor.quant.scale
            np.testing.assert_allclose(found, real, rtol=1e-6, atol=1.001 * float(tensor.quant.scale[0]))


@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=60, deadline=None)
@given(old_graphs())
def test_nodes_of_old_uint8_networks_are_at_most_a_step_off(weights: OnnxWeights, case: tuple[Graph, Array]) -> None:
    """Their weights have a zero point."""
    judge(*case, weights)


def test_a_softmax_of_one_number_is_one() -> None:
    """ONNX Runtime's own integer kernel answers 0."""
    x, y = Tensor("x", (1, 1), "int8", None, quant(0.1, 0)), Tensor("y", (1, 1), "int8", None, quant(1 / 256, -128))
    graph = one_node(Node("softmax", ("x",), ("y",), ir.Softmax()), x, y)
    (found,) = outputs(print_graph(graph, SIXTEEN), np.array([[200]], np.uint8))
    assert found == np.float32(255 / 256)  # the largest that its scale holds


@pytest.mark.parametrize("scales", [(100.0, 1e-3), (1e-9, 10.0)])
def test_means_of_any_scales_are_run(scales: tuple[float, float]) -> None:
    """ONNX Runtime's integer GlobalAveragePool stops at such."""
    x, y = Tensor("x", (1, 2, 2, 3), "int8", None, quant(scales[0], 5)), Tensor("y", (1, 3), "int8", None, quant(scales[1], -3))
    graph = one_node(Node("mean", ("x",), ("y",), ir.Mean()), x, y)
    value = np.random.default_rng(0).integers(-128, 128, x.shape).astype(np.int8)
    assert steps_off(graph, value, "uint8")["y"] <= 1


def test_shapes_of_fewer_dimensions_broadcast_as_in_the_graph() -> None:
    """A vector along the channels stands against an image whose channels come first in the file; so does what was once flat."""
    rng = np.random.default_rng(0)
    row = Tensor("row", (5,), "float32", rng.normal(size=5).astype(np.float32))
    tensors = (
        Tensor("x", (1, 3, 4, 5), "float32"),
        Tensor("mean", (1, 5), "float32"),
        Tensor("width", (1, 4, 5), "float32"),
        row,
        *(Tensor(name, (1, 3, 4, 5), "float32") for name in ("a", "b", "c")),
    )
    nodes = (
        Node("mean", ("x",), ("mean",), ir.Mean()),
        Node("mean", ("x",), ("width",), ir.Mean((1,))),
        Node("add", ("x", "mean"), ("a",), ir.Add()),
        Node("mul", ("row", "a"), ("b",), ir.Mul()),
        Node("add", ("width", "b"), ("c",), ir.Add("relu6")),
    )
    graph = Graph({tensor.name: tensor for tensor in tensors}, nodes, ("x",), ("c", "width"))
    x = rng.normal(size=(1, 3, 4, 5)).astype(np.float32)
    found, width = outputs(print_graph(graph, SIXTEEN), x)
    np.testing.assert_allclose(width, x.mean(1), rtol=1e-5, atol=1e-6)
    wanted = np.clip(x.mean(1) + row.data * (x + x.mean((1, 2))), 0, 6)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attrs", [ir.MaxPool((1, 1), (1, 1)), ir.Pad((0, 0, 0, 0)), ir.Reshape()])
def test_moved_integers_stay_the_same_where_the_two_scales_differ_by_a_hair(attrs: ir.Attrs) -> None:
    """Up to 1e-6 is allowed, and the output's scale ignored, as in LiteRT."""
    x, y = (Tensor(name, (1, 4, 4, 2), "int8", None, quant(scale, 7)) for name, scale in (("x", 1e-6), ("y", 1.9e-6)))
    op = next(op for op, kind in ir.OPS.items() if isinstance(attrs, kind))
    value = np.random.default_rng(0).integers(-128, 128, x.shape).astype(np.int8)
    assert steps_off(one_node(Node(op, ("x",), ("y",), attrs), x, y), value, "uint8")["y"] == 0


@pytest.mark.parametrize("integer", [False, True])
@pytest.mark.parametrize("op", ["average_pool", "max_pool", "conv2d"])
def test_zeros_of_a_pad_count_in_what_follows(op: str, integer: bool) -> None:
    """ONNX Runtime would move them into the pool, which then leaves them out."""
    grid = quant(0.25, 3) if integer else None
    tensors = [Tensor(name, shape, "int8" if integer else "float32", None, grid) for name, shape in SHAPES.items()]
    weight = Tensor("w", (1, 3, 3, 1), "float32", np.ones((1, 3, 3, 1), np.float32))
    if integer:
        weight = replace(weight, dtype="int8", data=weight.data.astype(np.int8), quant=quant(1.0, 0))
    attrs = {"average_pool": ir.AveragePool, "max_pool": ir.MaxPool}.get(op, lambda *_: ir.Conv2d())((3, 3), (1, 1))
    inputs = ("padded", "w") if op == "conv2d" else ("padded",)
    nodes = Node("pad", ("x",), ("padded",), ir.Pad((3, 0, 0, 1))), Node(op, inputs, ("y",), attrs)
    everything = {tensor.name: tensor for tensor in (*tensors, *([weight] if op == "conv2d" else []))}
    graph = Graph(everything, nodes, ("x",), ("y",))
    x = -np.arange(1, 17, dtype=np.float32).reshape(1, 4, 4, 1) / 4
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x[0, :, :, 0], ((3, 0), (0, 1))), (3, 3))
    wanted = {"average_pool": windows.mean((2, 3)), "max_pool": windows.max((2, 3)), "conv2d": windows.sum((2, 3))}[op]
    value = (x / 0.25 + 3 + 128).astype(np.uint8) if integer else x
    (found,) = outputs(print_graph(graph, SIXTEEN), value)
    np.testing.assert_allclose(found[0, :, :, 0], wanted, rtol=0, atol=0.126 if integer else 1e-5)  # half a step


SHAPES = {"x": (1, 4, 4, 1), "padded": (1, 7, 5, 1), "y": (1, 5, 3, 1)}


def test_uncounted_padding_of_an_average_on_one_side() -> None:
    x, y = Tensor("x", (1, 3, 3, 1), "float32"), Tensor("y", (1, 2, 2, 1), "float32")
    graph = one_node(Node("average_pool", ("x",), ("y",), ir.AveragePool((2, 2), (2, 2), (1, 0, 1, 0))), x, y)
    (found,) = outputs(print_graph(graph, SIXTEEN), np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1))
    np.testing.assert_allclose(found.reshape(2, 2), [[0, 1.5], [4.5, 6]])


def test_batch_norm_is_refused_by_name() -> None:
    vectors = tuple(Tensor(name, (3,), "float32", np.ones(3, np.float32)) for name in "abcd")
    node = Node("batch_norm", ("x", *"abcd"), ("y",), ir.BatchNorm(), "stem.bn")
    graph = one_node(node, Tensor("x", (1, 3), "float32"), *vectors, Tensor("y", (1, 3), "float32"))
    with pytest.raises(UnsupportedOp, match=r"stem\.bn"):
        print_graph(graph, SIXTEEN)


# ---- the table op ---------------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CASES = [IMAGENET, ((0.5,) * 3, (0.5,) * 3), ((0.2,), (0.3,)), ((0.5, 0.4, 0.45), (0.25, 0.2, 0.3))]
CASES += [(tuple(RNG.uniform(0, 1, 3)), tuple(RNG.uniform(0.05, 1, 3))) for _ in range(4)]


def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(v / 255 - mean) / std for the 256 bytes: float64 [C, 256]."""
    return (np.arange(256) / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]


def table_graph(table: Array, grid: Quant | None) -> Graph:
    shape, dtype = (1, 16, 16, len(table)), DTYPES[table.dtype.name]
    tensors = (
        Tensor("image", shape, "uint8"),
        Tensor("table", table.shape, dtype, table, grid),
        Tensor("out", shape, dtype, None, grid),
    )
    return one_node(Node("table", ("image", "table"), ("out",), ir.Table()), *tensors)


def answered(graph: Graph, runtime: Runtime) -> Array:
    """[C, 256]: the answers to every byte in every channel."""
    channels = graph.tensors["image"].shape[3]
    what = replace(
        EMBEDDING,
        preprocess=replace(
            of_photographs(SIXTEEN.preprocess), channels=1 if channels == 1 else 3, mean=(0.5,) * channels, std=(0.5,) * channels
        ),
    )
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), channels, axis=3)
    return load_bytes(print_graph(graph, what), "table.onnx", 1, runtime).features(image).reshape(256, channels).T


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(("mean", "std"), CASES)
def test_every_entry_of_an_int8_table_is_exact(
    mean: tuple[float, ...], std: tuple[float, ...], share: float, runtime: Runtime
) -> None:
    """share: of the values' range that 256 steps cover; what is outside saturates."""
    real = normalised(mean, std)
    low, high = min(real.min(), 0) * share, max(real.max(), 0) * share
    grid = quant((high - low) / 255, int(np.clip(np.rint(-128 - low / (high - low) * 255), -128, 127)))
    table = np.clip(np.rint(real / grid.scale[0]) + grid.zero_point[0], -128, 127).astype(np.int8)
    found = answered(table_graph(table, grid), runtime) / grid.scale[0] + grid.zero_point[0]
    np.testing.assert_allclose(found, table, rtol=0, atol=1e-3)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("mean", "std"), CASES)
def test_every_entry_of_a_float_table_is_met(mean: tuple[float, ...], std: tuple[float, ...], runtime: Runtime) -> None:
    table = normalised(mean, std).astype(np.float32)
    found = answered(table_graph(table, None), runtime)
    np.testing.assert_allclose(found, table, rtol=0, atol=1e-6 * np.abs(table).max())


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_table_of_any_values_is_exact(dtype: str, runtime: Runtime) -> None:
    table = np.random.default_rng(1).integers(-128, 128, (3, 256)).astype(dtype)
    grid = quant(0.25, -3) if dtype == "int8" else None
    found = answered(table_graph(table, grid), runtime)
    np.testing.assert_array_equal(found if grid is None else np.divide(found, 0.25) - 3, table)
