"""Bias correction: the means that quantised weights shifted come back. LiteRT runs the integers, torch gives the float means."""

import numpy as np
from torch import nn

from nestling.graph.integers import QuantizeConfig
from nestling.quantization.bias_correction import bias_corrected
from tests.helpers.quantization_cases import Inverted, calibrated, captured, litert, noise, pictures, seeded, torch_float

CALIBRATION, UNSEEN = pictures(48), pictures(40, seed=1)
COARSE = QuantizeConfig(bits_weights=4)


def test_means_come_back() -> None:
    module = seeded(Inverted, nn.ReLU6)
    graph = captured(module)
    plain, _ = calibrated(graph, CALIBRATION, COARSE)
    corrected, _ = calibrated(bias_corrected(graph, plain, CALIBRATION), CALIBRATION, COARSE)
    wanted = torch_float(module, UNSEEN)
    before, after = (np.abs(litert(some, UNSEEN).mean(0) - wanted.mean(0)).mean() for some in (plain, corrected))
    assert after < 0.4 * before
    assert noise(wanted, litert(corrected, UNSEEN)) < noise(wanted, litert(plain, UNSEEN))


def test_only_biases_change_and_a_layer_without_one_gets_one() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    graph = captured(module)
    plain, _ = calibrated(graph, CALIBRATION, COARSE)
    corrected = bias_corrected(graph, plain, CALIBRATION)
    layers = [node for node in corrected.nodes if node.op == "conv2d"]
    assert [len(node.inputs) for node in layers] == [3, 3]
    for node in layers:
        np.testing.assert_array_equal(corrected.tensors[node.inputs[1]].data, graph.tensors[node.inputs[1]].data)


def test_exact_integers_need_no_correction() -> None:
    """Weights that are whole steps already: the shift is only what rounding the activations leaves."""
    first = nn.Conv2d(3, 8, 1)
    module = nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    steps = np.random.default_rng(0).integers(-127, 128, (8, 3, 1, 1))
    steps[:, 0] = 127
    first.weight.data[:] = first.weight.data.new_tensor(steps / 127)
    graph = captured(module)
    plain, _ = calibrated(graph, CALIBRATION, QuantizeConfig())
    corrected = bias_corrected(graph, plain, CALIBRATION)
    name = next(node.inputs[2] for node in graph.nodes if node.op == "conv2d")
    np.testing.assert_allclose(corrected.tensors[name].data, graph.tensors[name].data, atol=5e-3)
