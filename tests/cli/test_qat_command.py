"""nestling quantize --qat, as a user types it, and what can be done with the bundle."""

import json
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from tests.helpers.commands import Nestling
from tests.helpers.small_backbone import save_backbone

QUICK = ("--epochs", 2, "--batch", 9, "--fold-after", 1)


@pytest.fixture(scope="module")
def bundle(nestling: Nestling, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With norms, and so small that its training takes seconds."""
    folder = tmp_path_factory.mktemp("bundle")
    nestling("fit", photos, "-o", folder / "fruit.nest", "--backbone", save_backbone(folder / "small.nest"))
    return folder / "fruit.nest"


@pytest.fixture(scope="module")
def quantized(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("qat") / "fruit4.nest"
    done = nestling("quantize", bundle, "-o", path, "--qat", "lsq", "--bits-weights", 4, "--first-last-8", *QUICK, "--json")
    assert "val top-1" in done.stderr  # the table of epochs
    assert not path.with_name("fruit4.nest.checkpoint").exists()
    return path, json.loads(done.stdout)


def test_json_says_what_was_kept(quantized: tuple[Path, dict]) -> None:
    path, said = quantized
    better = said["val_top1_qat"] > said["val_top1_post_training"]
    assert said["kept"] == ("qat" if better else "post-training") and said["bundle"] == str(path)
    assert said["val_top1"] == max(said["val_top1_qat"], said["val_top1_post_training"]) and said["noise"] <= 0.25
    step = bundles.load(path).lineage[-1]
    assert step.settings["kept"] == said["kept"] and step.settings["qat"] == "lsq" and step.settings["bits_weights"] == 4
    assert len(step.curves["val_top1"]) == 2


def test_the_weights_have_the_bits_that_were_asked_for(quantized: tuple[Path, dict]) -> None:
    graph = bundles.load(quantized[0]).graph
    layers = [node for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d")]
    largest = [int(np.abs(graph.tensors[node.inputs[1]].data).max()) for node in layers]
    assert largest[0] > 7 and largest[-1] > 7 and max(largest[1:-1]) <= 7


def test_it_is_exported_through_its_gates(quantized: tuple[Path, dict], nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    """The .tflite holds the reference's bytes, the C gives them; else export leaves with 1."""
    nestling("export", quantized[0], "--to", "tflite,c", "--machine", "host", "--precision", "int8", "-o", tmp_path)
    evaluated = json.loads(nestling("eval", tmp_path / "fruit4-int8.tflite", photos, "--json").stdout)
    assert evaluated["images"] == 12


def test_the_text_compares_the_three(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    """With a rate of nearly none the training cannot be better."""
    out = tmp_path / "fruit7.nest"
    words = ("--qat", "pact", "--bits-activations", 7, "--per-layer", "--epochs", 1, "--batch", 9, "--rate", 1e-12)
    done = nestling("quantize", bundle, "-o", out, *words)
    for said in ("validation top-1: trained", "post-training", "float", "noise ratio"):
        assert said in done.stdout
    kept = bundles.load(out).lineage[-1].settings["kept"]
    assert ("not better than post-training" in done.stderr) == (kept == "post-training")


def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "fruit.nest")
    assert "lsq, pact, minmax" in nestling("quantize", bundle, *out, "--qat", "magic", status=2).stderr
    done = nestling("quantize", bundle, *out, "--qat", "lsq", "--epochs", 2, "--fold-after", 3, status=2)
    assert "--fold-after" in done.stderr and "val loss" not in done.stdout  # no heading over nothing
    assert "--epochs" in nestling("quantize", bundle, *out, "--qat", "lsq", "--epochs", 0, status=2).stderr
