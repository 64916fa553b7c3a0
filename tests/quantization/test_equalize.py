"""Equalisation: float answers stay (torch is the judge), what rescaled channels broke is mended (LiteRT is)."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nestling.graph.integers import QuantizeConfig
from nestling.graph.ir import Graph
from nestling.quantization.bias_correction import bias_corrected
from nestling.quantization.calibrate import observe
from nestling.quantization.equalize import equalized, groups
from tests.helpers.quantization_cases import (
    Everything,
    Inverted,
    calibrated,
    captured,
    litert,
    noise,
    pictures,
    seeded,
    torch_float,
)

CALIBRATION, UNSEEN = pictures(48), pictures(40, seed=1)
PER_TENSOR = QuantizeConfig(per_layer=True)


def ill(spread: float = 4.0) -> nn.Module:
    """Inverted with every channel between two layers rescaled by random factors, by hand on torch's weights."""
    module: Any = seeded(Inverted)
    generator = torch.Generator().manual_seed(1)

    def rescale(writers: list[nn.Conv2d], readers: list[nn.Conv2d]) -> None:
        factors = 2.0 ** ((torch.rand(writers[0].out_channels, generator=generator) * 2 - 1) * spread)
        for conv in writers:
            conv.weight.data *= factors[:, None, None, None]
            conv.bias.data *= factors
        for conv in readers:
            conv.weight.data /= factors[:, None, None, None] if conv.groups > 1 else factors[None, :, None, None]

    first, second = module.first, module.second
    rescale([module.stem[0]], [first[0]])
    for block in (first, second):
        rescale([block[0]], [block[2]])
        rescale([block[2]], [block[4]])
    rescale([first[4], second[4]], [second[0], module.last[0]])  # the residual stream
    return module


def floats(graph: Graph) -> np.ndarray:
    return litert(graph, UNSEEN)


def test_the_answers_stay() -> None:
    for module in (seeded(Inverted), ill()):
        wanted = torch_float(module, UNSEEN)
        assert np.abs(floats(equalized(captured(module))) - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_the_disease_leaves_float_alone_and_equalisation_with_bias_correction_cures_it() -> None:
    well, sick = seeded(Inverted), ill()
    wanted = torch_float(well, UNSEEN)
    np.testing.assert_allclose(torch_float(sick, UNSEEN), wanted, rtol=1e-3, atol=1e-4)
    healthy = noise(wanted, litert(calibrated(captured(well), CALIBRATION, PER_TENSOR)[0], UNSEEN))
    collapsed = noise(wanted, litert(calibrated(captured(sick), CALIBRATION, PER_TENSOR)[0], UNSEEN))
    assert collapsed > 1 > 0.3 > healthy
    cured = equalized(captured(sick))
    integers, _ = calibrated(cured, CALIBRATION, PER_TENSOR)
    integers, _ = calibrated(bias_corrected(cured, integers, CALIBRATION), CALIBRATION, PER_TENSOR)
    mended = noise(wanted, litert(integers, UNSEEN))
    assert mended < healthy + 0.5 * (collapsed - healthy)
    assert mended < 0.3


def test_channels_come_out_alike() -> None:
    """Where one layer writes and one reads, both sides' largest weights are equal in each channel (Nagel et al., eq. 10)."""
    graph = equalized(captured(ill()))
    for group in groups(graph):
        if len(group.writers) == len(group.readers) == 1:
            (writer,), (reader,) = group.writers, group.readers
            out = graph.tensors[writer.inputs[1]].data
            r1 = np.abs(out).max((0, 1, 2) if writer.op == "depthwise_conv2d" else (1, 2, 3))
            r2 = np.abs(graph.tensors[reader.inputs[1]].data).max((0, 1, 2))
            np.testing.assert_allclose(r1, r2, rtol=0.05)


def test_a_residual_stream_is_one_group() -> None:
    found = max(groups(captured(seeded(Inverted))), key=lambda group: len(group.tensors))
    assert len(found.writers) == 2 and len(found.readers) == 2 and len(found.tensors) == 3


def test_relu6_is_left_alone_without_having_seen_its_channels() -> None:
    module = seeded(Inverted, nn.ReLU6)
    graph = captured(module)
    changed = equalized(graph)
    bounded = {name for node in graph.nodes if getattr(node.attrs, "clamp", "") == "relu6" for name in node.inputs[2:]}
    streams = {name for group in groups(graph) if not group.bounded for node in group.writers for name in node.inputs[2:]}
    for name in bounded - streams:
        np.testing.assert_array_equal(changed.tensors[name].data, graph.tensors[name].data)


@pytest.mark.parametrize("stretch", [0.2, 10.0])
def test_relu6_channels_are_scaled_only_below_the_bound(stretch: float) -> None:
    """With small activations it equalises, with large ones it must not; the answers stay either way."""
    module: Any = seeded(Inverted, nn.ReLU6)
    for block in (module.first, module.second):
        block[0].weight.data *= stretch
        block[0].weight.data[::2] *= 0.1
    graph = captured(module)
    highs = {name: found.channel_high for name, found in observe(graph, CALIBRATION + UNSEEN).items()}
    wanted = torch_float(module, UNSEEN)
    changed = equalized(graph, highs)
    assert np.abs(floats(changed) - wanted).max() < 1e-4 * np.abs(wanted).max()
    names = [node.inputs[1] for node in graph.nodes if node.op == "depthwise_conv2d"]
    assert any(not np.array_equal(changed.tensors[name].data, graph.tensors[name].data) for name in names)


def test_what_is_not_linear_is_left_alone() -> None:
    module = seeded(Everything)
    graph = captured(module)
    highs = {name: found.channel_high for name, found in observe(graph, CALIBRATION + UNSEEN).items()}
    wanted = torch_float(module, UNSEEN)
    assert np.abs(floats(equalized(graph, highs)) - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_dead_channel_stays_finite() -> None:
    module: Any = seeded(Inverted)
    module.first[0].weight.data[3] = 0
    module.first[0].bias.data[3] = 0.5
    graph = equalized(captured(module))
    wanted = torch_float(module, UNSEEN)
    assert np.abs(floats(graph) - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_a_channel_that_training_let_die_does_not_blow_up() -> None:
    """Weights of 1e-20 before a bias of 0.5: made as large as the others', they would carry the bias beyond any scale."""
    module: Any = seeded(Inverted)
    module.first[0].weight.data[3] *= 1e-20
    module.first[0].bias.data[3] = 0.5
    wanted = torch_float(module, UNSEEN)
    cured = equalized(captured(module))
    assert np.abs(floats(cured) - wanted).max() < 1e-4 * np.abs(wanted).max()
    before, after = (noise(wanted, litert(calibrated(graph, CALIBRATION)[0], UNSEEN)) for graph in (captured(module), cured))
    assert after < 1.1 * before
