"""FastNAS: judged by Model Optimizer's own network of what it chose, by torch's counts and by counts made by hand."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nestling.compress.channels import total_macs
from nestling.compress.config import SearchConfig
from nestling.compress.images import Images
from nestling.compress.search import Photographs, search, settled, top1
from nestling.compress.subnets import Found, Limit, Subnet, captured, find
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.graph.ir import Graph, Quantize, same
from nestling.graph.ir import Tensor as GraphTensor
from nestling.models.graph_module import GraphModule
from nestling.models.plain import plain
from tests.compress.networks import Branches, Tiny, branches, bundle_of, head_for, tiny
from tests.helpers.torch_networks import captured_once, difference, image, network, randomised, torch_answer


@pytest.fixture(autouse=True)
def _needs_modelopt(request: pytest.FixtureRequest) -> None:
    if "modelopt" not in request.node.name:
        pytest.importorskip("modelopt", reason="needs nvidia-modelopt")


def macs_of(subnet: Subnet) -> int:
    return total_macs(subnet.graph)


def at_most(share: float, graph: Graph) -> Limit:
    return Limit("multiply-accumulates", macs_of, total_macs(graph), int(share * total_macs(graph)))


def logits(subnet: Subnet, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return GraphModule(subnet.graph).eval()(torch.from_numpy(x)).numpy() @ subnet.head.weight.T + subnet.head.bias


def found(graph: Graph, side: int, share: float, candidates: int = 40) -> Found:
    """Scored by how little the logits of four images change."""
    head, x = head_for(graph), image((4, side, side, 3))
    whole = logits(Subnet(graph, head), x)

    def kept(subnet: Subnet) -> float:
        return -float(np.abs(logits(subnet, x) - whole).mean())

    return find(graph, head, [at_most(share, graph)], kept, candidates, 8)


class Mixed(Branches):
    """Branches behind a scale of each colour, odd padding and a max pool."""

    def __init__(self) -> None:
        super().__init__()
        self.tint = nn.Parameter(torch.tensor([0.5, 1.5, -1.0])[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.max_pool2d(nn.functional.pad(x * self.tint, (1, 2, 0, 1)), 3, 1, 1))


@pytest.mark.parametrize(
    ("make", "side"),
    [(tiny, 8), (branches, 12), (lambda: Mixed().eval(), 12), (lambda: network("mobilenetv3_small_050"), 64)],
)
def test_the_network_that_is_searched_answers_as_torchs(make: object, side: int) -> None:
    module, x = make(), image((2, side, side, 3))  # type: ignore[operator]  # a class or a function
    graph = captured_once(plain(module), (side, side, 3))
    head = head_for(graph)
    with torch.no_grad():
        answer = Images(graph, head)(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert difference(answer, torch_answer(module, x) @ head.weight.T + head.bias) < 1e-5
    subnet = captured(Images(graph, head))
    assert same(subnet.graph, graph) and np.array_equal(subnet.head.weight, head.weight)


class Residual(nn.Module):
    """One width that four layers read, and two of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.up, self.deep, self.down = nn.Conv2d(32, 48, 1), nn.Conv2d(48, 48, 3, 1, 1, groups=48), nn.Conv2d(48, 32, 1)
        self.wide, self.narrow, self.last = nn.Conv2d(32, 40, 3, 1, 1), nn.Conv2d(40, 32, 1), nn.Conv2d(32, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.down(torch.relu(self.deep(torch.relu(self.up(x)))))
        x = x + self.narrow(torch.relu(self.wide(x)))
        return torch.relu(self.last(x)).mean((2, 3))


def residual() -> nn.Module:
    torch.manual_seed(0)
    return randomised(Residual())


@pytest.mark.parametrize(
    ("make", "share"),
    [(residual, 0.6), (residual, 0.4), (lambda: network("mobilenetv3_small_050"), 0.7)],
    ids=["residual 60%", "residual 40%", "mobilenetv3 70%"],
)
def test_the_captured_subnet_answers_as_model_optimizers_and_keeps_the_limit(make: object, share: float) -> None:
    graph = captured_once(plain(make()), (32, 32, 3))  # type: ignore[operator]  # a class or a function
    made = found(graph, 32, share, candidates=26)
    x = image((3, 32, 32, 3), seed=1)
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        wanted = made.module(nchw).numpy()
    assert difference(logits(made.subnet, x), wanted) < 1e-5
    classes, width = made.subnet.head.weight.shape
    macs = counter.get_total_flops() // 2 // len(x) - classes * width  # torch counts the head
    assert macs == total_macs(made.subnet.graph)
    assert 0.8 * share < macs / total_macs(graph) <= share
    assert any(node.op == "batch_norm" for node in made.subnet.graph.nodes)
    assert any(width < whole for width, whole in made.widths.values()) and made.tried <= 26
    assert all(width % 8 == 0 or width == whole for width, whole in made.widths.values())


def test_channels_that_change_nothing_go() -> None:
    """The zero half of the first layer, counted by hand: 64 * 9 * 3 * 8 + 64 * 8 * 24 = 26,112."""
    module = tiny()
    zero = [0, 3, 4, 7, 9, 10, 13, 15]
    with torch.no_grad():
        for tensor in (module.a.weight, module.norm.weight, module.norm.bias):
            tensor[zero] = 0
        module.b.weight[:, zero] = 0
    graph = captured_once(module, (8, 8, 3))
    made = found(graph, 8, 26_112 / 52_224)
    assert total_macs(made.subnet.graph) == 26_112 and made.widths == {"a": (8, 16), "b": (24, 24)}
    x, head = image((3, 8, 8, 3), seed=2), head_for(graph)
    assert difference(logits(made.subnet, x), torch_answer(module, x) @ head.weight.T + head.bias) < 1e-5


def test_two_limits_are_both_kept_and_what_is_left_over_is_given_back() -> None:
    """By hand: a of 16 or 8, b of 24, 16 or 8 channels; parameters of a (27 each), its norm (2), b (a + 1)."""
    graph = captured_once(tiny(), (8, 8, 3))
    head = head_for(graph)

    def parameters(subnet: Subnet) -> int:
        return sum(p.numel() for p in GraphModule(subnet.graph).parameters())

    whole = 27 * 16 + 2 * 16 + 24 * 17
    assert parameters(Subnet(graph, head)) == whole
    limits = [at_most(0.9, graph), Limit("parameters", parameters, whole, 27 * 8 + 2 * 8 + 24 * 9)]
    # b costs nothing, so b goes first: [16, 8] is 27 * 16 + 32 + 8 * 17 = 600, too much; then a must, and b comes back whole
    made = find(graph, head, limits, lambda subnet: float(subnet.graph.tensors["a"].shape[-1]), 10, 8)
    assert made.widths == {"a": (8, 16), "b": (24, 24)}
    only_macs = find(graph, head, limits[:1], lambda subnet: float(subnet.graph.tensors["a"].shape[-1]), 10, 8)
    assert only_macs.widths["a"] == (16, 16) and only_macs.widths["b"][0] < 24


def test_what_cannot_be_followed_keeps_its_channels() -> None:
    """Branches: a learned scale and shift behind a concat, and a grouped convolution."""
    graph = captured_once(branches(), (12, 12, 3))
    made = found(graph, 12, 0.99)
    x = image((2, 12, 12, 3), seed=3)
    with torch.no_grad():
        wanted = made.module(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert difference(logits(made.subnet, x), wanted) < 1e-5
    assert not {"a", "b", "c", "d"} & {name for name, (width, whole) in made.widths.items() if width < whole}


def test_the_same_twice_quietly_and_without_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    graph = captured_once(residual(), (32, 32, 3))
    python, numpy, of_torch = random.getstate(), np.random.get_state(legacy=False)["state"]["key"].copy(), torch.get_rng_state()
    one, other = (found(graph, 32, 0.7, candidates=12) for _ in range(2))
    assert same(one.subnet.graph, other.subnet.graph) and one.widths == other.widths
    assert random.getstate() == python and np.array_equal(np.random.get_state(legacy=False)["state"]["key"], numpy)
    assert torch.equal(torch.get_rng_state(), of_torch)
    assert capfd.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_a_limit_out_of_reach_names_the_smallest() -> None:
    """8 channels each: 64 * 9 * 3 * 8 + 64 * 8 * 8 = 17,920 of 52,224, which is 34.31%."""
    graph = captured_once(tiny(), (8, 8, 3))
    with pytest.raises(NestlingError, match=r"20\.0% of the multiply-accumulates cannot be reached: .* 34\.4%"):
        found(graph, 8, 0.2)


def test_statistics_are_the_mean_of_the_batches_and_top1_is_counted() -> None:
    module = tiny()
    graph = captured_once(module, (8, 8, 3))
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    head = head_for(graph)
    shown = Photographs(x, np.arange(40) % 4, bundle_of(graph, head).preprocess)
    subnet = settled(Subnet(graph, head), shown)
    nchw = torch.from_numpy(((x / 255 - 0.5) / 0.5).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        parts = [module.a(part) for part in nchw.split(16)]
        wanted = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
        spread = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
        norm = Images(subnet.graph, head).layer(1)
        assert isinstance(norm, nn.BatchNorm2d)
        assert torch.allclose(norm.running_mean, wanted, atol=1e-5) and torch.allclose(norm.running_var, spread, rtol=1e-4)
        module.norm.running_mean, module.norm.running_var = wanted, spread
        answers = (module(nchw).numpy() @ head.weight.T + head.bias).argmax(1)
    assert top1(subnet, shown) == float((answers == shown.labels).mean())


@pytest.mark.parametrize("package", ["modelopt", "torchprofile"])
def test_without_modelopt_or_what_it_counts_with_an_error_says_what_to_type(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    graph = captured_once(Tiny().eval(), (8, 8, 3))
    with pytest.raises(NestlingError, match=rf"(?s){package} is not installed.*pip install 'nestling\[search\]'"):
        search(bundle_of(graph, head_for(graph)))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 60.0])
def test_shares_are_above_nothing_and_below_all(share: float) -> None:
    configs: tuple[dict[str, Any], ...] = ({"macs": share}, {"params": share})
    for config in configs:
        with pytest.raises(NestlingError, match=f"--{next(iter(config))} .* above 0% and below 100%"):
            replace(SearchConfig(), **config)


def test_integer_networks_and_those_without_a_head_are_refused() -> None:
    graph = captured_once(tiny(), (8, 8, 3))
    head: Head = head_for(graph)
    with pytest.raises(NestlingError, match="only a fitted network"):
        search(bundle_of(graph, None))
    out = graph.outputs[0]
    integer = GraphTensor("q", graph.tensors[out].shape, "int8")
    nodes = (*graph.nodes, type(graph.nodes[0])("quantize", (out,), ("q",), Quantize()))
    made = Graph({**graph.tensors, "q": integer}, nodes, graph.inputs, ("q",))
    for bundle in (bundle_of(None, head, made), bundle_of(made, head)):
        with pytest.raises(NestlingError, match="int8"):
            search(bundle)
