"""The frozen front and the learning back of a network: together they are the network, and training the back trains it."""

from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.bundle import Bundle, Timm
from nestling.data.folders import Item
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.models.backbones import Network, build, build_backbone, create
from nestling.preprocess.image import table as normalisation
from nestling.training import finetune as module
from nestling.training.augment import AUGMENTATIONS
from nestling.training.blocks import blocks_of, learning
from nestling.training.config import TrainingConfig
from nestling.training.finetune import Taught, finetune
from nestling.training.fit import FitConfig, fit
from nestling.training.frozen import Activations, Stage, cut, without_front
from nestling.training.loop import LoopConfig, Task, train
from nestling.training.samples import Inputs, Samples
from nestling.training.session import Session
from nestling.training.team import Team
from tests.helpers.colour_photos import colour_photos
from tests.helpers.torch_networks import captured_once

FAMILIES = ("mobilenetv2_035", "mobilenetv3_small_050", "tf_efficientnet_lite0", "resnet10t", "mobilenetv4_conv_small_035")
SIDE = 32
SGD = TrainingConfig(epochs=3, rate=0.05, batch=8, blocks=2, optimiser="sgd", variations=2)


def bundle_of(name: str) -> Bundle:
    """Random weights, and norms whose statistics are not those of a new network."""
    architecture, arrays, preprocess = create(name, "none", SIDE)
    rng = np.random.default_rng(0)
    for key, value in arrays.items():
        if key.endswith("running_mean"):
            value += rng.normal(0, 0.1, value.shape).astype(np.float32)
        if key.endswith("running_var"):
            value *= rng.uniform(0.5, 2, value.shape).astype(np.float32)
    with torch.no_grad():
        width = build_backbone(architecture, arrays)(torch.zeros(1, 3, SIDE, SIDE)).shape[1]
    head = Head(rng.normal(size=(3, width)).astype(np.float32), np.zeros(3, np.float32))
    return Bundle(architecture, arrays, head, ("a", "b", "c"), preprocess)


def graph_of(bundle: Bundle) -> Bundle:
    """The same network as pruning leaves it: a float Graph that keeps its batch norms."""
    image = (SIDE, SIDE, 3)
    assert isinstance(bundle.architecture, Timm)
    backbone = build_backbone(bundle.architecture, bundle.arrays)
    return replace(bundle, architecture=captured_once(backbone, image, normalisation(bundle.preprocess)), arrays={})


def noise(count: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8))


# ---- where it comes apart --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0, 1 / 2])  # half of it: where activations are still maps
@pytest.mark.parametrize("name", [*FAMILIES, "graph"])
def test_front_and_back_are_the_network(name: str, share: float) -> None:
    bundle = graph_of(bundle_of("mobilenetv3_small_050")) if name == "graph" else bundle_of(name)
    network: Any = build(bundle)
    network = learning(network, round(share * len(blocks_of(network.backbone))))
    parts = cut(network, noise(1))
    assert parts is not None
    front, back = parts
    images = noise(3)
    with torch.no_grad():
        between = front(images)
        assert between.ndim == 2 and between.dtype == torch.float32
        torch.testing.assert_close(back(between), network(images), rtol=1e-5, atol=1e-5)
    learns = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    own = dict(back.named_parameters())
    assert all(own[name] is parameter for name, parameter in learns.items())
    assert not any(parameter.requires_grad for parameter in front.parameters())
    # as late as can be: little that is fixed stays behind, at most what surrounds the first residual block that learns
    assert len(own) - len(learns) <= 12 and len(list(front.parameters())) > 0


def test_gradients_are_those_of_the_network() -> None:
    network = learning(build(bundle_of("mobilenetv3_small_050")), 3)
    parts = cut(network, noise(1))
    assert parts is not None
    front, back = parts
    found = []
    for answer in (lambda: network(noise(4)), lambda: back(front(noise(4)))):
        network.zero_grad()
        answer().square().sum().backward()
        found.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys() == {name for name, p in network.named_parameters() if p.requires_grad}
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5)


def around(first: nn.Module) -> Network:
    """A network of a first module that does not learn, and a convolution that does."""
    body = nn.Sequential(nn.Conv2d(3, 8, 3).requires_grad_(False), first, nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = build(bundle_of("resnet10t"))
    assert isinstance(network, Network)
    network.backbone, network.head = body, nn.Linear(8, 3)
    return network.eval()


class Counting(nn.Module):
    """Remembers how much it has seen while it learns."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: torch.Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return x


class ByContent(nn.Module):
    """Its way depends on the numbers, which cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Conv2d(8, 8, 1).requires_grad_(False)
        self.learns = nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.learns(x) if x.mean() > 0 else self.fixed(x)


@pytest.mark.parametrize(
    ("first", "apart"), [(nn.ReLU(), True), (nn.Dropout(0.5), False), (Counting(), False), (ByContent(), False)]
)
def test_what_is_not_the_same_each_time_is_not_cut(first: nn.Module, apart: bool) -> None:
    assert (cut(around(first), noise(1)) is not None) is apart


def test_a_network_that_learns_from_the_beginning_has_no_front() -> None:
    network: Any = build(bundle_of("mobilenetv3_small_050"))
    assert cut(learning(network, None), noise(1)) is None
    assert cut(learning(network, len(blocks_of(network.backbone))), noise(1)) is None


# ---- its activations -------------------------------------------------------------------------------------------------------------


def samples(count: int, augmentation: str = "light", seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = np.array([(160, 100, 100), (100, 160, 100), (100, 100, 160)])
    side = SIDE + 8 if augmentation == "light" else SIDE
    images = np.clip(rng.normal(colours[labels][:, None, None], 50, (count, side, side, 3)), 0, 255).astype(np.uint8)
    items = tuple(Item(Path(f"{i}.png"), int(label), f"{i:016x}") for i, label in enumerate(labels))
    preprocess = bundle_of("mobilenetv3_small_050").preprocess
    return Samples(items, labels.astype(np.int64), images, preprocess, preprocess, AUGMENTATIONS[augmentation])


def held_of(inputs: Inputs) -> NDArray[np.float32]:
    assert isinstance(inputs, Activations)
    return inputs.held


def test_the_activations_are_those_of_the_images_that_training_shows() -> None:
    bundle = bundle_of("mobilenetv3_small_050")
    network, train_samples, val = learning(build(bundle), 2), samples(9), samples(6, "none", 1)
    stage = without_front(Stage(network, train_samples, val), bundle, 3, seed=5)
    assert stage.front and stage.network is not network
    for variation in range(3):
        images = np.stack([train_samples.image(i, 5, variation) for i in range(9)])
        activations = np.stack([stage.samples.image(i, 5, variation) for i in range(9)])
        with torch.no_grad():
            torch.testing.assert_close(
                stage.network(torch.from_numpy(activations)), network(torch.from_numpy(images)), rtol=1e-4, atol=1e-4
            )
    again = without_front(Stage(network, train_samples, val), bundle, 3, seed=5, workers=2)
    held, val_held = held_of(stage.samples), held_of(stage.val)
    assert held_of(again.samples).tobytes() == held.tobytes() and again.front == stage.front
    assert val_held.shape == (1, 6, held.shape[2]) and held.dtype == np.float32


def test_each_variation_is_answered_once_and_then_no_image_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[tuple[int, int, int]] = Counter()
    real = Samples.image

    def spied(self: Samples, index: int, seed: int, epoch: int) -> np.ndarray:
        seen[len(self.labels), index, epoch] += 1
        return real(self, index, seed, epoch)

    monkeypatch.setattr(Samples, "image", spied)
    bundle = bundle_of("mobilenetv3_small_050")
    stage = without_front(Stage(learning(build(bundle), 1), samples(9), samples(6, "none", 1)), bundle, 2, seed=0)
    train(stage.network, Task(stage.samples, stage.val, 3), LoopConfig(epochs=5, batch=4, variations=2))
    assert set(seen.values()) == {1}
    assert set(seen) == {(9, i, k) for i in range(9) for k in range(2)} | {(6, i, 0) for i in range(6)}


def test_a_team_divides_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process has its share and noughts elsewhere, before the shares are added."""
    monkeypatch.setattr(Team, "sums", lambda team, values: values)
    bundle = bundle_of("mobilenetv3_small_050")
    stage = Stage(learning(build(bundle), 1), samples(9), samples(6, "none", 1))
    alone, *shares = (without_front(stage, bundle, 2, seed=0, team=team) for team in (Team(), Team(0, 2), Team(1, 2)))
    for part in ("samples", "val"):
        whole, first, second = (getattr(some, part).held for some in (alone, *shares))
        assert np.array_equal(first + second, whole) and first.any() and second.any() and not (first.any(2) & second.any(2)).any()


def test_activations_that_would_not_fit_are_not_kept() -> None:
    bundle = bundle_of("mobilenetv3_small_050")
    stage = Stage(learning(build(bundle), 2), samples(9), samples(6, "none", 1))
    kept = without_front(stage, bundle, 4, seed=0)
    size = held_of(kept.samples).nbytes + held_of(kept.val).nbytes
    assert without_front(stage, bundle, 4, seed=0, most_bytes=size).front is not None
    with pytest.warns(UserWarning, match="4 variations would take"):
        assert without_front(stage, bundle, 4, seed=0, most_bytes=size - 1) is stage


# ---- fine-tuning -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return colour_photos(tmp_path_factory.mktemp("data"), 50, 60)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def fitted(photos: Path) -> Bundle:
    return fit(photos, config=FitConfig("mobilenetv3_small_050", "none", SIDE)).bundle


@pytest.fixture(scope="module")
def kept(fitted: Bundle, photos: Path) -> Taught:
    return finetune(fitted, photos, SGD)


def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "without_front", partial(without_front, most_bytes=0))


def numbers(bundle: Bundle) -> dict[str, np.ndarray]:
    assert bundle.head is not None
    graph = bundle.architecture
    held = {n: t.data for n, t in graph.tensors.items() if t.data is not None} if isinstance(graph, Graph) else dict(bundle.arrays)
    return {**held, "head.weight": bundle.head.weight, "head.bias": bundle.head.bias}


def largest(a: dict[str, np.ndarray], b: dict[str, np.ndarray], start: dict[str, np.ndarray]) -> float:
    """The largest difference between a and b over the largest move from the start, of the worst array."""
    assert a.keys() == b.keys() == start.keys()
    return max(
        float(np.abs(a[n].astype(np.float64) - b[n]).max() / max(np.abs(start[n].astype(np.float64) - b[n]).max(), 1e-3)) for n in b
    )


@pytest.mark.parametrize("kind", ["timm", "graph"])
def test_it_learns_what_it_would_without(
    kind: str, fitted: Bundle, photos: Path, kept: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fitted if kind == "timm" else graph_of(fitted)
    cached = kept if kind == "timm" else finetune(before, photos, SGD)
    uncached(monkeypatch)
    with pytest.warns(UserWarning, match="computed anew"):
        whole = finetune(before, photos, SGD)
    start, found, wanted = numbers(before), numbers(cached.bundle), numbers(whole.bundle)
    moved = {name for name in start if not np.array_equal(start[name], wanted[name])}
    assert moved == {name for name in start if not np.array_equal(start[name], found[name])}
    assert {"head.weight", "head.bias"} < moved and len(moved) < len(start) / 2
    assert largest(found, wanted, start) < 1e-4
    assert [e.loss for e in cached.history] == pytest.approx([e.loss for e in whole.history], rel=1e-4)
    assert [e.val_top1 for e in cached.history] == [e.val_top1 for e in whole.history]
    assert cached.val_top1_before == whole.val_top1_before and cached.test.top1 == whole.test.top1


def test_resumed_is_the_same_bundle(
    fitted: Bundle, photos: Path, kept: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def stop(epoch: object) -> None:
        raise StopError

    checkpoint = tmp_path / "fine.checkpoint"
    with pytest.raises(StopError):
        finetune(fitted, photos, SGD, session=Session(checkpoint=checkpoint, told=stop))
    resumed = finetune(fitted, photos, SGD, session=Session(checkpoint=checkpoint, resume=True))
    found, wanted = numbers(resumed.bundle), numbers(kept.bundle)
    assert resumed.resumed == 1 and all(np.array_equal(found[name], wanted[name]) for name in wanted)
    uncached(monkeypatch)
    with pytest.raises(NestlingError, match="differs in front"), pytest.warns(UserWarning):
        finetune(fitted, photos, SGD, session=Session(checkpoint=checkpoint, resume=True))


@pytest.mark.parametrize(
    ("change", "variations", "front"),
    [
        ({"variations": None}, 8, True),
        ({}, 2, True),
        ({"augment": "none"}, 1, True),
        ({"blocks": None}, 2, False),
        ({"blocks": None, "variations": None}, None, False),
        ({"mixup": 0.2}, 2, False),
        ({"mixup": 0.2, "variations": None}, None, False),
    ],
)
def test_when_activations_are_kept(
    change: dict[str, Any], variations: int | None, front: bool, fitted: Bundle, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class StopError(Exception):
        pass

    def spied(network, task, config, *more):
        assert (type(task.samples) is Activations) is (type(task.val) is Activations) is front
        assert config.variations == variations
        raise StopError

    monkeypatch.setattr(module, "train", spied)
    with pytest.raises(StopError):
        finetune(fitted, photos, replace(SGD, epochs=1, **change))
