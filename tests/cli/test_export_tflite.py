"""nestling export --to tflite, quantising first where the bundle has no integers; and the gate of float files."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.formats import load
from nestling.graph.ir import Graph
from nestling.models import float_graph as of_bundles
from nestling.models.float_graph import float_graph
from tests.helpers.commands import Nestling


def test_every_precision_answers(nestling: Nestling, everything: Path, photos: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16", "dynamic", "int8"):
        file = everything / f"fruit-{precision}.tflite"
        sizes[precision] = file.stat().st_size
        result = json.loads(nestling("eval", file, photos, "--json").stdout)
        assert result["images"] == 12 and result["top1"] > 0.8, precision
    assert sizes["fp16"] < 0.6 * sizes["fp32"] and sizes["int8"] < 0.5 * sizes["fp32"] and sizes["dynamic"] < 0.5 * sizes["fp32"]


def test_the_quantised_bundle_is_kept_and_the_noise_is_told(everything: Path) -> None:
    kept = bundles.load(everything / "fruit-int8.nest")
    assert kept.graph is not None and kept.yardstick is not None and kept.yardstick.logits.shape[1] == 3
    entries = json.loads((everything / "manifest.json").read_text())["artifacts"]
    listed = {entry["precision"]: entry for entry in entries if entry["file"].endswith(".tflite")}
    assert 0 <= listed["int8"]["noise_ratio"] <= 1 and listed["fp32"]["noise_ratio"] is None


def test_features_are_the_embedding_under_the_head(everything: Path) -> None:
    """The second output, put through the bundle's head by hand, gives the first."""
    head = bundles.load(everything / "fruit-int8.nest").head
    runner = load(everything / "fruit-int8.tflite")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    expected = runner.features(images) @ head.weight.T + head.bias
    np.testing.assert_allclose(runner(images), expected, rtol=1e-4, atol=1e-4)


def test_a_float_file_that_differs_is_refused(
    nestling: Nestling, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the first convolution is off: the file is not put in place, and --force puts it there, marked."""

    def broken(bundle: Bundle) -> Graph:
        graph = float_graph(bundle)
        name = next(node.inputs[1] for node in graph.nodes if node.op == "conv2d")
        data: NDArray[Any] = graph.tensors[name].data.copy()
        data.flat[0] += 0.5
        return replace(graph, tensors={**graph.tensors, name: replace(graph.tensors[name], data=data)})

    monkeypatch.setattr(of_bundles, "float_graph", broken)
    command = ("export", bundle, "--to", "tflite", "--precision", "fp32", "-o", tmp_path)
    done = nestling(*command, status=1)
    assert "logit difference" in done.stderr and "--force" in done.stderr and not (tmp_path / "fruit-fp32.tflite").exists()
    nestling(*command, "--force")
    assert json.loads((tmp_path / "manifest.json").read_text())["artifacts"][0]["failed"]


def test_an_int8_file_needs_the_photographs_once(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    """A bundle that was carried elsewhere says what it misses and what to type."""
    loaded = bundles.load(bundle)
    step = replace(loaded.lineage[0], settings={**loaded.lineage[0].settings, "folder": str(tmp_path / "gone")})
    bundles.save(replace(loaded, lineage=(step,)), tmp_path / "far.nest")
    done = nestling("export", tmp_path / "far.nest", "--to", "tflite", "--precision", "int8", "-o", tmp_path / "out", status=1)
    assert "gone" in done.stderr and "--data" in done.stderr
    nestling("export", tmp_path / "far.nest", "--to", "tflite", "--precision", "fp32", "-o", tmp_path / "out")
