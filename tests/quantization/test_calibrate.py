"""Ranges: what is seen is what torch computes, and each method does what its name says."""

import numpy as np
import pytest
import torch
from torch import nn

from nestling.errors import NestlingError
from nestling.graph.integers import Range, integer_range, quant_of
from nestling.quantization.calibrate import Statistics, choose_range, observe
from tests.helpers.quantization_cases import Inverted, captured, pictures, seeded, torch_float


def test_what_is_observed_is_what_torch_computes() -> None:
    module, images = seeded(Inverted, nn.ReLU6), pictures(11)
    seen: dict[str, torch.Tensor] = {}
    hooks = [
        module.stem[1].register_forward_hook(lambda *args: seen.update(stem=args[2])),
        module.first.register_forward_hook(lambda *args: seen.update(first=args[2])),
    ]
    torch_float(module, images)
    for hook in hooks:
        hook.remove()
    graph = captured(module)
    statistics = observe(graph, images)
    writers = {node.source: node.name for node in graph.nodes}
    for name, value in (("stem.0", seen["stem"]), ("first.4", seen["first"])):
        found = statistics[next(writers[source] for source in writers if source in (name, name.replace(".0", ".1")))]
        assert found.low == pytest.approx(float(value.min()), abs=1e-4)
        assert found.high == pytest.approx(float(value.max()), abs=1e-4)
        np.testing.assert_allclose(found.channel_high, value.amax((0, 2, 3)).numpy(), atol=1e-4)
        assert abs(found.sample.mean() - float(value.mean())) < 0.1 * float(value.std())


def test_every_image_is_sampled_alike_and_a_seed_repeats() -> None:
    graph, images = captured(seeded(Inverted)), pictures(10)
    a, b = observe(graph, images, seed=3), observe(graph, images, seed=3)
    assert all(np.array_equal(a[name].sample, b[name].sample) for name in a)
    assert len({len(found.sample) % len(images) for found in a.values()}) == 1


def of(sample: np.ndarray) -> Statistics:
    return Statistics(float(sample.min()), float(sample.max()), sample.astype(np.float32), np.zeros(1, np.float32))


def torch_error(sample: np.ndarray, span: Range, bits: int, symmetric: bool) -> float:
    """By torch's own fake quantiser."""
    quant, (low, high) = quant_of(span, bits, symmetric), integer_range(bits, symmetric)
    x = torch.from_numpy(sample.astype(np.float32))
    y = torch.fake_quantize_per_tensor_affine(x, float(quant.scale[0]), int(quant.zero_point[0]), low, high)
    return float((x - y).square().mean())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_auto_is_the_method_with_the_least_error(bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(0)
    for sample in (rng.normal(size=50_000), rng.standard_t(2, 50_000), rng.uniform(0, 6, 50_000)):
        errors = {
            method: torch_error(sample, choose_range(of(sample), method, bits, symmetric), bits, symmetric)
            for method in ("auto", "minmax", "percentile", "mse")
        }
        assert errors["auto"] <= min(errors.values()) * 1.0001


def test_an_outlier_moves_minmax_only() -> None:
    sample = np.append(np.random.default_rng(0).normal(size=100_000), 500.0)
    assert choose_range(of(sample), "minmax").high == 500
    assert choose_range(of(sample), "percentile", 4).high < 10
    assert choose_range(of(sample), "mse", 4).high < 500


def test_zero_is_exact_whatever_the_range() -> None:
    for low, high in ((-3.0, 5.0), (2.0, 7.0), (-9.0, -1.0), (0.0, 0.0), (0.0, 6.0)):
        for symmetric in (False, True):
            for bits in range(2, 9):
                quant = quant_of(Range(low, high), bits, symmetric)
                first, last = integer_range(bits, symmetric)
                assert first <= quant.zero_point[0] <= last
                assert not symmetric or quant.zero_point[0] == 0
                step = float(quant.scale[0])
                assert (last - quant.zero_point[0] + 0.51) * step >= high
                assert (first - quant.zero_point[0] - 0.51) * step <= low


def test_no_images_are_refused() -> None:
    with pytest.raises(NestlingError, match="at least one image"):
        observe(captured(seeded(Inverted)), [])
