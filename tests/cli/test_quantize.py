"""quantize on the command line: what is in the bundle is judged by LiteRT on the printed file, and by torch."""

import json
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.formats.nest.floats import float_runner
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph import spec
from nestling.graph.ends import with_head
from tests.helpers.commands import Nestling


@pytest.fixture(scope="module")
def quantized(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("quantized") / "fruit8.nest"
    done = nestling("quantize", bundle, "-o", path, "--modes", "fp16,dynamic", "--explain", "--json")
    return path, json.loads(done.stdout)


def test_the_bundle_holds_an_int8_graph_a_head_and_a_yardstick(quantized: tuple[Path, dict], bundle: Path) -> None:
    before, after = bundles.load(bundle), bundles.load(quantized[0])
    assert after.graph is not None and after.yardstick is not None and after.head is not None
    spec.check(after.graph)
    assert after.graph.tensors[after.graph.inputs[0]].dtype == "uint8"
    assert after.graph.tensors[after.graph.outputs[0]].dtype == "int8"
    assert not np.array_equal(after.head.weight, before.head.weight)
    assert all(np.array_equal(after.arrays[name], array) for name, array in before.arrays.items())
    assert after.yardstick.fingerprints == tuple(sorted(after.split.val))
    step = after.lineage[-1]
    assert step.name == "quantize" and list(step.settings["modes"]) == ["fp16", "dynamic"]


def test_the_yardstick_is_what_litert_and_torch_answer(quantized: tuple[Path, dict]) -> None:
    made = bundles.load(quantized[0])
    images = images_of(part(training_data(made, None), made, "val"), made.preprocess)
    model = tflite.print_graph(with_head(made.graph, made.head))
    judged = np.concatenate([tflite_run.run(model, [image[None]])[0] for image in images])
    np.testing.assert_allclose(made.yardstick.logits, judged, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(made.yardstick.float_logits, float_runner(made)(np.stack(images)), rtol=1e-3, atol=1e-3)


def test_json_and_the_layers(quantized: tuple[Path, dict]) -> None:
    path, said = quantized
    assert said["bundle"] == str(path) and said["val_top1"] > 0.6
    made = bundles.load(path)
    layers = [node for node in made.graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]
    assert [row["op"] for row in said["layers"] if "conv" in row["op"]] == [node.op for node in layers]
    assert all(row["sqnr"] > 0 for row in said["layers"])
    picture = Path(said["picture"]).read_text()
    assert picture.startswith("<?xml") and "<svg" in picture


def test_the_same_again_is_the_same_file(nestling: Nestling, bundle: Path, quantized: tuple[Path, dict], tmp_path: Path) -> None:
    nestling("quantize", bundle, "-o", tmp_path / "again.nest", "--modes", "fp16,dynamic")
    assert (tmp_path / "again.nest").read_bytes() == quantized[0].read_bytes()


def test_fewer_bits_and_symmetric(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.nest"
    said = nestling("quantize", bundle, "-o", out, "--bits-weights", "4", "--bits-activations", "6", "--symmetric", "--per-layer")
    assert "validation top-1" in said.stdout and "nestling export" in said.stdout
    graph = bundles.load(out).graph
    weights = [graph.tensors[node.inputs[1]] for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]
    assert all(len(weight.quant.scale) == 1 and np.abs(weight.data.astype(int)).max() <= 7 for weight in weights)
    assert not any(tensor.quant.zero_point.any() for tensor in graph.tensors.values() if tensor.quant)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--bits-weights", "1"), 2, "bits"),
        (("--modes", "int4"), 2, "int4"),
        (("--data", "nowhere"), 1, "nowhere does not exist"),
    ],
)
def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = nestling("quantize", bundle, "-o", tmp_path / "x.nest", *arguments, status=status)
    assert said in done.stderr
    assert not (tmp_path / "x.nest").exists()
