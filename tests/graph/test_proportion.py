"""Small files that claim much: what they share is counted as often as it would be copied, and refused before it is."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from nestling.errors import NestlingError, UnusableFile
from nestling.formats.tflite import metadata as tflite_metadata
from nestling.formats.tflite.flatbuffer import FileTensor, Listing, Operator, write
from nestling.formats.tflite.read import read_tflite
from nestling.graph import ir, reference, spec, windows
from nestling.graph.file import from_plain, to_plain
from nestling.graph.ir import Array, Graph, Node, Tensor
from tests.helpers.seeds import small_graph

CODE = schema.BuiltinOperator
MIB = 2**20


def peak(read: Callable[[], object]) -> int:
    """The most bytes that Python held while something was refused."""
    tracemalloc.start()
    with pytest.raises(NestlingError):
        read()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def vector(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    return int(b.EndVector())


def shared(tensors: int, scales: int, name: str, metadata: int = 0, entry: str = "") -> bytes:
    """A file of many tensors, all of which are the same few bytes: one table, one name, one vector of scales."""
    b = flatbuffers.Builder(1024)
    text, entry_text = b.CreateString(name), b.CreateString(entry)
    shape, scale = b.CreateNumpyVector(np.array([1, scales], np.int32)), b.CreateNumpyVector(np.ones(scales, np.float32))
    schema.QuantizationParametersStart(b)
    schema.QuantizationParametersAddScale(b, scale)
    schema.QuantizationParametersAddQuantizedDimension(b, 1)
    quant = schema.QuantizationParametersEnd(b)
    schema.TensorStart(b)
    schema.TensorAddShape(b, shape)
    schema.TensorAddName(b, text)
    schema.TensorAddQuantization(b, quant)
    tensor = schema.TensorEnd(b)
    listed = vector(b, [tensor] * tensors)
    schema.SubGraphStart(b)
    schema.SubGraphAddTensors(b, listed)
    graphs = vector(b, [schema.SubGraphEnd(b)])
    schema.BufferStart(b)
    buffers = vector(b, [schema.BufferEnd(b)])
    schema.MetadataStart(b)
    schema.MetadataAddName(b, entry_text)
    entries = vector(b, [schema.MetadataEnd(b)] * metadata)
    schema.ModelStart(b)
    schema.ModelAddVersion(b, 3)
    schema.ModelAddSubgraphs(b, graphs)
    schema.ModelAddBuffers(b, buffers)
    schema.ModelAddMetadata(b, entries)
    b.Finish(schema.ModelEnd(b), file_identifier=b"TFL3")
    return bytes(b.Output())


@pytest.mark.parametrize(
    "data",
    [shared(3_000, 20_000, "t"), shared(40_000, 1, "t" * 4_000)],
    ids=["one vector of scales", "one name"],
)
def test_tensors_that_share_bytes(data: bytes) -> None:
    assert peak(lambda: read_tflite(data)) < 40 * len(data) + 30 * MIB < 2**28


def test_metadata_that_shares_a_name() -> None:
    """So many entries are not gone through, and a name of a megabyte is nobody's."""
    with pytest.raises(UnusableFile, match="100000 entries"):
        tflite_metadata.about(shared(1, 1, "t", 100_000, "n" * MIB), "x.tflite")
    assert tflite_metadata.read_entries(shared(1, 1, "t", 200, "n" * MIB)) == {}


def constant(name: str, data: Array) -> FileTensor:
    return FileTensor(name, data.shape, str(data.dtype), data, None)


def listing(tensors: Sequence[FileTensor], operators: Sequence[Operator], out: str) -> bytes:
    return write(Listing({t.name: t for t in tensors}, tuple(operators), ("x",), (out,)), {})


def test_constants_that_are_computed_again_and_again() -> None:
    """One weight in half precision, made float32 by 200 operators."""
    x, half = FileTensor("x", (1, 64), "float32", None, None), constant("half", np.zeros((512, 512), np.float16))
    made = [FileTensor(f"w{i}", (512, 512), "float32", None, None) for i in range(200)]
    data = listing([x, half, *made], [Operator(CODE.DEQUANTIZE, ("half",), (t.name,), None, 2) for t in made], "w199")
    assert peak(lambda: read_tflite(data)) < 90 * len(data) < 200 * 2**20


def test_constants_that_are_subtracted_again_and_again() -> None:
    """Each SUB makes a negative of its own of the one large constant."""
    shape = (1, 32, 32, 64)
    values = [FileTensor(f"y{i}", shape, "float32", None, None) for i in range(400)]
    x, c = FileTensor("x", shape, "float32", None, None), constant("c", np.ones(shape, np.float32))
    inputs = ["x", *(value.name for value in values)]
    operators = [Operator(CODE.SUB, (inputs[i], "c"), (value.name,), schema.SubOptionsT(), 2) for i, value in enumerate(values)]
    data = listing([x, c, *values], operators, "y399")
    assert peak(lambda: read_tflite(data)) < 100 * len(data) < 2**27


def chain(count: int, weight: Array) -> Graph:
    """So many layers, all with the same weight."""
    tensors = {"x0": Tensor("x0", (1, len(weight)), "float32"), "w": Tensor("w", weight.shape, "float32", weight)}
    nodes = []
    for i in range(1, count + 1):
        tensors[f"x{i}"] = Tensor(f"x{i}", (1, len(weight)), "float32")
        nodes.append(Node("fully_connected", (f"x{i - 1}", "w"), (f"x{i}",), ir.FullyConnected()))
    return Graph(tensors, tuple(nodes), ("x0",), (f"x{count}",))


def test_layers_that_share_a_weight() -> None:
    """A few may; where thousands do, passes would give each its own."""
    weight = np.zeros((256, 256), np.float32)
    from_plain(*to_plain(chain(20, weight)))
    with pytest.raises(UnusableFile, match="more than 64 times"):
        from_plain(*to_plain(chain(2_000, weight)))
    with pytest.raises(UnusableFile, match="at most 10000"):
        from_plain(*to_plain(chain(spec.MAX_NODES + 1, np.zeros((1, 1), np.float32))))


def test_activations_that_no_memory_holds() -> None:
    """Nothing but its shape stands in the file."""
    graph = chain(1, np.zeros((1, 1), np.float32))
    plain, arrays = to_plain(graph)
    for tensor in plain["tensors"]:
        tensor["shape"] = tensor["shape"] if tensor["constant"] else [1, 2**14, 2**13, 1]
    with pytest.raises(UnusableFile, match="an activation has at most"):
        from_plain(plain, arrays)


@pytest.mark.parametrize(
    ("size", "padding", "channels", "reason"),
    [
        ((2**15, 2**15), (2**15 - 1,) * 4, 64, "elements"),
        ((8, 2**16), (0, 0, 2**16 - 1, 2**16 - 1), 64, "elements"),
        ((1_999, 1_999), (1_998,) * 4, 1, "see too much"),
    ],
)
def test_windows_that_no_memory_holds_or_that_never_end(size: ir.Pair, padding: ir.Sides, channels: int, reason: str) -> None:
    x, y = (Tensor(name, (1, 64, 64, channels), "float32") for name in "xy")
    for op, attrs in (("average_pool", ir.AveragePool(size, (1, 1), padding)), ("max_pool", ir.MaxPool(size, (1, 1), padding))):
        with pytest.raises(UnusableFile, match=reason):
            spec.check(Graph({"x": x, "y": y}, (Node(op, ("x",), ("y",), attrs),), ("x",), ("y",)))


@pytest.mark.parametrize("integer", [False, True])
def test_large_convolutions_are_computed_in_bands(integer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same answers as at once."""
    graph = small_graph(integer)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    whole = reference.run(graph, images)
    monkeypatch.setattr(windows, "MOST_COPIED", 100)
    for name, answer in reference.run(graph, images).items():
        np.testing.assert_allclose(answer, whole[name], rtol=1e-5, atol=0 if integer else 1e-5)


@pytest.mark.parametrize(
    ("epsilon", "variance", "fine"), [(1e-5, 0.0, True), (1e-5, -1e-6, False), (0.0, 0.0, False), (0.0, 1.0, True)]
)
def test_variances(epsilon: float, variance: float, fine: bool) -> None:
    """As many channels as there are may be dead; none has a negative variance, or a deviation of 0 to divide by."""
    vectors = {name: Tensor(name, (2,), "float32", np.ones(2, np.float32)) for name in ("gamma", "beta", "mean")}
    vectors["variance"] = Tensor("variance", (2,), "float32", np.array([1, variance], np.float32))
    ends = {name: Tensor(name, (1, 2), "float32") for name in ("x", "y")}
    node = Node("batch_norm", ("x", *vectors), ("y",), ir.BatchNorm(epsilon))
    graph = Graph(ends | vectors, (node,), ("x",), ("y",))
    if fine:
        assert spec.check(graph) is graph
    else:
        with pytest.raises(UnusableFile, match="'variance' holds variances"):
            spec.check(graph, "x.nest")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_constants_are_finite(value: float) -> None:
    graph = chain(1, np.array([[value]], np.float32))
    with pytest.raises(UnusableFile, match=r"x\.nest: tensor 'w': it holds numbers that are not finite"):
        spec.check(graph, "x.nest")


def test_an_imported_constant_is_finite() -> None:
    x = FileTensor("x", (1, 2), "float32", None, None)
    weight = constant("layer/kernel", np.array([[1, np.nan]], np.float32))
    operator = Operator(CODE.FULLY_CONNECTED, ("x", "layer/kernel"), ("y",), schema.FullyConnectedOptionsT(), 2)
    data = listing([x, weight, FileTensor("y", (1, 1), "float32", None, None)], [operator], "y")
    with pytest.raises(UnusableFile, match=r"'layer/kernel'.* not finite"):
        read_tflite(data, "x.tflite")
