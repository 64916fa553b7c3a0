"""Channels that are the same for every image: the answers stay (torch and LiteRT are the judges), their weights go."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph import reference
from nestling.graph.constant_channels import without_constant_channels
from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import OUT_AXIS, Graph, same
from tests.helpers.quantization_cases import Inverted, calibrated, captured, litert, noise, pictures, seeded, torch_float
from tests.helpers.strategies import LONGER, graphs, valid

SHUT, OPEN, LIFTED = 3, 5, 7  # channels of the expansion: never above 0; a positive constant; one that opens only at borders


def withered(huge: float = 50.0) -> nn.Module:
    """Inverted whose first expansion has three channels without weights, which a depthwise layer reads with huge ones."""
    module = seeded(Inverted)
    expand: Any = module.first[0]
    depthwise: Any = module.first[2]
    with torch.no_grad():
        for channel, bias in ((SHUT, -0.5), (OPEN, 0.7), (LIFTED, 0.3)):
            expand.weight[channel] *= 1e-20
            expand.bias[channel] = bias
        depthwise.weight[SHUT] = huge
        depthwise.weight[OPEN] = -huge  # all taps: 0.7 times them is below 0, and more so with fewer taps inside
        depthwise.weight[LIFTED] = 0.1
        depthwise.weight[LIFTED, 0, 0, 0] = -1.0  # where this tap is outside, the sum is above 0
        depthwise.bias[[SHUT, OPEN, LIFTED]] = torch.tensor([-0.1, 0.2, 0.0])
    return module.eval()


def weights(graph: Graph) -> list[np.ndarray]:
    """The depthwise weights of the first block [KH, KW, C] and those of the layer behind it [O, C]."""
    layers = [node for node in graph.nodes if node.op in OUT_AXIS]
    return [np.asarray(graph.tensors[layers[place].inputs[1]].data) for place in (2, 3)]


def test_the_answers_stay_and_what_never_matters_is_zero() -> None:
    images, module = pictures(8), withered()
    before = captured(module)
    after = without_constant_channels(before)
    wanted = torch_float(module, images)
    assert np.abs(litert(after, images) - wanted).max() < 1e-5 * np.abs(wanted).max()
    (deep, projected), (deep_before, projected_before) = weights(after), weights(before)
    assert not deep[..., [SHUT, OPEN]].any() and not projected[..., [SHUT, OPEN]].any()
    assert np.array_equal(deep[..., LIFTED], deep_before[..., LIFTED]) and projected[..., LIFTED].all()
    others = [channel for channel in range(32) if channel not in (SHUT, OPEN)]
    assert np.array_equal(deep[..., others], deep_before[..., others])
    assert np.array_equal(projected[..., others], projected_before[..., others])
    assert same(without_constant_channels(after), after)


def test_a_constant_that_is_read_without_padding_moves_into_biases() -> None:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 1)
    module = nn.Sequential(first, nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.Conv2d(4, 5, 3))
    with torch.no_grad():
        first.weight[1] = 0
        first.bias[1] = 9.0  # 6 behind relu6
    module.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).eval()
    graph = without_constant_channels(captured(module))
    images = pictures(4)
    np.testing.assert_allclose(litert(graph, images), torch_float(module, images), rtol=1e-5, atol=1e-5)
    deep, last = [np.asarray(graph.tensors[node.inputs[1]].data) for node in graph.nodes if node.op in OUT_AXIS][1:]
    assert not deep[..., 1].any() and deep[..., [0, 2, 3]].all() and not last[..., 1].any() and last[..., [0, 2, 3]].all()


def test_a_network_without_such_channels_is_left_as_it_is() -> None:
    graph = captured(seeded(Inverted))
    assert without_constant_channels(graph) is graph


def test_one_scale_a_layer_is_spoilt_by_them_and_healed() -> None:
    images, module = pictures(40, seed=1), withered()
    wanted, config = torch_float(module, images), QuantizeConfig(per_layer=True)
    spoilt, healed = (
        noise(wanted, litert(calibrated(graph, pictures(48), config)[0], images))
        for graph in (captured(module), without_constant_channels(captured(module)))
    )
    assert spoilt > 3 * healed and healed < 0.3


@LONGER
@given(case=graphs(integer=False, most=5), seed=st.integers(0, 2**32 - 1))
def test_random_graphs_with_empty_rows_answer_as_before(case: tuple, seed: int) -> None:
    graph, value = valid(case)
    rng = np.random.default_rng(seed)
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        weight = tensors[node.inputs[1]] if node.op in OUT_AXIS else None
        if weight is not None and weight.data is not None:
            rows: NDArray[Any] = np.moveaxis(weight.data.copy(), OUT_AXIS[node.op], 0)
            rows[rng.random(len(rows)) < 0.5] *= rng.choice([0.0, 1e-9])
            tensors[weight.name] = replace(weight, data=np.ascontiguousarray(np.moveaxis(rows, 0, OUT_AXIS[node.op])))
    sparse = replace(graph, tensors=tensors)
    # numbers on the way may be far larger than what is left of them in the end, and float32 is as exact as they are
    on_the_way = max(float(np.abs(values.astype(np.float64)).max()) for _, values in reference.activations(sparse, value))
    found = tflite_run.run(tflite.print_graph(without_constant_channels(sparse)), [value])
    for ours, theirs in zip(found, tflite_run.run(tflite.print_graph(sparse), [value]), strict=True):
        allowed = max(1e-4 * float(np.abs(theirs).max()), 1e-6 * on_the_way)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=allowed)
