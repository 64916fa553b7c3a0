"""What works where torch, timm, ExecuTorch and OpenVINO are not installed; and that it gives the bytes of where they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nestling import bundle as bundles
from nestling.bundle import Timm
from nestling.formats.c import host
from nestling.models.known import DEFAULT
from nestling.models.packages import PACKAGES, package_of
from tests import ROOT
from tests.helpers.commands import Done, Nestling
from tests.helpers.without_torch import NAMES, environment, told

Ways = dict[bool, tuple[Path, dict[str, str]]]


@pytest.fixture(scope="module")
def ways(nestling: Nestling, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    """By whether torch is blocked: a folder with the default backbone fitted and quantised there, and its environment."""
    if package_of(DEFAULT) is None:
        pytest.skip(f"needs {PACKAGES[DEFAULT].distribution}, which is not installed")
    found = {}
    for blocked in (False, True):
        folder = tmp_path_factory.mktemp("without" if blocked else "with")
        settings = environment(folder / "site", blocked) | {"NESTLING_CACHE": str(folder / "cache")}
        nestling("fit", photos, "-o", folder / "a.nest", "--size", 64, process=True, **settings)
        nestling("quantize", folder / "a.nest", "-o", folder / "a8.nest", process=True, **settings)
        found[blocked] = folder, settings
    return found


def test_bundles_are_the_same_bytes(ways: Ways) -> None:
    (with_torch, _), (without, _) = ways[False], ways[True]
    for name in ("a.nest", "a8.nest"):
        assert (with_torch / name).read_bytes() == (without / name).read_bytes()
    architecture = bundles.load(without / "a8.nest").architecture
    assert isinstance(architecture, Timm) and architecture.structure is not None


def test_every_command_that_takes_no_torch(ways: Ways, nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    folder, settings = ways[True]
    mine, mine8, out = folder / "a.nest", folder / "a8.nest", tmp_path / "out"

    def run(*words: object, status: int = 0) -> Done:
        return nestling(*words, process=True, status=status, **settings)

    assert json.loads(run("eval", mine, photos, "--json").stdout)["top1"] > 0.5
    (said,) = json.loads(run("predict", mine8, photos / "plum" / "00.jpg", "--json").stdout)
    assert said["label"] == "plum"
    explained = json.loads(run("quantize", mine, "-o", tmp_path / "b8.nest", "--explain", "--json").stdout)
    assert explained and bundles.load(tmp_path / "b8.nest").graph is not None
    run("export", mine8, "--to", "tflite,onnx", "--precision", "fp32,int8", "-o", out)
    assert {path.name for path in out.iterdir()} >= {
        f"a8-{precision}.{form}" for precision in ("fp32", "int8") for form in ("tflite", "onnx")
    }
    for name in ("a8-fp32.tflite", "a8-int8.tflite"):
        run("import", out / name, "-o", tmp_path / "again.nest")
        agreed = json.loads(run("agree", tmp_path / "again.nest", out / name, photos, "--json").stdout)
        assert agreed["agreement"] == 1
    if host.compiler() is not None:  # what follows builds and compiles C, and is tested by itself
        packed = run("pack", mine8, "-o", tmp_path / "pkg")
        assert "pip install 'nestling[executorch]'" in packed.stderr
        assert not {"features.pte", "head_train.pte"} & {path.name for path in (tmp_path / "pkg").iterdir()}
        learned = json.loads(run("learn", tmp_path / "pkg", photos, "--cycles", 20, "--json").stdout)
        assert learned["cycles"] == 20 and learned["accuracy"]["test"]["after"]["top1"] > 0.5
    ended = told(folder / "site")
    assert len(ended) >= 9 and not any(process["held"] for process in ended)


def test_what_takes_torch_says_what_to_install(ways: Ways, nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    folder, settings = ways[True]
    for words in (
        ("fit", photos, "--backbone", "resnet18", "--weights", "none", "-o", tmp_path / "b.nest"),
        ("finetune", folder / "a.nest", photos, "-o", tmp_path / "b.nest"),
    ):
        done = nestling(*words, process=True, status=1, **settings)
        assert "torch" in done.stderr and "pip install 'nestling[train]'" in done.stderr


def test_the_helper_blocks() -> None:
    """Or the tests above would hold of nothing."""
    code = f"""
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from tests.helpers.without_torch import block
block()
assert not any(find_spec(name) for name in {NAMES})
try:
    import torch
except ModuleNotFoundError as error:
    assert error.name == "torch"
try:
    version("torch")
except PackageNotFoundError:
    print("blocked", version("numpy") > "0")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "blocked True\n", done.stderr
