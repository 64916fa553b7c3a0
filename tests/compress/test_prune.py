"""Channels that are gone: judged by torch's own network with those channels held at zero, and by counts made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from timm.models.efficientnet import _gen_mobilenet_v1
from torch import nn

from nestling.compress.channels import Batch, Thinned, thinned, total_macs
from nestling.compress.config import PruneConfig
from nestling.compress.layers import Layers
from nestling.compress.prune import prune
from nestling.errors import NestlingError, UnsupportedOp
from nestling.graph.ir import Graph, Quantize, same
from nestling.graph.ir import Tensor as GraphTensor
from nestling.graph.passes import prepare
from nestling.graph.reference import run
from nestling.graph.spec import check
from nestling.models.float_graph import unfolded_graph
from nestling.models.graph_module import GraphModule, to_graph
from nestling.models.plain import plain
from tests.compress.networks import branches, bundle_of, head_for, tiny
from tests.helpers.torch_networks import captured_once, difference, image, network, randomised, torch_answer

FAMILIES = (
    "mobilenetv1_025",
    "mobilenetv1_100",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "resnet18",
)


def named(name: str) -> nn.Module:
    if name == "mobilenetv1_025":
        torch.manual_seed(0)
        return randomised(_gen_mobilenet_v1("mobilenetv1_100", 0.25, num_classes=0))
    return network(name)


def some_batches(side: int) -> list[Batch]:
    return [(image((4, side, side, 3), seed), np.arange(4)) for seed in (1, 2)]


def answer(graph: Graph, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return GraphModule(graph).eval()(torch.from_numpy(x)).numpy()


def masked_answer(module: nn.Module, graph: Graph, kept: Mapping[str, tuple[int, ...]], x: np.ndarray) -> np.ndarray:
    """The whole network's answer with the outputs of every layer and norm zero where a channel is not kept."""
    layer_of = {node.name: node.source for node in graph.nodes}
    module = plain(module).eval()
    for name, channels in kept.items():
        mask = torch.zeros(graph.tensors[name].shape[-1])
        mask[list(channels)] = 1

        def hold(_module: nn.Module, _inputs: object, out: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            return out * (mask[:, None, None] if out.ndim == 4 else mask)

        module.get_submodule(layer_of[name]).register_forward_hook(hold)
    return torch_answer(module, x)


def assert_as_masked(module: nn.Module, graph: Graph, thin: Thinned, x: np.ndarray) -> None:
    """Holds for activations that keep 0 at 0, which all of these networks' are but the gates of squeeze-and-excite."""
    expected = masked_answer(module, graph, thin.kept, x)
    last = list(thin.kept.values())[-1]
    width = thin.graph.tensors[thin.graph.outputs[0]].shape[-1]
    columns = list(last) if width < expected.shape[1] else list(range(width))
    assert difference(answer(thin.graph, x), expected[:, columns]) < 1e-5
    assert thin.head.weight.shape[1] == width


def assert_family(name: str, importance: str) -> None:
    module = named(name)
    graph = captured_once(plain(module), (64, 64, 3))
    goal = total_macs(graph) // 2
    thin = thinned(graph, head_for(graph), goal, importance, steps=2, batches=some_batches(64))  # type: ignore[arg-type]  # arrays will do
    assert total_macs(check(thin.graph)) <= goal
    assert_as_masked(module, graph, thin, image((2, 64, 64, 3)))
    assert any(node.op == "batch_norm" for node in thin.graph.nodes)
    for node_name, left in thin.kept.items():
        width = graph.tensors[node_name].shape[-1]
        assert len(left) == width or (len(left) >= 8 and len(left) % 8 == 0)


@pytest.mark.parametrize("importance", ["l1", "taylor", "norm"])
def test_a_pruned_network_answers_as_torchs_with_those_channels_at_zero(importance: str) -> None:
    assert_family("mobilenetv2_050", importance)


@pytest.mark.parametrize("name", ["mobilenetv1_025", "mobilenetv3_small_050"])
def test_depthwise_residual_and_squeeze_and_excite(name: str) -> None:
    assert_family(name, "taylor")


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["l1", "taylor", "norm"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_answers_as_torchs_with_those_channels_at_zero(name: str, importance: str) -> None:
    assert_family(name, importance)


def test_multiply_accumulates_counted_by_hand_and_zero_channels_go_first() -> None:
    module = tiny()
    zero = [0, 3, 4, 7, 9, 10, 13, 15]
    with torch.no_grad():
        for tensor in (module.a.weight, module.norm.weight, module.norm.bias):
            tensor[zero] = 0
        module.b.weight[:, zero] = 0
    graph = captured_once(module, (8, 8, 3))
    assert total_macs(graph) == 27_648 + 24_576
    thin = thinned(graph, head_for(graph), 26_112)  # 64 * 9 * 3 * 8 + 64 * 8 * 24: half of the first layer's channels gone
    assert total_macs(thin.graph) == 26_112
    assert thin.kept == {"a": tuple(i for i in range(16) if i not in zero), "norm": thin.kept["a"], "b": tuple(range(24))}
    x = image((3, 8, 8, 3))
    assert difference(answer(thin.graph, x), torch_answer(module, x)) < 1e-6


def test_zero_channels_of_a_residual_network_change_no_answer() -> None:
    """Inside the blocks of ResNet-18, 8 of conv1's channels each are dead: all they cost can go for nothing."""
    module = network("resnet18")
    dead = range(8)
    saved = 0
    for stage, (width, side, before) in enumerate(((64, 16, 64), (128, 8, 64), (256, 4, 128), (512, 2, 256)), start=1):
        for index, block in enumerate(getattr(module, f"layer{stage}")):
            with torch.no_grad():
                for tensor in (block.conv1.weight, block.bn1.weight, block.bn1.bias):
                    tensor[dead] = 0
                block.conv2.weight[:, dead] = 0
            saved += side * side * 9 * 8 * ((before if index == 0 else width) + width)
    graph = captured_once(plain(module), (64, 64, 3))
    thin = thinned(graph, head_for(graph), total_macs(graph) - saved)
    assert total_macs(thin.graph) == total_macs(graph) - saved
    x = image((2, 64, 64, 3))
    assert difference(answer(thin.graph, x), torch_answer(module, x)) < 1e-5


def test_taylor_removes_what_the_loss_does_not_depend_on() -> None:
    """Eight numbers of the embedding that the head does not read: large weights, no gradient."""
    module = tiny()
    graph = captured_once(module, (8, 8, 3))
    head = head_for(graph)
    head.weight[:, 4:12] = 0
    thin = thinned(graph, head, 27_648 + 64 * 16 * 16, "taylor", batches=some_batches(8))
    assert thin.kept["b"] == tuple(i for i in range(24) if not 4 <= i < 12) and len(thin.kept["a"]) == 16
    x = image((2, 8, 8, 3))
    logits = torch_answer(module, x) @ head.weight.T + head.bias
    assert difference(answer(thin.graph, x) @ thin.head.weight.T + thin.head.bias, logits) < 1e-5


@pytest.mark.parametrize(("make", "side"), [(tiny, 8), (branches, 12), (lambda: network("mobilenetv3_small_050"), 64)])
def test_the_layers_that_are_pruned_answer_as_the_network_under_its_head(make: Callable[[], nn.Module], side: int) -> None:
    module, x = make(), image((2, side, side, 3))
    graph = captured_once(plain(module), (side, side, 3))
    head = head_for(graph)
    for one in (graph, prepare(graph)):
        with torch.no_grad():
            found = Layers(one, head)(torch.from_numpy(x)).numpy()
        assert difference(found, torch_answer(module, x) @ head.weight.T + head.bias) < 1e-5


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_channels_are_followed_through_concat_scales_and_shifts(importance: str) -> None:
    graph = prepare(captured_once(branches(), (12, 12, 3)))
    goal = int(total_macs(graph) * 0.42)  # nearly all that can go without the grouped convolution's channels
    thin = thinned(graph, head_for(graph), goal, importance, steps=3, batches=some_batches(12))  # type: ignore[arg-type]  # arrays will do
    kept = {node.source: thin.kept[node.name] for node in graph.nodes if node.name in thin.kept}
    assert len(kept["a"]) < 16 and len(kept["b"]) < 24 and total_macs(thin.graph) <= goal
    assert len(kept["d"]) == len(kept["c"]) == 32  # a grouped convolution keeps what it has
    x = image((2, 12, 12, 3))
    assert difference(answer(thin.graph, x), torch_answer(branches(kept), x)) < 1e-5


def test_a_pruned_network_can_be_pruned_again_and_trains() -> None:
    graph = captured_once(plain(network("mobilenetv3_small_050")), (64, 64, 3))
    once = thinned(graph, head_for(graph), int(total_macs(graph) * 0.7), "l1")
    trainable = GraphModule(once.graph).train()
    trainable(torch.from_numpy(image((4, 64, 64, 3)))).square().mean().backward()
    assert all(parameter.grad is not None for parameter in trainable.parameters())
    twice = thinned(to_graph(trainable), once.head, int(total_macs(graph) * 0.4), "l1")
    assert total_macs(twice.graph) <= 0.4 * total_macs(graph)
    x = image((1, 64, 64, 3))
    by_reference = run(prepare(twice.graph), x)[prepare(twice.graph).outputs[0]]
    assert difference(answer(twice.graph, x), by_reference) < 1e-4


def test_the_same_twice_and_the_same_as_the_graph_where_nothing_went() -> None:
    graph = captured_once(plain(network("mobilenetv2_050")), (64, 64, 3))
    assert same(Layers(graph, head_for(graph)).to_graph(), graph)
    goal = total_macs(graph) // 2
    one, other = (thinned(graph, head_for(graph), goal, "taylor", steps=2, batches=some_batches(64)) for _ in range(2))
    assert same(one.graph, other.graph) and np.array_equal(one.head.weight, other.head.weight)


def test_a_share_out_of_reach_says_what_was_reached() -> None:
    graph = captured_once(tiny(), (8, 8, 3))
    # 8 channels each: 64 * 9 * 3 * 8 + 64 * 8 * 8 = 17,920 of 52,224
    with pytest.raises(NestlingError, match=r"20.0% .* cannot be reached: 34.3%"):
        thinned(graph, head_for(graph), int(0.2 * 52_224) + 1)


def test_what_cannot_be_pruned_says_why() -> None:
    folded = prepare(captured_once(tiny(), (8, 8, 3)))
    with pytest.raises(NestlingError, match="batch norms are folded"):
        thinned(folded, head_for(folded), 30_000, "norm")

    mixed = captured_once(nn.Sequential(nn.Conv2d(3, 16, 1), nn.Flatten(), nn.Linear(16 * 64, 8)).eval(), (8, 8, 3))
    with pytest.raises(UnsupportedOp, match="channels cannot be followed"):
        thinned(mixed, head_for(mixed), 10_000)


@pytest.mark.parametrize("macs", [0.0, 1.0, -0.5, 50.0])
def test_a_share_is_above_nothing_and_below_all(macs: float) -> None:
    graph = captured_once(tiny(), (8, 8, 3))
    with pytest.raises(NestlingError, match="above 0% and below 100%"):
        prune(bundle_of(graph, head_for(graph)), None, PruneConfig(macs))


def test_integer_networks_and_those_without_a_head_are_refused() -> None:
    graph = captured_once(tiny(), (8, 8, 3))
    with pytest.raises(NestlingError, match="only a fitted network"):
        prune(bundle_of(graph, None))
    out = graph.outputs[0]
    integer = GraphTensor("q", graph.tensors[out].shape, "int8")
    nodes = (*graph.nodes, type(graph.nodes[0])("quantize", (out,), ("q",), Quantize()))
    made = Graph({**graph.tensors, "q": integer}, nodes, graph.inputs, ("q",))
    for bundle in (bundle_of(None, head_for(graph), made), bundle_of(made, head_for(graph))):
        with pytest.raises(NestlingError, match="int8"):
            prune(bundle)
    assert unfolded_graph(bundle_of(graph, head_for(graph))) is graph
