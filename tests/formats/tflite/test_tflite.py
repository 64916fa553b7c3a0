"""The .tflite printer and runner. Judges: LiteRT's kernels, NumPy float arithmetic, and the standard's own flatbuffer readers."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types
from numpy.typing import NDArray

from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read_builder import DTYPES
from nestling.formats.tflite.run import Kernels
from nestling.graph import ir
from nestling.graph.ir import Array, Graph, Node, Quant, Tensor
from nestling.preprocess.image import ImagePreprocess, to_plain
from nestling.preprocess.pictures import Reading

RNG = np.random.default_rng(0)
KERNELS = ("reference", "builtin", "default")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5,) * 3, (0.5,) * 3)
RANDOM = [(tuple(RNG.uniform(0, 1, 3)), tuple(RNG.uniform(0.05, 1, 3))) for _ in range(6)]


# ---- the table op ---------------------------------------------------------------------------------------------------------------


def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """(v / 255 - mean) / std for the 256 bytes: float64 [C, 256]."""
    return (np.arange(256) / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]


def fitting(real: Array, share: float = 1.0) -> Quant:
    """256 steps over a share of the values' range; under 1 the largest saturate."""
    low, high = min(float(real.min()), 0.0) * share, max(float(real.max()), 0.0) * share
    scale = np.float32((high - low) / 255)
    zero_point = int(np.clip(np.round(-128 - low / scale), -128, 127))
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int32))


def steps(real: Array, quant: Quant) -> Array:
    return np.clip(np.round(real / quant.scale[0]) + quant.zero_point[0], -128, 127).astype(np.int8)


def table_graph(table: Array, quant: Quant | None) -> Graph:
    """uint8 [1, 16, 16, C] -> table; the image that holds every byte in every channel is `every_byte`."""
    shape, dtype = (1, 16, 16, len(table)), DTYPES[table.dtype.name]
    tensors = (
        Tensor("image", shape, "uint8"),
        Tensor("table", table.shape, dtype, table, quant),
        Tensor("out", shape, dtype, None, quant),
    )
    return Graph({t.name: t for t in tensors}, (Node("table", ("image", "table"), ("out",), ir.Table()),), ("image",), ("out",))


def every_byte(channels: int) -> Array:
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), channels, axis=3)


def answered(graph: Graph, kernels: Kernels) -> Array:
    """[C, 256]: what LiteRT answers to every byte."""
    channels = graph.tensors["image"].shape[3]
    (out,) = tflite_run.run(tflite.print_graph(graph), [every_byte(channels)], kernels)
    return out.reshape(256, channels).T


def operators(model: bytes) -> list[int]:
    root = schema.Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)
    return [root.OperatorCodes(graph.Operators(i).OpcodeIndex()).BuiltinCode() for i in range(graph.OperatorsLength())]


@pytest.mark.kernels
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("share", [1.0, 0.6])
@pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALF, ((0.2,), (0.3,)), *RANDOM])
def test_every_entry_of_an_int8_table_is_exact(
    mean: tuple[float, ...], std: tuple[float, ...], share: float, kernels: Kernels
) -> None:
    real = normalised(mean, std)
    quant = fitting(real, share)
    table = steps(real, quant)
    graph = table_graph(table, quant)
    np.testing.assert_array_equal(answered(graph, kernels), table)
    assert schema.BuiltinOperator.GATHER not in operators(tflite.print_graph(graph))  # a normalisation is cheap arithmetic


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("mean", "std"), [IMAGENET, HALF, ((0.2,), (0.3,)), *RANDOM])
def test_every_entry_of_a_float_table_is_met(mean: tuple[float, ...], std: tuple[float, ...], kernels: Kernels) -> None:
    table = normalised(mean, std).astype(np.float32)
    np.testing.assert_allclose(answered(table_graph(table, None), kernels), table, rtol=0, atol=1e-6 * np.abs(table).max())


@pytest.mark.kernels
@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_table_of_any_values_is_exact(dtype: str, kernels: Kernels) -> None:
    table = RNG.integers(-128, 128, (3, 256)).astype(dtype)
    quant = Quant(np.array([0.02], np.float32), np.array([-3], np.int32)) if dtype == "int8" else None
    np.testing.assert_array_equal(answered(table_graph(table, quant), kernels), table)


def test_one_entry_that_is_off_the_line_is_kept() -> None:
    """The printer must not call a table affine because it nearly is."""
    real = normalised(*IMAGENET)
    quant = fitting(real)
    table = steps(real, quant)
    table[1, 100] += 2
    np.testing.assert_array_equal(answered(table_graph(table, quant), "reference"), table)


# ---- a small network ------------------------------------------------------------------------------------------------------------


def network(size: int = 8, classes: int = 3) -> Graph:
    """uint8 image -> table -> conv (padding of its own) -> depthwise (SAME) -> max_pool (of its own) -> mean -> fully_connected."""
    rng = np.random.default_rng(1)
    half, quarter = (size + 1) // 2, ((size + 1) // 2 + 1) // 2

    def weight(name: str, *shape: int) -> Tensor:
        return Tensor(name, shape, "float32", rng.normal(size=shape).astype(np.float32) / 4)

    tensors = (
        Tensor("image", (1, size, size, 3), "uint8"),
        Tensor("table", (3, 256), "float32", normalised(*IMAGENET).astype(np.float32)),
        Tensor("x", (1, size, size, 3), "float32"),
        weight("conv.weight", 32, 3, 3, 3),
        weight("conv.bias", 32),
        Tensor("conv", (1, half, half, 32), "float32"),
        weight("dw.weight", 1, 3, 3, 32),
        weight("dw.bias", 32),
        Tensor("dw", (1, half, half, 32), "float32"),
        Tensor("pool", (1, quarter, quarter, 32), "float32"),
        Tensor("embedding", (1, 32), "float32"),
        weight("head.weight", classes, 32),
        weight("head.bias", classes),
        Tensor("logits", (1, classes), "float32"),
    )
    nodes = (
        Node("table", ("image", "table"), ("x",), ir.Table()),
        Node("conv2d", ("x", "conv.weight", "conv.bias"), ("conv",), ir.Conv2d((2, 2), padding=(1, 1, 1, 1), clamp="relu6")),
        Node("depthwise_conv2d", ("conv", "dw.weight", "dw.bias"), ("dw",), ir.DepthwiseConv2d(padding=(1, 1, 1, 1))),
        Node("max_pool", ("dw",), ("pool",), ir.MaxPool((3, 3), (2, 2), (1, 1, 1, 1))),
        Node("mean", ("pool",), ("embedding",), ir.Mean()),
        Node("fully_connected", ("embedding", "head.weight", "head.bias"), ("logits",), ir.FullyConnected()),
    )
    return Graph({t.name: t for t in tensors}, nodes, ("image",), ("logits", "embedding"))


def images(count: int, size: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(2).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


def torch_answer(graph: Graph, pictures: NDArray[np.uint8]) -> tuple[Array, Array]:
    """The same network in torch: (logits, embedding)."""
    import torch
    import torch.nn.functional as F  # noqa: N812  # torch's own habit

    t = {name: torch.from_numpy(tensor.data) for name, tensor in graph.tensors.items() if tensor.data is not None}
    x = torch.stack([t["table"][c][torch.from_numpy(pictures[..., c].astype(np.int64))] for c in range(3)], dim=1)
    x = F.conv2d(x, t["conv.weight"].permute(0, 3, 1, 2), t["conv.bias"], stride=2, padding=1).clamp(0, 6)
    x = F.conv2d(x, t["dw.weight"].permute(3, 0, 1, 2), t["dw.bias"], padding=1, groups=32)
    embedding = F.max_pool2d(x, 3, 2, 1).mean((2, 3))
    return (embedding @ t["head.weight"].T + t["head.bias"]).numpy(), embedding.numpy()


@pytest.fixture
def printed(tmp_path: Path) -> Callable[..., Path]:
    def to_file(graph: Graph, *args: Any, **kwargs: Any) -> Path:
        path = tmp_path / "net.tflite"
        path.write_bytes(tflite.print_graph(graph, *args, **kwargs))
        return path

    return to_file


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("precision", "tolerance"), [("as-is", 1e-5), ("fp16", 2e-3), ("dynamic", 3e-2)])
def test_float_precisions_answer_as_torch(printed: Callable[..., Path], precision: str, tolerance: float, kernels: Kernels) -> None:
    graph, pictures = network(size=9), images(5, 9)
    runner = tflite_run.load(printed(graph, precision), kernels)
    for ours, judge in zip((runner(pictures), runner.features(pictures)), torch_answer(graph, pictures), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, judge, rtol=0, atol=tolerance * np.abs(judge).max())


def test_smaller_precisions_are_smaller() -> None:
    """Constants of 2 bytes and of 1 byte, not 4; with 32 weights a channel, its scale and bias are a third of the int8 file."""
    graph = network(size=8, classes=5000)
    sizes = {precision: len(tflite.print_graph(graph, precision)) for precision in ("as-is", "fp16", "dynamic")}
    assert sizes["fp16"] < 0.53 * sizes["as-is"]
    assert sizes["dynamic"] < 0.4 * sizes["as-is"]


def test_fp16_leaves_what_half_precision_cannot_hold() -> None:
    graph = network()
    huge = replace(graph.tensors["head.bias"], data=np.full(3, 1e5, np.float32))
    (logits, _) = tflite_run.run(
        tflite.print_graph(replace(graph, tensors={**graph.tensors, "head.bias": huge}), "fp16"), [images(1)]
    )
    np.testing.assert_allclose(logits, 1e5, rtol=1e-3)


def test_the_same_graph_gives_the_same_bytes() -> None:
    assert tflite.print_graph(network(), labels=("a", "b", "c")) == tflite.print_graph(network(), labels=("a", "b", "c"))


def test_constants_are_aligned_to_16_bytes() -> None:
    model = tflite.print_graph(network())
    root = schema.Model.GetRootAs(model, 0)
    for i in range(root.BuffersLength()):
        buffer = root.Buffers(i)
        if not buffer.DataIsNone():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0


def test_tensor_names_are_kept() -> None:
    graph = network()
    found = tflite_run.activations(tflite.print_graph(graph), [images(1)])
    assert {"x", "conv", "dw", "pool", "embedding", "logits"} <= found.keys()
    np.testing.assert_allclose(found["embedding"], torch_answer(graph, images(1))[1], rtol=1e-4)


# ---- what the file says about itself ---------------------------------------------------------------------------------------------

LABELS = ("good", "bad apple", "süß 果物")
PREPROCESS = ImagePreprocess((8, 8), 3, 0.875, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), Reading(4095, "srgb"))


def test_labels_and_preprocessing_come_back(printed: Callable[..., Path]) -> None:
    runner = tflite_run.load(
        printed(network(), labels=LABELS, preprocess=to_plain(PREPROCESS), learned_from={"seed": 3, "data": "ab"})
    )
    assert runner.labels == LABELS
    assert runner.preprocess == PREPROCESS
    assert runner.about is not None and (runner.about.seed, runner.about.data) == (3, "ab")


@pytest.mark.parametrize("labels", [(), LABELS[:2], (*LABELS, "more")])
def test_labels_that_are_not_its_scores_are_refused(labels: tuple[str, ...], printed: Callable[..., Path]) -> None:
    with pytest.raises(UnusableFile, match=rf"net\.tflite gives 3 scores and names {len(labels)} classes"):
        tflite_run.load(printed(network(), labels=labels, preprocess=to_plain(PREPROCESS)))


def test_labels_are_a_file_in_a_zip_behind_the_model(printed: Callable[..., Path]) -> None:
    with zipfile.ZipFile(printed(network(), labels=LABELS)) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(LABELS)
        assert archive.testzip() is None


def test_the_standard_metadata_says_image_and_labels() -> None:
    """Walks the flatbuffer by the field numbers of metadata_schema.fbs."""
    graph = network()
    model = tflite.print_graph(graph, labels=LABELS, name="apples")
    root = schema.Model.GetRootAs(model, 0)
    entries = {root.Metadata(i).Name(): root.Metadata(i).Buffer() for i in range(root.MetadataLength())}
    content = root.Buffers(entries[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()
    assert content[4:8] == b"M001"
    metadata = Table(content)
    assert (metadata.text(0), metadata.text(7)) == ("apples", "1.0.0")
    (subgraph,) = metadata.tables(3)
    (image,), (logits, embedding) = subgraph.tables(2), subgraph.tables(3)
    assert (image.text(0), logits.text(0), embedding.text(0)) == ("image", "logits", "embedding")
    assert (image.table(3).byte(0), image.table(3).table(1).byte(0)) == (2, 1)  # ImageProperties, RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions: the network takes bytes, there is nothing left to do
    assert [unit.table(1).floats(i) for i in (0, 1)] == [[0, 0, 0], [1, 1, 1]]
    (labels,) = logits.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert embedding.tables(6) == []


class Table:
    """A flatbuffer table, read by field numbers."""

    def __init__(self, content: bytes, position: int | None = None) -> None:
        start = flatbuffers.encode.Get(number_types.UOffsetTFlags.packer_type, content, 0) if position is None else position
        self.tab = flatbuffers.table.Table(content, start)

    def at(self, field: int) -> int:
        return self.tab.Offset(4 + 2 * field)

    def text(self, field: int) -> str:
        return self.tab.String(self.at(field) + self.tab.Pos).decode()

    def byte(self, field: int) -> int:
        return self.tab.Get(number_types.Int8Flags, self.at(field) + self.tab.Pos)

    def table(self, field: int) -> "Table":
        return Table(self.tab.Bytes, self.tab.Indirect(self.at(field) + self.tab.Pos))

    def tables(self, field: int) -> list["Table"]:
        if not self.at(field):
            return []
        start = self.tab.Vector(self.at(field))
        return [Table(self.tab.Bytes, self.tab.Indirect(start + 4 * i)) for i in range(self.tab.VectorLen(self.at(field)))]

    def floats(self, field: int) -> list[float]:
        return self.tab.GetVectorAsNumpy(number_types.Float32Flags, self.at(field)).tolist()


# ---- what cannot be done --------------------------------------------------------------------------------------------------------


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """Cut anywhere, or with bytes turned: an error that names the file, or a file that still runs."""
    whole, path = tflite.print_graph(network(), labels=LABELS, preprocess=to_plain(PREPROCESS)), tmp_path / "broken.tflite"
    rng = np.random.default_rng(3)
    for content in (b"", b"TFL3", b"PK" + whole, whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(UnusableFile, match=r"broken\.tflite"):
            tflite_run.load(path)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[rng.integers(8, len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            tflite_run.load(path)
        except UnusableFile as error:
            assert "broken.tflite" in str(error)


def test_a_damaged_entry_is_named(printed: Callable[..., Path]) -> None:
    path = printed(network(), labels=("first", "second", "third"))
    path.write_bytes(path.read_bytes().replace(b'"labels": [', b'"labels": {'))
    with pytest.raises(UnusableFile, match=r"net\.tflite"):
        tflite_run.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"none\.tflite"):
        tflite_run.load(tmp_path / "none.tflite")


def test_features_need_a_second_output(printed: Callable[..., Path]) -> None:
    runner = tflite_run.load(printed(replace(network(), outputs=("logits",))))
    with pytest.raises(NestlingError, match="--features"):
        runner.features(images(1))


def test_images_of_another_size_are_refused(printed: Callable[..., Path]) -> None:
    with pytest.raises(NestlingError, match=r"\(8, 8, 3\)"):
        tflite_run.load(printed(network()))(images(1, 9))


def test_an_int8_graph_has_one_precision() -> None:
    quant = fitting(normalised(*HALF))
    with pytest.raises(NestlingError, match="fp16"):
        tflite.print_graph(table_graph(steps(normalised(*HALF), quant), quant), "fp16")


def test_padding_that_an_average_cannot_leave_out_is_refused() -> None:
    tensors = (Tensor("x", (1, 8, 8, 1), "float32"), Tensor("y", (1, 4, 4, 1), "float32"))
    pool = Node("average_pool", ("x",), ("y",), ir.AveragePool((3, 3), (2, 2), (1, 0, 1, 0)), source="stem.pool")
    with pytest.raises(UnsupportedOp, match=r"stem\.pool"):
        tflite.print_graph(Graph({t.name: t for t in tensors}, (pool,), ("x",), ("y",)))


def test_a_file_of_others_runs_without_labels(shared_data: Callable[[str], Path]) -> None:
    """Published int8 files: image bytes less 128 go in, real numbers come out."""
    runner = tflite_run.load(shared_data("vww_96_int8.tflite"))
    assert runner.about is None
    with pytest.raises(NestlingError, match="does not say how an image is made"):
        _ = runner.preprocess
    answers = runner(np.random.default_rng(4).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8))
    assert answers.shape == (2, 2)
    np.testing.assert_allclose(answers.sum(axis=1), 1, atol=0.01)  # a softmax


def test_importing_and_printing_need_no_torch() -> None:
    script = """
import json, sys
import numpy as np
from nestling.graph import ir
from nestling.graph.ir import Graph, Node, Tensor
from nestling.formats.tflite.printing import print_graph
weight = np.ones((2, 4), np.float32)
tensors = [Tensor("x", (1, 4), "float32"), Tensor("w", (2, 4), "float32", weight), Tensor("y", (1, 2), "float32")]
graph = Graph({t.name: t for t in tensors}, (Node("fully_connected", ("x", "w"), ("y",), ir.FullyConnected()),), ("x",), ("y",))
printed = print_graph(graph, labels=("a", "b"))
print(json.dumps([len(printed), "torch" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    size, torch_is_there = json.loads(done.stdout.strip().splitlines()[-1])
    assert size > 200 and not torch_is_there
