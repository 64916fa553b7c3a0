"""Files as other people's converters and quantisers write them: made here, and the shared ones; judged by LiteRT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.formats.format import ReadConfig
from nestling.formats.tflite import printing
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.ir import Graph, Quant, same
from tests.helpers.tflite_files import CODE, activation, changed, constant, file, ints, judged, op, packed, quant

RNG = np.random.default_rng(0)
INT4, INT2 = schema.TensorType.INT4, schema.TensorType.INT2
Cases = Callable[[str], Path]


def assert_exact(data: bytes, config: ReadConfig | None = None, judge: bytes | None = None) -> Graph:
    """Byte for byte as LiteRT's reference kernels; printed and read again it is the same Graph. judge: a file that LiteRT takes."""
    graph, _ = read_tflite(data, config=config or ReadConfig())
    source = graph.tensors[graph.inputs[0]]
    for _ in range(3):
        feed = RNG.integers(-128, 128, source.shape).astype(np.int8)
        assert_array_equal(reference.run(graph, feed)[graph.outputs[0]], judged(judge or data, feed))
    assert same(graph, read_tflite(printing.print_graph(graph))[0])
    return graph


def network(scales: NDArray[np.float32], high: int = 127, low: int = -127, kind: str = "conv") -> bytes:
    """int8: x [1, 6, 6, 3] -> a layer with bias, per channel -> y."""
    zeros, count = np.zeros(len(scales), np.int32), len(scales)
    axis, shape = {"conv": (0, (count, 3, 3, 3)), "depthwise": (3, (1, 3, 3, 3)), "dense": (0, (count, 108))}[kind]
    window = {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    operator, out = {
        "conv": (op(CODE.CONV_2D, "x w b", "y", schema.Conv2DOptionsT(**window), 3), (1, 6, 6, count)),
        "depthwise": (
            op(CODE.DEPTHWISE_CONV_2D, "x w b", "y", schema.DepthwiseConv2DOptionsT(**window, depthMultiplier=1), 3),
            (1, 6, 6, 3),
        ),
        "dense": (op(CODE.FULLY_CONNECTED, "x w b", "y", schema.FullyConnectedOptionsT(), 12), (1, count)),
    }[kind]
    tensors = [
        activation("x", (1, 6, 6, 3), quant(0.05, -3)),
        constant("w", RNG.integers(low, high + 1, shape).astype(np.int8), Quant(scales, zeros, axis)),
        constant("b", RNG.integers(-900, 900, count).astype(np.int32), Quant(scales * np.float32(0.05), zeros, 0)),
        activation("y", out, quant(0.4 if kind == "dense" else 0.08, 7)),
    ]
    return file(tensors, [operator])


SCALES = np.array([0.01, 0.02, 0.011], np.float32)


# ---- where weights lie, and in how many bits ------------------------------------------------------------------------------------


def behind(data: bytes, move: Callable[[int, int], tuple[int, int]] = lambda start, size: (start, size)) -> bytes:
    """The same file with its constants behind the flatbuffer, as large files are written. move: what then is said of them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    held = [bytes(buffer.data) if buffer.data is not None else b"" for buffer in model.buffers]
    for buffer, content in zip(model.buffers, held, strict=True):
        if content:
            buffer.data, buffer.offset, buffer.size = None, 2**40, 2**40  # as long as the places that will stand there
    start = -(-len(packed(model)) // 16) * 16
    tail = b""
    for buffer, content in zip(model.buffers, held, strict=True):
        if content:
            buffer.offset, buffer.size = move(start + len(tail), len(content))
            tail += content + b"\0" * (-len(content) % 16)
    return packed(model).ljust(start, b"\0") + tail


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_weights_behind_the_flatbuffer(kind: str) -> None:
    data = network(SCALES, kind=kind)
    assert same(assert_exact(behind(data)), read_tflite(data)[0])


@pytest.mark.parametrize(
    "move", [lambda start, size: (start + 2**20, size), lambda start, size: (start, 2**33), lambda start, size: (2**64 - 8, size)]
)
def test_places_that_lie_outside_the_file(move: Callable[[int, int], tuple[int, int]]) -> None:
    with pytest.raises(UnusableFile, match=r"far\.tflite.*does not lie within the file"):
        read_tflite(behind(network(SCALES), move), "far.tflite")


def few_bits(data: bytes, bits: int) -> bytes:
    """The same file with its weights packed: the first value in a byte's lowest bits."""

    def pack(model: schema.ModelT) -> None:
        weight = next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"w")
        values = np.frombuffer(bytes(model.buffers[weight.buffer].data), np.int8)
        places = 8 // bits
        rows = np.pad(values, (0, -len(values) % places)).reshape(-1, places) & (2**bits - 1)
        made = np.zeros(len(rows), np.uint8)
        for place in range(places):
            made |= rows[:, place].astype(np.uint8) << (bits * place)
        weight.type, model.buffers[weight.buffer].data = {4: INT4, 2: INT2}[bits], made

    return changed(data, pack)


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
def test_weights_of_four_bits_in_an_integer_network(kind: str) -> None:
    """An odd number of them, too: 27 and 81 in all."""
    data = network(SCALES, high=7, low=-8, kind=kind)
    graph = assert_exact(few_bits(data, 4))
    assert same(graph, read_tflite(data)[0])


def test_weights_of_two_bits() -> None:
    data = network(SCALES, high=1, low=-2)
    assert same(read_tflite(few_bits(data, 2))[0], read_tflite(data)[0])


def test_too_few_bytes_for_weights_of_four_bits() -> None:
    data = few_bits(network(SCALES, high=7, low=-8), 4)
    short = changed(data, lambda model: setattr(model.buffers[1], "data", model.buffers[1].data[:-1]))
    with pytest.raises(UnusableFile, match="needs 41 bytes, its buffer has 40"):
        read_tflite(short)


def test_activations_of_four_bits_are_refused() -> None:
    data = changed(network(SCALES), lambda model: setattr(model.subgraphs[0].tensors[3], "type", INT4))
    with pytest.raises(UnsupportedOp, match="'y' is INT4"):
        read_tflite(data)


@pytest.mark.parametrize("name", ["aeq_micromob_dynamic_wi8_afp32", "aeq_micromob_dynamic_wi4_afp32"])
def test_a_quantisers_dynamic_range(name: str, shared_case: Cases) -> None:
    """Its weights are those that LiteRT reads; it answers in float what LiteRT does but for what that rounds on the way."""
    data = shared_case(f"{name}.tflite").read_bytes()
    graph, _ = read_tflite(data)
    judge = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    details = {detail["name"]: detail for detail in judge.get_tensor_details()}
    weights = [graph.tensors[node.inputs[1]] for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]
    packed = [weight for weight in weights if details[weight.name]["dtype"] == np.int8]  # small ones stay in float
    assert len(packed) > 10
    for weight in packed:
        held = details[weight.name]["quantization_parameters"]
        along = [-1 if axis == held["quantized_dimension"] else 1 for axis in range(4)]
        steps = np.rint(weight.data / held["scales"].reshape(along))
        np.testing.assert_allclose(steps * held["scales"].reshape(along), weight.data, rtol=1e-6)
        assert np.abs(steps).max() == (7 if "wi4" in name else 127)
    printed = printing.print_graph(graph)
    for _ in range(3):
        feed = RNG.uniform(-1, 1, (1, 96, 96, 1)).astype(np.float32)
        ours = reference.run(graph, feed)[graph.outputs[0]]
        np.testing.assert_allclose(ours, judged(data, feed), atol=0.03)
        np.testing.assert_allclose(ours, judged(printed, feed), atol=1e-5)


def test_activations_of_sixteen_bits_are_refused_with_what_to_do(shared_case: Cases) -> None:
    wide = changed(network(SCALES), lambda model: setattr(model.subgraphs[0].tensors[0], "type", schema.TensorType.INT16))
    for data in (wide, shared_case("aeq_micromob_static_wi8_ai16.tflite").read_bytes()):
        with pytest.raises(UnsupportedOp, match="is INT16") as refused:
            read_tflite(data)
        assert "int8 activations" in refused.value.hint and "nestling quantize" in refused.value.hint


# ---- scales ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["conv", "depthwise", "dense"])
@pytest.mark.parametrize("scales", [[0.01, 0, 0.011], [0, 0.02, 0], [0, 0, 0], [1e-42, 0.02, 0.01]])
def test_channels_whose_weights_have_a_scale_of_0_are_constant(kind: str, scales: list[float]) -> None:
    """Whatever their weights and biases hold."""
    graph = assert_exact(network(np.array(scales, np.float32), kind=kind))
    source = graph.tensors["x"].shape
    answers = [reference.run(graph, RNG.integers(-128, 128, source).astype(np.int8))["y"] for _ in range(2)]
    for channel, scale in enumerate(scales):
        rows = [answer.reshape(-1, 3)[:, channel] for answer in answers]
        assert (np.unique(rows).size == 1) == (scale < 1e-30)


def test_a_layer_whose_one_scale_is_0() -> None:
    assert_exact(network(np.zeros(1, np.float32)))


def test_weights_that_a_dead_channel_shares_with_a_living_layer() -> None:
    """The bias is one constant of two layers, in one of which a channel is dead."""
    dead = np.array([0.01, 0, 0.01], np.float32)
    zeros, window = np.zeros(3, np.int32), {"padding": 0, "strideH": 1, "strideW": 1, "dilationHFactor": 1, "dilationWFactor": 1}
    living = np.array([0.01, 0.01, 0.01], np.float32)
    weights = RNG.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
    tensors = [
        activation("x", (1, 6, 6, 3), quant(0.05, -3)),
        constant("w", weights, Quant(dead, zeros, 0)),
        constant("v", weights, Quant(living, zeros, 0)),
        constant("b", RNG.integers(-900, 900, 3).astype(np.int32), Quant(living * np.float32(0.05), zeros, 0)),
        activation("c", (1, 6, 6, 3), quant(0.05, 7)),
        activation("y", (1, 6, 6, 3), quant(0.08, 7)),
    ]
    for first, then in (("w", "v"), ("v", "w")):
        ops = [op(CODE.CONV_2D, f"x {first} b", "c", schema.Conv2DOptionsT(**window), 3)]
        ops.append(op(CODE.CONV_2D, f"c {then} b", "y", schema.Conv2DOptionsT(**window), 3))
        assert_exact(file(tensors, ops))


def test_a_bias_names_the_axis_of_its_weights() -> None:
    data = network(SCALES, kind="depthwise")

    def odd(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[2].quantization.quantizedDimension = 3

    assert same(assert_exact(changed(data, odd), judge=data), read_tflite(data)[0])


def test_scales_a_block_are_refused_with_what_to_do() -> None:
    def blocks(model: schema.ModelT) -> None:
        quantization = model.subgraphs[0].tensors[1].quantization
        quantization.detailsType, quantization.details = 2, schema.BlockwiseQuantizationT(blockSize=32)

    with pytest.raises(UnusableFile, match="one scale a block") as refused:
        read_tflite(changed(network(SCALES), blocks))
    assert "a scale a channel" in refused.value.hint


@pytest.mark.parametrize("name", ["dead_channel_scale0", "batch_minus1"])
def test_shared_integer_networks_are_exact(name: str, shared_case: Cases) -> None:
    assert_exact(shared_case(f"{name}.tflite").read_bytes())


def test_person_detect_is_exact(shared_case: Cases) -> None:
    """LiteRT for Microcontrollers runs it; LiteRT wants its biases' axis mended."""
    data = shared_case("tflm_person_detect.tflite").read_bytes()

    def mend(model: schema.ModelT) -> None:
        for tensor in model.subgraphs[0].tensors:
            if tensor.shape is not None and len(tensor.shape) == 1 and tensor.quantization is not None:
                tensor.quantization.quantizedDimension = 0

    with pytest.raises(ValueError, match="quantized_dimension"):
        judged(data, np.zeros((1, 96, 96, 1), np.int8))
    assert_exact(data, judge=changed(data, mend))


@pytest.mark.parametrize("name", ["keras_rescaling_scalar", "nonsquare_97x61"])
def test_shared_float_networks(name: str, shared_case: Cases) -> None:
    data = shared_case(f"{name}.tflite").read_bytes()
    graph, _ = read_tflite(data)
    feed = RNG.uniform(0, 255, graph.tensors[graph.inputs[0]].shape).astype(np.float32)
    np.testing.assert_allclose(reference.run(graph, feed)[graph.outputs[0]], judged(data, feed), rtol=1e-4, atol=1e-5)


# ---- several networks, open sizes -----------------------------------------------------------------------------------------------


def two(names: tuple[bytes, bytes], signatures: dict[bytes, int]) -> bytes:
    """Two networks in one file: a convolution, and the same with other weights."""
    other = schema.ModelT.InitFromObj(schema.Model.GetRootAs(network(SCALES), 0))

    def join(model: schema.ModelT) -> None:
        graph = other.subgraphs[0]
        for tensor in graph.tensors:
            tensor.buffer = tensor.buffer + len(model.buffers) if tensor.buffer else 0
        model.buffers += other.buffers
        model.subgraphs.append(graph)
        for subgraph, name in zip(model.subgraphs, names, strict=True):
            subgraph.name = name
        model.signatureDefs = []
        for key, index in signatures.items():
            ends = [schema.TensorMapT(name=b"in", tensorIndex=0)], [schema.TensorMapT(name=b"out", tensorIndex=3)]
            model.signatureDefs.append(schema.SignatureDefT(*ends, signatureKey=key, subgraphIndex=index))

    return changed(network(SCALES[::-1]), join)


@pytest.mark.parametrize(
    ("names", "signatures", "called"),
    [
        ((b"main", b"main"), {}, ("0", "1")),
        ((b"main", b"other"), {}, ("main", "other")),
        ((b"main", b"main"), {b"infer": 0, b"embed": 1}, ("infer", "embed")),
        ((b"a", b"b"), {b"serve": 1}, ("a", "serve")),
    ],
)
def test_networks_by_their_names(names: tuple[bytes, bytes], signatures: dict[bytes, int], called: tuple[str, str]) -> None:
    data = two(names, signatures)
    feed = RNG.integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    judge = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    for index, name in enumerate(called):
        graph, _ = read_tflite(data, config=ReadConfig(signature=name))
        if name.encode() in signatures:
            wanted = judge.get_signature_runner(name)(**{"in": feed})["out"]
        else:  # LiteRT itself runs a subgraph without a signature only where it is the first
            wanted = judged(data, feed) if index == 0 else None
        if wanted is not None:
            assert_array_equal(reference.run(graph, feed)["y"], wanted)
    assert not same(*(read_tflite(data, config=ReadConfig(signature=name))[0] for name in called))
    with pytest.raises(UnusableFile, match="has no network 'third'") as refused:
        read_tflite(data, config=ReadConfig(signature="third"))
    assert all(repr(name) in refused.value.message for name in called)
    if len(signatures) == 1:  # the others are parts of it
        assert same(read_tflite(data)[0], read_tflite(data, config=ReadConfig(signature="serve"))[0])
        return
    with pytest.raises(UnusableFile, match=f"several networks.*{called[0]!r}.*{called[1]!r}") as refused:
        read_tflite(data)
    assert f"--signature {called[0]}" in refused.value.hint


def test_the_shared_file_of_two_networks(shared_case: Cases) -> None:
    data = shared_case("two_subgraphs.tflite").read_bytes()
    with pytest.raises(UnusableFile, match="several networks"):
        read_tflite(data)
    assert_exact(data, ReadConfig(signature="0"))


@pytest.mark.parametrize("count", [0, 65])
def test_a_senseless_number_of_networks(count: int) -> None:
    data = changed(network(SCALES), lambda model: setattr(model, "subgraphs", model.subgraphs * count))
    with pytest.raises(UnusableFile, match="subgraph"):
        read_tflite(data)


def any_size(squeezed: bool, sides: tuple[int, ...] = (1, 2)) -> bytes:
    """float: an image of any size -> convolution -> mean (-> squeeze) -> fully connected."""
    window = {"padding": 0, "strideH": 2, "strideW": 2, "dilationHFactor": 1, "dilationWFactor": 1}
    tensors = [
        activation("x", (1, 1, 1, 3)),
        constant("w", RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)),
        constant("b", RNG.normal(0, 1, 4).astype(np.float32)),
        activation("c", (1, 1, 1, 4)),
        ints("axes", 1, 2),
        activation("m", (1, 1, 1, 4) if squeezed else (1, 4)),
        activation("s", (1, 4)),
        constant("v", RNG.normal(0, 1, (5, 4)).astype(np.float32)),
        activation("y", (1, 5)),
    ]
    operators = [
        op(CODE.CONV_2D, "x w b", "c", schema.Conv2DOptionsT(**window), 1),
        op(CODE.MEAN, "c axes", "m", schema.ReducerOptionsT(keepDims=squeezed), 1),
        *([op(CODE.SQUEEZE, "m", "s", schema.SqueezeOptionsT(squeezeDims=[1, 2]), 1)] if squeezed else []),
        op(CODE.FULLY_CONNECTED, "s v" if squeezed else "m v", "y", schema.FullyConnectedOptionsT(), 1),
    ]

    def opened(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[0].shapeSignature = [-1 if axis in (0, *sides) else n for axis, n in enumerate((1, 1, 1, 3))]

    kept = tensors if squeezed else [tensor for tensor in tensors if tensor.name != "s"]
    return changed(file(kept, operators), opened)


@pytest.mark.parametrize("squeezed", [True, False])
def test_an_image_of_any_size_is_read_at_the_size_that_is_said(squeezed: bool) -> None:
    data = any_size(squeezed)
    graph, _ = read_tflite(data, config=ReadConfig(size=(9, 14)))
    judge = Interpreter(model_content=data, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    judge.resize_tensor_input(0, [1, 9, 14, 3])
    judge.allocate_tensors()
    feed = RNG.normal(0, 1, (1, 9, 14, 3)).astype(np.float32)
    judge.set_tensor(0, feed)
    judge.invoke()
    wanted = judge.get_tensor(judge.get_output_details()[0]["index"])
    np.testing.assert_allclose(reference.run(graph, feed)["y"], wanted, rtol=1e-5, atol=1e-5)


def test_a_size_is_asked_for_only_where_it_is_open() -> None:
    with pytest.raises(UnusableFile, match="an image of any size") as refused:
        read_tflite(any_size(False))
    assert "--size" in refused.value.hint
    with pytest.raises(UnusableFile, match=r"shape \[1, 6, 6, 3\] and no other") as refused:
        read_tflite(network(SCALES), config=ReadConfig(size=(9, 9)))
    assert "leave out --size" in refused.value.hint
    fixed = network(SCALES)
    assert same(read_tflite(fixed, config=ReadConfig(size=(6, 6)))[0], read_tflite(fixed)[0])
    with pytest.raises(NestlingError, match="height and width of an image may be open"):
        read_tflite(any_size(False, (1, 2, 3)))
    with pytest.raises(NestlingError, match="only along axis 2"):
        read_tflite(any_size(False, (2,)), config=ReadConfig(size=(9, 14)))
