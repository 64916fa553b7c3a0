"""The reference against LiteRT's reference kernels, byte for byte; float ops against LiteRT and torch."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from nestling.errors import UnusableData
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read import read_tflite
from nestling.graph import ir, reference
from nestling.graph.ir import Attrs, Graph, Node, Quant, Tensor
from nestling.graph.spec import check

INTEGER = ["vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "mobilenet_v2_1_0_224_quant.tflite"]
Bytes = NDArray[np.uint8]


def images(archive: Path, height: int, width: int) -> Iterator[Bytes]:
    """20 images of noise, 20 photographs."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        yield rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.isfile() and "/test/" in member.name][::50]
        for member in members[:20]:
            content = tar.extractfile(member)
            assert content
            photograph = Image.open(io.BytesIO(content.read())).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
            yield np.asarray(photograph)[None]


def interpreter(path: Path, kernels: OpResolverType, keep: bool = False) -> Interpreter:
    made = Interpreter(str(path), experimental_op_resolver_type=kernels, experimental_preserve_all_tensors=keep, num_threads=1)
    made.allocate_tensors()
    return made


def answer(judge: Interpreter, image: Bytes) -> NDArray[np.generic]:
    detail = judge.get_input_details()[0]
    judge.set_tensor(detail["index"], image if detail["dtype"] == np.uint8 else signed(image))
    judge.invoke()
    return signed(judge.get_tensor(judge.get_output_details()[0]["index"]))


def signed(values: NDArray[np.generic]) -> NDArray[np.generic]:
    """uint8 as int8, 128 less."""
    return np.bitwise_xor(values, np.uint8(128)).view(np.int8) if values.dtype == np.uint8 else values


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "mobilenet" in n else n for n in INTEGER])
def test_every_output_byte_is_litert_reference_kernels(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data(name)
    graph, _ = read_tflite(path)
    _, height, width, _ = graph.tensors[graph.inputs[0]].shape
    judge, default = interpreter(path, OpResolverType.BUILTIN_REF), interpreter(path, OpResolverType.AUTO)
    away = []
    for image in images(shared_data("cifar10_small.tar.gz"), height, width):
        ours = reference.run(graph, signed(image))[graph.outputs[0]]
        assert_array_equal(ours, answer(judge, image))
        away.append(np.abs(ours.astype(int) - answer(default, image).astype(int)).max())
    print(f"\n{name}: LiteRT's default kernels differ by at most {max(away)} steps, {np.mean(away):.2f} on average")
    assert len(away) == 40


@pytest.mark.parametrize("name", INTEGER)
def test_every_activation_byte_is_litert_reference_kernels(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data(name)
    graph, _ = read_tflite(path)
    _, height, width, _ = graph.tensors[graph.inputs[0]].shape
    image = next(images(shared_data("cifar10_small.tar.gz"), height, width))
    judge = interpreter(path, OpResolverType.BUILTIN_REF, keep=True)
    answer(judge, image)
    places = {detail["name"]: detail["index"] for detail in judge.get_tensor_details()}
    seen = 0
    for tensor, ours in reference.activations(graph, signed(image)):
        assert_array_equal(ours, signed(judge.get_tensor(places[tensor])), err_msg=tensor)
        seen += 1
    assert seen == len(graph.nodes) + 1


def test_float_network_is_litert_within_1e_5(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("vww_96_float.tflite")
    graph, _ = read_tflite(path)
    judge = interpreter(path, OpResolverType.BUILTIN_REF)
    for image in images(shared_data("cifar10_small.tar.gz"), 96, 96):
        feed = (image / np.float32(255)).astype(np.float32)
        judge.set_tensor(judge.get_input_details()[0]["index"], feed)
        judge.invoke()
        want = judge.get_tensor(judge.get_output_details()[0]["index"])
        assert_allclose(reference.run(graph, feed)[graph.outputs[0]], want, atol=1e-5)


# ---- one op at a time ----------------------------------------------------------------------------------------------------------


def quant(scale: float, zero: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero], np.int32))


def one_op(op: str, attrs: Attrs, inputs: list[tuple[tuple[int, ...], Quant]], out: tuple[tuple[int, ...], Quant]) -> Graph:
    """int8 activations x0, x1, ... -> y."""
    names = [f"x{i}" for i in range(len(inputs))]
    tensors = [Tensor(name, shape, "int8", None, q) for name, (shape, q) in zip(names, inputs, strict=True)]
    tensors.append(Tensor("y", out[0], "int8", None, out[1]))
    return check(Graph({t.name: t for t in tensors}, (Node(op, tuple(names), ("y",), attrs),), tuple(names), ("y",)))


def assert_as_litert(graph: Graph, *feeds: NDArray[np.int8], shift: bool = False) -> None:
    """shift: the graph is printed in uint8."""
    printed = tflite.print_graph(graph)
    if shift:
        feeds_in_file = tuple((feed.view(np.uint8) ^ np.uint8(128)) for feed in feeds)
    (want,) = tflite_run.run(printed, feeds_in_file if shift else feeds)
    assert (want.dtype == np.uint8) == shift
    ours = reference.run(graph, dict(zip(graph.inputs, feeds, strict=True)))
    assert_array_equal(ours[graph.outputs[0]], signed(want))


EVERY = np.arange(-128, 128).astype(np.int8).reshape(1, 256)


@pytest.mark.parametrize("scale", [1e-4, 0.003, 0.0217, 0.1, 0.777, 30.0])
@pytest.mark.parametrize("zero", [-128, -3, 127])
def test_logistic_and_hard_swish_of_every_byte(scale: float, zero: int) -> None:
    source = ((1, 256), quant(scale, zero))
    assert_as_litert(one_op("logistic", ir.Logistic(), [source], ((1, 256), quant(1 / 256, -128))), EVERY)
    for target in (scale * 0.02, scale * 0.6, scale * 3):
        assert_as_litert(one_op("hard_swish", ir.HardSwish(), [source], ((1, 256), quant(target, -7))), EVERY)


@pytest.mark.parametrize("scale", [1e-4, 0.05, 0.25, 1.3, 500.0])
@pytest.mark.parametrize("beta", [1.0, 0.3])
def test_softmax(scale: float, beta: float) -> None:
    rng = np.random.default_rng(0)
    for classes in (2, 10, 500):  # LiteRT aborts where more than 512 are near the largest
        shape = (1, classes)
        graph = one_op("softmax", ir.Softmax(beta), [(shape, quant(scale, 5))], (shape, quant(1 / 256, -128)))
        for spread in (128, 20, 1):
            assert_as_litert(graph, rng.integers(-spread, spread, shape).astype(np.int8))


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu(approximate: bool) -> None:
    """Every byte, at scales from where it is a straight line to where nothing below zero is left."""
    rng = np.random.default_rng(0)
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 256)
    for scale in (1e-4, 0.01, 0.05, 0.7, 30.0, *10 ** rng.uniform(-3, 0.5, 40)):
        for stretch in (0.3, 1.0, 3.0):
            x, y = quant(scale, int(rng.integers(-128, 128))), quant(scale * stretch, int(rng.integers(-128, 128)))
            assert_as_litert(one_op("gelu", ir.Gelu(approximate), [(every.shape, x)], (every.shape, y)), every)


def test_mean_over_odd_sizes_with_and_without_dimensions() -> None:
    rng = np.random.default_rng(0)
    for height, width, axes, keep in [(7, 7, (1, 2), False), (5, 3, (1, 2), True), (4, 9, (2,), True), (3, 3, (1, 2, 3), False)]:
        x = (1, height, width, 6)
        out = np.zeros(x).mean(axis=axes, keepdims=keep).shape
        graph = one_op("mean", ir.Mean(axes, keep), [(x, quant(0.037, -11))], (out, quant(0.0211, 4)))
        assert_as_litert(graph, rng.integers(-128, 128, x).astype(np.int8))


def test_old_uint8_average_pool_rounds_upwards() -> None:
    rng = np.random.default_rng(0)
    shape, q = (1, 9, 7, 3), quant(0.1, -4)
    feed = rng.integers(-128, 128, shape).astype(np.int8)
    for unsigned in (False, True):
        attrs = ir.AveragePool((2, 2), (1, 1), (0, 1, 0, 1), "relu", unsigned)
        graph = one_op("average_pool", attrs, [(shape, q)], (shape, q))
        assert_as_litert(graph, feed, shift=unsigned)


def test_old_uint8_concat_of_other_scales() -> None:
    rng = np.random.default_rng(0)
    shape = (1, 8, 8, 4)
    quants = quant(0.1, -4), quant(0.033, 90), quant(0.07, -128)
    tensors = [
        Tensor("x0", shape, "int8", None, quants[0]),
        Tensor("x1", shape, "int8", None, quants[1]),
        Tensor("p", shape, "int8", None, quants[0]),
        Tensor("y", (1, 8, 8, 8), "int8", None, quants[2]),
    ]
    nodes = (
        Node("average_pool", ("x0",), ("p",), ir.AveragePool((1, 1), (1, 1), unsigned=True)),
        Node("concat", ("p", "x1"), ("y",), ir.Concat(3)),
    )
    graph = check(Graph({t.name: t for t in tensors}, nodes, ("x0", "x1"), ("y",)))
    assert_as_litert(graph, *(rng.integers(-128, 128, shape).astype(np.int8) for _ in range(2)), shift=True)


def weights(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """A weight with a zero point and its bias, for an input of scale 0.1."""
    rng = np.random.default_rng(1)
    count = shape[3] if len(shape) == 4 and shape[0] == 1 else shape[0]
    weight = Tensor("w", shape, "int8", rng.integers(-128, 128, shape).astype(np.int8), quant(0.0113, -21))
    return weight, Tensor("b", (count,), "int32", rng.integers(-3000, 3000, count).astype(np.int32), quant(0.1 * 0.0113))


OLD: dict[str, tuple[Attrs, tuple[int, ...], Quant, tuple[Tensor, ...]]] = {
    "conv2d": (
        ir.Conv2d((2, 1), padding=(1, 1, 0, 1), clamp="relu6", unsigned=True),
        (1, 4, 6, 5),
        quant(0.05, -99),
        weights((5, 3, 3, 4)),
    ),
    "depthwise_conv2d": (ir.DepthwiseConv2d((1, 2), unsigned=True), (1, 5, 3, 8), quant(0.21, 13), weights((1, 3, 3, 8))),
    "fully_connected": (ir.FullyConnected("relu"), (1, 4_000), quant(0.11, -100), weights((4_000, 196))),
    "add": (ir.Add("relu"), (1, 7, 7, 4), quant(0.173, 2), ()),
    "mul": (ir.Mul(), (1, 7, 7, 4), quant(0.4, -2), ()),
    "max_pool": (ir.MaxPool((3, 3), (2, 2), (0, 1, 1, 1)), (1, 3, 4, 4), quant(0.1, -4), ()),
    "mean": (ir.Mean((1, 2)), (1, 4), quant(0.03, 40), ()),
    "pad": (ir.Pad((1, 2, 3, 0)), (1, 10, 10, 4), quant(0.1, -4), ()),
    "pad_channels": (ir.PadChannels(1, 2), (1, 7, 7, 7), quant(0.1, -4), ()),
    "leaky_relu": (ir.LeakyRelu(0.2), (1, 7, 7, 4), quant(0.07, -20), ()),
    "resize_nearest": (ir.ResizeNearest((12, 5), half_pixel_centers=True), (1, 12, 5, 4), quant(0.1, -4), ()),
    "softmax": (ir.Softmax(), (1, 7, 7, 4), quant(1 / 256, -128), ()),
    "logistic": (ir.Logistic(), (1, 7, 7, 4), quant(1 / 256, -128), ()),
    "hard_swish": (ir.HardSwish(), (1, 7, 7, 4), quant(0.07, -120), ()),
    "quantize": (ir.Quantize(), (1, 7, 7, 4), quant(0.031, 5), ()),
    "dequantize": (ir.Dequantize(), (1, 7, 7, 4), quant(1), ()),
}


@pytest.mark.parametrize("op", OLD)
def test_old_uint8_kernels(op: str) -> None:
    """Behind a pool that makes the graph one of the uint8 age, so that it is printed in uint8."""
    attrs, shape, q, constants = OLD[op]
    x, own = (1, 7, 7, 4), quant(0.1, -4)
    out = Tensor("y", shape, "float32") if op == "dequantize" else Tensor("y", shape, "int8", None, q)
    tensors = [Tensor("x", x, "int8", None, own), Tensor("p", x, "int8", None, own), *constants, out]
    inputs = ("p", "x") if op in ("add", "mul") else ("p", *(t.name for t in constants))
    nodes = [Node("average_pool", ("x",), ("p",), ir.AveragePool((1, 1), (1, 1), unsigned=True)), Node(op, inputs, ("y",), attrs)]
    if op == "fully_connected":
        tensors.append(Tensor("f", (1, 196), "int8", None, own))
        nodes[1:] = [Node("reshape", ("p",), ("f",), ir.Reshape()), Node(op, ("f", *inputs[1:]), ("y",), attrs)]
    graph = check(Graph({t.name: t for t in tensors}, tuple(nodes), ("x",), ("y",)))
    feed = np.random.default_rng(0).integers(-128, 128, x).astype(np.int8)
    (want,) = tflite_run.run(tflite.print_graph(graph), (feed.view(np.uint8) ^ np.uint8(128),))
    assert_array_equal(reference.run(graph, feed)["y"], signed(want))


def test_old_uint8_convolutions_multiply_scales_in_float32() -> None:
    """Biases next to every half step, where a multiplier that is off by 2**-25 gives another integer."""
    sx, sw, sy = 0.0123, 0.00371, 30.7
    halves = np.round((np.arange(-127, 128) + 0.5) * sy / (sx * sw)).astype(np.int64)
    bias = (halves[:, None] + np.arange(-8, 9)).reshape(-1).astype(np.int32)
    tensors = [
        Tensor("x", (1, 1, 1, 1), "int8", None, quant(sx, -4)),
        Tensor("w", (len(bias), 1, 1, 1), "int8", np.full((len(bias), 1, 1, 1), 3, np.int8), quant(sw, 3)),
        Tensor("b", bias.shape, "int32", bias, quant(sx * sw)),
        Tensor("y", (1, 1, 1, len(bias)), "int8", None, quant(sy, 0)),
    ]
    node = Node("conv2d", ("x", "w", "b"), ("y",), ir.Conv2d(unsigned=True))
    graph = check(Graph({t.name: t for t in tensors}, (node,), ("x",), ("y",)))
    assert_as_litert(graph, np.zeros((1, 1, 1, 1), np.int8), shift=True)


def test_fully_connected_rounds_halves_away_from_zero() -> None:
    weight = np.arange(-50, 51).astype(np.int8).reshape(101, 1)
    tensors = [
        Tensor("x", (1, 1), "int8", None, quant(0.5)),
        Tensor("w", (101, 1), "int8", weight, quant(1)),
        Tensor("y", (1, 101), "int8", None, quant(1)),
    ]
    node = Node("fully_connected", ("x", "w"), ("y",), ir.FullyConnected())
    graph = check(Graph({t.name: t for t in tensors}, (node,), ("x",), ("y",)))
    assert_as_litert(graph, np.ones((1, 1), np.int8))


def test_float_softmax_of_large_numbers() -> None:
    x = np.array([[1000, 999, -1000, 0]], np.float32)
    tensors = {name: Tensor(name, (1, 4), "float32") for name in ("x", "y")}
    graph = check(Graph(tensors, (Node("softmax", ("x",), ("y",), ir.Softmax()),), ("x",), ("y",)))
    (want,) = tflite_run.run(tflite.print_graph(graph), (x,))
    assert_allclose(reference.run(graph, x)["y"], want, rtol=1e-5)


def test_batch_norm_is_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, 5, 4, 6)).astype(np.float32)
    vectors = {name: rng.uniform(0.5, 2, 6).astype(np.float32) for name in ("gamma", "beta", "mean", "variance")}
    tensors = {name: Tensor(name, (6,), "float32", data) for name, data in vectors.items()}
    tensors |= {name: Tensor(name, x.shape, "float32") for name in ("x", "y")}
    graph = check(Graph(tensors, (Node("batch_norm", ("x", *vectors), ("y",), ir.BatchNorm(1e-3)),), ("x",), ("y",)))
    nchw = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    mean, variance, gamma, beta = (torch.from_numpy(vectors[name]) for name in ("mean", "variance", "gamma", "beta"))
    want = torch.nn.functional.batch_norm(nchw, mean, variance, gamma, beta, eps=1e-3).numpy().transpose(0, 2, 3, 1)
    assert_allclose(reference.run(graph, x)["y"], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_table_answers_every_byte_of_every_channel(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = (
        rng.normal(size=(3, 256)).astype(np.float32) if dtype == "float32" else rng.integers(-128, 128, (3, 256)).astype(np.int8)
    )
    q = None if dtype == "float32" else quant(0.02, 3)
    tensors = [
        Tensor("x", (1, 16, 16, 3), "uint8"),
        Tensor("t", (3, 256), dtype, values, q),  # type: ignore[arg-type]  # a kind that is drawn
        Tensor("y", (1, 16, 16, 3), dtype, None, q),  # type: ignore[arg-type]  # a kind that is drawn
    ]
    graph = check(Graph({t.name: t for t in tensors}, (Node("table", ("x", "t"), ("y",), ir.Table()),), ("x",), ("y",)))
    image = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), 3, axis=3)
    (want,) = tflite_run.run(tflite.print_graph(graph), (image,))
    assert_array_equal(reference.run(graph, image)["y"], want)


# ---- running -------------------------------------------------------------------------------------------------------------------


def test_many_images_at_once_are_answered_as_one_by_one(shared_data: Callable[[str], Path]) -> None:
    graph, _ = read_tflite(shared_data("resnet8_cifar10_int8.tflite"))
    some = np.random.default_rng(0).integers(-128, 128, (5, 32, 32, 3)).astype(np.int8)
    together = reference.run(graph, some)[graph.outputs[0]]
    alone = [reference.run(graph, image[None])[graph.outputs[0]] for image in some]
    assert_array_equal(together, np.concatenate(alone))


def test_run_keeps_what_is_asked_for(shared_data: Callable[[str], Path]) -> None:
    graph, _ = read_tflite(shared_data("resnet8_cifar10_int8.tflite"))
    image = np.zeros((1, 32, 32, 3), np.int8)
    everything = dict(reference.activations(graph, image))
    wanted = (graph.nodes[2].name, graph.inputs[0])
    kept = reference.run(graph, image, keep=wanted)
    assert list(kept) == [*graph.outputs, *wanted]
    for name in wanted:
        assert_array_equal(kept[name], everything[name])


@pytest.mark.parametrize("feed", [np.zeros((1, 32, 32, 3), np.float32), np.zeros((1, 31, 32, 3), np.int8), {"no": np.zeros(1)}])
def test_a_feed_that_does_not_fit_says_what_does(feed: object, shared_data: Callable[[str], Path]) -> None:
    graph, _ = read_tflite(shared_data("resnet8_cifar10_int8.tflite"))
    with pytest.raises(UnusableData, match="takes"):
        reference.run(graph, feed)  # type: ignore[arg-type]  # a kind that is drawn
