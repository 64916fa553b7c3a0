"""Quantisation-aware training on a small network and three colours; the judges are the integers' reference and torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nestling.bundle import Bundle, Step, load, save
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.errors import NestlingError
from nestling.formats.nest.integers import integer_runner
from nestling.graph import reference
from nestling.graph.float_twin import real
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Graph, same
from nestling.models.backbones import create
from nestling.models.float_graph import float_graph
from nestling.models.graph_module import GraphModule
from nestling.quantization.calibrate import choose_ranges, observe
from nestling.quantization.equalize import equalized
from nestling.training import qat as module
from nestling.training.config import QatConfig, TrainingConfig
from nestling.training.fit import FitConfig, fit
from nestling.training.loop import Batch, LoopConfig
from nestling.training.norms import with_norms
from nestling.training.qat import Qat, distilling, qat
from nestling.training.qat_network import FakeQuantised, placed
from nestling.training.session import Session
from nestling.training.zeros import is_sparse
from nestling.words import Rounding
from tests.helpers.colour_photos import colour_photos
from tests.helpers.quantization_cases import Everything, Inverted, captured, pictures, seeded
from tests.helpers.small_backbone import SIDE, WIDTH, save_backbone

QUICK = TrainingConfig(epochs=2, batch=9, rate=1e-3, augment="light")
PLAIN = QuantizeConfig(bits_weights=4, calibration=20, equalize="off", bias_correction="off", range="minmax")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("data"), 40, 44)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fitted(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return fit(photos, config=FitConfig(str(save_backbone(tmp_path_factory.mktemp("backbone") / "small.nest")))).bundle


@pytest.fixture(scope="module")
def made(fitted: Bundle, photos: Path) -> Qat:
    return qat(fitted, photos, QatConfig("pact", PLAIN, QUICK, fold_after=1))


def grid_scale(grid: Any) -> float:
    return float(grid.scale().detach())


def begun(
    graph: Graph, config: QuantizeConfig, method: Rounding, images: list, width: int, norms: Graph | None = None
) -> FakeQuantised:
    start = placed(graph, observe(graph, images), config)
    head = Head(np.ones((3, width), np.float32), np.zeros(3, np.float32))
    return FakeQuantised(norms or graph, graph, head, config, method, start).eval()


def embeddings(network: FakeQuantised, images: list) -> np.ndarray:
    with torch.inference_mode():
        return network.features(torch.from_numpy(np.stack(images))).numpy()


def answers(integers: Graph, images: list) -> np.ndarray:
    """The real numbers of the reference's embedding."""
    name = integers.outputs[0]
    tensor = replace(integers.tensors[name], shape=())
    rows = [reference.run(integers, image[None])[name][0] for image in images]
    return np.stack([real(replace(tensor, shape=row.shape, data=row)) for row in rows])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


# ---- the network that is trained -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "kind", "width", "config"),
    [
        ("pact", Everything, 12, QuantizeConfig()),
        ("lsq", Everything, 12, QuantizeConfig(per_layer=True)),
        ("minmax", Everything, 12, QuantizeConfig()),
        ("lsq", Inverted, 40, QuantizeConfig(symmetric=True)),
        ("minmax", Inverted, 40, QuantizeConfig(symmetric=True)),
    ],
)
def test_it_begins_as_post_training_quantisation(method: Rounding, kind: type, width: int, config: QuantizeConfig) -> None:
    """The same integers to the bit, and values that the reference gives up to rare roundings, those of hard_swish above all."""
    graph, images = captured(seeded(kind)), pictures(6)
    network = begun(graph, config, method, images, width)
    ranges = choose_ranges(observe(graph, images), config.range, 8, config.symmetric)
    integers = with_integers(graph, ranges, config)
    assert same(network.integers(network.float_graph()), integers)
    with torch.inference_mode():
        floats = GraphModule(graph).eval()(torch.from_numpy(np.stack(images))).numpy()
    rounded = embeddings(network, images)
    assert rms(answers(integers, images) - rounded) < 0.25 * rms(rounded - floats)


@pytest.mark.parametrize("method", ["pact", "lsq", "minmax"])
def test_in_double_it_answers_as_the_reference(method: Rounding) -> None:
    """To the bit of the embedding's integers, however many images; the network itself stays in float32."""
    graph, images = captured(seeded(Inverted)), pictures(60, seed=4)
    network = begun(graph, QuantizeConfig(bits_activations=7, per_layer=True), method, images, 40)
    integers, precise = network.integers(network.float_graph()), embeddings(network.in_double(), images)
    step = integers.tensors[integers.outputs[0]].quant.scale[0]
    assert precise.dtype == np.float64 and embeddings(network, images[:2]).dtype == np.float32
    assert np.abs(precise - answers(integers, images)).max() < 1e-3 * step


@pytest.mark.parametrize("bits", [4, 7])
def test_few_bits_are_kept_by_values_that_are_clamped(fitted: Bundle, photos: Path, bits: int) -> None:
    """Not more than 2^bits integers, also on images that are brighter than those that it was calibrated on."""
    graph, config = float_graph(fitted), QuantizeConfig(bits_activations=bits)
    network = begun(graph, config, "lsq", pictures(4, SIDE), WIDTH)
    integers = network.integers(network.float_graph())
    clamped = {node.name for node in graph.nodes if getattr(node.attrs, "clamp", "none") != "none"}
    wild = np.random.default_rng(3).integers(0, 2, (SIDE, SIDE, 3)).astype(np.uint8) * 255
    seen = {name: values for name, values in reference.activations(integers, wild[None]) if name in clamped}
    assert len(seen) > 4 and all(int(v.max()) - int(v.min()) < 2**bits for v in seen.values())
    assert max(len(np.unique(v)) for v in seen.values()) > 2 ** (bits - 1)


@pytest.mark.parametrize(("which", "method"), [("graph", "pact"), ("graph", "lsq"), ("graph", "minmax"), ("timm", "lsq")])
def test_norms_folded_and_unfolded_answer_as_the_reference(fitted: Bundle, which: str, method: Rounding) -> None:
    """In evaluation: all three round at the same places."""
    bundle, width = fitted, WIDTH
    if which == "timm":
        architecture, arrays, preprocess = create("mobilenetv3_small_050", "none", 32)
        bundle, width = Bundle(architecture, arrays, None, (), preprocess), 1024
    graph, images = float_graph(bundle), pictures(4, bundle.preprocess.size[0])
    norms = with_norms(graph, pictures(20, bundle.preprocess.size[0], seed=3))
    assert sum(node.op == "batch_norm" for node in norms.nodes) >= 7
    open_, folded = (begun(graph, PLAIN, method, images, width, g) for g in (norms, graph))
    assert not bool(open_.folded) and bool(folded.folded)
    with torch.inference_mode():
        floats = GraphModule(graph).eval()(torch.from_numpy(np.stack(images))).numpy()
    a, b = embeddings(open_, images), embeddings(folded, images)
    noise = rms(b - floats)
    assert noise > 0 and rms(a - b) <= 0.05 * noise and rms(answers(folded.integers(graph), images) - b) <= 0.25 * noise
    assert np.array_equal(embeddings(open_.with_norms_folded(), images), b)


def test_norms_learn_statistics_until_they_are_folded(fitted: Bundle) -> None:
    graph = float_graph(fitted)
    network = begun(graph, PLAIN, "lsq", pictures(4, SIDE), WIDTH, with_norms(graph, pictures(20, SIDE))).train()
    images = torch.from_numpy(np.stack(pictures(8, SIDE, seed=2)))

    def means() -> list[torch.Tensor]:
        norms = (node for node in network.backbone.graph.nodes if node.op == "batch_norm")
        return [network.backbone.constant(norm.inputs[3]).clone() for norm in norms]

    first = means()
    network(images)
    second = means()
    assert first and all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    network.folded.fill_(True)
    network(images)
    assert all(torch.equal(a, b) for a, b in zip(second, means(), strict=True))


def test_norms_fold_and_clipping_values_decay_step_by_step(fitted: Bundle) -> None:
    """Ten steps of two epochs: with the fifth the norms fold. alpha falls by rate x decay, relative, a step."""
    graph = float_graph(fitted)
    network = begun(graph, PLAIN, "pact", pictures(4, SIDE), WIDTH, with_norms(graph, pictures(20, SIDE)))
    loop = LoopConfig(epochs=2, rate=0.01, warmup=0.0)
    after = module._changing(QatConfig("pact", alpha_decay=0.5, fold_after=1), loop)(network)
    before = [grid_scale(grid) for grid in network.grids]
    folded = []
    with torch.no_grad():
        for step in range(10):
            after(network, step, 10)
            folded.append(bool(network.folded))
    assert folded == [False] * 4 + [True] * 6
    total = sum(0.01 * 0.5 * (1 + np.cos(np.pi * step / 10)) / 2 for step in range(10))
    shares = [grid_scale(grid) / old for grid, old in zip(network.grids, before, strict=True)]
    assert shares == pytest.approx([1.0] + [np.exp(-total)] * (len(shares) - 1), rel=1e-5)  # the first is the table's


def test_a_channel_that_rounds_to_zeros_does_not_take_the_step_of_its_layer(fitted: Bundle) -> None:
    """It has no variance while norms learn; its folded weights must not grow by that."""
    graph, config = float_graph(fitted), QuantizeConfig(per_layer=True)
    network = begun(graph, config, "pact", pictures(4, SIDE), WIDTH, with_norms(graph, pictures(20, SIDE))).train()
    norms = [node for node in network.backbone.graph.nodes if node.op == "batch_norm"]
    gammas, variances = ([network.backbone.constant(norm.inputs[place]) for norm in norms] for place in (1, 4))
    with torch.no_grad():
        for gamma in gammas:
            gamma[0] *= 1e-3
    before = [variance.clone() for variance in variances]
    after = module._changing(QatConfig("pact", config, fold_after=1), LoopConfig(epochs=2))(network)
    images = torch.from_numpy(np.stack(pictures(8, SIDE, seed=2)))
    with torch.no_grad():
        for step in range(60):
            network(images)
            after(network, step, 200)
    assert not bool(network.folded)
    assert all((now >= 0.25 * then).all() for now, then in zip(variances, before, strict=True))


def test_everything_that_can_learn_has_a_gradient(fitted: Bundle) -> None:
    graph = float_graph(fitted)
    network = begun(graph, PLAIN, "lsq", pictures(4, SIDE), WIDTH, with_norms(graph, pictures(20, SIDE))).train()
    network(torch.from_numpy(np.stack(pictures(8, SIDE)))).square().sum().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert not without
    silent = [name for name, p in network.named_parameters() if "log" in name and not p.grad.abs().sum() > 0]
    assert not silent


# ---- the training ----------------------------------------------------------------------------------------------------------------


def test_what_it_gives_is_a_quantised_bundle(made: Qat, fitted: Bundle, tmp_path: Path) -> None:
    bundle = made.trained.bundle
    assert isinstance(bundle.architecture, Graph) and bundle.graph is not None and bundle.yardstick is not None
    weights = [t.data for t in bundle.graph.tensors.values() if t.dtype == "int8" and t.data is not None and t.data.ndim == 4]
    assert len(weights) == 7 and all(np.abs(data).max() <= 7 for data in weights)
    step = bundle.lineage[-1]
    assert step.name == "quantize" and step.settings["qat"] == "pact" and step.settings["fold_after"] == 1
    assert len(step.curves["loss"]) == 2 and step.metrics["val_top1"] == made.val_top1
    save(bundle, tmp_path / "q.nest")
    again = load(tmp_path / "q.nest")
    assert same(again.graph, bundle.graph)
    moved = float_graph(fitted).tensors
    names = [name for name, t in bundle.architecture.tensors.items() if t.data is not None and name in moved and t.data.ndim == 4]
    assert len(names) == 7 and all(not np.array_equal(bundle.architecture.tensors[name].data, moved[name].data) for name in names)


def test_the_reference_answers_as_the_network_that_was_trained(made: Qat) -> None:
    assert made.noise <= 0.25


def test_what_it_reports_is_what_the_bundles_answer(made: Qat, photos: Path) -> None:
    dataset = training_data(made.trained.bundle, photos)
    items = part(dataset, made.trained.bundle, "val")
    images, truth = np.stack(images_of(items, made.trained.bundle.preprocess)), [item.label for item in items]
    found = integer_runner(made.trained.bundle, quick=True)(images).argmax(1) == truth
    assert abs(found.mean() - made.val_top1) <= 1.01 / len(truth)  # LiteRT's quick kernels differ in near ties
    better = made.val_top1 > made.post_val_top1
    assert made.which == ("qat" if better else "post-training") == made.bundle.lineage[-1].settings["kept"]
    assert made.bundle is made.kept.bundle and (made.kept is made.trained) == better


def test_resumed_is_the_same_to_the_bit(made: Qat, fitted: Bundle, photos: Path, tmp_path: Path) -> None:
    """Stopped after the epoch in which the norms are folded."""

    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        raise StopError

    config, checkpoint = QatConfig("pact", PLAIN, QUICK, fold_after=1), tmp_path / "q.checkpoint"
    with pytest.raises(StopError):
        qat(fitted, photos, config, session=Session(checkpoint=checkpoint, told=stop))
    resumed = qat(fitted, photos, config, session=Session(checkpoint=checkpoint, resume=True))
    assert resumed.resumed == 1 and same(resumed.trained.bundle.graph, made.trained.bundle.graph)
    assert np.array_equal(resumed.trained.bundle.head.weight, made.trained.bundle.head.weight)
    with pytest.raises(NestlingError, match=r"differs in .*method"):
        qat(fitted, photos, replace(config, method="lsq"), session=Session(checkpoint=checkpoint, resume=True))


def test_a_better_post_training_quantisation_is_kept(fitted: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate of none: the training is never better than what it began with."""
    monkeypatch.setattr(module, "_val_top1", lambda bundle, dataset, progress: 0.5)
    found = qat(fitted, photos, QatConfig("minmax", PLAIN, replace(QUICK, epochs=1, rate=1e-9)))
    assert found.which == "post-training" and found.bundle.architecture is fitted.architecture
    step = found.bundle.lineage[-1]
    assert step.settings["kept"] == "post-training" and step.settings["qat"] == "minmax" and "loss" in step.curves


def test_it_begins_equalised_where_that_helps(fitted: Bundle, photos: Path) -> None:
    """A rate of none: the weights that come out are those that went in."""
    config = QatConfig("lsq", replace(PLAIN, equalize="on"), replace(QUICK, epochs=1, rate=1e-9))
    trained = qat(fitted, photos, config).trained.bundle.architecture
    assert isinstance(trained, Graph)
    plain = float_graph(fitted)
    images = images_of(part(training_data(fitted, photos), fitted, "train", PLAIN.calibration), fitted.preprocess)
    wanted = equalized(plain, {name: found.channel_high for name, found in observe(plain, images, PLAIN.seed).items()})
    for node in plain.nodes:
        if "conv" in node.op:
            ours, theirs, before = (graph.tensors[node.inputs[1]].data for graph in (trained, wanted, plain))
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
            assert not np.allclose(ours, before, rtol=0.01)


def test_zeros_that_were_made_on_purpose_stay(fitted: Bundle, photos: Path) -> None:
    assert isinstance(fitted.architecture, Graph)
    tensors = dict(fitted.architecture.tensors)
    name = next(name for name, t in tensors.items() if t.data is not None and t.data.ndim == 4 and t.data.size > 100)
    half = np.random.default_rng(0).random(tensors[name].shape) < 0.5
    tensors[name] = replace(tensors[name], data=np.where(half, np.float32(0), tensors[name].data))
    step = Step("prune", {"method": "unstructured"})
    sparse = replace(fitted, architecture=replace(fitted.architecture, tensors=tensors), lineage=(*fitted.lineage, step))
    assert is_sparse(sparse)
    found = qat(sparse, photos, QatConfig("lsq", PLAIN, replace(QUICK, epochs=1))).trained.bundle
    assert isinstance(found.architecture, Graph)
    assert (found.graph.tensors[name].data[half] == 0).all() and (found.architecture.tensors[name].data[~half] != 0).all()


def test_distilling_is_its_formula() -> None:
    teacher, network = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    images, targets = torch.randn(5, 4), torch.eye(3)[[0, 1, 2, 0, 1]]
    found = distilling(teacher, 0.3)(network, Batch(images, targets, torch.arange(5)))
    log_p, log_t = (module_(images).detach().double() for module_ in (network, teacher))
    hard = -(log_p.softmax(1).log() * targets).sum(1)
    p, t = (log_p / 4).softmax(1), (log_t / 4).softmax(1)
    soft = (t * (t.log() - p.log())).sum(1)
    torch.testing.assert_close(found.detach().double(), 0.7 * hard + 0.3 * 16 * soft, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "dorefa"}, "lsq, pact, minmax"),
        ({"fold_after": 3}, "0 to --epochs"),
        ({"distill": 1.5}, "from 0"),
        ({"training": replace(QUICK, blocks=1)}, "whole network"),
        ({"quantize": QuantizeConfig(layer_bits=(("nothing", 4),))}, "no layer 'nothing'"),
    ],
)
def test_what_cannot_be_is_said(fitted: Bundle, photos: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(NestlingError, match=said):
        qat(fitted, photos, replace(QatConfig("lsq", PLAIN, QUICK), **change))


def test_the_ends_and_single_layers_have_bits_of_their_own(fitted: Bundle) -> None:
    graph = float_graph(fitted)
    layers = [node.name for node in graph.nodes if "conv" in node.op]
    config = replace(PLAIN, ends_at_8=True, layer_bits=((layers[3], 2),))
    images = pictures(4, SIDE)
    network = begun(graph, config, "lsq", images, WIDTH)
    integers = network.integers(network.float_graph())
    assert rms(answers(integers, images) - embeddings(network, images)) < 0.02 * rms(embeddings(network, images))
    largest = {n.name: int(np.abs(integers.tensors[n.inputs[1]].data).max()) for n in integers.nodes if "conv" in n.op}
    assert largest[layers[0]] > 7 and largest[layers[-1]] > 7 and largest[layers[3]] == 1 and largest[layers[5]] <= 7
