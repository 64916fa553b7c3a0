"""Files whose axes are torch's, [1, C, H, W], between TRANSPOSEs: read without them, and judged by LiteRT with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.testing import assert_allclose, assert_array_equal

from nestling.artifacts.import_model import import_model
from nestling.errors import UnsupportedOp, UnusableFile
from nestling.formats.format import ReadConfig
from nestling.formats.tflite import printing
from nestling.formats.tflite.flatbuffer import FileTensor, Operator
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.ir import Graph, Quant, same
from tests.helpers.tflite_files import CODE, activation, changed, constant, file, ints, judged, op, quant

RNG = np.random.default_rng(0)
PER_CHANNEL = np.array([0.01, 0.02, 0.011, 0.003], np.float32)
HERE = quant(0.05, -3)


class Sketch:
    """A network while it is drawn, in the file's own order of axes. integer: all of its activations have one scale."""

    def __init__(self, shape: tuple[int, ...], integer: bool) -> None:
        self.integer, self.q = integer, HERE if integer else None
        self.tensors: list[FileTensor] = [activation("x", shape, self.q)]
        self.operators: list[Operator] = []
        self.last, self.shape = "x", shape

    def then(self, code: int, shape: tuple[int, ...], options: object = None, *constants: FileTensor, with_: str = "") -> str:
        """The operator on the last tensor, its constants (and the tensor `with_`) behind it."""
        name = f"t{len(self.operators)}"
        self.tensors += [*constants, activation(name, shape, self.q)]
        inputs = " ".join([self.last, *([with_] if with_ else []), *(one.name for one in constants)])
        version = 4 if code == CODE.FULLY_CONNECTED and self.integer else 1 if code in (CODE.RESHAPE, CODE.FULLY_CONNECTED) else 2
        self.operators.append(op(code, inputs, name, options, version))
        self.last, self.shape = name, shape
        return name

    def transpose(self, *order: int) -> str:
        return self.then(CODE.TRANSPOSE, tuple(self.shape[axis] for axis in order), None, ints(self.fresh("o"), *order))

    def fresh(self, name: str) -> str:
        return f"{name}{len(self.operators)}"

    def values(self, *shape: int) -> FileTensor:
        """A constant operand of add or mul."""
        if self.integer:
            return constant(self.fresh("c"), RNG.integers(-128, 128, shape).astype(np.int8), quant(0.02, 5))
        return constant(self.fresh("c"), RNG.normal(0, 1, shape).astype(np.float32))

    def conv(self) -> str:
        """3x3, SAME, 4 channels, of an image [1, H, W, C]."""
        shape, window = (4, 3, 3, self.shape[3]), {"padding": 0, "strideH": 1, "strideW": 1}
        options = schema.Conv2DOptionsT(**window, dilationHFactor=1, dilationWFactor=1)
        return self.then(CODE.CONV_2D, (*self.shape[:3], 4), options, *self.weights(shape))

    def dense(self) -> str:
        options = schema.FullyConnectedOptionsT()
        return self.then(CODE.FULLY_CONNECTED, (1, 4), options, *self.weights((4, int(np.prod(self.shape)))))

    def weights(self, shape: tuple[int, ...]) -> tuple[FileTensor, FileTensor]:
        if not self.integer:
            weight, bias = RNG.normal(0, 0.3, shape), RNG.normal(0, 1, 4)
            return constant(self.fresh("w"), weight.astype(np.float32)), constant(self.fresh("b"), bias.astype(np.float32))
        zeros = np.zeros(4, np.int32)
        weight, bias = RNG.integers(-127, 128, shape).astype(np.int8), RNG.integers(-900, 900, 4).astype(np.int32)
        return (
            constant(self.fresh("w"), weight, Quant(PER_CHANNEL, zeros, 0)),
            constant(self.fresh("b"), bias, Quant(PER_CHANNEL * np.float32(0.05), zeros, 0)),
        )

    def file(self) -> bytes:
        return file(self.tensors, self.operators, self.last)


def assert_as_litert(sketch: Sketch, *ops: str, image: bool = False) -> Graph:
    """image: the file's input is [1, C, H, W], the Graph's [1, H, W, C]. ops: the Graph's nodes."""
    data = sketch.file()
    graph, _ = read_tflite(data)
    assert [node.op for node in graph.nodes] == list(ops)
    shape = graph.tensors[graph.inputs[0]].shape
    for _ in range(3):
        feed = RNG.integers(-128, 128, shape).astype(np.int8) if sketch.integer else RNG.normal(0, 2, shape).astype(np.float32)
        theirs = judged(data, np.ascontiguousarray(feed.transpose(0, 3, 1, 2)) if image else feed)
        ours = reference.run(graph, feed)[graph.outputs[0]]
        assert_array_equal(ours, theirs) if sketch.integer else assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert same(graph, read_tflite(printing.print_graph(graph))[0])
    return graph


BOTH = pytest.mark.parametrize("integer", [False, True])


@BOTH
def test_a_network_of_torchs_between_transposes(integer: bool) -> None:
    """Activations, sums, products and padding of maps that lie as torch has them."""
    s = Sketch((1, 3, 6, 5), integer)
    s.transpose(0, 2, 3, 1)
    s.conv()
    first = s.transpose(0, 3, 1, 2)
    s.then(CODE.LEAKY_RELU, s.shape, schema.LeakyReluOptionsT(alpha=0.2))
    s.then(CODE.MUL, s.shape, schema.MulOptionsT(), s.values(1, 4, 1, 1))
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), s.values(4, 6, 5))
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), s.values(5))
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), with_=first)
    amounts = np.array([[0, 0], [0, 0], [1, 0], [2, 1]], np.int32)
    s.then(CODE.PAD, (1, 4, 7, 8), schema.PadOptionsT(), constant(s.fresh("p"), amounts))
    s.transpose(0, 2, 3, 1)
    s.conv()
    wanted = ("conv2d", "leaky_relu", "mul", "add", "add", "add", "pad", "conv2d")
    graph = assert_as_litert(s, *wanted, image=True)
    assert graph.tensors[graph.inputs[0]].shape == (1, 6, 5, 3)


@BOTH
@pytest.mark.parametrize("keep", [False, True])
def test_means_and_gates(integer: bool, keep: bool) -> None:
    """A squeeze-and-excitation whose gate is a map of one place, and a mean at the end."""
    s = Sketch((1, 6, 5, 4), integer)
    x = s.transpose(0, 3, 1, 2)
    s.then(CODE.MEAN, (1, 4, 1, 1) if keep else (1, 4), schema.ReducerOptionsT(keepDims=keep), ints(s.fresh("a"), 2, -1))
    if not keep:
        s.then(CODE.RESHAPE, (1, 4, 1, 1), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 4, 1, 1))
    s.then(CODE.MUL, (1, 4, 6, 5), schema.MulOptionsT(), with_=x)
    end = s.then(CODE.MEAN, (1, 4, 1, 1) if keep else (1, 4), schema.ReducerOptionsT(keepDims=keep), ints(s.fresh("a"), 2, 3))
    if keep:
        end = s.then(CODE.RESHAPE, (1, 4), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 4))
    s.dense()
    between, last = ([], ["reshape"]) if keep else (["reshape", "reshape"], [])
    graph = assert_as_litert(s, "mean", *between, "mul", "mean", *last, "fully_connected")
    assert end in graph.tensors  # what lies as in the file is called as there


@BOTH
def test_channels_that_are_joined(integer: bool) -> None:
    s = Sketch((1, 6, 5, 4), integer)
    x = s.transpose(0, 3, 1, 2)
    s.then(CODE.LOGISTIC if not integer else CODE.RELU, s.shape)
    s.then(CODE.CONCATENATION, (1, 8, 6, 5), schema.ConcatenationOptionsT(axis=-3), with_=x)
    s.transpose(0, 2, 3, 1)
    s.conv()
    assert_as_litert(s, "mul" if integer else "logistic", "concat", "conv2d")


@BOTH
@pytest.mark.parametrize("between", [None, CODE.RELU])
def test_a_map_that_is_flattened_as_torch_does(integer: bool, between: int | None) -> None:
    """The columns of the matrix behind it move: so VGG, AlexNet and LeNet end."""
    s = Sketch((1, 6, 5, 4), integer)
    s.conv()
    s.transpose(0, 3, 1, 2)
    s.then(CODE.RESHAPE, (1, 120), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, -1))
    if between is not None:
        s.then(between, s.shape)
    s.dense()
    middle = [] if between is None else ["mul"]
    assert_as_litert(s, "conv2d", "reshape", *middle, "fully_connected")


def test_a_flattened_map_that_two_matrices_read() -> None:
    """One of which reads it in the Graph's order: the weights are one constant in the file."""
    s = Sketch((1, 6, 5, 4), False)
    s.conv()
    x, shape = s.last, s.shape
    s.transpose(0, 3, 1, 2)
    s.then(CODE.RESHAPE, (1, 120), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 120))
    one = s.dense()
    weight = next(tensor.name for tensor in s.tensors if tensor.shape == (4, 120))
    s.last, s.shape = x, shape
    s.then(CODE.RESHAPE, (1, 120), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 120))
    s.then(CODE.FULLY_CONNECTED, (1, 4), schema.FullyConnectedOptionsT(), with_=weight)
    s.then(CODE.ADD, (1, 4), schema.AddOptionsT(), with_=one)
    assert_as_litert(s, "conv2d", "reshape", "fully_connected", "reshape", "fully_connected", "add")


def test_a_constant_that_lies_both_ways() -> None:
    """One [4, 4, 4] is added to a map as torch has it and to one as the Graph has it."""
    s = Sketch((1, 4, 4, 4), False)
    c = s.values(4, 4, 4)
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), c)
    s.transpose(0, 3, 1, 2)
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), with_=c.name)
    s.transpose(0, 2, 3, 1)
    s.then(CODE.MUL, s.shape, schema.MulOptionsT(), with_=c.name)
    assert_as_litert(s, "add", "add", "mul")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_is_normalised_in_torchs_order(channels: int, tmp_path: Path) -> None:
    """It is imported as any other: what each byte becomes is one table."""
    s = Sketch((1, channels, 8, 10), False)
    mean, std = (
        np.linspace(low, high, channels).astype(np.float32).reshape(1, channels, 1, 1) for low, high in ((0.4, 0.5), (0.2, 0.3))
    )
    s.then(CODE.SUB, s.shape, schema.SubOptionsT(), constant("mean", mean))
    s.then(CODE.DIV, s.shape, schema.DivOptionsT(), constant("std", std))
    s.transpose(0, 2, 3, 1)
    s.conv()
    s.then(CODE.MEAN, (1, 4), schema.ReducerOptionsT(), ints(s.fresh("a"), 1, 2))
    s.dense()
    data = s.file()
    path = tmp_path / "x.tflite"
    path.write_bytes(data)
    bundle = import_model(path)
    assert bundle.preprocess.size == (8, 10) and bundle.preprocess.channels == channels
    graph = bundle.architecture
    assert isinstance(graph, Graph) and [node.op for node in graph.nodes] == ["table", "conv2d", "mean"]
    image = RNG.integers(0, 256, (1, 8, 10, channels), dtype=np.uint8)
    (embedding,) = (value.astype(np.float32) for value in reference.run(graph, image).values())
    theirs = judged(data, np.ascontiguousarray((image / 255).astype(np.float32).transpose(0, 3, 1, 2)))
    assert_allclose(embedding @ bundle.head.weight.T + bundle.head.bias, theirs, rtol=1e-4, atol=1e-4)


def test_an_image_of_any_size_in_torchs_order() -> None:
    s = Sketch((1, 3, 6, 5), False)
    s.transpose(0, 2, 3, 1)
    s.conv()
    data = changed(s.file(), lambda model: setattr(model.subgraphs[0].tensors[0], "shapeSignature", [-1, 3, -1, -1]))
    assert read_tflite(data, config=ReadConfig(size=(9, 7)))[0].tensors["t1"].shape == (1, 9, 7, 4)


# ---- what would move data -------------------------------------------------------------------------------------------------------


def conv(s: Sketch) -> None:
    s.transpose(0, 3, 1, 2)
    s.conv()


def channel_shuffle(s: Sketch) -> None:
    s.then(CODE.RESHAPE, (1, 6, 5, 2, 2), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 6, 5, 2, 2))
    s.transpose(0, 1, 2, 4, 3)
    s.then(CODE.RESHAPE, (1, 6, 5, 4), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 6, 5, 4))


def two_orders(s: Sketch) -> None:
    one = s.transpose(0, 3, 1, 2)
    s.transpose(0, 1, 3, 2)
    s.transpose(0, 1, 3, 2)
    s.transpose(0, 3, 2, 1)
    s.then(CODE.RELU, s.shape)
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), with_=one)


def softmax_over_columns(s: Sketch) -> None:
    s.transpose(0, 3, 1, 2)
    s.then(CODE.SOFTMAX, s.shape, schema.SoftmaxOptionsT(beta=1.0))
    s.transpose(0, 2, 3, 1)


def flat_and_added(s: Sketch) -> None:
    s.transpose(0, 3, 1, 2)
    s.then(CODE.RESHAPE, (1, 120), schema.ReshapeOptionsT(), ints(s.fresh("r"), 1, 120))
    s.then(CODE.ADD, s.shape, schema.AddOptionsT(), s.values(120))


def at_the_end(s: Sketch) -> None:
    s.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("build", [conv, channel_shuffle, two_orders, softmax_over_columns, flat_and_added, at_the_end])
def test_what_would_move_data_is_refused_by_name(build: Callable[[Sketch], None]) -> None:
    s = Sketch((1, 6, 5, 4), False)
    build(s)
    with pytest.raises(UnsupportedOp, match=r"operator \w+ at .*TRANSPOSE.*NHWC throughout"):
        read_tflite(s.file())


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 1, 2, 2), (0, 1, 2, 4), (0, 1, 2, 3, 4)])
def test_a_senseless_order(order: tuple[int, ...]) -> None:
    s = Sketch((1, 6, 5, 4), False)
    s.transpose(0, 3, 1, 2)
    s.tensors += [ints("odd", *order), activation("y", (1, 6, 5, 4))]
    s.operators.append(op(CODE.TRANSPOSE, f"{s.last} odd", "y"))
    s.last = "y"
    with pytest.raises(UnusableFile, match="has the order"):
        read_tflite(s.file())
