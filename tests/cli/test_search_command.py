"""nestling search, as a user types it."""

import json
from pathlib import Path

import pytest

from nestling import bundle as bundles
from nestling.graph.ir import Graph
from tests.helpers.commands import Nestling, rounded

QUICK = ("--candidates", 25, "--images", 12)


@pytest.fixture(scope="module")
def searched(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("modelopt", reason="needs nvidia-modelopt")
    path = tmp_path_factory.mktemp("searched") / "found.nest"
    done = nestling("search", bundle, "--macs", "60%", *QUICK, "-o", path)
    for said in ("MACs", "parameters", "candidates in", "ms an embedding", "test top-1", "in turns"):
        assert said in done.stdout
    assert f"next:  nestling finetune {path} DATA -o {path.with_name('tuned.nest')}" in done.stdout
    return path


def test_the_bundle_that_is_written(nestling: Nestling, photos: Path, bundle: Path, searched: Path) -> None:
    before, after = bundles.load(bundle), bundles.load(searched)
    assert isinstance(after.architecture, Graph) and not after.arrays and after.graph is None
    assert any(node.op == "batch_norm" for node in after.architecture.nodes)
    assert (after.labels, after.split, after.preprocess) == (before.labels, before.split, before.preprocess)
    step = after.lineage[-1]
    assert [s.name for s in after.lineage] == ["fit", "search"] and step.settings["method"] == "fastnas"
    assert step.metrics["macs"] <= 0.6 * step.metrics["macs_before"] and step.metrics["candidates"] <= 25
    assert step.metrics["test_top1_before"] == before.lineage[-1].metrics["test_top1"]
    assert json.loads(nestling("eval", searched, photos, "--json").stdout)["top1"] == rounded(step.metrics["test_top1"])


def test_json_is_one_object_and_the_same_again_is_the_same_file(
    nestling: Nestling, photos: Path, bundle: Path, searched: Path, tmp_path: Path
) -> None:
    done = nestling("search", bundle, photos, "--macs", "0.6", *QUICK, "-o", tmp_path / "a.nest", "--json")
    result = json.loads(done.stdout)
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0}
    assert result["after"]["macs"] <= 0.6 * result["before"]["macs"] and result["candidates"] <= 25
    assert result["interval"][0] <= result["top1"] <= result["interval"][1] and result["widths"]
    assert (tmp_path / "a.nest").read_bytes() == searched.read_bytes()


def test_it_is_fine_tuned_quantised_and_exported(nestling: Nestling, searched: Path, tmp_path: Path) -> None:
    nestling("finetune", searched, "--epochs", "1", "-o", tmp_path / "tuned.nest")
    nestling("quantize", tmp_path / "tuned.nest", "-o", tmp_path / "int8.nest")
    export = ("--to", "tflite", "--precision", "fp32,int8", "--force", "-o", tmp_path, "--json")
    artifacts = json.loads(nestling("export", tmp_path / "int8.nest", *export).stdout)["artifacts"]
    assert {a["file"] for a in artifacts} == {"int8-fp32.tflite", "int8-int8.tflite"}
    assert [s.name for s in bundles.load(tmp_path / "int8.nest").lineage] == ["fit", "search", "finetune", "quantize"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--macs", "0%"), 2, "above 0% and below 100%"),
        (("--params", "150%"), 2, "found 150%"),
        (("--macs", "half"), 2, "50% or 0.5"),
        (("--macs", "1%"), 1, "the smallest subnet has"),
        (("--candidates", "0"), 2, "--candidates"),
    ],
)
def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path, options: tuple[str, ...], status: int, said: str) -> None:
    if "1%" in options:
        pytest.importorskip("modelopt", reason="needs nvidia-modelopt")
    done = nestling("search", bundle, *options, "-o", tmp_path / "no.nest", status=status)
    assert said in done.stderr and not (tmp_path / "no.nest").exists()
