"""The .onnx file and its runner: what it says of itself, what is refused, what a profile shows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About
from nestling.formats.onnx.layer_times import layer_times
from nestling.formats.onnx.printing import print_graph
from nestling.formats.onnx.run import load, load_bytes
from nestling.formats.onnx.runtimes import Runtime
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.preprocess.image import of_photographs
from tests.formats.onnx.onnx_cases import RUNTIMES, SIXTEEN
from tests.helpers.quantization_cases import Everything, calibrated, captured, pictures, seeded

IMAGES = np.stack(pictures(3))
WHAT = About(("good", "bad apple", "süß 果物"), SIXTEEN.preprocess, 3, "ab")


@pytest.fixture(scope="module")
def graph() -> Graph:
    """int8, with a float head and the embedding as a second output."""
    body = calibrated(captured(seeded(Everything)), pictures(8))[0]
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(3, 12)).astype(np.float32), rng.normal(size=3).astype(np.float32))
    return with_head(body, head, features=True)


@pytest.fixture(scope="module")
def content(graph: Graph) -> bytes:
    return print_graph(graph, WHAT)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        return path

    return write


# ---- what it says ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_labels_preprocessing_and_origin_come_back(content: bytes, written: Callable[[bytes], Path], runtime: Runtime) -> None:
    runner = load(written(content), 1, runtime)
    assert (runner.labels, runner.preprocess, runner.about) == (WHAT.labels, WHAT.preprocess, WHAT)


def test_labels_that_are_not_its_scores_are_refused(graph: Graph) -> None:
    with pytest.raises(UnusableFile, match=r"x\.onnx gives 3 scores and names 2 classes"):
        load_bytes(print_graph(graph, replace(WHAT, labels=WHAT.labels[:2])), "x.onnx")


def test_other_tools_find_labels_and_shapes(content: bytes) -> None:
    model = onnx.load_model_from_string(content)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["labels"]) == list(WHAT.labels)
    onnx.checker.check_model(model, full_check=True)
    (image,), (logits, embedding) = model.graph.input, model.graph.output
    shapes = [[side.dim_value for side in value.type.tensor_type.shape.dim] for value in (image, logits, embedding)]
    assert (image.name, logits.name, shapes) == ("image", "logits", [[1, 16, 16, 3], [1, 3], [1, 12]])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_logits_are_the_heads_of_the_features(graph: Graph, content: bytes, runtime: Runtime) -> None:
    runner = load_bytes(content, "net.onnx", 1, runtime)
    weight, bias = graph.tensors["head.weight"].data, graph.tensors["head.bias"].data
    logits, features = runner(IMAGES), runner.features(IMAGES)
    assert logits.dtype == features.dtype == np.float32 and features.shape == (3, 12)
    np.testing.assert_allclose(logits, np.matmul(features, weight.T) + bias, rtol=1e-4, atol=1e-5)


def test_features_need_a_second_output_or_a_file_that_gives_them(graph: Graph) -> None:
    with pytest.raises(NestlingError, match="--features"):
        load_bytes(print_graph(replace(graph, outputs=("logits",)), WHAT), "net.onnx").features(IMAGES)
    backbone = load_bytes(print_graph(replace(graph, outputs=graph.outputs[1:]), replace(WHAT, gives="embedding")), "net.onnx")
    assert backbone.features(IMAGES).shape == (3, 12)
    with pytest.raises(NestlingError, match="not logits"):
        backbone(IMAGES)


@pytest.mark.parametrize("images", [IMAGES[:, :8], IMAGES.astype(np.float32)])
def test_images_of_another_kind_are_refused(content: bytes, images: np.ndarray) -> None:
    with pytest.raises(NestlingError, match=r"uint8 images of shape \(16, 16, 3\)"):
        load_bytes(content, "net.onnx")(images)


# ---- what is refused -------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnusableFile, match=r"none\.onnx"):
        load(tmp_path / "none.onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_damaged_files_are_named(content: bytes, written: Callable[[bytes], Path], runtime: Runtime) -> None:
    """Cut anywhere: an error that names the file. With bytes turned: that, or a file that still runs."""
    for length in (0, 1, 100, len(content) // 3, len(content) // 2, len(content) - 1):
        with pytest.raises(UnusableFile, match=r"net\.onnx"):
            load(written(content[:length]), 1, runtime)
    rng = np.random.default_rng(3)
    for _ in range(80):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        try:
            load(written(bytes(damaged)), 1, runtime)(IMAGES[:1])
        except UnusableFile as error:
            assert "net.onnx" in str(error)


def foreign(*constants: onnx.TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.ModelProto:
    """A sound model of somebody else's: one image in, its float bytes plus the constants out."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, (1, 16, 16, 3))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (1, 16, 16, 3))
    cast = helper.make_node("Cast", ["image"], ["number"], to=TensorProto.FLOAT)
    add = helper.make_node("Add", ["number", "shift"], ["out"])
    graph = helper.make_graph([cast, *nodes, add], "theirs", [image], [out], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


SHIFT = numpy_helper.from_array(np.ones(3, np.float32), "shift")


def test_a_file_of_others_is_refused(written: Callable[[bytes], Path]) -> None:
    with pytest.raises(UnusableFile, match="was not printed by nestling"):
        load(written(foreign(SHIFT).SerializeToString()))


@pytest.mark.parametrize("place", ["initialiser", "attribute"])
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_file_that_reads_other_files_is_refused(
    content: bytes, written: Callable[[bytes], Path], runtime: Runtime, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would run, the other file being there and everything else right."""
    outside = TensorProto(name="shift", data_type=TensorProto.FLOAT, dims=[3], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secret.bin")
    constant = helper.make_node("Constant", [], ["shift"], value=outside)
    model = foreign(outside) if place == "initialiser" else foreign(nodes=(constant,))
    model.metadata_props.extend(onnx.load_model_from_string(content).metadata_props)
    path = written(model.SerializeToString())
    (path.parent / "secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    monkeypatch.chdir(path.parent)
    with pytest.raises(UnusableFile, match="'shift' in another file"):
        load(path, 1, runtime)


def test_a_file_that_takes_other_images_than_it_says_is_refused(graph: Graph, written: Callable[[bytes], Path]) -> None:
    other = replace(WHAT, preprocess=replace(of_photographs(WHAT.preprocess), size=(16, 24)))
    with pytest.raises(UnusableFile, match=r"net\.onnx takes \[1, 16, 16, 3\]"):
        load(written(print_graph(graph, other)))


def test_a_wrong_word_in_what_it_says_is_named(content: bytes, written: Callable[[bytes], Path]) -> None:
    with pytest.raises(UnusableFile, match=r"net\.onnx"):
        load(written(content.replace(b"bicubic", b"bicubiq")))


# ---- the profile -----------------------------------------------------------------------------------------------------------------


def test_layer_times_name_the_graphs_nodes(graph: Graph, content: bytes) -> None:
    """Every convolution and every addition once, in running order, as integer kernels."""
    times = layer_times(content, 5, 1)
    lines = {time.name: time for time in times}
    kinds = {"conv2d": "QLinearConv", "depthwise_conv2d": "QLinearConv", "add": "QLinearAdd", "concat": "QLinearConcat"}
    nodes = [node for node in graph.nodes if node.op in kinds]
    assert [lines[node.name].kind for node in nodes] == [kinds[node.op] for node in nodes]
    assert all(sum(time.name == node.name for time in times) == 1 for node in nodes)
    assert all(0 < time.ms < 1000 for time in times)
    stem, last = nodes[0].name, "logits"
    assert [time.name for time in times].index(stem) < [time.name for time in times].index(last)


def test_layer_times_of_a_float_file_name_its_convolutions(graph: Graph) -> None:
    floats = captured(seeded(Everything))
    names = {time.name for time in layer_times(print_graph(floats, WHAT), 2, 1)}
    assert {node.name for node in floats.nodes if node.op == "depthwise_conv2d"} <= names
    assert not any("nchwc" in name for name in names)


# ---- manners ---------------------------------------------------------------------------------------------------------------------

PRINTING = """
import sys
import numpy as np
from nestling.graph import ir
from nestling.graph.ir import Graph, Node, Tensor
from nestling.preprocess.image import ImagePreprocess
from nestling.formats.onnx import printing, run
from nestling.formats.about import About
table = np.linspace(-1, 1, 256, dtype=np.float32)[None].repeat(3, 0)
tensors = [Tensor("image", (1, 8, 8, 3), "uint8"), Tensor("t", (3, 256), "float32", table), Tensor("x", (1, 8, 8, 3), "float32")]
tensors.append(Tensor("y", (1, 3), "float32"))
nodes = Node("table", ("image", "t"), ("x",), ir.Table()), Node("mean", ("x",), ("y",), ir.Mean())
what = About(("a", "b", "c"), ImagePreprocess((8, 8), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3))
printed = printing.print_graph(Graph({t.name: t for t in tensors}, nodes, ("image",), ("y",)), what)
assert "torch" not in sys.modules, "torch"
"""
RUNNING = """
for runtime in ("onnxruntime", "openvino"):
    answer = run.load_bytes(printed, "net.onnx", 1, runtime)(np.full((1, 8, 8, 3), 255, np.uint8))
    assert np.abs(answer - 1).max() < 1e-5, answer
"""


def test_printing_needs_no_torch_and_running_is_silent_and_writes_nothing(tmp_path: Path) -> None:
    """In a home of its own: OpenVINO's telemetry would leave a file there."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PRINTING + RUNNING], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
