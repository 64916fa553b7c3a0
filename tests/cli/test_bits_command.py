"""quantize --bits auto as a user types it: the weights keep the budget, and the C made from them answers the same integers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from tests.helpers.commands import Nestling

RECIPE = ("--bits-activations", "7", "--per-layer", "--symmetric")
BUDGET = 450_000


@pytest.fixture(scope="module")
def quantized(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    path = tmp_path_factory.mktemp("mixed") / "mixed.nest"
    done = nestling("quantize", bundle, "-o", path, "--bits", "auto", "--budget", BUDGET, *RECIPE, "--json")
    return path, json.loads(done.stdout)


def test_the_weights_keep_the_budget_with_the_bits_that_are_said(quantized: tuple[Path, dict]) -> None:
    path, said = quantized
    made = bundles.load(path)
    layers = {node.name: node for node in made.graph.nodes if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")}
    assert [row["layer"] for row in said["bits"]] == list(layers)
    assert dict(map(tuple, made.lineage[-1].settings["layer_bits"])) == {row["layer"]: row["bits"] for row in said["bits"]}
    packed = 0.0
    for row in said["bits"]:
        weight = made.graph.tensors[layers[row["layer"]].inputs[1]].data.astype(int)
        assert weight.size == row["weights"] and np.abs(weight).max() <= {2: 1, 4: 7, 8: 127}[row["bits"]]
        packed += weight.size * row["bits"] / 8
    assert packed < said["weight_bytes"] <= said["budget_bytes"] == BUDGET
    assert said["weight_bytes"] > 0.95 * BUDGET and len({row["bits"] for row in said["bits"]}) > 1


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: apt-get install gcc libc6-dev")
def test_the_trace_of_such_a_network_is_what_its_c_answers(
    nestling: Nestling, quantized: tuple[Path, dict], photos: Path, tmp_path: Path
) -> None:
    nestling("export", quantized[0], "--to", "c", "--precision", "int8", "-o", tmp_path)
    photo, folder = photos / "plum" / "03.jpg", tmp_path / "mixed-c-host"
    said = json.loads(nestling("trace", quantized[0], photo, "-o", tmp_path / "t", "--against", folder, "--json").stdout)
    assert said["first"] is None and said["compared"] > 40
    index = json.loads((tmp_path / "t" / "index.json").read_text())
    assert all(entry["zero_point"] == 0 for entry in index if entry["dtype"] == "int8")


@pytest.mark.slow
def test_the_table_names_every_layer(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    """At a budget that holds all of them at 8 bits; nothing is chosen for the head, which stays in float."""
    done = nestling("quantize", bundle, "-o", tmp_path / "all.nest", "--bits", "auto", "--budget", "3.5MB")
    assert "blocks.1.0.conv_dw" in done.stdout and "cost alone" in done.stdout and "layers 52 at 8 bits" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--bits", "auto", "--budget", "1k"), 1, "--budget 250732 to"),
        (("--bits", "auto"), 2, "go together"),
        (("--budget", "100k"), 2, "go together"),
        (("--bits", "4", "--budget", "100k"), 2, "--bits-weights"),
        (("--bits", "auto", "--budget", "100k", "--bits-weights", "4"), 2, "one of them"),
        (("--bits", "auto", "--budget", "much"), 2, "no size"),
    ],
)
def test_mistakes(nestling: Nestling, bundle: Path, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str) -> None:
    done = nestling("quantize", bundle, "-o", tmp_path / "x.nest", *arguments, status=status)
    assert said in done.stderr.replace("\n", " ")
    assert not (tmp_path / "x.nest").exists()
