"""Fake quantisers against the formulas of their papers, torch's own gradients of them, and the integers themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nestling.graph.integers import Range, quant_of, quantized, quantized_weight
from nestling.graph.ir import Quant
from nestling.training.fake_quant import HIGH, LOW, MOMENTUM, FixedGrid, LearnedGrid, MovingGrid, Rounded, RoundedWeights, Steps
from nestling.words import Rounding

OFFSETS = st.sampled_from([-128, -64, 0, 17, 112, 126])
SCALES = st.floats(1e-3, 0.5)
FEW = settings(max_examples=30, deadline=None)


def straight(x: Tensor) -> Tensor:
    """round() whose gradient is 1."""
    return x + (x.round() - x).detach()


def lsq(x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """Equation 1 of Esser et al. 2020 with their gradient: what torch's autograd makes of clip and a straight-through round."""
    return straight((x / scale).clamp(low, high)) * scale


def values(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, shape).astype(np.float32))


# ---- gradients -------------------------------------------------------------------------------------------------------------------


@FEW
@given(st.integers(0, 99), SCALES, OFFSETS)
def test_lsq_is_torchs_gradient_of_the_papers_equation(seed: int, size: float, zero: int) -> None:
    ours, theirs = ([values(seed, 4, 5, 6).requires_grad_(), torch.tensor([size], requires_grad=True)] for _ in range(2))
    weights = values(seed + 1, 4, 5, 6)
    (Rounded.apply(*ours, torch.tensor([zero], dtype=torch.int32), 1.0, True) * weights).sum().backward()
    x, scale = wide = [value.detach().double().requires_grad_() for value in theirs]
    (lsq(x, scale, LOW - zero, HIGH - zero) * weights).sum().backward()
    # autograd passes the gradient at the very ends as well; none of these values lies there
    torch.testing.assert_close(ours[0].grad.double(), wide[0].grad)
    assert float(ours[1].grad) == pytest.approx(float(wide[1].grad), rel=1e-3, abs=2e-3 * 120**0.5)


def test_pact_worked_by_hand() -> None:
    """Four bits from 0 to alpha = 1.5: steps of 0.1. Choi et al. 2018: dy/dalpha is 1 from alpha on, else 0."""
    x = torch.tensor([0.0, 0.26, 1.44, 1.5, 2.0, 9.0], requires_grad=True)
    alpha = torch.tensor([1.5], requires_grad=True)
    y = Rounded.apply(x, alpha / 15, torch.tensor([112], dtype=torch.int32), 1.0, False)
    torch.testing.assert_close(y, torch.tensor([0.0, 0.3, 1.4, 1.5, 1.5, 1.5]))
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4, 1e5]))
    assert x.grad[1:].tolist() == [10.0, 100.0, 0.0, 0.0, 0.0]  # at 0 the clamp before it decides
    assert float(alpha.grad) == pytest.approx(111000.0, rel=1e-5)


def test_pact_asks_nothing_where_nothing_is_clipped() -> None:
    x, scale = values(0, 50, 7).requires_grad_(), torch.tensor([1.0], requires_grad=True)
    Rounded.apply(x, scale, torch.tensor([3], dtype=torch.int32), 1.0, False).sin().sum().backward()
    assert float(scale.grad) == 0.0


@FEW
@given(st.integers(0, 99), st.sampled_from([1, 7, 127]), st.sampled_from([0, 3, None]))
def test_weights_learn_as_lsq_says(seed: int, last: int, axis: int | None) -> None:
    weight, weights = values(seed, 4, 3, 3, 5), values(seed + 1, 4, 3, 3, 5)
    shape = [1] * 4 if axis is None else [-1 if i == axis else 1 for i in range(4)]
    step = (values(seed + 2, 1 if axis is None else weight.shape[axis]).abs() / 3 + 0.5) / last
    ours, theirs = ([weight.clone().requires_grad_(), step.clone().requires_grad_()] for _ in range(2))
    (RoundedWeights.apply(ours[0], ours[1].reshape(shape), last, 0.25, True) * weights).sum().backward()
    (lsq(theirs[0], theirs[1].reshape(shape), -last, last) * weights).sum().backward()
    torch.testing.assert_close(ours[0].grad, theirs[0].grad)
    torch.testing.assert_close(ours[1].grad, 0.25 * theirs[1].grad, rtol=1e-3, atol=1e-3)


def test_the_gradients_scale_is_the_papers() -> None:
    """1 / sqrt(N Q): 30 values of an image, 255 steps above zero; 18 weights a step, 7 steps."""
    x, weight = values(0, 2, 30).abs(), values(1, 4, 18)
    zero, start = torch.tensor([-128], dtype=torch.int32), torch.tensor([0.05])
    grid = LearnedGrid(start, zero, "lsq")
    grid(x).sum().backward()
    scale = start.clone().requires_grad_()
    Rounded.apply(x, scale, zero, 1.0, True).sum().backward()
    assert float(grid.log.grad) == pytest.approx(float(scale.grad * scale.detach()) / (30 * 255) ** 0.5, rel=1e-5)
    steps = Steps(torch.full((4,), 0.3), weight, 0, 4, "lsq")
    steps(weight)[0].sum().backward()
    wide = torch.full((4, 1), 0.3, requires_grad=True)
    RoundedWeights.apply(weight, wide, 7, 1.0, True).sum().backward()
    torch.testing.assert_close(steps.log.grad, (wide.grad * wide)[:, 0].detach() / (18 * 7) ** 0.5)


@pytest.mark.parametrize("method", ["pact", "minmax"])
def test_steps_that_do_not_learn_let_all_gradients_through(method: Rounding) -> None:
    weight = values(0, 4, 6).requires_grad_()
    steps = Steps(torch.full((4,), 0.2), weight.detach(), 0, 3, method)
    assert not list(steps.parameters())
    steps(weight)[0].backward(torch.full((4, 6), 2.5))
    assert (weight.grad == 2.5).all()


# ---- the integers themselves -----------------------------------------------------------------------------------------------------


@FEW
@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from([0, 3]), st.booleans(), st.sampled_from(["lsq", "pact", "minmax"]))
def test_weights_are_the_integers_to_the_bit(seed: int, bits: int, axis: int, per_layer: bool, method: Rounding) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.normal(0, 1, (3, 2, 4, 5)) * 10.0 ** rng.uniform(-4, 2)).astype(np.float32)
    found = quantized_weight(weight, None, axis, 1.0, bits, per_layer)
    steps = Steps(torch.tensor(found.quant.scale), torch.tensor(weight), axis, bits, method)
    later = (weight * rng.normal(1, 0.3, weight.shape)).astype(np.float32)  # as training leaves them
    if method == "lsq":  # and next to ties, where a division in float32 would fall on them
        along = [1] * 4
        along[axis] = -1
        later[:, 1] = ((np.rint(later) + 0.5) * found.quant.scale.reshape(along))[:, 1]
    rounded, size = steps(torch.tensor(later))
    last, size = 2 ** (bits - 1) - 1, size.detach().numpy()
    if method == "lsq":
        assert np.array_equal(size, found.quant.scale)
    quant = Quant(size, np.zeros(len(size), np.int32), axis if len(size) > 1 else None)
    integers = quantized(later, quant, -last, last)
    shape = [1] * 4
    shape[axis] = -1
    expected = (integers.astype(np.float64) * size.astype(np.float64).reshape(shape)).astype(np.float32)
    assert np.array_equal(rounded.detach().numpy(), expected)


@FEW
@given(st.integers(0, 10**6), SCALES, OFFSETS)
def test_activations_are_the_integers_but_for_ties(seed: int, size: float, zero: int) -> None:
    """A quotient is divided in float32 here, in float64 there: they may fall on two sides of a tie."""
    x = np.random.default_rng(seed).normal(0, 60 * size, (5, 40)).astype(np.float32)
    scale, offset = torch.tensor([size]), torch.tensor([zero], dtype=torch.int32)
    quant = Quant(scale.numpy(), offset.numpy())
    steps = quantized(x, quant, LOW, HIGH).astype(np.float32)
    found = FixedGrid(scale, offset)(torch.tensor(x)).numpy()
    quotient = x.astype(np.float64) / quant.scale
    clear = np.abs(quotient - np.floor(quotient) - 0.5) > 1e-4
    assert np.array_equal(found[clear], ((steps - zero) * quant.scale)[clear]) and clear.mean() > 0.9


@FEW
@given(st.floats(-50, 0), st.floats(0.01, 50), st.integers(2, 8), st.booleans())
def test_a_moving_grid_begins_to_the_bit_and_rounds_its_zero_as_integers_do(
    low: float, high: float, bits: int, symmetric: bool
) -> None:
    quant = quant_of(Range(low, high), bits, symmetric)
    up = 0 if symmetric else 128 - 2 ** (bits - 1)  # a grid of few bits lies at the upper end of int8
    grid = MovingGrid(torch.tensor(quant.scale), torch.tensor(quant.zero_point + up), bits, symmetric).eval()
    assert np.array_equal(grid.scale().numpy(), quant.scale) and int(grid.zero) == int(quant.zero_point[0]) + up
    grid.train()(torch.tensor([low * 2, high * 3]))
    ends = [float(end) for end in (grid.low, grid.high)]
    wanted = quant_of(Range(*ends), bits, symmetric)
    assert np.array_equal(grid.scale().detach().numpy(), wanted.scale) and int(grid.zero) == int(wanted.zero_point[0]) + up


def test_a_moving_grid_follows_the_batches_and_rests_in_evaluation() -> None:
    grid = MovingGrid(torch.tensor([0.1]), torch.tensor([-128], dtype=torch.int32), 8, False)
    batch = torch.tensor([0.0, 1.0, 51.0])
    grid(batch)
    assert float(grid.high) == pytest.approx(25.5 + MOMENTUM * (51 - 25.5), rel=1e-6)
    before = float(grid.high)
    grid.eval()(batch)
    assert float(grid.high) == before


@FEW
@given(st.integers(0, 99), st.floats(-2, 2))
def test_a_learned_grid_keeps_zero_and_its_zero_point(seed: int, log: float) -> None:
    grid = LearnedGrid(torch.tensor([0.03]), torch.tensor([-5], dtype=torch.int32), "lsq")
    with torch.no_grad():
        grid.log.fill_(log)
    assert float(grid(torch.zeros(1, 1))) == 0.0
    assert float(grid.scale()) == pytest.approx(0.03 * np.exp(log), rel=1e-5)


def test_an_empty_channel_has_the_layers_step() -> None:
    weight = torch.tensor([[0.0, 0.0], [0.5, -1.27]])
    found = quantized_weight(weight.numpy(), None, 0, 1.0, 8, False)
    rounded, steps = Steps(torch.tensor(found.quant.scale), weight, 0, 8, "minmax")(weight)
    np.testing.assert_allclose(steps.numpy(), [0.01, 0.01], rtol=1e-6)
    assert rounded[0].tolist() == [0.0, 0.0]
