"""The comparison of bundles against counts made elsewhere: torch's modules, eval, the file system, zlib, definitions by force."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from nestling import bundle as bundles
from nestling.artifacts import manifest
from nestling.bundle import Bundle, Split, Step
from nestling.data.folders import scan
from nestling.errors import NestlingError, UnusableData
from nestling.graph.integers import QuantizeConfig
from nestling.measure.answers import evaluate, predict
from nestling.models.backbones import build_backbone
from nestling.models.float_graph import float_graph
from nestling.pages.compare.comparable import judges
from nestling.pages.compare.compare import CompareConfig, compare
from nestling.pages.compare.found import Comparison
from nestling.pages.compare.page import render
from nestling.pages.compare.words import lines
from nestling.quantization.quantize import quantize
from nestling.training.fit import FitConfig, fit
from tests.pages.reading import Reader

NETWORK, SIZE = "mobilenetv2_050", 32
QUICK = CompareConfig(wanted=(("tflite", "int8"),), rounds=1)
CURVES = {"loss": (1.4, 0.9, 0.7), "val_loss": (1.2, 1.0, 1.1), "val_top1": (0.5, 0.75, 0.7)}


# ---- small networks, compared once ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for name, colour in (("apple", (150, 110, 110)), ("lime", (110, 140, 110)), ("plum", (120, 110, 140))):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(colour, 60, (40, 44, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def first(photos: Path) -> Bundle:
    return fit(photos, config=FitConfig(NETWORK, "none", SIZE)).bundle


@pytest.fixture(scope="module")
def paths(first: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle by timm's name, and one of a Graph, four fifths of its weights zero, that brings its integers."""
    root = tmp_path_factory.mktemp("bundles")
    bundles.save(first, root / "base.nest")
    graph = float_graph(first)
    rng = np.random.default_rng(1)
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"):
            weight = tensors[node.inputs[1]]
            assert weight.data is not None
            tensors[weight.name] = replace(
                weight, data=np.where(rng.random(weight.data.shape) < 0.8, 0, np.multiply(2.2, weight.data)).astype(np.float32)
            )
    step = Step("finetune", {"epochs": 3}, "", {"val_top1": 0.75}, CURVES)
    sparse = replace(first, architecture=replace(graph, tensors=tensors), arrays={}, lineage=(*first.lineage, step))
    plain = QuantizeConfig(calibration=12, equalize="off", bias_correction="off")
    bundles.save(quantize(sparse, photos, plain), root / "sparse.nest")
    return root / "base.nest", root / "sparse.nest"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(paths: tuple[Path, Path], kept: Path) -> Comparison:
    return compare(paths, None, replace(QUICK, keep=kept))


def test_top1_is_what_eval_finds(found: Comparison, paths: tuple[Path, Path], kept: Path, photos: Path) -> None:
    base, sparse = found.bundles
    (quantised,) = kept.glob("base-*/base-int8.nest")
    assert base.floats and base.integers and sparse.integers
    for score, path in ((base.floats, paths[0]), (base.integers, quantised), (sparse.integers, paths[1])):
        judged = evaluate(path, photos).evaluation
        assert (score.top1, score.interval, score.images) == (judged.top1, judged.interval, judged.images)
    assert found.images == len(bundles.load(paths[0]).split.test)
    for one in found.bundles:
        (place,) = kept.glob(f"{one.name}-*")
        assert len(one.files) == 1
        for file in one.files:
            assert file.top1 == evaluate(place / file.file, photos).evaluation.top1


def test_a_bundle_without_integers_needs_no_folder_to_keep_them(paths: tuple[Path, Path]) -> None:
    (base,) = compare(paths[:1], None, QUICK).bundles
    assert base.integers is not None and base.quantised_here


def test_p_is_scipys_binomial_of_the_photographs_that_changed(
    found: Comparison, paths: tuple[Path, Path], kept: Path, photos: Path
) -> None:
    (quantised,) = kept.glob("base-*/base-int8.nest")
    split = bundles.load(paths[0]).split
    assert split is not None
    test = [item.path for item in scan(photos).items if item.fingerprint in split.test]
    right = [
        [one.label == path.parent.name for one, path in zip(predict(file, test).found, test, strict=True)]
        for file in (quantised, paths[1])
    ]
    lost, changed = sum(a > b for a, b in zip(*right, strict=True)), sum(a != b for a, b in zip(*right, strict=True))
    expected = binomtest(lost, changed).pvalue if changed else 1.0
    score = found.bundles[1].integers
    assert score and score.p == pytest.approx(expected)
    assert found.bundles[0].floats and found.bundles[0].floats.p is None and found.bundles[0].integers.p is None


def test_macs_and_parameters_counted_by_torchs_modules(found: Comparison, first: Bundle) -> None:
    backbone = build_backbone(first.architecture, first.arrays)  # type: ignore[arg-type]  # it is timm's
    products: list[int] = []

    def count(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        assert isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
        each = module.weight[0].numel()  # multiplications for one number that comes out
        products.append(output.numel() * each)

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        width = backbone(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
    norms = sum(m.num_features for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    learned = sum(p.numel() for p in backbone.parameters()) + 3 * width + 3
    weights = found.bundles[0].weights
    assert weights.macs == sum(products) == found.bundles[1].weights.macs
    assert weights.parameters == learned
    assert weights.float_bytes == 4 * (learned - norms)  # of a norm's scale and shift only the shift is left, as a bias


def test_compressed_weights_and_zeros(found: Comparison, paths: tuple[Path, Path], kept: Path) -> None:
    (quantised,) = kept.glob("base-*/base-int8.nest")
    for one, file in zip(found.bundles, (quantised, paths[1]), strict=True):
        graph = bundles.load(file).graph
        assert graph is not None
        stored = [
            graph.tensors[node.inputs[1]].data
            for node in graph.nodes
            if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")
        ]
        whole = b"".join(weight.tobytes() for weight in stored)
        assert one.weights.int8_bytes == len(whole)
        assert one.weights.compressed_bytes == len(zlib.compress(whole, 9))
        assert one.weights.int8_zeros == pytest.approx(whole.count(0) / len(whole))
    base, sparse = (one.weights for one in found.bundles)
    assert base.zeros == 0 and sparse.zeros == pytest.approx(0.8, abs=0.01)
    assert sparse.compressed_bytes and base.compressed_bytes and sparse.compressed_bytes < 0.5 * base.compressed_bytes


def test_bytes_are_the_file_systems_and_all_are_timed(found: Comparison, kept: Path) -> None:
    for one in found.bundles:
        (place,) = kept.glob(f"{one.name}-*")
        assert {file.file for file in one.files} == {f"{one.name}-int8.tflite"}
        for file in one.files:
            assert file.bytes == (place / file.file).stat().st_size
            assert file.ms_median is not None and 0 < file.ms_median <= file.ms_p95


def test_what_was_quantised_here_is_told_and_differences_are_differences(found: Comparison) -> None:
    assert [one.quantised_here for one in found.bundles] == [True, False]
    for one in found.bundles:
        assert one.floats and one.integers and one.difference == one.integers.top1 - one.floats.top1
    assert any("learned on int8 embeddings" in note for note in found.bundles[1].notes)
    assert not found.warnings and found.bundles[0].notes == ()


def test_kept_files_are_found_again(
    found: Comparison, paths: tuple[Path, Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is quantised or printed, save a file that was damaged since."""
    printed: list[str] = []
    exported = __import__("nestling.pages.compare.files", fromlist=["exported"]).exported

    def spy(path: Path, out: Path, wanted: list[tuple[str, str]], *rest: object) -> object:
        printed.extend(f"{precision}.{form}" for form, precision in wanted)
        return exported(path, out, wanted, *rest)

    monkeypatch.setattr("nestling.pages.compare.files.exported", spy)
    monkeypatch.setattr("nestling.pages.compare.files.quantized_first", lambda *_: pytest.fail("quantised again"))
    monkeypatch.setattr("nestling.pages.compare.files.bench", lambda *_, **__: (_ for _ in ()).throw(NestlingError("no clock")))
    (damaged,) = kept.glob("base-*/base-int8.tflite")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    again = compare(paths[:1], None, replace(QUICK, keep=kept))
    assert printed == ["int8.tflite"] and damaged.read_bytes() == content
    (one,) = again.bundles
    assert one.floats == found.bundles[0].floats and one.weights == found.bundles[0].weights
    assert [file.ms_median for file in one.files] == [None] and one.notes == ("nothing was timed: no clock",)
    assert "ms" not in " ".join(line.what for line in lines(again)) and len(Reader(render(again)).all("svg")) == 1


def test_a_file_that_failed_its_gate_is_shown(
    paths: tuple[Path, Path], kept: Path, found: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = kept.glob("base-*")
    listed = manifest.read(place)
    text = (place / manifest.NAME).read_text()
    try:
        manifest.note(place, [replace(a, failed=("its answers differ",)) for a in listed if a.precision == "int8"])
        monkeypatch.setattr("nestling.pages.compare.files.bench", lambda *_, **__: (_ for _ in ()).throw(NestlingError("no clock")))
        again = compare(paths[:1], None, replace(QUICK, keep=kept))
    finally:
        (place / manifest.NAME).write_text(text)
    assert [file.failed for file in again.bundles[0].files] == [("its answers differ",)]
    reader = Reader(render(again))
    assert any("base-int8.tflite failed its gate: its answers differ" in text for text in reader.texts("li"))
    assert sum("failed its gate, kept" in text for text in reader.texts("th")) == 1


# ---- which photographs ----------------------------------------------------------------------------------------------------------


def test_bundles_that_know_different_classes_are_refused(first: Bundle) -> None:
    other = replace(first, labels=("apple", "lime", "pear"))
    with pytest.raises(NestlingError, match=r"a and b know different classes.*'plum'.*'pear'"):
        judges({"a": first, "b": other})


def test_test_photographs_that_another_learned_from_are_refused(first: Bundle, photos: Path, tmp_path: Path) -> None:
    split = first.split
    assert split is not None
    moved = split.test[:2]
    other = replace(first, split=replace(split, test=split.test[2:], train=(*split.train, *moved)))
    with pytest.raises(UnusableData, match="b has learned from 2 of the photographs that a keeps for its test"):
        judges({"a": first, "b": other}, photos)
    with pytest.raises(UnusableData, match="b has learned from 2 of the photographs that a keeps for its test"):
        judges({"b": other, "a": first}, photos)
    rng = np.random.default_rng(3)
    for name in first.labels:
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    chosen = judges({"a": first, "b": other}, tmp_path)
    assert len(chosen.items) == 6 and any("b has learned from photographs that a keeps" in text for text in chosen.warnings)


def test_only_photographs_that_none_has_learned_from_are_asked(first: Bundle, photos: Path) -> None:
    split = first.split
    assert split is not None
    shorter = replace(first, split=replace(split, val=split.val[1:]))
    unseen = {item.fingerprint for item in scan(photos).items} - {*split.train, *split.val}
    for every in ({"a": first, "b": shorter}, {"a": shorter, "b": first}, {"a": first}):
        assert {item.fingerprint for item in judges(every, photos).items} == unseen == set(split.test)
    unknown = judges({"a": first, "b": replace(first, split=None)}, photos)
    assert {item.fingerprint for item in unknown.items} == unseen and "learned from" in unknown.warnings[0]
    everything = replace(first, split=Split(0, train=tuple(item.fingerprint for item in scan(photos).items)))
    with pytest.raises(UnusableData, match="only photographs that the bundles have learned from"):
        judges({"a": everything}, photos)


def test_no_folder_and_no_bundle_and_one_twice(first: Bundle, paths: tuple[Path, Path], photos: Path) -> None:
    with pytest.raises(UnusableData, match="--data"):
        judges({"a": replace(first, lineage=())})
    with pytest.raises(NestlingError, match="given twice"):
        compare([paths[0], paths[0].parent / ".." / paths[0].parent.name / paths[0].name], photos)
    with pytest.raises(NestlingError, match="at least one bundle"):
        compare([])
    with pytest.raises(NestlingError, match="host is this computer"):
        compare(paths, None, CompareConfig(machine="host"))
