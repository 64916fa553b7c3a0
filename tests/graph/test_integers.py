"""The int8 graph: judged by LiteRT's reference kernels on the printed file against torch in float."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nestling.errors import NestlingError
from nestling.graph import float_twin, reference, spec
from nestling.graph.integers import QuantizeConfig, Range, quantized_bias, quantized_weight, with_integers
from nestling.graph.ir import Graph, HardSwish, Node, Quant, Tensor, same
from nestling.quantization.calibrate import choose_ranges
from tests.helpers.quantization_cases import (
    SIDE,
    Everything,
    Inverted,
    calibrated,
    captured,
    litert,
    noise,
    pictures,
    seeded,
    small_timm,
    torch_float,
)

CALIBRATION, UNSEEN = pictures(48), pictures(24, seed=1)


@pytest.mark.parametrize("make", [Everything, Inverted])
def test_integers_answer_as_torch_in_float(make: type[nn.Module]) -> None:
    module = seeded(make)
    integers, _ = calibrated(captured(module), CALIBRATION)
    assert noise(torch_float(module, UNSEEN), litert(integers, UNSEEN)) < 0.1


@pytest.mark.parametrize("name", ["mobilenetv2_050", "mobilenetv3_small_050", "resnet18"])
def test_networks_of_timm(name: str) -> None:
    module, side = small_timm(name), 64
    integers, _ = calibrated(captured(module, side), pictures(16, side))
    images = pictures(6, side, seed=1)
    ours, theirs = np.concatenate([reference.run(integers, i[None])[integers.outputs[0]] for i in images]), litert(integers, images)
    quant = integers.tensors[integers.outputs[0]].quant
    np.testing.assert_array_equal((ours.astype(np.float32) - quant.zero_point) * quant.scale, theirs)
    wanted = torch_float(module, images)
    assert np.corrcoef(wanted.ravel(), theirs.ravel())[0, 1] > 0.97


def test_the_reference_gives_the_same_bytes_as_litert() -> None:
    integers, _ = calibrated(captured(seeded(Everything)), CALIBRATION)
    quant = integers.tensors[integers.outputs[0]].quant
    ours = np.concatenate([reference.run(integers, image[None])[integers.outputs[0]] for image in UNSEEN])
    np.testing.assert_array_equal((ours.astype(np.float32) - quant.zero_point) * quant.scale, litert(integers, UNSEEN))


def test_weights_are_symmetric_per_channel_and_biases_have_the_product_of_scales() -> None:
    graph = captured(seeded(Everything))
    integers, _ = calibrated(graph, CALIBRATION)
    layers = [node for node in integers.nodes if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")]
    assert len(layers) == 9
    for node in layers:
        x, weight = integers.tensors[node.inputs[0]], integers.tensors[node.inputs[1]]
        axis = 3 if node.op == "depthwise_conv2d" else 0
        assert weight.quant.axis == axis and not weight.quant.zero_point.any()
        others = tuple(i for i in range(weight.data.ndim) if i != axis)
        np.testing.assert_array_equal(np.abs(weight.data.astype(int)).max(others), 127)
        real = graph.tensors[node.inputs[1]].data
        np.testing.assert_allclose(weight.quant.scale, np.abs(real).max(others) / 127, rtol=1e-6)
        if len(node.inputs) > 2:
            bias = integers.tensors[node.inputs[2]]
            assert bias.dtype == "int32"
            np.testing.assert_allclose(bias.quant.scale, x.quant.scale * weight.quant.scale, rtol=1e-6)


def test_ranges_are_taken_after_the_clamp() -> None:
    """A layer whose sums reach far beyond 6 gets all its integers for 0 to 6."""
    module: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.AvgPool2d(SIDE - 2), nn.Flatten()).eval()
    module[0].weight.data *= 50
    integers, _ = calibrated(captured(module), CALIBRATION)
    quant = next(integers.tensors[node.name].quant for node in integers.nodes if node.op == "conv2d")
    assert quant.scale[0] == pytest.approx(6 / 255, rel=0.02) and quant.zero_point[0] == -128


def test_pools_and_concat_share_scales_and_a_fixed_scale_is_brought_to_the_concats() -> None:
    integers, _ = calibrated(captured(seeded(Everything)), CALIBRATION)
    ops = [node.op for node in integers.nodes]
    assert ops.count("quantize") == 1  # sigmoid's 1 / 256
    concat = next(node for node in integers.nodes if node.op == "concat")
    assert len({float(integers.tensors[name].quant.scale[0]) for name in (*concat.inputs, concat.name)}) == 1


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_fewer_bits_use_fewer_integers(bits: int) -> None:
    config = QuantizeConfig(bits_weights=bits, bits_activations=bits, range="minmax")
    integers, _ = calibrated(captured(seeded(Inverted)), CALIBRATION, config)
    last = 2 ** (bits - 1) - 1
    for tensor in integers.tensors.values():
        if tensor.data is not None and tensor.dtype == "int8":
            assert tensor.data.max() <= last and tensor.data.min() >= -last - 1
    first = next(node.name for node in integers.nodes if node.op == "table")
    values = reference.run(integers, CALIBRATION[0][None], keep=(first,))[first]
    assert len(np.unique(values)) <= 2**bits


def test_more_bits_are_closer_to_float() -> None:
    module = seeded(Inverted)
    graph, wanted = captured(module), torch_float(module, UNSEEN)
    errors = [noise(wanted, litert(calibrated(graph, CALIBRATION, QuantizeConfig(bits, bits))[0], UNSEEN)) for bits in (3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def test_symmetric_activations_have_zero_points_0() -> None:
    module = seeded(Inverted)
    integers, _ = calibrated(captured(module), CALIBRATION, QuantizeConfig(symmetric=True))
    assert not any(tensor.quant.zero_point.any() for tensor in integers.tensors.values() if tensor.quant)
    assert noise(torch_float(module, UNSEEN), litert(integers, UNSEEN)) < 0.2


def test_per_layer_gives_one_scale() -> None:
    integers, _ = calibrated(captured(seeded(Inverted)), CALIBRATION, QuantizeConfig(per_layer=True))
    assert all(len(tensor.quant.scale) == 1 for tensor in integers.tensors.values() if tensor.quant)


def test_a_channel_of_nothing_keeps_its_bias() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(SIDE), nn.Flatten()).eval()
    module[0].weight.data[1] = 0
    module[0].weight.data[2] *= 1e-12
    module[0].bias.data[:] = 0
    module[0].weight.data[3] *= 1e-8  # alone, it would have a scale at which its bias does not fit 32 bits
    module[0].bias.data[1:] = torch.tensor([1.5, -0.7, 1.1])
    integers, _ = calibrated(captured(module), CALIBRATION)
    np.testing.assert_allclose(litert(integers, UNSEEN), torch_float(module, UNSEEN), atol=0.05)


def test_a_network_that_is_always_zero() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AvgPool2d(SIDE), nn.Flatten()).eval()
    module[0].weight.data[:], module[0].bias.data[:] = 0, -1
    integers, _ = calibrated(captured(module), CALIBRATION)
    assert not litert(integers, UNSEEN).any()


def test_weights_are_rounded_to_the_nearest() -> None:
    weight = np.array([[1.0, -0.5, 0.251], [0.002, 0.001, -0.002]], np.float32)
    found = quantized_weight(weight, None, 0, 1.0, 8, per_layer=False)
    assert found.data.tolist() == [[127, -64, 32], [127, 64, -127]]
    bias = quantized_bias(np.array([1.0, 1.0]), Quant(np.array([0.5], np.float32), np.array([3], np.int32)), found.quant)
    assert bias.data.tolist() == [254, 127000]


def test_a_float_input_is_quantised() -> None:
    x, y = Tensor("x", (1, 4, 4, 2), "float32"), Tensor("y", (1, 4, 4, 2), "float32")
    graph = spec.check(Graph({"x": x, "y": y}, (Node("hard_swish", ("x",), ("y",), HardSwish()),), ("x",), ("y",)))
    integers = with_integers(graph, {"x": Range(-4, 4), "y": Range(-0.375, 4)}, QuantizeConfig())
    assert [node.op for node in integers.nodes] == ["quantize", "hard_swish"]


# ---- bits of a layer, steps that are given ---------------------------------------------------------------------------------------


def largest(graph: Graph) -> dict[str, int]:
    """Of every layer with weights, the largest integer among them."""
    layers = (node for node in graph.nodes if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"))
    return {node.name: int(np.abs(graph.tensors[node.inputs[1]].data.astype(int)).max()) for node in layers}


def test_a_layer_has_the_bits_that_are_named_for_it_and_the_others_the_common_ones() -> None:
    graph = captured(seeded(Inverted))
    names = list(largest(calibrated(graph, CALIBRATION)[0]))
    found = calibrated(graph, CALIBRATION, QuantizeConfig(bits_weights=4, layer_bits=((names[2], 8), (names[5], 2))))[0]
    expected = dict.fromkeys(names, 7) | {names[2]: 127, names[5]: 1}
    assert largest(found) == expected
    ends = calibrated(graph, CALIBRATION, QuantizeConfig(bits_weights=4, ends_at_8=True))[0]
    assert largest(ends) == dict.fromkeys(names, 7) | {names[0]: 127, names[-1]: 127}
    both = calibrated(graph, CALIBRATION, QuantizeConfig(bits_weights=4, ends_at_8=True, layer_bits=((names[0], 2),)))[0]
    assert largest(both) == dict.fromkeys(names, 7) | {names[0]: 1, names[-1]: 127}


def test_bits_named_for_every_layer_are_as_the_same_bits_for_all() -> None:
    graph = captured(seeded(Inverted))
    for bits in (4, 8):
        common = calibrated(graph, CALIBRATION, QuantizeConfig(bits_weights=bits))[0]
        named = tuple((name, bits) for name in largest(common))
        assert same(common, calibrated(graph, CALIBRATION, QuantizeConfig(bits_weights=bits, layer_bits=named))[0])


@pytest.mark.parametrize("per_layer", [False, True])
def test_steps_that_are_given_are_used_to_the_bit(per_layer: bool) -> None:
    """Judged by torch's own fake quantisation; a layer that has no step given is as without any."""
    graph = captured(seeded(Inverted))
    config = QuantizeConfig(bits_weights=4, per_layer=per_layer)
    before, statistics = calibrated(graph, CALIBRATION, config)
    layers = [node for node in before.nodes if node.name in largest(before)]
    rng = np.random.default_rng(3)
    shares = [rng.uniform(0.5, 1.5, before.tensors[node.inputs[1]].quant.scale.shape) for node in layers]
    steps = {
        node.name: (before.tensors[node.inputs[1]].quant.scale * share).astype(np.float32)
        for node, share in zip(layers[1:], shares[1:], strict=True)
    }
    found = with_integers(graph, choose_ranges(statistics, "auto", 8, False), config, steps)
    for node in layers[1:]:
        weight, real = found.tensors[node.inputs[1]], torch.from_numpy(graph.tensors[node.inputs[1]].data)
        np.testing.assert_array_equal(weight.quant.scale, steps[node.name])
        axis = 3 if node.op == "depthwise_conv2d" else 0
        scale = torch.from_numpy(steps[node.name]).expand(real.shape[axis])
        wanted = torch.fake_quantize_per_channel_affine(real, scale, torch.zeros(len(scale), dtype=torch.int32), axis, -7, 7)
        np.testing.assert_allclose(float_twin.real(weight), wanted.numpy(), rtol=1e-6)
    assert found.tensors[layers[0].inputs[1]].data.tobytes() == before.tensors[layers[0].inputs[1]].data.tobytes()


def test_a_step_for_which_a_bias_would_not_fit_is_widened() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AvgPool2d(SIDE), nn.Flatten()).eval()
    module[0].weight.data[1] *= 1e-10
    graph = captured(module)
    _, statistics = calibrated(graph, CALIBRATION)
    node = next(node for node in graph.nodes if node.op == "conv2d")
    largest_weight = np.abs(graph.tensors[node.inputs[1]].data).max(axis=(1, 2, 3))
    found = with_integers(
        graph, choose_ranges(statistics, "auto", 8, False), QuantizeConfig(), {node.name: (largest_weight / 127).astype(np.float32)}
    )
    np.testing.assert_allclose(litert(found, UNSEEN), torch_float(module, UNSEEN), atol=0.05)


def test_mistakes_are_named() -> None:
    with pytest.raises(NestlingError, match="no range for the activation"):
        with_integers(captured(seeded(Inverted)), {}, QuantizeConfig())
    with pytest.raises(NestlingError, match="bits_weights is 2 to 8; found 9"):
        QuantizeConfig(bits_weights=9)
    with pytest.raises(NestlingError, match="2 to 8 bits; found 1 for 'stem'"):
        QuantizeConfig(layer_bits=(("stem", 1),))
    with pytest.raises(NestlingError, match="twice"):
        QuantizeConfig(layer_bits=(("stem", 4), ("stem", 8)))
    graph = captured(seeded(Inverted))
    with pytest.raises(NestlingError, match="no layer 'stern' with weights"):
        calibrated(graph, CALIBRATION[:2], QuantizeConfig(layer_bits=(("stern", 4),)))
    name = next(node.name for node in graph.nodes if node.op == "conv2d")
    ranges = choose_ranges(calibrated(graph, CALIBRATION[:2])[1], "auto", 8, False)
    for wrong in (np.ones(3, np.float32), np.zeros(1, np.float32), np.full(1, np.nan, np.float32), np.ones(0, np.float32)):
        with pytest.raises(NestlingError, match="steps are positive"):
            with_integers(graph, ranges, QuantizeConfig(), {name: wrong})
