"""finetune on a small network and three colours: what changes, what stays, and what can still be done with the bundle."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from nestling.artifacts.export import export
from nestling.bundle import Bundle, Part, Split, Step, Timm, Yardstick, load, save
from nestling.data.choose import part, scan_for
from nestling.data.folders import scan
from nestling.errors import NestlingError
from nestling.formats.nest.floats import float_runner
from nestling.graph.ir import Graph
from nestling.measure.answers import evaluate
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph
from nestling.preprocess.image import load as load_image
from nestling.preprocess.image import of_photographs
from nestling.quantization.quantize import quantize
from nestling.training import finetune as module
from nestling.training.blocks import blocks_of
from nestling.training.config import TrainingConfig
from nestling.training.finetune import Taught, finetune
from nestling.training.fit import FitConfig, fit
from nestling.training.loop import train
from nestling.training.session import Session
from tests.helpers.colour_photos import colour_photos

QUICK = TrainingConfig(epochs=2, batch=8, rate=1e-3, augment="light")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("data"), 50, 60)


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return fit(photos, config=FitConfig("mobilenetv3_small_050", "none", 32)).bundle


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def made(fitted: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        return finetune(fitted, photos, QUICK)


def changed(before: Bundle, after: Bundle) -> set[str]:
    assert before.arrays.keys() == after.arrays.keys()
    return {name for name in before.arrays if not np.array_equal(before.arrays[name], after.arrays[name])}


def graph_bundle(fitted: Bundle) -> Bundle:
    """The same network with its architecture as a float Graph, as imported and pruned ones have it."""
    return replace(fitted, architecture=float_graph(fitted), arrays={})


def test_the_backbone_and_the_head_have_learned_and_the_rest_stays(fitted: Bundle, made: Taught) -> None:
    assert len(changed(fitted, made.bundle)) > 0.9 * len(fitted.arrays)
    assert made.bundle.head is not None and fitted.head is not None
    assert not np.array_equal(made.bundle.head.weight, fitted.head.weight)
    for name in ("architecture", "labels", "preprocess", "split"):
        assert getattr(made.bundle, name) == getattr(fitted, name)
    step = made.bundle.lineage[-1]
    assert [s.name for s in made.bundle.lineage] == ["fit", "finetune"] and step.settings["epochs"] == 2
    assert step.metrics["test_top1"] == pytest.approx(made.test.top1, abs=1e-6)
    assert made.images == {"train": 27, "val": 9, "test": 9, "left_out": 0} and len(made.history) == 2


def test_what_it_reports_is_what_the_saved_bundle_answers(made: Taught, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "fine.nest"
    save(made.bundle, path)
    bundle = load(path)
    dataset = scan_for(bundle.labels, photos)
    reported: dict[Part, float] = {"test": made.test.top1, "val": made.best.val_top1}
    for which, said in reported.items():
        items = part(dataset, bundle, which)
        logits = float_runner(bundle)(np.stack([load_image(bundle.preprocess, item.path) for item in items]))
        assert (logits.argmax(1) == [item.label for item in items]).mean() == pytest.approx(said)


def test_it_learns_from_train_alone(fitted: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {}
    real = train

    def spied(network, task, *more):
        seen.update(train={item.fingerprint for item in task.samples.items}, val={item.fingerprint for item in task.val.items})
        return real(network, task, *more)

    monkeypatch.setattr(module, "train", spied)
    finetune(fitted, photos, replace(QUICK, epochs=1))
    assert fitted.split is not None
    assert seen == {"train": set(fitted.split.train), "val": set(fitted.split.val)}


@pytest.mark.kernels
@pytest.mark.slow
def test_it_quantises_exports_and_answers(made: Taught, photos: Path, tmp_path: Path) -> None:
    """Quantising learns the head again: on the embeddings of the new backbone."""
    path = tmp_path / "fine.nest"
    save(quantize(made.bundle, photos), path)
    export(path, tmp_path / "out", [("tflite", "int8"), ("tflite", "fp32")], photos)
    for name in ("fine-int8.tflite", "fine-fp32.tflite"):
        assert evaluate(tmp_path / "out" / name, photos).evaluation.images == 9


def test_what_was_quantised_before_is_no_longer(fitted: Bundle, photos: Path) -> None:
    """Any graph and yardstick stand for those of `quantize`, which takes its time."""
    yardstick = Yardstick(("0" * 16,), np.zeros((1, 3), np.float32), np.zeros((1, 3), np.float32))
    lineage = (*fitted.lineage, Step("quantize"))
    quantised = replace(fitted, graph=float_graph(fitted), yardstick=yardstick, lineage=lineage)
    again = finetune(quantised, photos, replace(QUICK, epochs=1)).bundle
    assert again.graph is None and again.yardstick is None and [step.name for step in again.lineage] == ["fit", "finetune"]


def test_a_graph_learns_and_stays_a_graph(fitted: Bundle, photos: Path, tmp_path: Path) -> None:
    before = graph_bundle(fitted)
    after = finetune(before, photos, QUICK)
    assert isinstance(before.architecture, Graph) and isinstance(after.bundle.architecture, Graph)
    assert [node.op for node in after.bundle.architecture.nodes] == [node.op for node in before.architecture.nodes]
    weights = [name for name, tensor in before.architecture.tensors.items() if tensor.data is not None and tensor.data.size > 100]
    moved = [
        name
        for name in weights
        if not np.array_equal(before.architecture.tensors[name].data, after.bundle.architecture.tensors[name].data)
    ]
    assert len(moved) >= len(weights) - 1  # all but the table of the normalisation
    save(after.bundle, tmp_path / "graph.nest")
    assert evaluate(tmp_path / "graph.nest", photos).evaluation.top1 == pytest.approx(after.test.top1)


@pytest.mark.parametrize("blocks", [0, 2])
def test_only_the_last_blocks_learn(fitted: Bundle, photos: Path, blocks: int) -> None:
    assert isinstance(fitted.architecture, Timm)
    after = finetune(fitted, photos, replace(QUICK, epochs=1, blocks=blocks)).bundle
    # mobilenetv3_small_050 ends: ..., blocks.4.2, blocks.5.0 (a convolution), conv_head (last, with a bias)
    prefixes = {0: (), 2: ("blocks.5.0.", "conv_head.")}[blocks]
    assert {name for name in fitted.arrays if name.startswith(prefixes or "-")} == changed(fitted, after)


def test_blocks_of_a_graph_are_its_layers(fitted: Bundle) -> None:
    graph = graph_bundle(fitted)
    assert isinstance(graph.architecture, Graph)
    layers = [node for node in graph.architecture.nodes if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")]
    backbone = build(graph).backbone
    assert isinstance(backbone, nn.Module) and len(blocks_of(backbone)) == len(layers)


def test_frozen_norms_keep_their_statistics(fitted: Bundle, photos: Path) -> None:
    after = finetune(fitted, photos, replace(QUICK, epochs=1, freeze_norm=True)).bundle
    kept = {name for name in fitted.arrays if name.endswith(("running_mean", "running_var"))}
    assert changed(fitted, after) == fitted.arrays.keys() - kept


def test_another_size_begins_with_a_head_of_that_size(fitted: Bundle, photos: Path) -> None:
    after = finetune(fitted, photos, replace(QUICK, epochs=1, size=64))
    assert after.bundle.preprocess == replace(of_photographs(fitted.preprocess), size=(64, 64))
    direct = fit(photos, config=FitConfig("mobilenetv3_small_050", "none", 64)).bundle.lineage[-1].metrics["val_top1"]
    assert after.val_top1_before == pytest.approx(direct)


def test_resumed_is_the_same_bundle(fitted: Bundle, photos: Path, made: Taught, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        raise StopError

    checkpoint = tmp_path / "fine.checkpoint"
    with pytest.raises(StopError):
        finetune(fitted, photos, QUICK, session=Session(checkpoint=checkpoint, told=stop))
    resumed = finetune(fitted, photos, QUICK, session=Session(checkpoint=checkpoint, resume=True))
    assert resumed.resumed == 1 and changed(resumed.bundle, made.bundle) == set()
    with pytest.raises(NestlingError, match="belongs to another run; it differs in data"):
        finetune(fitted, _fewer(photos, tmp_path), QUICK, session=Session(checkpoint=checkpoint, resume=True))


def _fewer(photos: Path, folder: Path) -> Path:
    for path in sorted(photos.glob("*/*.png"))[1:]:
        (folder / "few" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / "few" / path.parent.name / path.name).write_bytes(path.read_bytes())
    return folder / "few"


def test_a_damaged_photograph_is_named_and_left_out(fitted: Bundle, photos: Path, tmp_path: Path) -> None:
    folder = _fewer(photos, tmp_path)
    assert fitted.split is not None
    victim = next(item for item in scan(folder).items if item.fingerprint in fitted.split.train)
    content = victim.path.read_bytes()
    victim.path.write_bytes(content[: len(content) // 2])
    broken = next(item for item in scan(folder).items if item.path == victim.path).fingerprint
    split = Split(0, tuple({*fitted.split.train, broken}), fitted.split.val, fitted.split.test)
    after = finetune(replace(fitted, split=split), folder, replace(QUICK, epochs=1))
    assert [entry.path for entry in after.left_out] == [victim.path] and "truncated" in after.left_out[0].reason


@pytest.mark.parametrize(
    ("change", "training", "said"),
    [
        ({"architecture": None}, {}, "no float weights"),
        ({"split": None}, {}, "not learned any classes"),
        ({}, {"augment": "wild"}, "none, light, strong"),
        ({}, {"blocks": 99}, "has 1[0-9] blocks"),
        ({}, {"size": 5}, "8 to 4096"),
        ({}, {"optimiser": "adam"}, "adamw, sgd"),
        ({}, {"batch": 0}, "--batch is 1 or more"),
        ({}, {"epochs": 0}, "--epochs is 1 or more"),
    ],
)
def test_what_cannot_be_is_said(fitted: Bundle, photos: Path, change: dict[str, Any], training: dict[str, Any], said: str) -> None:
    with pytest.raises(NestlingError, match=said):
        finetune(replace(fitted, **change), photos, replace(QUICK, **training))


def test_a_graph_has_one_size(fitted: Bundle, photos: Path) -> None:
    with pytest.raises(NestlingError, match="32x32 pixels"):
        finetune(graph_bundle(fitted), photos, replace(QUICK, size=64))
