"""nestling trace, as a user types it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from nestling.formats.tflite.printing import print_graph
from nestling.measure.trace import network
from tests.helpers.commands import Nestling
from tests.helpers.seeds import small_bundles, small_graph


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "my8.nest"
    bundles.save(small_bundles()["quantised"], path)
    return path


def test_a_trace_beside_its_own_print(nestling: Nestling, quantised: Path, photos: Path, tmp_path: Path) -> None:
    graph = network(bundles.load(quantised))
    (tmp_path / "my.tflite").write_bytes(print_graph(graph))
    photo, out = photos / "plum" / "00.jpg", tmp_path / "trace"
    done = nestling("trace", quantised, photo, "-o", out, "--against", tmp_path / "my.tflite")
    assert "no difference" in done.stdout and len(json.loads((out / "index.json").read_text())) == len(graph.nodes) + 1
    assert json.loads(nestling("trace", quantised, photo, "-o", out, "--json").stdout)["folder"] == str(out)


def test_the_first_difference_is_named_and_the_status_says_so(
    nestling: Nestling, quantised: Path, photos: Path, tmp_path: Path
) -> None:
    graph = network(bundles.load(quantised))
    bias = graph.tensors["b2"]
    other = replace(bias, data=np.add(bias.data, np.int32(400)))
    (tmp_path / "my.tflite").write_bytes(print_graph(replace(graph, tensors={**graph.tensors, "b2": other})))
    photo = photos / "plum" / "00.jpg"
    found = json.loads(nestling("trace", quantised, photo, "--against", tmp_path / "my.tflite", "--json", status=1).stdout)
    assert found["first"] == "d" and found["folder"] is None
    table = nestling("trace", quantised, photo, "--against", tmp_path / "my.tflite", status=1).stdout
    assert "depthwise_conv2d" in table and "layers differ" in table


def test_a_float_bundle_is_traced_in_float(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    bundle = replace(small_bundles()["quantised"], graph=None, yardstick=None)
    bundles.save(bundle, tmp_path / "my.nest")
    assert bundle.architecture is not None
    (tmp_path / "my.tflite").write_bytes(print_graph(network(bundle)))
    done = nestling("trace", tmp_path / "my.nest", photos / "plum" / "00.jpg", "--against", tmp_path / "my.tflite")
    assert "no difference" in done.stdout


def test_a_wrong_command_line_is_said(nestling: Nestling, quantised: Path, photos: Path, tmp_path: Path) -> None:
    photo = photos / "plum" / "00.jpg"
    assert "-o trace/" in nestling("trace", quantised, photo, status=2).stderr
    assert "none.tflite" in nestling("trace", quantised, photo, "--against", tmp_path / "none.tflite", status=1).stderr
    (tmp_path / "letter").mkdir()
    (tmp_path / "letter" / "a.txt").write_text("dear")
    assert "other files" in nestling("trace", quantised, photo, "-o", tmp_path / "letter", status=1).stderr
    (tmp_path / "other.tflite").write_bytes(print_graph(small_graph(False)))
    nestling("trace", quantised, photo, "--against", tmp_path / "other.tflite", status=1)
