"""Captured graphs answer as torch does, run by the NumPy reference; what cannot be captured is refused by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
from torch import Tensor, nn

from nestling.errors import NestlingError, UnsupportedOp
from nestling.graph import reference
from nestling.graph.edit import canonical
from nestling.graph.ir import Graph, same
from nestling.graph.passes import prepare
from nestling.models.capture.capture import capture
from nestling.models.plain import plain
from tests.helpers.torch_networks import FURTHER, NINE, SMALL, difference, image, network, randomised, torch_answer


class Net(nn.Module):
    """Layers by name and a function of them and the image."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            if isinstance(layer, Tensor):
                self.register_buffer(name, layer)
            else:
                self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(i: int, o: int, size: int | tuple[int, int] = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, size, **options)


def answer(graph: Graph, x: np.ndarray) -> np.ndarray:
    return reference.run(graph, x)[graph.outputs[0]]


ONE_LAYER: dict[str, nn.Module] = {
    "conv": conv(4, 6, stride=2, padding=1),
    "conv without bias": conv(4, 6, 1, bias=False),
    "conv, unequal sides": nn.Conv2d(4, 6, (3, 5), stride=(1, 2), padding=(0, 2), dilation=(2, 1)),
    "groups": conv(4, 6, groups=2),
    "depthwise": conv(4, 4, groups=4, padding=1),
    "depthwise, two of each": conv(4, 8, groups=4, stride=2),
    "conv, same": conv(4, 5, 4, padding="same"),
    "batch norm alone": nn.BatchNorm2d(4),
    "batch norm, not affine": nn.BatchNorm2d(4, affine=False, eps=0.01),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "relu6 in place": nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "hardsigmoid": nn.Hardsigmoid(),
    "silu": nn.SiLU(),
    "sigmoid": nn.Sigmoid(),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU(approximate="tanh"),
    "nearest neighbour, twice": nn.Upsample(scale_factor=2),
    "nearest neighbour, to a size": nn.Upsample((5, 16)),
    "dropout": nn.Dropout(),
    "max pool": nn.MaxPool2d(3, 2, 1),
    "max pool, ceil": nn.MaxPool2d(2, 2, ceil_mode=True),
    "avg pool": nn.AvgPool2d(2),
    "avg pool, padding counted": nn.AvgPool2d(3, 2, 1),
    "avg pool, padding not counted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg pool, ceil": nn.AvgPool2d(2, 2, ceil_mode=True),
    "adaptive pool to 1": nn.AdaptiveAvgPool2d(1),
    "adaptive pool to a divisor": nn.AdaptiveAvgPool2d((3, 7)),
    "zero pad": nn.ZeroPad2d((1, 2, 0, 3)),
    "flatten and linear": nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(9 * 7 * 4, 5), nn.ReLU()),
    "flatten, linear, norm": nn.Sequential(conv(4, 3, (9, 7)), nn.Flatten(), nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Softmax(dim=1)),
}

FUNCTIONS: dict[str, nn.Module] = {
    "mean without dims": Net(lambda n, x: x.mean((2, 3))),
    "mean over channels": Net(lambda n, x: x * x.mean(1, keepdim=True)),
    "squeeze and excitation by views": Net(
        lambda n, x: x * torch.sigmoid(n.fc(x.mean((2, 3)).view(1, 4))).view(1, 4, 1, 1), fc=nn.Linear(4, 4)
    ),
    "concat of channels": Net(lambda n, x: F.relu(torch.cat([n.a(x), x, n.b(x)], 1)), a=conv(4, 2, 1), b=conv(4, 3, 1)),
    "concat of one": Net(lambda n, x: torch.cat([x], 1) + x),
    "concat of rows": Net(lambda n, x: torch.cat([x, n.a(x)], 2), a=conv(4, 4, padding=1)),
    "relu beside another reader": Net(lambda n, x: (y := n.a(x)) + F.relu(y), a=conv(4, 4, 1)),
    "written over while still read": Net(lambda n, x: (y := n.a(x)) + F.relu_(y), a=conv(4, 4, 1)),
    "one layer used twice": Net(lambda n, x: n.a(F.relu(n.a(x))), a=conv(4, 4, padding=1)),
    "scalars": Net(lambda n, x: (x * 2 + 1 - 0.5) / 3),
    "a scale a channel": Net(lambda n, x: x * n.scale + n.shift, scale=torch.rand(1, 4, 1, 1), shift=torch.rand(4, 1, 1)),
    "a plane": Net(lambda n, x: x - n.plane, plane=torch.rand(9, 7)),
    "standardised weights": Net(
        lambda n, x: F.conv2d(x, (n.w - n.w.mean((1, 2, 3), keepdim=True)) / n.w.std((1, 2, 3), keepdim=True)),
        w=torch.rand(5, 4, 3, 3),
    ),
    "standardised weights, by a norm": Net(
        lambda n, x: F.conv2d(x, F.batch_norm(n.w.reshape(1, 5, -1), None, None, training=True).reshape_as(n.w)),
        w=torch.rand(5, 4, 3, 3),
    ),
    "pad with minus infinity": Net(lambda n, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 3, 2)),
    "pad, then convolution": Net(lambda n, x: F.relu(n.a(F.pad(x, (0, 1, 2, 1)))), a=conv(4, 4, stride=2)),
    "pad, then average": Net(lambda n, x: F.avg_pool2d(F.pad(x, (0, 1, 2, 1)), 3)),
    "squeezed": Net(lambda n, x: n.a(x).squeeze(-1).squeeze(-1), a=conv(4, 6, (9, 7))),
    "some channels": Net(lambda n, x: torch.cat([x[:, :1] + n.a(x), x[:, 1:-1], x[:, -1:]], 1), a=conv(4, 1, 1)),
    "some rows": Net(lambda n, x: x[:, :, 2:5, 1:]),
    "split": Net(lambda n, x: torch.cat([n.a(y) for y in torch.split(x, 2, 1)[::-1]], 1), a=conv(2, 3, 1)),
    "split unevenly": Net(lambda n, x: n.a(torch.split(x, [1, 3], 1)[1]), a=conv(3, 3, 1)),
    "chunk": Net(lambda n, x: torch.mul(*x.chunk(2, 1))),
    "chunk of rows": Net(lambda n, x: x.chunk(2, 2)[1]),
    "narrow": Net(lambda n, x: x.narrow(1, 1, 2)),
    "a difference": Net(lambda n, x: n.a(x) - n.b(F.relu(x)), a=conv(4, 3, 1), b=conv(4, 3, 1)),
    "there and back": Net(lambda n, x: n.a(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)), a=conv(4, 6)),
}


@pytest.mark.parametrize("name", ONE_LAYER | FUNCTIONS)
def test_captured_and_prepared_graphs_answer_as_torch(name: str) -> None:
    torch.manual_seed(1)
    module = randomised((ONE_LAYER | FUNCTIONS)[name])
    x = image((1, 9, 7, 4)) * 4  # so that clamps at 6 do something
    expected = torch_answer(module, x.copy())
    graph = capture(module, (9, 7, 4))
    assert difference(answer(graph, x), expected) < 1e-5
    assert difference(answer(prepare(graph), x), expected) < 1e-5


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_answer_as_torch(name: str) -> None:
    assert_answers_as_torch(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", (*NINE, *FURTHER))
def test_real_networks_answer_as_torch(name: str) -> None:
    assert_answers_as_torch(name)


def assert_answers_as_torch(name: str) -> None:
    x = image((1, 96, 96, 3))
    for classes in (0, 7):
        module = network(name, classes)
        assert difference(answer(capture(module, (96, 96, 3)), x), torch_answer(module, x)) < 1e-5


def test_a_table_comes_first_and_takes_uint8() -> None:
    module, table = network("mobilenetv2_050"), image((3, 256))
    graph = capture(module, (64, 96, 3), table)
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    normalised = np.stack([table[c][pixels[..., c]] for c in range(3)], axis=-1)
    assert graph.nodes[0].op == "table"
    assert (graph.tensors[graph.inputs[0]].dtype, graph.tensors[graph.inputs[0]].shape) == ("uint8", (1, 64, 96, 3))
    assert difference(answer(graph, pixels), torch_answer(module, normalised)) < 1e-5


def test_a_plain_network_is_captured_as_the_network_it_is_made_of() -> None:
    fused = network("mobilenetv3_small_050")
    assert same(canonical(capture(plain(fused), (64, 64, 3))), canonical(capture(fused, (64, 64, 3))))


def test_the_graph_keeps_its_numbers_while_torch_goes_on_training() -> None:
    module = randomised(nn.Sequential(conv(4, 4), nn.BatchNorm2d(4)))
    x = image((1, 9, 7, 4))
    graph, before = capture(module, (9, 7, 4)), torch_answer(module, x)
    for tensor in module.state_dict().values():
        tensor.zero_()
    assert difference(answer(graph, x), before) < 1e-5


def test_layout_and_names() -> None:
    graph = capture(network("mobilenetv2_050", 7), (96, 96, 3))
    stem, dense = graph.nodes[0], graph.nodes[-1]
    assert (stem.op, stem.source, stem.inputs) == ("conv2d", "conv_stem", ("image", "conv_stem.weight"))
    assert graph.tensors["conv_stem.weight"].shape == (16, 3, 3, 3)
    assert graph.tensors["blocks.0.0.conv_dw.weight"].shape == (1, 3, 3, 16)
    assert (dense.op, graph.tensors[dense.name].shape) == ("fully_connected", (1, 7))
    assert not {node.op for node in graph.nodes} & {"transpose", "permute"}


def test_weights_that_two_layers_share_stay_one_tensor() -> None:
    graph = capture(FUNCTIONS["one layer used twice"].eval(), (9, 7, 4))
    assert [node.inputs[1:] for node in graph.nodes if node.op == "conv2d"] == [("a.weight", "a.bias")] * 2


REFUSED: dict[str, tuple[nn.Module, str]] = {
    "elu": (nn.Sequential(conv(4, 4), nn.ELU()), "elu"),
    "every other place": (Net(lambda n, x: x[:, :, ::2]), "one of 2 places"),
    "a factor that is no whole number": (nn.Upsample(scale_factor=1.3), r"resizes by \[1.3"),
    "another clamp": (nn.Sequential(nn.Hardtanh(-1, 1)), "clamps to -1 .. 1"),
    "a pad of ones": (nn.Sequential(nn.ConstantPad2d(1, 1.0)), "value 1.0"),
    "flatten as the end": (nn.Sequential(nn.Flatten()), "flattened map"),
    "channel shuffle": (Net(lambda n, x: x.view(1, 2, 2, 9, 7).transpose(1, 2).reshape(1, 4, 9, 7)), "transpose"),
    "uneven adaptive pool": (nn.Sequential(nn.AdaptiveAvgPool2d(2)), "different sizes"),
    "weights from the image": (Net(lambda n, x: F.conv2d(x, x.mean((2, 3), keepdim=True))), "image"),
    "another rounding": (Net(lambda n, x: torch.div(x, 2.0, rounding_mode="floor")), "rounding_mode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_graph_does_not_hold_is_refused_by_name(name: str) -> None:
    module, reason = REFUSED[name]
    with pytest.raises(UnsupportedOp, match=reason) as caught:
        capture(module.eval(), (9, 7, 4))
    assert "fp32 .pte" in str(caught.value)


def test_a_refusal_names_the_layer_and_its_source_line() -> None:
    with pytest.raises(UnsupportedOp) as caught:
        capture(timm.create_model("convnext_atto").eval(), (64, 64, 3))
    assert "layer_norm" in str(caught.value)
    assert "layer stem.1" in str(caught.value)
    assert "norm.py line " in str(caught.value)


def test_a_network_that_is_training_is_refused() -> None:
    with pytest.raises(NestlingError, match="training"):
        capture(nn.Sequential(nn.Dropout()), (9, 7, 4))


def test_a_network_that_does_not_take_the_shape_is_refused() -> None:
    with pytest.raises(NestlingError, match="cannot trace"):
        capture(nn.Sequential(conv(3, 4)).eval(), (9, 7, 4))
