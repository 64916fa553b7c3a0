"""Files of many kinds, written here with LiteRT's schema, read, run in the reference and compared with LiteRT's own answer."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from numpy.testing import assert_allclose, assert_array_equal

from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite.flatbuffer import FileTensor, Operator
from nestling.formats.tflite.read import read_tflite
from nestling.graph import reference
from nestling.graph.ir import Array, Graph, Quant, same
from tests.helpers.tflite_files import CODE, activation, constant, file, ints, judged, op, packed, quant

RELU, RELU6 = schema.ActivationFunctionType.RELU, schema.ActivationFunctionType.RELU6
RNG = np.random.default_rng(0)


def assert_as_litert(data: bytes) -> Graph:
    """Read, it answers as LiteRT: every byte of integers, 1e-5 of floats. Printed and read again it is the same."""
    graph, _ = read_tflite(data)
    source = graph.tensors[graph.inputs[0]]
    for _ in range(3):
        if source.dtype == "float32":
            feed: Array = RNG.normal(0, 3, source.shape).astype(np.float32)
        else:
            feed = RNG.integers(0, 256, source.shape).astype(np.uint8).view(source.dtype)
        want, ours = judged(data, feed), reference.run(graph, feed)[graph.outputs[0]]
        assert want.shape == ours.shape and want.dtype == ours.dtype
        if want.dtype == np.float32:
            assert_allclose(ours, want, rtol=1e-5, atol=1e-5)
        else:
            assert_array_equal(ours, want)
    again, _ = read_tflite(tflite.print_graph(graph))
    assert same(graph, again)
    return graph


# ---- the shared networks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vww_96_int8", "vww_96_float", "resnet8_cifar10_int8", "mobilenet_v2_1_0_224_quant"])
def test_shapes_and_names_are_those_of_litert(name: str, shared_data: Callable[[str], Path]) -> None:
    path = shared_data(f"{name}.tflite")
    graph, _ = read_tflite(path)
    judge = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    judge.allocate_tensors()
    shapes = {detail["name"]: tuple(detail["shape"]) for detail in judge.get_tensor_details()}
    for tensor in graph.tensors.values():
        assert shapes[tensor.name] == tensor.shape
    assert same(graph, read_tflite(tflite.print_graph(graph))[0])


def test_reading_imports_no_torch(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("resnet8_cifar10_int8.tflite")
    code = (
        "import sys; from pathlib import Path; from nestling.formats.tflite.read import read_tflite;"
        f"read_tflite(Path({str(path)!r})); assert not any(m.split('.')[0] == 'torch' for m in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_and_preprocessing_come_along(shared_data: Callable[[str], Path]) -> None:
    graph, nothing = read_tflite(shared_data("resnet8_cifar10_int8.tflite"))
    assert nothing["labels"] == () and nothing["preprocess"] is None
    printed = tflite.print_graph(graph, labels=["cat", "dög"], preprocess={"kind": "image"})
    assert read_tflite(printed)[1] | {"description": ""} == {
        "labels": ("cat", "dög"),
        "preprocess": {"kind": "image"},
        "description": "",
    }


# ---- operators that become something else ----------------------------------------------------------------------------------


def convolution(q: bool) -> tuple[list[FileTensor], Operator]:
    """x [1, 6, 6, 3] -> c [1, 6, 6, 4]."""
    weight = RNG.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    bias = RNG.normal(0, 1, 4).astype(np.float32)
    options = schema.Conv2DOptionsT(padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    operator = op(CODE.CONV_2D, "x w b", "c", options, 3)
    if not q:
        return [activation("x", (1, 6, 6, 3)), constant("w", weight), constant("b", bias), activation("c", (1, 6, 6, 4))], operator
    scales = np.array([0.01, 0.02, 0.011, 0.003], np.float32)
    zeros = np.zeros(4, np.int32)
    return [
        activation("x", (1, 6, 6, 3), quant(0.05, -3)),
        constant("w", RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8), Quant(scales, zeros, 0)),
        constant("b", RNG.integers(-2000, 2000, 4).astype(np.int32), Quant(scales * np.float32(0.05), zeros, 0)),
        activation("c", (1, 6, 6, 4), quant(0.08, 7)),
    ], operator


@pytest.mark.parametrize("code", [CODE.RELU, CODE.RELU6])
@pytest.mark.parametrize("kind", ["float", "same scale", "other scale"])
def test_relu_of_its_own_goes_into_its_producer_where_that_is_exact(code: int, kind: str) -> None:
    tensors, conv = convolution(kind != "float")
    q = {"float": None, "same scale": quant(0.08, 7), "other scale": quant(0.03, -128)}[kind]
    graph = assert_as_litert(file([*tensors, activation("y", (1, 6, 6, 4), q)], [conv, op(code, "c", "y")]))
    assert [node.op for node in graph.nodes] == (["conv2d", "mul"] if kind == "other scale" else ["conv2d"])


def test_relu_beside_another_reader_stays_of_its_own() -> None:
    tensors, conv = convolution(True)
    q = quant(0.08, 7)
    more = [activation("r", (1, 6, 6, 4), q), activation("y", (1, 6, 6, 4), quant(0.1, 0))]
    data = file([*tensors, *more], [conv, op(CODE.RELU, "c", "r"), op(CODE.ADD, "r c", "y", schema.AddOptionsT())])
    assert [node.op for node in assert_as_litert(data).nodes] == ["conv2d", "mul", "add"]


def test_half_precision_weights_become_float() -> None:
    tensors, conv = convolution(False)
    half = [constant(f"{t.name}16", t.data.astype(np.float16)) for t in tensors if t.data is not None]
    tensors = [t if t.data is None else activation(t.name, t.shape) for t in tensors]
    unpack = [op(CODE.DEQUANTIZE, f"{name}16", name, schema.DequantizeOptionsT(), 3) for name in "wb"]
    graph = assert_as_litert(file([*tensors, *half], [*unpack, conv], "c"))
    assert [node.op for node in graph.nodes] == ["conv2d"] and graph.tensors["w"].dtype == "float32"


def test_dynamic_range_weights_become_the_floats_they_stand_for(shared_data: Callable[[str], Path]) -> None:
    graph, _ = read_tflite(shared_data("vww_96_float.tflite"))
    again, _ = read_tflite(tflite.print_graph(graph, "dynamic"))
    feed = RNG.uniform(0, 1, (1, 96, 96, 3)).astype(np.float32)
    answers = [reference.run(g, feed)[g.outputs[0]] for g in (graph, again)]
    assert_allclose(*answers, atol=0.05)
    for name, tensor in graph.tensors.items():
        if tensor.data is not None:
            assert np.abs(np.subtract(again.tensors[name].data, tensor.data)).max() <= np.abs(tensor.data).max() / 200


def test_shape_arithmetic_of_a_keras_flatten_disappears() -> None:
    """shape(x)[0] and the rest are packed into the shape that x is brought to."""
    tensors = [
        activation("x", (1, 3, 3, 8)),
        activation("s", (4,), dtype="int32"),
        ints("begin", 0),
        ints("end", 1),
        ints("step", 1),
        activation("n", (), dtype="int32"),
        constant("rest", np.array(72, np.int32)),
        activation("shape", (2,), dtype="int32"),
        activation("y", (1, 72)),
    ]
    operators = [
        op(CODE.SHAPE, "x", "s", schema.ShapeOptionsT(outType=2), 1),
        op(CODE.STRIDED_SLICE, "s begin end step", "n", schema.StridedSliceOptionsT(shrinkAxisMask=1)),
        op(CODE.PACK, "n rest", "shape", schema.PackOptionsT(valuesCount=2, axis=0)),
        op(CODE.RESHAPE, "x shape", "y", None, 1),
    ]
    assert [node.op for node in assert_as_litert(file(tensors, operators)).nodes] == ["reshape"]


def test_squeeze_and_a_transpose_that_moves_nothing_are_reshapes() -> None:
    tensors = [activation("x", (1, 5, 1, 1)), ints("order", 0, 2, 1, 3), activation("t", (1, 1, 5, 1)), activation("y", (1, 5))]
    operators = [op(CODE.TRANSPOSE, "x order", "t"), op(CODE.SQUEEZE, "t", "y", schema.SqueezeOptionsT(squeezeDims=[1, 3]), 1)]
    assert [node.op for node in assert_as_litert(file(tensors, operators)).nodes] == ["reshape", "reshape"]


def test_a_transpose_that_moves_data_is_refused() -> None:
    tensors = [activation("x", (1, 2, 3, 4)), ints("order", 0, 3, 1, 2), activation("y", (1, 4, 2, 3))]
    with pytest.raises(UnsupportedOp, match="TRANSPOSE at 'y'"):
        read_tflite(file(tensors, [op(CODE.TRANSPOSE, "x order", "y")]))


@pytest.mark.parametrize("q", [None, quant(0.05, -3)])
def test_subtraction_of_a_constant(q: Quant | None) -> None:
    subtracted: Array = RNG.normal(size=(1, 1, 1, 3)).astype(np.float32)
    if q:
        subtracted = RNG.integers(-127, 128, (1, 1, 1, 3)).astype(np.int8)
    tensors = [
        activation("x", (1, 4, 5, 3), q),
        constant("k", subtracted, q and quant(0.031, 5)),
        activation("y", (1, 4, 5, 3), q and quant(0.09, 1)),
    ]
    data = file(tensors, [op(CODE.SUB, "x k", "y", schema.SubOptionsT(fusedActivationFunction=RELU6))])
    assert [node.op for node in assert_as_litert(data).nodes] == ["add"]


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1, 1)])
@pytest.mark.parametrize(("name", "left"), [("MUL", True), ("ADD", False), ("SUB", True), ("SUB", False), ("DIV", False)])
def test_arithmetic_with_one_number(shape: tuple[int, ...], name: str, left: bool) -> None:
    """Keras writes it without axes."""
    options = getattr(schema, f"{name.title()}OptionsT")()
    tensors = [activation("x", (1, 4, 5, 3)), constant("k", np.full(shape, 1.7, np.float32)), activation("y", (1, 4, 5, 3))]
    assert_as_litert(file(tensors, [op(getattr(CODE, name), "k x" if left else "x k", "y", options)]))


@pytest.mark.parametrize("zero", [-128, 127, 0])
def test_an_integer_constant_with_any_zero_point_is_taken_away(zero: int) -> None:
    """Converters put the zero point of constants of one sign at an end of their range."""
    held = np.array([-128, 0, 127], np.int8)
    tensors = [
        activation("x", (1, 4, 5, 3), quant(0.05, -128)), constant("k", held, quant(0.05, zero)),
        activation("y", (1, 4, 5, 3), quant(0.06, 1)),
    ]  # fmt: skip
    assert [node.op for node in assert_as_litert(file(tensors, [op(CODE.SUB, "x k", "y", schema.SubOptionsT())])).nodes] == ["add"]


def test_what_changes_nothing_is_not_there() -> None:
    """A RESIZE to the size that it has, a CAST to the same type; but the tensor behind has its readers' rights."""
    tensors, conv = convolution(False)
    tensors += [activation("r", (1, 6, 6, 4)), activation("t", (1, 6, 6, 4)), ints("size", 6, 6), activation("y", (1, 6, 6, 4))]
    tensors.append(activation("a", (1, 6, 6, 4)))
    operators = [
        conv,
        op(CODE.RESIZE_BILINEAR, "c size", "r", schema.ResizeBilinearOptionsT(halfPixelCenters=True)),
        op(CODE.CAST, "r", "t", schema.CastOptionsT(), 1),
        op(CODE.RELU, "t", "a"),
        op(CODE.ADD, "a r", "y", schema.AddOptionsT()),
    ]
    assert [node.op for node in assert_as_litert(file(tensors, operators)).nodes] == ["conv2d", "mul", "add"]
    tensors = [activation("x", (1, 6, 6, 3)), ints("size", 3, 6), activation("y", (1, 3, 6, 3))]
    with pytest.raises(UnsupportedOp, match=r"RESIZE_BILINEAR at 'y': it makes \[3, 6\] of \[6, 6\]"):
        read_tflite(file(tensors, [op(CODE.RESIZE_BILINEAR, "x size", "y", schema.ResizeBilinearOptionsT())]))


@pytest.mark.parametrize("integer", [False, True])
def test_parts_along_one_axis_are_slices(integer: bool) -> None:
    """SLICE, STRIDED_SLICE with ends counted from behind and masked, SPLIT and SPLIT_V, of which one piece is not read."""
    q = quant(0.05, 3) if integer else None
    shapes = {"x": (1, 6, 6, 8), "a": (1, 6, 6, 5), "b": (1, 6, 3, 5), "c": (1, 6, 3, 1), "d": (1, 3, 3, 5), "e": (1, 3, 3, 5)}
    shapes |= {"f": (1, 3, 3, 2), "g": (1, 3, 3, 3), "y": (1, 3, 3, 5)}
    constants: dict[str, tuple[int, ...]] = {"begin": (0, 0, 0, 3), "size": (1, -1, 6, -1), "from": (0, 9, -4, -9)}
    constants |= {"to": (1, 2, -1, 0), "ones": (1, 1, 1, 1), "rows": (1,), "sizes": (2, -1), "channels": (-1,)}
    tensors = [activation(name, shape, q) for name, shape in shapes.items() if name != "c"]
    tensors += [ints(name, *values) for name, values in constants.items()]
    operators = [
        op(CODE.SLICE, "x begin size", "a", schema.SliceOptionsT()),
        op(CODE.STRIDED_SLICE, "a from to ones", "b", schema.StridedSliceOptionsT(beginMask=0b1010, endMask=0b1010)),
        Operator(CODE.SPLIT, ("rows", "b"), ("d", "e"), schema.SplitOptionsT(numSplits=2), 2),
        Operator(CODE.SPLIT_V, ("e", "sizes", "channels"), ("f", "g"), schema.SplitVOptionsT(numSplits=2), 2),
        op(CODE.CONCATENATION, "g f", "y", schema.ConcatenationOptionsT(axis=3)),
    ]
    graph = assert_as_litert(file(tensors, operators))
    assert [node.op for node in graph.nodes] == ["slice"] * 5 + ["concat"]  # d is not read


def test_fully_connected_of_an_image_is_flattened() -> None:
    q = quant(0.05, -3)
    tensors = [
        activation("x", (1, 2, 3, 4), q),
        constant("w", RNG.integers(-127, 128, (7, 24)).astype(np.int8), quant(0.01)),
        activation("y", (1, 7), quant(0.2, 3)),
    ]
    data = file(tensors, [op(CODE.FULLY_CONNECTED, "x w", "y", schema.FullyConnectedOptionsT(fusedActivationFunction=RELU), 6)])
    assert [node.op for node in assert_as_litert(data).nodes] == ["reshape", "fully_connected"]


def test_negative_axes_of_mean_and_concatenation() -> None:
    tensors = [
        activation("x", (1, 4, 6, 3)),
        ints("axes", -2, 1),
        activation("m", (1, 3)),
        constant("k", np.ones((1, 2), np.float32)),
        activation("y", (1, 5)),
    ]
    operators = [
        op(CODE.MEAN, "x axes", "m", schema.ReducerOptionsT(keepDims=False)),
        op(CODE.CONCATENATION, "m k", "y", schema.ConcatenationOptionsT(axis=-1)),
    ]
    assert_as_litert(file(tensors, operators))


def test_an_explicit_pad_stays_a_pad() -> None:
    tensors, conv = convolution(True)
    assert isinstance(conv.options, schema.Conv2DOptionsT)
    conv.options.padding = schema.Padding.VALID
    q = tensors[0].quant
    tensors = [activation("x", (1, 5, 6, 3), q), *tensors[1:3], activation("p", (1, 8, 8, 3), q), tensors[3]]
    tensors.append(constant("amounts", np.array([[0, 0], [1, 2], [1, 1], [0, 0]], np.int32)))
    conv = op(CODE.CONV_2D, "p w b", "c", conv.options, 3)
    graph = assert_as_litert(file(tensors, [op(CODE.PAD, "x amounts", "p"), conv], "c"))
    assert [node.op for node in graph.nodes] == ["pad", "conv2d"]


@pytest.mark.parametrize("q", [None, quant(0.05, -3)])
@pytest.mark.parametrize(
    ("amounts", "ops"), [((0, 0, 0, 0, 0, 0, 1, 2), ["pad_channels"]), ((0, 0, 1, 0, 0, 2, 3, 0), ["pad", "pad_channels"])]
)
def test_padded_channels(q: Quant | None, amounts: tuple[int, ...], ops: list[str]) -> None:
    shape = [side + sum(amounts[2 * axis : 2 * axis + 2]) for axis, side in enumerate((1, 6, 5, 3))]
    paddings = constant("p", np.array(amounts, np.int32).reshape(4, 2))
    tensors = [activation("x", (1, 6, 5, 3), q), paddings, activation("y", shape, q)]
    graph = assert_as_litert(file(tensors, [op(CODE.PAD, "x p", "y", schema.PadOptionsT())]))
    assert [node.op for node in graph.nodes] == ops


def test_a_normalisation_by_subtraction_and_division_is_a_table() -> None:
    tensors = [
        activation("x", (1, 4, 4, 3), dtype="uint8"),
        activation("f", (1, 4, 4, 3)),
        constant("mean", np.array([123.0, 117.0, 104.0], np.float32)),
        activation("d", (1, 4, 4, 3)),
        constant("std", np.array([58.0], np.float32)),
        activation("n", (1, 4, 4, 3)),
        activation("y", (1, 4, 4, 3), quant(0.02, 3)),
    ]
    operators = [
        op(CODE.CAST, "x", "f", schema.CastOptionsT(inDataType=3, outDataType=0), 1),
        op(CODE.SUB, "f mean", "d", schema.SubOptionsT()),
        op(CODE.DIV, "d std", "n", schema.DivOptionsT(), 1),
        op(CODE.QUANTIZE, "n", "y", schema.QuantizeOptionsT(), 1),
    ]
    graph, _ = read_tflite(file(tensors, operators))
    assert [node.op for node in graph.nodes] == ["table"]
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3) * np.uint8(5)
    assert_array_equal(reference.run(graph, image)["y"], judged(file(tensors, operators), image))


def test_the_quantisation_of_a_float_tensor_means_nothing() -> None:
    tensors, conv = convolution(False)
    tensors = [FileTensor(t.name, t.shape, t.dtype, t.data, quant(0.1, 3)) for t in tensors]
    assert_as_litert(file(tensors, [conv], "c"))


def test_bytes_at_both_ends_of_an_int8_network() -> None:
    """What converters write for uint8 inputs and outputs: QUANTIZE to int8, int8 kernels, QUANTIZE back."""
    tensors, conv = convolution(True)
    tensors = [
        activation("x", (1, 6, 6, 3), quant(0.05, 125), "uint8"),
        activation("q", (1, 6, 6, 3), quant(0.05, -3)),
        *tensors[1:],
    ]
    tensors.append(activation("y", (1, 6, 6, 4), quant(0.08, 135), "uint8"))
    conv = op(CODE.CONV_2D, "q w b", "c", conv.options, 3)
    data = file(tensors, [op(CODE.QUANTIZE, "x", "q"), conv, op(CODE.QUANTIZE, "c", "y")])
    graph, _ = read_tflite(data)
    assert not any(getattr(node.attrs, "unsigned", False) for node in graph.nodes)
    image = RNG.integers(0, 256, (1, 6, 6, 3)).astype(np.uint8)
    ours = reference.run(graph, (image ^ np.uint8(128)).view(np.int8))["y"]
    assert_array_equal(ours.view(np.uint8) ^ np.uint8(128), judged(data, image))


def test_an_open_batch_is_one(shared_data: Callable[[str], Path]) -> None:
    data = shared_data("resnet8_cifar10_int8.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    for tensor in model.subgraphs[0].tensors:
        if len(tensor.shape) == 4 and tensor.shape[0] == 1:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
    assert same(read_tflite(packed(model))[0], read_tflite(data)[0])


# ---- files that are refused ------------------------------------------------------------------------------------------------


def test_an_unknown_operator_is_named() -> None:
    tensors = [activation("x", (1, 4)), activation("y", (1, 4))]
    with pytest.raises(UnsupportedOp, match=r"here\.tflite: operator TANH at 'y'"):
        read_tflite(file(tensors, [op(CODE.TANH, "x", "y", None, 1)]), "here.tflite")


def test_a_fused_activation_that_is_not_held_is_named() -> None:
    tensors, conv = convolution(False)
    assert isinstance(conv.options, schema.Conv2DOptionsT)
    conv.options.fusedActivationFunction = schema.ActivationFunctionType.RELU_N1_TO_1
    with pytest.raises(UnsupportedOp, match="RELU_N1_TO_1"):
        read_tflite(file(tensors, [conv], "c"))


Change = Callable[[object], None]
DAMAGE: Mapping[str, Callable[[schema.ModelT], object]] = {
    "two subgraphs": lambda m: m.subgraphs.append(m.subgraphs[0]),
    "a tensor of 2**31 elements": lambda m: setattr(m.subgraphs[0].tensors[3], "shape", [1, 65536, 32768, 1]),
    "a negative side": lambda m: setattr(m.subgraphs[0].tensors[0], "shape", [1, -32, 32, 3]),
    "a tensor that does not exist": lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [999, 1, 2]),
    "a cycle": lambda m: setattr(m.subgraphs[0].operators[0], "inputs", [*m.subgraphs[0].operators[3].outputs, 8, 3]),
    "an output written twice": lambda m: setattr(m.subgraphs[0].operators[1], "outputs", m.subgraphs[0].operators[0].outputs),
    "a buffer of another size": lambda m: setattr(m.buffers[5], "data", m.buffers[5].data[:-1]),
    "a buffer that does not exist": lambda m: setattr(m.subgraphs[0].tensors[5], "buffer", 77_777),
    "an operator code that does not exist": lambda m: setattr(m.subgraphs[0].operators[0], "opcodeIndex", 500),
    "options of another operator": lambda m: vars(m.subgraphs[0].operators[0]).update(
        builtinOptionsType=5, builtinOptions=schema.Pool2DOptionsT()
    ),
    "a stride of 0": lambda m: setattr(m.subgraphs[0].operators[0].builtinOptions, "strideH", 0),
    "a scale of infinity": lambda m: setattr(m.subgraphs[0].tensors[0].quantization, "scale", [float("inf")]),
    "a scale of NaN": lambda m: setattr(m.subgraphs[0].tensors[0].quantization, "scale", [float("nan")]),
    "a zero point of 1000": lambda m: setattr(m.subgraphs[0].tensors[0].quantization, "zeroPoint", [1000]),
    "an image of an open size": lambda m: setattr(m.subgraphs[0].tensors[0], "shapeSignature", [1, -1, -1, 3]),
    "no inputs": lambda m: setattr(m.subgraphs[0], "inputs", []),
    "no outputs": lambda m: setattr(m.subgraphs[0], "outputs", []),
    "weights of 4 bits": lambda m: setattr(m.subgraphs[0].tensors[8], "type", schema.TensorType.INT4),
    "int16": lambda m: setattr(m.subgraphs[0].tensors[22], "type", schema.TensorType.INT16),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_an_error_that_names_the_file(name: str, shared_data: Callable[[str], Path]) -> None:
    data = shared_data("resnet8_cifar10_int8.tflite").read_bytes()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    DAMAGE[name](model)
    with pytest.raises(NestlingError, match=r"odd\.tflite"):
        read_tflite(packed(model), "odd.tflite")


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", b"\0" * 4 + b"TFL3" + b"\0" * 100, b"\xff" * 4 + b"TFL3" + b"\xff" * 100, b"PK" * 50]
)
def test_what_is_no_tflite_file(data: bytes) -> None:
    with pytest.raises(UnusableFile):
        read_tflite(data)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"nothing\.tflite"):
        read_tflite(tmp_path / "nothing.tflite")


def test_flipped_bytes_and_cut_files_give_errors_only(shared_data: Callable[[str], Path]) -> None:
    """Half the changes hit the structure at the end of the file, where flatbuffers keeps it."""
    whole = np.frombuffer(shared_data("resnet8_cifar10_int8.tflite").read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(300):
        damaged = whole.copy()
        low = 0 if rng.random() < 0.3 else len(whole) - 20_000
        places = rng.integers(low, len(whole), rng.integers(1, 9))
        damaged[places] = rng.choice(np.array([0, 1, 127, 128, 255, *rng.integers(0, 256, 5)], np.uint8), len(places))
        data = damaged.tobytes()
        if rng.random() < 0.1:
            data = data[: rng.integers(0, len(data))]
        try:
            read_tflite(data, "damaged.tflite")
            outcomes["read"] += 1
        except NestlingError as error:
            assert "damaged.tflite" in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10, json.dumps(outcomes)
