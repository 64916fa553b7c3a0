"""nestling prune, as a user types it."""

import json
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from nestling.graph.ir import Graph
from tests.helpers.commands import Nestling, rounded


@pytest.fixture(scope="module")
def pruned(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pruned") / "half.nest"
    done = nestling("prune", bundle, "--macs", "50%", "--images", 24, "-o", path)
    for said in ("MACs", "parameters", "float size", "ms an embedding", "test top-1", "in turns"):
        assert said in done.stdout
    assert f"next:  nestling finetune {path} DATA -o {path.with_name('tuned.nest')}" in done.stdout
    return path


def test_the_bundle_that_is_written(bundle: Path, pruned: Path) -> None:
    before, after = bundles.load(bundle), bundles.load(pruned)
    assert isinstance(after.architecture, Graph) and not after.arrays and after.graph is None
    assert any(node.op == "batch_norm" for node in after.architecture.nodes)
    assert (after.labels, after.split, after.preprocess) == (before.labels, before.split, before.preprocess)
    step = after.lineage[-1]
    assert [s.name for s in after.lineage] == ["fit", "prune"] and step.settings["importance"] == "taylor"
    assert (
        step.metrics["macs"] <= step.metrics["macs_before"] / 2 and step.metrics["parameters"] < step.metrics["parameters_before"]
    )
    assert step.metrics["test_top1_before"] == before.lineage[-1].metrics["test_top1"]


def test_json_is_one_object_and_the_same_again_is_the_same_file(
    nestling: Nestling, photos: Path, bundle: Path, pruned: Path, tmp_path: Path
) -> None:
    done = nestling("prune", bundle, photos, "--macs", "0.5", "--images", 24, "-o", tmp_path / "a.nest", "--json")
    result = json.loads(done.stdout)
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0}
    assert result["interval"][0] <= result["top1"] <= result["interval"][1]
    assert result["top1"] == rounded(bundles.load(pruned).lineage[-1].metrics["test_top1"])
    assert result["after"]["bytes"] < result["before"]["bytes"] and result["after"]["ms_median"] > 0
    assert (tmp_path / "a.nest").read_bytes() == pruned.read_bytes()


def test_top1_is_what_eval_finds(nestling: Nestling, photos: Path, pruned: Path) -> None:
    found = json.loads(nestling("eval", pruned, photos, "--json").stdout)
    assert found["top1"] == rounded(bundles.load(pruned).lineage[-1].metrics["test_top1"])


def test_it_exports(nestling: Nestling, pruned: Path, tmp_path: Path) -> None:
    done = nestling("export", pruned, "--to", "tflite", "--precision", "fp32", "-o", tmp_path, "--json")
    assert [a["file"] for a in json.loads(done.stdout)["artifacts"]] == ["half-fp32.tflite"]


@pytest.mark.slow
def test_real_weights_are_pruned_and_pass_the_gates_in_int8(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    nestling("fit", photos, "--size", 64, "-o", tmp_path / "a.nest")
    nestling("prune", tmp_path / "a.nest", "--images", 24, "-o", tmp_path / "b.nest")
    done = nestling("export", tmp_path / "b.nest", "--to", "tflite", "--precision", "int8", "-o", tmp_path, "--json")
    assert [a["file"] for a in json.loads(done.stdout)["artifacts"]] == ["b-int8.tflite"]


@pytest.fixture(scope="module")
def sparse(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sparse") / "sparse.nest"
    done = nestling("prune", bundle, "--method", "block1x4", "--sparsity", "60%", "--epochs", 1, "--batch", 12, "-o", path)
    for said in (
        "MACs with weights not 0",
        "zeros of all weights",
        "map + zlib",
        "C skips them in 1x1 convolutions",
        "60.0% of the pruned",
    ):
        assert said in done.stdout
    assert f"next:  nestling quantize {path} -o {path.with_name('int8.nest')}" in done.stdout
    return path


def zeros(path: Path) -> dict[str, np.ndarray]:
    """Of the 1 x 1 convolutions."""
    return {name: array == 0 for name, array in bundles.load(path).arrays.items() if array.ndim == 4 and array.shape[2:] == (1, 1)}


def test_a_sparse_bundle(bundle: Path, sparse: Path) -> None:
    before, after = bundles.load(bundle), bundles.load(sparse)
    assert after.architecture == before.architecture and [step.name for step in after.lineage] == ["fit", "prune"]
    step, found = after.lineage[-1], zeros(sparse)
    share = sum(mask.sum() for mask in found.values()) / sum(mask.size for mask in found.values())
    assert share == pytest.approx(0.6, abs=1e-4) == step.metrics["sparsity"] and step.settings["method"] == "block1x4"


@pytest.mark.slow
def test_json_of_zeros(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    options = ("--method", "unstructured", "--sparsity", "0.8", "--ranking", "magnitude", "--epochs", 1, "--batch", 12)
    result = json.loads(nestling("prune", bundle, *options, "-o", tmp_path / "a.nest", "--json").stdout)
    found = zeros(tmp_path / "a.nest")
    share = sum(mask.sum() for mask in found.values()) / sum(mask.size for mask in found.values())
    assert result["sparsity"] == pytest.approx(share, abs=1e-6) and result["ranking"] == "magnitude"
    before, after = result["before"], result["after"]
    assert before["macs"] == after["macs"] == before["macs_left"] > 2 * after["macs_left"] and after["zeros"] > 0.6
    assert result["compressed"]["share"] == min(after["compressed_bytes"].values()) / min(before["compressed_bytes"].values()) < 0.6
    assert after["bytes"] == before["bytes"] and after["ms_median"] > 0 and "no runtime" in result["no_gain"][0]
    assert result["top1"] == after["top1"] and result["images"]["test"] == 12


@pytest.mark.slow
def test_channels_and_fine_tuning_say_so(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    done = nestling("prune", bundle, "--importance", "l1", "--images", 24, "--epochs", 1, "--batch", 12, "-o", tmp_path / "b.nest")
    assert "fine-tuned" in done.stdout and f"next:  nestling quantize {tmp_path / 'b.nest'}" in done.stdout


def test_channels_and_fine_tuning_in_one_command(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    options = ("--macs", "60%", "--importance", "l1", "--images", 24, "--epochs", 1, "--batch", 12)
    result = json.loads(nestling("prune", bundle, *options, "-o", tmp_path / "a.nest", "--json").stdout)
    made = bundles.load(tmp_path / "a.nest")
    assert [step.name for step in made.lineage] == ["fit", "prune", "finetune"] and isinstance(made.architecture, Graph)
    assert result["after"]["macs"] <= 0.6 * result["before"]["macs"]
    assert result["top1"] == result["tuned"]["top1"] == rounded(made.lineage[-1].metrics["test_top1"])


def test_a_quantised_bundle_loses_its_integers_and_a_pruned_one_is_pruned_again(
    nestling: Nestling, pruned: Path, tmp_path: Path
) -> None:
    nestling("quantize", pruned, "-o", tmp_path / "int8.nest")
    nestling("prune", tmp_path / "int8.nest", "--macs", "80%", "--importance", "l1", "-o", tmp_path / "less.nest")
    less, more = bundles.load(tmp_path / "less.nest"), bundles.load(pruned)
    assert less.graph is None and less.yardstick is None
    assert less.lineage[-1].metrics["macs"] <= 0.8 * more.lineage[-1].metrics["macs"]
    assert [step.name for step in less.lineage] == ["fit", "prune", "quantize", "prune"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--macs", "0%"), 2, "above 0% and below 100%"),
        (("--macs", "150%"), 2, "found 150%"),
        (("--macs", "half"), 2, "50% or 0.5"),
        (("--macs", "1%", "--importance", "l1"), 1, "cannot be reached"),
        (("--importance", "luck"), 2, "l1, taylor, norm"),
        (("--method", "2:4"), 2, "structured, unstructured, block1x4"),
        (("--sparsity", "80%"), 2, "whole channels take --macs"),
        (("--method", "block1x4", "--macs", "50%"), 2, "zeros take --sparsity"),
        (("--method", "block1x4", "--sparsity", "most"), 2, "--sparsity is a share"),
        (("--method", "block1x4", "--sparsity", "100%"), 2, "below 100%"),
        (("--method", "unstructured", "--epochs", "0"), 2, "--epochs is 1"),
        (("--round", "0"), 2, "--round"),
    ],
)
def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path, options: tuple[str, ...], status: int, said: str) -> None:
    done = nestling("prune", bundle, *options, "-o", tmp_path / "no.nest", status=status)
    assert said in done.stderr and not (tmp_path / "no.nest").exists()


def test_photographs_of_something_else(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    done = nestling("prune", bundle, tmp_path / "nowhere", "-o", tmp_path / "no.nest", status=1)
    assert "nowhere" in done.stderr
