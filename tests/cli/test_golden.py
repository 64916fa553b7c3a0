"""Files that earlier nestlings wrote are read ever after, and answer as they did. See golden/write.py."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling.apart.runner import load
from nestling.artifacts import manifest
from nestling.bundle import Timm
from nestling.device import head_file
from nestling.device import manifest as packed
from nestling.formats.tflite.read import read_tflite
from nestling.outside import unzipped
from nestling.preprocess.image import load as load_image
from tests.helpers.commands import Nestling
from tests.helpers.golden_files import ARCHIVES, recorded, unpacked

ANSWERS = [(archive, name) for archive in ARCHIVES for name in recorded(archive)]
LABELS = ("bad ü", "good")
EXACT = ("integers.nest", "bits4.nest")  # the reference's own answers; other files hang on a runtime's roundings


@pytest.fixture(params=ARCHIVES, ids=lambda archive: archive.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Files of our own."""
    return unpacked(request.param, tmp_path / "golden")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """By archive, files that are only read."""
    return {archive: unpacked(archive, tmp_path_factory.mktemp("golden")) for archive in ARCHIVES}


def answers(file: Path, folder: Path, trust: bool = False) -> NDArray[np.float32]:
    runner = load(file, trust=trust)
    pictures = sorted((folder / "photos").rglob("*.bmp"))[::6]
    images = np.stack([load_image(runner.preprocess, path) for path in pictures])
    return runner.features(images) if "features" in file.name or file.name == "imported.nest" else runner(images)


@pytest.mark.parametrize(("archive", "name"), ANSWERS, ids=[f"{archive.stem}-{name}" for archive, name in ANSWERS])
def test_a_file_of_then_answers_as_it_did(folders: dict[Path, Path], archive: Path, name: str) -> None:
    folder = folders[archive]
    wanted, found = np.array(recorded(archive)[name]), answers(folder / name, folder)
    assert found.shape == wanted.shape
    if name in EXACT:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    else:
        allowed = 0.08 if "int8" in name or "features" in name else 2e-3
        np.testing.assert_allclose(found, wanted, atol=allowed * np.abs(wanted).max())


def test_a_folder_of_c_answers_as_its_bundle(golden: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    of_bundle = answers(golden / "integers.nest", golden)
    np.testing.assert_allclose(answers(golden / "files" / "integers-c-host", golden, trust=True), of_bundle, rtol=1e-4, atol=1e-4)


def test_bundles_know_where_they_come_from(golden: Path) -> None:
    bundle = bundles.load(golden / "integers.nest")
    assert [step.name for step in bundle.lineage] == ["import", "fit", "quantize"] and bundle.labels == LABELS
    assert bundle.split is not None and bundle.graph is not None and bundle.yardstick is not None
    assert bundles.load(golden / "fitted.nest").graph is None


def test_manifests_and_heads_are_read(golden: Path) -> None:
    listed = manifest.read(golden / "files")
    assert len(listed) == 10 and all((golden / "files" / artifact.file).exists() for artifact in listed)
    assert packed.read(golden / "package").labels == LABELS
    fresh, trained = (head_file.newest(golden / "package" / name)[0] for name in ("head.nst", "trained.nst"))
    assert fresh.labels == trained.labels == LABELS and trained.weights.shape == fresh.weights.shape
    assert not np.array_equal(trained.weights, fresh.weights)


def test_a_tflite_of_then_is_read_and_taught(nestling: Nestling, golden: Path) -> None:
    graph, _ = read_tflite((golden / "network.tflite").read_bytes(), "network.tflite")
    assert {node.op for node in graph.nodes} >= {"conv2d", "depthwise_conv2d", "fully_connected", "max_pool", "concat", "mul"}
    done = nestling("quantize", golden / "fitted.nest", "--data", golden / "photos", "-o", golden / "again.nest", "--json")
    assert json.loads(done.stdout)


def test_a_named_backbone_of_then_that_does_not_carry_its_graph_is_quantised(nestling: Nestling, golden: Path) -> None:
    then = bundles.load(golden / "named.nest")
    assert isinstance(then.architecture, Timm) and then.architecture.structure is None
    assert "structure.json" not in unzipped((golden / "named.nest").read_bytes(), "named.nest")
    again = golden / "again.nest"
    done = nestling("quantize", golden / "named.nest", "--data", golden / "photos", "-o", again, "--json")
    assert json.loads(done.stdout) and bundles.load(again).graph is not None
    kept = bundles.load(again).arrays
    assert all(np.array_equal(array, kept[name]) for name, array in then.arrays.items())


def test_a_package_of_then_goes_on_learning(nestling: Nestling, golden: Path) -> None:
    shutil.copytree(golden / "photos" / "good", golden / "photos" / "new")
    package, taught = golden / "package", golden / "on.nst"
    nestling("learn", package, golden / "photos", "--from", package / "trained.nst", "--cycles", "5", "-o", taught)
    assert head_file.newest(taught)[0].labels == (*LABELS, "new")


def test_our_own_integer_file_with_its_float_head_is_imported_and_exported(golden: Path, nestling: Nestling) -> None:
    """Its head is a head again; the float network that its gate is held against ends in it, too."""
    taken, out = golden / "taken.nest", golden / "taken"
    assert nestling("import", golden / "files" / "integers-int8.tflite", "-o", taken).status == 0
    made = nestling("export", taken, "--to", "tflite", "--precision", "int8", "--data", golden / "photos", "-o", out)
    assert made.status == 0, made.stderr
    wanted, found = answers(golden / "files" / "integers-int8.tflite", golden), answers(out / "taken-int8.tflite", golden)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
