"""nestling prune, as a user types it."""

import json
from pathlib import Path

import pytest
from cli.conftest import Nestling

from nestling import bundle as bundles
from nestling.graph.ir import Graph


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
    assert result["top1"] == bundles.load(pruned).lineage[-1].metrics["test_top1"]
    assert result["after"]["bytes"] < result["before"]["bytes"] and result["after"]["ms"] > 0
    assert (tmp_path / "a.nest").read_bytes() == pruned.read_bytes()


def test_top1_is_what_eval_finds(nestling: Nestling, photos: Path, pruned: Path) -> None:
    found = json.loads(nestling("eval", pruned, photos, "--json").stdout)
    assert found["top1"] == bundles.load(pruned).lineage[-1].metrics["test_top1"]


def test_it_exports(nestling: Nestling, pruned: Path, tmp_path: Path) -> None:
    done = nestling("export", pruned, "--to", "tflite", "--precision", "fp32", "-o", tmp_path, "--json")
    assert [a["file"] for a in json.loads(done.stdout)["artifacts"]] == ["half-fp32.tflite"]


@pytest.mark.slow
def test_real_weights_are_pruned_and_pass_the_gates_in_int8(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    nestling("fit", photos, "--size", 64, "-o", tmp_path / "a.nest")
    nestling("prune", tmp_path / "a.nest", "--images", 24, "-o", tmp_path / "b.nest")
    done = nestling("export", tmp_path / "b.nest", "--to", "tflite", "--precision", "int8", "-o", tmp_path, "--json")
    assert [a["file"] for a in json.loads(done.stdout)["artifacts"]] == ["b-int8.tflite"]


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
        (("--macs", "0%"), 1, "above 0% and below 100%"),
        (("--macs", "150%"), 1, "found 150%"),
        (("--macs", "half"), 2, "50% or 0.5"),
        (("--macs", "1%", "--importance", "l1"), 1, "cannot be reached"),
        (("--importance", "luck"), 1, "l1, taylor, norm"),
        (("--round", "0"), 1, "--round"),
    ],
)
def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path, options: tuple[str, ...], status: int, said: str) -> None:
    done = nestling("prune", bundle, *options, "-o", tmp_path / "no.nest", status=status)
    assert said in done.stderr and not (tmp_path / "no.nest").exists()


def test_photographs_of_something_else(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    done = nestling("prune", bundle, tmp_path / "nowhere", "-o", tmp_path / "no.nest", status=1)
    assert "nowhere" in done.stderr
