"""Weights that become zero and stay so: judged by definitions worked out one by one, by torch's optimisers, and by zlib."""

from __future__ import annotations

import lzma
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.bundle import Bundle, load, save
from nestling.compress.config import PruneConfig, SparseConfig
from nestling.compress.measure import ENCODINGS, packed
from nestling.compress.prune import prune, renormed, sparsify
from nestling.compress.sparse import growing, masks, prunable, ramp_of, sparsity_at
from nestling.data.folders import scan
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph
from nestling.graph.passes import prepare
from nestling.models.backbones import build
from nestling.models.float_graph import float_graph, unfolded_graph
from nestling.models.plain import plain
from nestling.preprocess.image import load as load_image
from nestling.quantization.quantize import quantize
from nestling.training.config import TrainingConfig
from nestling.training.finetune import Taught, finetune
from nestling.training.fit import FitConfig, fit
from nestling.training.session import Session
from nestling.training.zeros import is_sparse, keeping, zeros_kept
from tests.helpers.colour_photos import colour_photos
from tests.helpers.torch_networks import captured_once, image, network

QUICK = TrainingConfig(epochs=3, batch=8, rate=1e-3)  # four steps an epoch, so that the ramp is of eight: 3 / 5 of 12
BLOCKS = SparseConfig("block1x4", 0.7)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("data"), 40, 40)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fitted(photos: Path) -> Bundle:
    return fit(photos, config=FitConfig("mobilenetv2_035", "none", 32)).bundle


@pytest.fixture(scope="module")
def single(fitted: Bundle, photos: Path) -> Taught:
    return sparsify(fitted, photos, SparseConfig("unstructured", 0.8), QUICK)


@pytest.fixture(scope="module")
def blocked(fitted: Bundle, photos: Path) -> Taught:
    return sparsify(fitted, photos, BLOCKS, QUICK)


def pruned_arrays(bundle: Bundle) -> dict[str, np.ndarray]:
    """By timm's names: the weights of 1 x 1 convolutions behind the first layer, as [O, I]."""
    found = {name: array[:, :, 0, 0] for name, array in bundle.arrays.items() if array.ndim == 4 and array.shape[2:] == (1, 1)}
    assert len(found) > 30
    return found


def zeros(bundle: Bundle) -> dict[str, np.ndarray]:
    return {name: array == 0 for name, array in pruned_arrays(bundle).items()}


# ---- which and when --------------------------------------------------------------------------------------------------------------


def test_the_schedule_by_hand() -> None:
    assert [ramp_of(steps) for steps in (1, 3, 5, 10, 940)] == [1, 2, 3, 6, 564]
    # 0.8 (1 - (1 - t)^3) for t = 1/3, 2/3, 1, 1, 1
    expected = [0.8 * 19 / 27, 0.8 * 26 / 27, 0.8, 0.8, 0.8]
    assert [sparsity_at(step, 5, 0.8) for step in range(5)] == pytest.approx(expected)


A, B = torch.tensor([[1.0, -5.0], [3.0, 0.5]]), torch.tensor([[0.2, -0.4]])


def test_masks_by_hand() -> None:
    """Of magnitude, 0.2, 0.4 and 0.5 go. LAMP: 0.25 / 35.25, 1 / 35, 9 / 34, 25 / 25 in the first, 0.04 / 0.2, 1 in the second."""
    a, b = masks([A, B], 0.5, ranking="magnitude")
    assert a.tolist() == [[True, True], [True, False]] and b.tolist() == [[False, False]]
    a, b = masks([A, B], 0.5, ranking="lamp")
    assert a.tolist() == [[False, True], [True, False]] and b.tolist() == [[False, True]]
    a, b = masks([A, B], 5 / 6, ranking="lamp")  # the largest of each layer are worth 1; of equals the first goes
    assert a.tolist() == [[False, False], [False, False]] and b.tolist() == [[False, True]]


def test_blocks_by_hand() -> None:
    """Along the last axis, four and a rest of two: mean squares 1 and 4 in the first row, 9 and 0.25 in the second."""
    weight = torch.tensor([[1.0, 1, 1, 1, 2, 2], [3, 3, 3, 3, 0.5, 0.5]])
    (mask,) = masks([weight], 2 / 12, 4, "magnitude")
    assert mask.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    (mask,) = masks([weight], 3 / 12, 4, "magnitude")
    assert mask.tolist() == [[False] * 4 + [True] * 2, [True] * 4 + [False] * 2]


@st.composite
def layers(draw: st.DrawFn) -> list[np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2), st.integers(1, 11)), min_size=1, max_size=3))
    sparse = draw(st.booleans())
    made = [rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3) for shape in shapes]
    return [(some * (rng.random(some.shape) > 0.4 * sparse)).astype(np.float32) for some in made]


def scores_one_by_one(weights: list[np.ndarray], width: int, ranking: str) -> list[tuple[float, tuple[int, ...]]]:
    """(score, (layer, row, place, first column, columns)) of every block, by the definitions."""
    found = []
    for number, weight in enumerate(weights):
        own = {}
        for row, place in np.ndindex(weight.shape[:2]):
            for start in range(0, weight.shape[2], width):
                block = weight[row, place, start : start + width].astype(np.float64)
                own[number, row, place, start, len(block)] = float((block**2).mean())
        for key, square in own.items():
            larger = sum(other for other in own.values() if other >= square)
            found.append((square / larger if ranking == "lamp" and square else square, key))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(layers(), st.floats(0.05, 0.95), st.sampled_from([1, 4]), st.sampled_from(["lamp", "magnitude"]))
def test_masks_are_a_global_threshold_reached_to_one_block(
    weights: list[np.ndarray], share: float, width: int, ranking: str
) -> None:
    found = [mask.numpy() for mask in masks([torch.from_numpy(w) for w in weights], share, width, ranking)]  # type: ignore[arg-type]  # of the kind that this test knows
    gone: list[tuple[float, int]] = []
    stay: list[tuple[float, int]] = []
    largest = 0
    for score, (number, row, place, start, columns) in scores_one_by_one(weights, width, ranking):
        block = found[number][row, place, start : start + width]
        assert block.all() or not block.any()
        (stay if block.all() else gone).append((score, columns))
    assert not gone or not stay or max(gone)[0] <= min(stay)[0] * (1 + 1e-9)
    assert all(score > 0 for score, _ in stay)  # what is zero has gone
    wanted, reached = round(share * sum(w.size for w in weights)), sum(columns for _, columns in gone)
    dead = sum(columns for score, columns in gone if score == 0)
    largest = width - 1
    assert max(wanted, dead) <= reached <= max(wanted + largest, dead)


def test_what_may_become_zero_in_torchs_layout_and_in_the_graphs(fitted: Bundle) -> None:
    """All but the stem and the depthwise convolutions, as OHWI views: the same numbers from both kinds of architecture."""
    module = build(fitted)
    found = prunable(module)
    assert sum(weight.numel() for weight in found.values()) == sum(array.size for array in pruned_arrays(fitted).values())
    for name, weight in found.items():
        assert np.array_equal(weight[:, 0, 0].numpy(), fitted.arrays[f"{name}.weight"][:, :, 0, 0])
        weight.zero_()
    assert all(not array.any() for array in pruned_arrays(replace(fitted, arrays=_arrays(module))).values())
    graph = captured_once(plain(network("mobilenetv2_050")), (64, 64, 3))
    of_graph = prunable(build(replace(fitted, architecture=graph, arrays={}, head=None)))
    convolutions = [node for node in graph.nodes if node.op == "conv2d"][1:]
    assert [tuple(w.shape) for w in of_graph.values()] == [graph.tensors[node.inputs[1]].shape for node in convolutions]


def _arrays(module: torch.nn.Module) -> dict[str, np.ndarray]:
    state = module.state_dict().items()
    return {name.removeprefix("backbone."): value.numpy() for name, value in state if name.startswith("backbone.")}


# ---- while it learns -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", [torch.optim.AdamW, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
def test_once_zero_always_zero_and_the_share_follows_the_schedule(fitted: Bundle, optimiser: object) -> None:
    """torch's optimisers give pruned weights values again, by their momentum and gradients."""
    module = build(fitted).train()
    learner = optimiser(module.parameters(), lr=0.01)  # type: ignore[operator]  # of the kind that this test knows
    after_step = growing("unstructured", 0.9)(module)
    before = [torch.zeros_like(weight, dtype=torch.bool) for weight in prunable(module).values()]
    for step in range(10):
        loss = module(torch.from_numpy(np.random.default_rng(step).integers(0, 256, (4, 32, 32, 3), np.uint8))).square().mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
        if step:
            assert any((weight[was] != 0).any() for weight, was in zip(prunable(module).values(), before, strict=True))
        with torch.no_grad():
            after_step(module, step, 10)
        now = [weight == 0 for weight in prunable(module).values()]
        assert all((is_ | ~was).all() for is_, was in zip(now, before, strict=True))
        share = sum(int(mask.sum()) for mask in now) / sum(mask.numel() for mask in now)
        done = min(1, (step + 1) / 6)
        assert share == pytest.approx(0.9 * (1 - (1 - done) ** 3), abs=1e-5)
        before = now


def test_the_share_is_reached_and_nothing_else_is_zero(fitted: Bundle, single: Taught, blocked: Taught) -> None:
    for made, share in ((single, 0.8), (blocked, 0.7)):
        found = zeros(made.bundle)
        whole = sum(mask.size for mask in found.values())
        assert 0 <= sum(int(mask.sum()) for mask in found.values()) - round(share * whole) < 4
        depthwise_and_stem = [a for a in made.bundle.arrays.values() if a.ndim == 4 and a.shape[2:] != (1, 1)]
        assert len(depthwise_and_stem) == 18 and all(array.all() for array in depthwise_and_stem)
        assert made.bundle.architecture == fitted.architecture and made.best.number >= 2  # the ramp ends in the second epoch
        step = made.bundle.lineage[-1]
        assert step.name == "prune" and step.metrics["sparsity"] == pytest.approx(share, abs=1e-4)
    assert (single.bundle.lineage[-1].settings["method"], is_sparse(fitted), is_sparse(single.bundle)) == (
        "unstructured",
        False,
        True,
    )


def test_blocks_are_four_neighbouring_input_channels(blocked: Taught) -> None:
    for mask in zeros(blocked.bundle).values():
        for start in range(0, mask.shape[1], 4):
            block = mask[:, start : start + 4]
            assert (block.all(1) | ~block.any(1)).all()


def test_resumed_is_the_same_bundle(fitted: Bundle, photos: Path, blocked: Taught, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        raise StopError

    checkpoint = tmp_path / "sparse.checkpoint"
    with pytest.raises(StopError):
        sparsify(fitted, photos, BLOCKS, QUICK, session=Session(checkpoint=checkpoint, told=stop))
    with pytest.raises(NestlingError, match="differs in sparsity"):
        sparsify(fitted, photos, replace(BLOCKS, sparsity=0.6), QUICK, session=Session(checkpoint=checkpoint, resume=True))
    resumed = sparsify(fitted, photos, BLOCKS, QUICK, session=Session(checkpoint=checkpoint, resume=True))
    assert resumed.resumed == 1
    for name, array in blocked.bundle.arrays.items():
        assert np.array_equal(array, resumed.bundle.arrays[name]), name


def test_a_graph_becomes_sparse_in_the_same_way(fitted: Bundle, photos: Path) -> None:
    made = sparsify(replace(fitted, architecture=float_graph(fitted), arrays={}), photos, BLOCKS, replace(QUICK, epochs=1)).bundle
    assert isinstance(made.architecture, Graph)
    gone = whole = 0
    for node in [node for node in made.architecture.nodes if node.op == "conv2d"][1:]:
        weight = made.architecture.tensors[node.inputs[1]].data
        assert weight is not None
        for start in range(0, weight.shape[3], 4):
            block = weight[..., start : start + 4] == 0
            assert (block.all(-1) | ~block.any(-1)).all()
        gone, whole = gone + int((weight == 0).sum()), whole + weight.size
    assert 0 <= gone - 0.7 * whole <= 4


# ---- afterwards ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{"ema": True}, {"optimiser": "sgd", "rate": 0.05}, {"blocks": 3}])
def test_finetune_keeps_every_zero_and_moves_the_rest(single: Taught, photos: Path, more: dict[str, Any], tmp_path: Path) -> None:
    save(single.bundle, tmp_path / "sparse.nest")
    after = finetune(load(tmp_path / "sparse.nest"), photos, replace(QUICK, epochs=1, **more)).bundle
    before, now = pruned_arrays(single.bundle), pruned_arrays(after)
    assert all(np.array_equal(now[name] == 0, before[name] == 0) for name in before)
    assert any(not np.array_equal(now[name], before[name]) for name in before)


def test_another_pruning_of_a_sparse_bundle_keeps_its_zeros_and_adds_some(single: Taught, photos: Path) -> None:
    more = sparsify(single.bundle, photos, SparseConfig("block1x4", 0.85), replace(QUICK, epochs=1)).bundle
    before, now = zeros(single.bundle), zeros(more)
    assert all((now[name] | ~before[name]).all() for name in before)
    assert sum(mask.sum() for mask in now.values()) >= 0.85 * sum(mask.size for mask in now.values())


def test_zeros_are_kept_beside_what_another_lesson_changes(single: Taught, fitted: Bundle) -> None:
    module: Any = build(single.bundle)

    def doubling(module: torch.nn.Module) -> object:
        def after_step(module: torch.nn.Module, step: int, steps: int) -> None:
            module.head.bias.fill_(7.0)  # type: ignore[union-attr, operator]  # of the kind that this test knows

        return after_step

    assert keeping(fitted, None) is None and keeping(fitted, doubling) is doubling  # type: ignore[arg-type]  # of the kind that this test knows
    after_step = keeping(single.bundle, doubling)(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
        after_step(module, 0, 1)
    arrays = _arrays(module)
    for name, array in pruned_arrays(single.bundle).items():
        assert np.array_equal(arrays[name][:, :, 0, 0], np.where(array == 0, 0, array + np.float32(1)))
    assert module.head.bias.tolist() == [7.0, 7.0, 7.0]


def test_zeros_of_the_head_are_no_ones_zeros(fitted: Bundle) -> None:
    assert fitted.head is not None
    module = build(replace(fitted, head=Head(np.zeros_like(fitted.head.weight), fitted.head.bias)))
    after_step = zeros_kept(module)
    with torch.no_grad():
        module.head.weight.fill_(1.0)  # type: ignore[union-attr, operator]  # of the kind that this test knows
        after_step(module, 0, 1)
    assert (module.head.weight == 1).all()  # type: ignore[union-attr]  # of the kind that this test knows


def test_integers_of_zeros_are_zero(blocked: Taught, photos: Path) -> None:
    """Equalised, which scales weights, and with biases corrected."""
    integers = quantize(blocked.bundle, photos, QuantizeConfig(calibration=20, equalize="on", bias_correction="on")).graph
    assert integers is not None
    floats = list(zeros(blocked.bundle).values())
    weights = [integers.tensors[node.inputs[1]] for node in integers.nodes if node.op == "conv2d"][1:]
    assert len(weights) == len(floats)
    for tensor, mask in zip(weights, floats, strict=True):
        assert tensor.data is not None and tensor.quant is not None and not tensor.quant.zero_point.any()
        assert not tensor.data[:, 0, 0][mask].any()


# ---- what is printed -------------------------------------------------------------------------------------------------------------


def test_packed_weights_can_be_unpacked_and_are_counted(single: Taught, fitted: Bundle) -> None:
    """Sizes by the standard library's own decoders; multiply-accumulates by the places where torch's layers multiply."""
    unfolded = unfolded_graph(single.bundle)
    graph = prepare(unfolded)
    whole = [node for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")]
    weights = [graph.tensors[node.inputs[1]].data for node in whole]
    places = [int(np.prod(graph.tensors[node.name].shape[1:3])) for node in whole]
    found, dense = packed(unfolded), packed(float_graph(fitted))
    assert found.weights == dense.weights == sum(w.size for w in weights if w is not None)
    assert found.zeros == pytest.approx(sum((w == 0).sum() for w in weights if w is not None) / found.weights)
    assert found.macs_left == sum(int((w != 0).sum()) * n for w, n in zip(weights, places, strict=True) if w is not None)
    assert found.macs == dense.macs == dense.macs_left and dense.zeros == 0
    assert found.encoded["map + zlib"] < 0.4 * dense.best[1] and found.best[1] == min(found.encoded.values())


def test_the_encodings_lose_nothing() -> None:
    stored = np.random.default_rng(0).integers(-127, 128, 1003).astype(np.int8) * (np.random.default_rng(1).random(1003) < 0.2)
    stored = stored.astype(np.int8)
    assert zlib.decompress(ENCODINGS["zlib"](stored)) == lzma.decompress(ENCODINGS["lzma"](stored)) == stored.tobytes()
    content = zlib.decompress(ENCODINGS["map + zlib"](stored))
    bits = "".join(f"{byte:08b}" for byte in content[:126])  # 1003 / 8, rounded up
    values = iter(np.frombuffer(content[126:], np.int8).tolist())
    assert [next(values) if bit == "1" else 0 for bit in bits[:1003]] == stored.tolist()
    assert next(values, None) is None


@pytest.mark.parametrize(
    ("config", "training", "said"),
    [
        ({"method": "2:4"}, {}, "structured, unstructured, block1x4; found '2:4'"),
        ({"sparsity": 1.0}, {}, "above 0% and below 100%; found 100%"),
        ({"sparsity": 0.0}, {}, "found 0%"),
        ({"ranking": "luck"}, {}, "lamp, magnitude"),
        ({}, {"ema": True}, "moving average"),
        ({}, {"blocks": 2}, "leave out --blocks"),
    ],
)
def test_what_cannot_be_is_said(fitted: Bundle, photos: Path, config: Any, training: Any, said: str) -> None:
    with pytest.raises(NestlingError, match=said):
        sparsify(fitted, photos, SparseConfig(**config), replace(QUICK, **training))


def test_fewer_zeros_than_there_are_are_refused(single: Taught, photos: Path, fitted: Bundle) -> None:
    with pytest.raises(NestlingError, match=r"80.0% of this bundle's weights are zero already"):
        sparsify(single.bundle, photos, SparseConfig(sparsity=0.5), QUICK)
    with pytest.raises(NestlingError, match="no float weights"):
        sparsify(replace(fitted, architecture=None), photos, SparseConfig(), QUICK)
    with pytest.raises(NestlingError, match="not learned any classes"):
        sparsify(replace(fitted, split=None), photos, SparseConfig(), QUICK)


# ---- whole channels: the norms ---------------------------------------------------------------------------------------------------


def test_statistics_are_set_anew_as_torchs_cumulative_average() -> None:
    module = plain(network("mobilenetv2_050"))
    graph = captured_once(module, (64, 64, 3))
    batches = [image((4, 64, 64, 3), seed) for seed in range(3)]
    norms = [part for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch's word for the mean of all batches
    module.train()
    with torch.no_grad():
        for batch in batches:
            module(torch.from_numpy(batch).permute(0, 3, 1, 2))
    made = renormed(graph, batches)
    nodes = [node for node in made.nodes if node.op == "batch_norm"]
    assert len(nodes) == len(norms)
    for node, norm in zip(nodes, norms, strict=True):
        mean, variance = (made.tensors[name].data for name in node.inputs[3:])
        assert np.allclose(mean, norm.running_mean, rtol=1e-3, atol=1e-4) and np.allclose(variance, norm.running_var, rtol=1e-3)
    assert [node.op for node in made.nodes] == [node.op for node in graph.nodes]


def test_prune_sets_statistics_anew(fitted: Bundle, photos: Path) -> None:
    """Its first norm's mean is that of what the stem answers to the training photographs, all of them here."""
    pruned = prune(fitted, photos, PruneConfig(importance="l1", images=1000)).bundle
    graph = pruned.architecture
    assert isinstance(graph, Graph) and fitted.split is not None
    items = [item for item in scan(photos).items if item.fingerprint in fitted.split.train]
    pixels = np.stack([load_image(fitted.preprocess, item.path) for item in items]).astype(np.float32) / 255
    mean, std = (np.array(values, np.float32) for values in (fitted.preprocess.mean, fitted.preprocess.std))
    stem = next(node for node in graph.nodes if node.op == "conv2d")
    norm = next(node for node in graph.nodes if node.op == "batch_norm")
    weight = torch.from_numpy(np.array(graph.tensors[stem.inputs[1]].data)).permute(0, 3, 1, 2)
    images = torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)
    assert len(items) == 27 and norm.inputs[0] == stem.name
    answers = torch.nn.functional.conv2d(images, weight, stride=2, padding=1)
    assert np.allclose(graph.tensors[norm.inputs[3]].data, answers.mean((0, 2, 3)).numpy(), rtol=1e-3, atol=1e-5)
