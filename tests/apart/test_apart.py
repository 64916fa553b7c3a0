"""Files that make a runtime end, hang or take all memory: an error that names the file, and the one that asked goes on."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nestling import formats
from nestling.apart import messages, runner
from nestling.apart.process import Limits
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About, to_json
from nestling.measure.bench import bench
from tests.helpers.seeds import PREPROCESS, tflite_files

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
ENDLESS = 2**60


@pytest.fixture(scope="module")
def whole() -> bytes:
    return tflite_files(shared=False)["int8"]


@pytest.fixture
def aborting(whole: bytes, tmp_path: Path) -> Path:
    """An int8 sum that does not say its scale: LiteRT's XNNPACK aborts the process."""
    model = schema.ModelT.InitFromPackedBuf(whole, 0)
    next(tensor for tensor in model.subgraphs[0].tensors if tensor.name == b"s").quantization = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "aborts.tflite"
    path.write_bytes(bytes(builder.Output()))
    return path


def onnx_file(path: Path, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> Path:
    """Of an image 8 x 8 whose mean colour "m" [1, 3] the nodes take, to "out" [1, 3]."""
    first = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0),
    ]
    graph = helper.make_graph(
        first + nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(value, name) for name, value in {"axes": np.array([1, 2]), **constants}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    helper.set_model_props(model, {"nestling": to_json(About(("a", "b", "c"), PREPROCESS))})
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    def value(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("v", TensorProto.FLOAT, [1, 3])],
        [value("on", TensorProto.BOOL, []), value("w", TensorProto.FLOAT, [1, 3])],
    )
    loop = helper.make_node("Loop", ["times", "true", "m"], ["out"], body=body)
    return onnx_file(tmp_path / "endless.onnx", [loop], times=np.array(ENDLESS), true=np.array(True))


@pytest.fixture
def greedy(tmp_path: Path) -> Path:
    """1 GB for a sum."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["many"], ["large"], value=one),
        helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=0),
        helper.make_node("Add", ["m", "sum"], ["out"]),
    ]
    return onnx_file(tmp_path / "greedy.onnx", nodes, many=np.array([1 << 28]))


def is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_file_answers_as_it_does_in_this_process(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.tflite"
    path.write_bytes(whole)
    there, here = runner.load(path), formats.load(path)
    np.testing.assert_array_equal(there(IMAGES), here(IMAGES))
    assert (there.labels, there.preprocess) == (here.labels, here.preprocess)
    with pytest.raises(NestlingError, match=r"x\.tflite.* gives logits only"):
        there.features(IMAGES)
    with pytest.raises(NestlingError, match=r"x\.tflite takes uint8 images"):
        there(IMAGES[:, :7])
    np.testing.assert_array_equal(there(IMAGES[:1]), here(IMAGES[:1]))  # it has gone on


@pytest.mark.parametrize("use", [runner.load, runner.start, lambda path: bench([path], rounds=1, noise=False)])
def test_a_runtime_that_aborts_is_an_error(aborting: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(UnusableFile, match=r"aborts\.tflite cannot be run by LiteRT.*SIGABRT") as caught:
        use(aborting)
    assert caught.value.hint


def test_an_endless_loop_is_ended(endless: Path) -> None:
    loaded = runner.start(endless, within=Limits(seconds=2))
    process = loaded.process._process.pid
    with pytest.raises(UnusableFile, match=r"endless\.onnx gave no answer within 2 seconds in ONNX Runtime") as caught:
        loaded(IMAGES)
    assert "NESTLING_SECONDS" in caught.value.hint and is_gone(process)
    with pytest.raises(UnusableFile, match=r"endless\.onnx"):
        loaded(IMAGES)


def test_one_that_takes_too_much_memory_is_ended(greedy: Path) -> None:
    with pytest.raises(UnusableFile, match=r"greedy\.onnx takes more than 0\.4 GB of memory in ONNX Runtime") as caught:
        runner.start(greedy, within=Limits(memory=400_000_000))(IMAGES)
    assert "NESTLING_MEMORY" in caught.value.hint


def test_it_ends_with_the_one_that_asks_even_where_that_is_killed(endless: Path) -> None:
    """Within the loop it looks for no message, and would go on for ever."""
    program = (
        "import sys, numpy; from pathlib import Path; from nestling.apart import runner\n"
        "loaded = runner.start(Path(sys.argv[1]))\n"
        "print(loaded.process._process.pid, flush=True)\n"
        "loaded(numpy.zeros((1, 8, 8, 3), numpy.uint8))\n"
    )
    asking = subprocess.Popen([sys.executable, "-c", program, endless], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    process = int(asking.stdout.readline())
    assert not is_gone(process)
    asking.kill()
    asking.wait()
    for _ in range(600):
        if is_gone(process):
            break
        time.sleep(0.1)
    assert is_gone(process)


def test_ctrl_c_ends_both(endless: Path) -> None:
    program = (
        "import os, signal, sys, threading, numpy; from pathlib import Path; from nestling.apart import runner\n"
        "loaded = runner.start(Path(sys.argv[1]))\n"
        "print(loaded.process._process.pid, flush=True)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # which what runs in the background does not have\n"
        "threading.Timer(1, os.killpg, (0, signal.SIGINT)).start()\n"
        "loaded(numpy.zeros((1, 8, 8, 3), numpy.uint8))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, endless], capture_output=True, text=True, start_new_session=True)
    assert ended.returncode == -signal.SIGINT and "KeyboardInterrupt" in ended.stderr and is_gone(int(ended.stdout))


def test_nothing_of_the_current_folder_is_run(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m` looks there first."""
    (tmp_path / "x.tflite").write_bytes(whole)
    for module in ("numpy", "nestling", "json", "torch"):
        (tmp_path / f"{module}.py").write_text(f"open('{tmp_path}/ran', 'w')")
    monkeypatch.chdir(tmp_path)
    bench([Path("x.tflite")], rounds=1, noise=False)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["NESTLING_SECONDS", "NESTLING_MEMORY"])
@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_limits_that_are_none_are_told(
    name: str, value: str, whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.tflite").write_bytes(whole)
    monkeypatch.setenv(name, value)
    with pytest.raises(NestlingError, match=name):
        runner.load(tmp_path / "x.tflite")


# ---- messages ------------------------------------------------------------------------------------------------------------------


def taking(content: bytes) -> Callable[[int], bytes]:
    left = [content]

    def take(count: int) -> bytes:
        taken, left[0] = left[0][:count], left[0][count:]
        if len(taken) < count:
            raise ValueError("no more")
        return taken

    return take


def test_a_message_arrives_as_it_was_sent() -> None:
    arrays: list[NDArray[Any]] = [IMAGES[::2, ::-1], np.array(1.5, np.float32), np.zeros((0, 3), np.int64), np.array([True])]
    value, found = messages.unpacked(taking(messages.packed({"ü": [1, None, "\ud800"]}, arrays)))
    assert value == {"ü": [1, None, "\ud800"]}
    for one, other in zip(arrays, found, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "arrays", ['[["|O", [1]]]', '[["<f4", [-1]]]', '[["<f4", [99999999, 99999999]]]', '[["|V8", [1]]]', '[["x", [1]]]', "[1]", "7"]
)
def test_what_is_no_message_is_refused(arrays: str) -> None:
    text = f'{{"value": 1, "arrays": {arrays}}}'.encode()
    with pytest.raises(ValueError):
        messages.unpacked(taking(len(text).to_bytes(8, "little") + text + bytes(64)))
    with pytest.raises(ValueError):
        messages.unpacked(taking(b"\xff" * 64))
