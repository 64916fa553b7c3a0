"""After every pass the graph answers as torch does; rules that refuse say why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
from torch import Tensor, nn

from nestling.graph import reference
from nestling.graph.ir import Graph, Node, same
from nestling.graph.passes import (
    PREPARE,
    clampable,
    drop_identities,
    foldable,
    fuse_clamps,
    merge_pads,
    merge_reshapes,
    prepare,
    standing_clamp,
)
from nestling.graph.spec import check
from nestling.models.capture.capture import capture
from tests.helpers.torch_networks import NINE, SMALL, difference, image, network, randomised, torch_answer


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def answer(graph: Graph, x: np.ndarray) -> np.ndarray:
    return reference.run(graph, x)[graph.outputs[0]]


def captured(module: nn.Module, shape: tuple[int, int, int] = (9, 7, 4)) -> Graph:
    """The graph of `module` with random norms; every pass is seen to keep torch's answer."""
    graph = capture(randomised(module), shape)
    assert_every_pass_keeps_the_answer(module, graph, shape)
    return graph


def assert_every_pass_keeps_the_answer(module: nn.Module, graph: Graph, shape: tuple[int, int, int]) -> None:
    x = image((1, *shape))
    expected = torch_answer(module, x)
    for rewrite in PREPARE:
        graph = check(rewrite(graph))
        assert difference(answer(graph, x), expected) < 1e-5, rewrite.__name__
        assert same(rewrite(graph), graph), f"{rewrite.__name__} has something left to do"


@pytest.mark.parametrize("name", SMALL)
def test_every_pass_keeps_the_answer_of_small_networks(name: str) -> None:
    assert_ready(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NINE)
def test_every_pass_keeps_the_answer_of_nine_networks(name: str) -> None:
    assert_ready(name)


def assert_ready(name: str) -> None:
    graph = captured(network(name), (96, 96, 3))
    ready = prepare(graph)
    assert "batch_norm" not in ops(ready)
    assert "pad" not in ops(ready)
    assert not [node.name for node in ready.nodes if standing_clamp(node, ready)]
    assert ops(ready).count("conv2d") == ops(graph).count("conv2d")
    assert ready.nodes[-1].source == graph.nodes[-1].source


class Two(nn.Module):
    """conv -> norm -> relu, and something else that reads one of the three."""

    def __init__(self, also: str) -> None:
        super().__init__()
        self.conv, self.norm, self.also = nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), also

    def forward(self, x: Tensor) -> tuple[Tensor, ...] | Tensor:
        conv = self.conv(x)
        norm = self.norm(conv)
        relu = F.relu(norm)
        return relu + {"conv": conv, "norm": norm, "relu": relu}[self.also]


def test_a_norm_folds_into_convolutions_and_linear_layers() -> None:
    class Layers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 8, 3, bias=False), nn.Conv2d(8, 16, 3, groups=8)
            self.c, self.d = nn.Conv2d(16, 6, 1, groups=2), nn.Linear(6, 5)
            self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(16), nn.BatchNorm2d(6), nn.BatchNorm1d(5)])

        def forward(self, x: Tensor) -> Tensor:
            x = self.norms[2](self.c(self.norms[1](self.b(self.norms[0](self.a(x))))))
            return self.norms[3](self.d(x.mean((2, 3))))

    ready = prepare(captured(Layers()))
    assert ops(ready) == ["conv2d", "depthwise_conv2d", "conv2d", "mean", "fully_connected"]
    assert all(len(node.inputs) == 3 for node in ready.nodes if node.op != "mean")


@pytest.mark.parametrize(("also", "nodes"), [("conv", ["conv2d", "mul", "add", "add"]), ("norm", ["conv2d", "max_pool", "add"])])
def test_what_another_node_reads_is_left_as_it_is(also: str, nodes: list[str]) -> None:
    assert ops(prepare(captured(Two(also)))) == nodes


def test_shared_weights_fold_into_copies() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.conv(F.relu(self.a(self.conv(x)))))

    first, second = prepare(captured(Shared())).nodes
    assert not set(first.inputs[1:]) & set(second.inputs[1:])


def test_a_norm_without_a_layer_becomes_mul_and_add_with_the_clamp() -> None:
    ready = prepare(captured(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1))))
    assert ops(ready) == ["mul", "add", "conv2d"]
    assert ready.nodes[1].attrs.clamp == "relu"  # type: ignore[union-attr]  # of the kind that this test knows


class Branches(nn.Module):
    """Convolutions and norms of one map, added up, as RepVGG and MobileOne learn; then a norm of the sum, and a relu."""

    def __init__(self, stride: int, groups: int, sizes: tuple[int, ...], itself: bool = False) -> None:
        super().__init__()
        layers = [nn.Conv2d(4, 4, k, stride, k // 2, groups=groups, bias=i > 0) for i, k in enumerate(sizes)]
        self.layers = nn.ModuleList(nn.Sequential(layer, nn.BatchNorm2d(4)) for layer in layers)
        self.norm, self.last, self.itself = nn.BatchNorm2d(4) if stride == 1 else None, nn.BatchNorm2d(4), itself

    def forward(self, x: Tensor) -> Tensor:
        branches = [layer(x) for layer in self.layers] + ([self.norm(x)] if self.norm else []) + ([x] if self.itself else [])
        return F.relu(self.last(sum(branches[1:], branches[0])))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("stride", "sizes"), [(1, (3, 1)), (2, (3, 1)), (1, (1, 5, 3, 3)), (2, (1, 7)), (1, (1,))])
def test_branches_of_a_sum_become_one_layer(stride: int, groups: int, sizes: tuple[int, ...]) -> None:
    (only,) = prepare(captured(Branches(stride, groups, sizes))).nodes
    assert only.op == ("depthwise_conv2d" if groups == 4 else "conv2d")
    assert only.attrs.clamp == "relu"  # type: ignore[union-attr]  # of the kind that this test knows


def test_the_map_itself_joins_depthwise_branches_alone() -> None:
    assert ops(prepare(captured(Branches(1, 4, (3, 1), itself=True)))) == ["depthwise_conv2d"]
    assert ops(prepare(captured(Branches(1, 1, (3, 1), itself=True)))) == ["conv2d", "add", "mul", "add"]


class Mixer(nn.Module):
    """FastViT's: x + scale * (deep(x) - norm(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * (self.deep(x) - self.norm(x))


def test_differences_and_layer_scales_join_too() -> None:
    assert ops(prepare(captured(Mixer()))) == ["depthwise_conv2d"]


class Apart(nn.Module):
    """Sums that are none of one map's branches: of two maps, with a clamp between, of other strides' sizes, read elsewhere."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        match self.kind:
            case "two maps":
                return self.a(x) + self.b(F.avg_pool2d(x, 3, 1, 1))
            case "a clamp":
                return self.a(x) + F.relu(self.b(x))
            case "one place":
                return self.a(x) + self.b(x.mean((2, 3), keepdim=True))
            case _:
                b = self.b(x)
                return (self.a(x) + b) * b


@pytest.mark.parametrize("kind", ["two maps", "a clamp", "one place", "read elsewhere"])
def test_what_is_no_branch_stays(kind: str) -> None:
    assert ops(prepare(captured(Apart(kind)))).count("conv2d") == 2


@pytest.mark.parametrize("factor", ["channels", "one", "places"])
def test_a_constant_factor_joins_the_layer_before_it(factor: str) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)
            self.factor = nn.Parameter(torch.randn({"channels": (6, 1, 1), "one": (1,), "places": (7, 5)}[factor]))

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x) * self.factor)

    assert ops(prepare(captured(Scaled()))) == (["conv2d"] if factor != "places" else ["conv2d", "mul", "mul", "add"])


def test_clamps_after_clamps_join() -> None:
    for first, second, joined in (
        (nn.ReLU(), nn.ReLU6(), "relu6"),
        (nn.ReLU6(), nn.ReLU(), "relu6"),
        (nn.ReLU(), nn.ReLU(), "relu"),
    ):
        (only,) = prepare(captured(nn.Sequential(nn.Conv2d(4, 4, 1), first, second))).nodes
        assert only.attrs.clamp == joined  # type: ignore[union-attr]  # of the kind that this test knows


def test_a_clamp_after_a_flat_layer_joins_it() -> None:
    ready = prepare(captured(nn.Sequential(nn.Flatten(), nn.Linear(252, 5), nn.ReLU6())))
    assert ops(ready) == ["reshape", "fully_connected"]


def test_padding_joins_convolutions_but_no_pool() -> None:
    pads = nn.Sequential(nn.ZeroPad2d((1, 2, 3, 4)), nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3, padding=1))
    (only,) = merge_pads(captured(pads)).nodes
    assert only.attrs.padding == (5, 6, 3, 4)  # type: ignore[union-attr]  # of the kind that this test knows
    assert ops(prepare(captured(nn.Sequential(nn.ZeroPad2d(1), nn.AvgPool2d(3))))) == ["pad", "average_pool"]


def test_identities_go_and_ends_keep_their_names_apart() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = F.relu(x * 1 + 0)
            return F.max_pool2d(F.avg_pool2d(y, 1), 1), y * 1

    graph = drop_identities(capture(Nothing().eval(), (9, 7, 4)))
    assert ops(graph) == ["max_pool", "mul"]  # the relu, and what makes a second output of it
    assert len(set(graph.outputs)) == 2


def test_reshapes_in_a_row_become_one() -> None:
    class Squeezed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3), keepdim=True).squeeze(3).squeeze(2)

    assert ops(merge_reshapes(captured(Squeezed()))) == ["mean", "reshape"]


def test_refusals_say_why() -> None:
    def named(graph: Graph, op: str) -> Node:
        return next(node for node in graph.nodes if node.op == op)

    graph = capture(Two("conv").eval(), (9, 7, 4))
    assert foldable(named(graph, "conv2d"), named(graph, "batch_norm"), graph) == "conv is also read before norm"
    graph = capture(nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)).eval(), (9, 7, 4))
    assert foldable(named(graph, "max_pool"), named(graph, "batch_norm"), graph) == "0 before 1 is a max_pool, which has no weights"
    graph = fuse_clamps(capture(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval(), (9, 7, 4)))
    assert foldable(named(graph, "conv2d"), named(graph, "batch_norm"), graph) == "0 is clamped (relu) before 2"
    graph = capture(nn.Sequential(nn.ZeroPad2d(1), nn.ReLU()).eval(), (9, 7, 4))
    assert clampable(named(graph, "pad"), named(graph, "max_pool"), graph) == "0 before 1 is a pad, which has no clamp"


def test_folding_is_done_in_double_precision() -> None:
    """A norm of tiny variance: float32 would lose what the weights have left."""
    norm = nn.BatchNorm2d(4)
    module = randomised(nn.Sequential(nn.Conv2d(4, 4, 1), norm))
    norm.running_var.fill_(1e-8)
    norm.running_mean.copy_(torch.full((4,), 100.0))
    x = image((1, 5, 5, 4))
    expected = torch_answer(module.double(), x.astype(np.float64))
    assert difference(answer(prepare(capture(module.float(), (5, 5, 4))), x), expected) < 1e-6
