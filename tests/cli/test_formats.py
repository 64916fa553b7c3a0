"""export, bench and report over every format at once."""

import json
import os
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.data.folders import scan
from nestling.errors import UnsupportedOp
from nestling.formats import FORMATS, load
from nestling.formats.format import Job, Printed
from nestling.graph.ir import Graph
from nestling.measure.answers import predict
from nestling.models import float_graph as of_bundles
from tests.helpers.commands import FILES, Nestling


def test_the_manifest_tells_what_every_file_is_and_how_it_was_judged(everything: Path) -> None:
    listed = json.loads((everything / "manifest.json").read_text())["artifacts"]
    assert [entry["file"] for entry in listed] == sorted(FILES)
    for entry in listed:
        assert entry["bytes"] == (everything / entry["file"]).stat().st_size and entry["ms"] > 0 and entry["failed"] == []
        assert (everything / entry["bundle"]).is_file()
        assert (entry["noise_ratio"] is None) != (entry["precision"] == "int8")
        if entry["precision"] == "int8":
            assert entry["noise_ratio"] <= 1
        if entry["precision"] == "fp32":
            assert entry["max_relative_difference"] < 1e-3


def test_the_same_integers_are_in_every_int8_file(everything: Path) -> None:
    """Each convolution's weights: as they are in .tflite and .pte, 128 higher and channels first in .onnx."""
    graph = bundles.load(everything / "fruit-int8.nest").graph
    contents = {form: (everything / f"fruit-int8.{form}").read_bytes() for form in ("pte", "tflite", "onnx")}
    assert graph is not None
    weights = [(node.op, graph.tensors[node.inputs[1]].data) for node in graph.nodes if "conv2d" in node.op]
    assert len(weights) > 20
    for op, weight in weights:
        assert weight.tobytes() in contents["pte"] and weight.tobytes() in contents["tflite"]
        first = np.transpose(weight, (3, 0, 1, 2) if op == "depthwise_conv2d" else (0, 3, 1, 2))
        assert (first.astype(np.int16) + 128).astype(np.uint8).tobytes() in contents["onnx"]


def test_a_backbone_alone_gives_the_embedding(everything: Path) -> None:
    head = bundles.load(everything / "fruit-int8.nest").head
    features, whole = load(everything / "fruit-int8.features.pte"), load(everything / "fruit-int8.pte")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    expected = features.features(images) @ head.weight.T + head.bias
    np.testing.assert_allclose(whole(images), expected, rtol=1e-4, atol=1e-4)


def test_bench_asks_every_runtime_and_looks_into_layers(nestling: Nestling, everything: Path) -> None:
    files = [everything / f"fruit-int8.{form}" for form in ("pte", "tflite", "onnx")]
    rows = json.loads(nestling("bench", *files, "--layers", "--json").stdout)["artifacts"]
    assert [row["runtime"] for row in rows] == ["ExecuTorch", "LiteRT", "ONNX Runtime", "OpenVINO"]
    graph = bundles.load(everything / "fruit-int8.nest").graph
    for row in rows:
        assert 0 < row["ms_median"] <= row["ms_p95"] and row["peak_memory_bytes"] > 0 and row["precision"] == "int8"
        assert 0 <= row["noise_ratio"] < 3
    for row in rows[1:3]:
        by_name = {layer["name"]: layer for layer in row["layers"]}
        stem = next(node for node in graph.nodes if node.op == "conv2d")
        # 32 x 32 places, 16 channels, windows of 3 x 3 x 3
        assert by_name[stem.source]["macs"] == 32 * 32 * 16 * 27 and by_name[stem.source]["ms"] > 0
        picture = everything / f"{row['file']}-layers.svg"
        assert ElementTree.parse(picture).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_report_writes_one_page(nestling: Nestling, everything: Path, bundle: Path, photos: Path, tmp_path: Path) -> None:
    page = tmp_path / "a page.html"
    rows = json.loads(nestling("report", everything, "-o", page, "--json").stdout)["artifacts"]
    assert {row["runtime"] for row in rows} == {"nestling", "ExecuTorch", "LiteRT", "ONNX Runtime", "OpenVINO"}
    text = page.read_text()
    assert all(file in text for file in FILES if "features" not in file) and text.count("<svg") >= 4
    assert text.count("data:image/jpeg") >= 6 and "apple" in text and "lime ü" in text
    assert f'href="./{quote(os.path.relpath(everything, tmp_path))}/fruit-int8.tflite"' in text
    split = bundles.load(bundle).split
    test = [item.path for item in scan(photos).items if item.fingerprint in split.test]
    floats, own = (
        [one.label == path.parent.name for one, path in zip(predict(file, test).found, test, strict=True)]
        for file in (bundle, everything / "fruit-int8.tflite")
    )
    (row,) = (row for row in rows if row["file"] == "fruit-int8.tflite")
    assert row["lost"] == sum(a and not b for a, b in zip(floats, own, strict=True)) and row["images"] == len(test)
    assert row["won"] == sum(b and not a for a, b in zip(floats, own, strict=True))


def test_bench_names_a_file_that_is_not_there(nestling: Nestling, tmp_path: Path) -> None:
    done = nestling("bench", tmp_path / "gone.onnx", status=1)
    assert "gone.onnx does not exist" in done.stderr and "nestling export" in done.stderr


def test_report_needs_what_was_exported(nestling: Nestling, tmp_path: Path) -> None:
    done = nestling("report", tmp_path, status=1)
    assert "manifest.json" in done.stderr and "nestling export" in done.stderr


def test_what_is_refused_is_not_put_in_place_and_the_rest_is(
    nestling: Nestling, everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A printer that swaps red and blue: its file is refused, the old one stays, the other format is exported."""
    form = FORMATS["tflite"]
    right = form.printers["int8"]

    def bgr(job: Job) -> Printed:
        graph = job.bundle.graph
        weight = graph.tensors[next(node.inputs[1] for node in graph.nodes if node.op == "conv2d")]
        swapped = replace(weight, data=np.ascontiguousarray(weight.data[..., ::-1]))
        other: Graph = replace(graph, tensors={**graph.tensors, weight.name: swapped})
        return right(Job(replace(job.bundle, graph=other), job.config))

    (tmp_path / "fruit-int8.tflite").write_bytes(b"the old one")
    command = ("export", everything / "fruit-int8.nest", "--to", "tflite,onnx", "--precision", "int8", "-o", tmp_path)
    monkeypatch.setitem(FORMATS, "tflite", replace(form, printers={"int8": bgr}))
    done = nestling(*command, status=1)
    assert "fruit-int8.tflite" in done.stderr and "conv2d" in done.stderr and "--force" in done.stderr
    assert (tmp_path / "fruit-int8.tflite").read_bytes() == b"the old one" and (tmp_path / "fruit-int8.onnx").exists()
    nestling(*command, "--force")
    listed = {entry["file"]: entry for entry in json.loads((tmp_path / "manifest.json").read_text())["artifacts"]}
    assert listed["fruit-int8.tflite"]["failed"] and not listed["fruit-int8.onnx"]["failed"]


def test_what_the_graph_does_not_hold_still_becomes_a_float_program(
    nestling: Nestling, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message about such an operation says."""

    def refuse(bundle: Bundle) -> Graph:
        raise UnsupportedOp("erf (blocks.0): the Graph holds no such operation")

    monkeypatch.setattr(of_bundles, "float_graph", refuse)
    command = ("export", bundle, "--precision", "fp32", "-o", tmp_path)
    nestling(*command, "--to", "pte")
    assert "erf" in nestling(*command, "--to", "onnx", status=1).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("export", ".", "--to", "onx"), "--to is one or more of"),
        (("export", ".", "--onnx-weights", "int4"), "--onnx-weights is one of uint8, int8; found 'int4'"),
        (("bench", ".", "--threads", "two"), "numbers from 1"),
        (("fit", ".", "--frobnicate"), "No such option: --frobnicate"),
        (("prune", ".", "--method", "block"), "--method is one of structured, unstructured, block1x4; found 'block'"),
        (("data", "prepare", ".", "-o", "x", "--format", "gif"), "--format is one of jpg, bmp, png; found 'gif'"),
    ],
)
def test_wrong_words_are_told(nestling: Nestling, words: tuple[str, ...], said: str) -> None:
    told = nestling(*words, status=2).stderr
    command = " ".join(words[: 2 if words[0] == "data" else 1])
    assert said in told and told.endswith(f"\n  see:  nestling {command} --help\n")
