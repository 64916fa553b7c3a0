"""Fake quantisers: float values on the grid of their integers, with gradients for the values and for the grid.

A grid is a scale and a zero point: real = scale * (q - zero), q the nearest integer in -128 .. 127 (the int8 Graph's own limits).
min-max: the grid follows the values that went through (Krishnamoorthi 2018). LSQ: the scale is learned from every value (Esser et
al. 2020). PACT: from those alone that are clipped (Choi et al. 2018), and it decays. Rounding passes gradients straight through.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn

from nestling.graph.integers import integer_range
from nestling.words import Rounding

LOW: Final = -128  # what an int8 tensor saturates at
HIGH: Final = 127
MOMENTUM: Final = 0.01  # share of a batch in the moving range
TINY: Final = 1e-9  # a row whose largest weight is smaller than this share of the layer's counts as empty


class Rounded(torch.autograd.Function):
    """Activations on their grid.

    With v = x / s and y the value on the grid, where x is within the grid's ends: dy/dx = 1, dy/ds = round(v) - v (LSQ) or 0
    (PACT); where it is clipped: dy/dx = 0, dy/ds = y / s, the number of the outermost step. Sources: Esser et al. 2020, equations 2
    and 3; Choi et al. 2018, section 3 (the clipping value is that number times s).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor, factor: float, rounding: bool) -> Tensor:
        """x: float32, any shape; scale: float32 [1]; zero: int32 [1]. factor: of the scale's gradient. rounding: as LSQ has it."""
        # four vectorised passes in one array, twice as fast here as torch.fake_quantize_per_tensor_affine
        y = (x / scale).round_().clamp_(LOW - int(zero), HIGH - int(zero)).mul_(scale)
        ctx.save_for_backward(x, y, scale, zero)
        ctx.factor, ctx.rounding = factor, rounding
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """No array but the gradient itself is made: sums over what is inside and what is clipped are dot products' differences."""
        (grad,), (x, y, scale, zero) = gradients, ctx.saved_tensors
        low, high = (float((end - zero) * scale) for end in (LOW, HIGH))
        inside = torch.ops.aten.hardtanh_backward(grad, x, low, high)  # the gradient where low < x < high, else 0
        if not ctx.needs_input_grad[1]:
            return inside, None, None, None, None
        sums = _dot(grad, y) - _dot(inside, x if ctx.rounding else y)
        return inside, (sums * ctx.factor / scale).reshape(scale.shape), None, None, None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.reshape(-1), b.reshape(-1))


class RoundedWeights(torch.autograd.Function):
    """Weights on a symmetric grid -last .. last with steps a channel or one for all: the very values that integers.quantized gives.

    learned: LSQ's gradients, as in Rounded; else the gradient goes straight through to all weights, and none to the steps.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, last: int, factor: float, learned: bool) -> Tensor:
        """weight: float32; step: float32 > 0, broadcasts against it; last: largest integer. factor: of the steps' gradient."""
        fine = step.double()
        y = (weight.double() / fine).round_().clamp_(-last, last).mul_(fine).to(weight.dtype)
        if learned:
            ctx.save_for_backward(weight, y, step)
        ctx.last, ctx.factor, ctx.learned = last, factor, learned
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """See the class."""
        (grad,) = gradients
        if not ctx.learned:
            return grad, None, None, None, None
        weight, y, step = ctx.saved_tensors
        inside = grad * (weight.abs() < ctx.last * step)
        steps = (grad * y - inside * weight).sum_to_size(step.shape) / step * ctx.factor
        return inside, steps, None, None, None


# ---- activations ----------------------------------------------------------------------------------------------------------------


class LearnedGrid(nn.Module):
    """A grid whose scale is learned, by LSQ or PACT; the zero point stays, so that 0 is exact.

    The parameter is the logarithm of the scale over the one that it began with: so the scale stays positive, begins to the bit as
    it was found, and one rate fits scales of any size.
    """

    start: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, zero: Tensor, method: Rounding) -> None:
        super().__init__()
        self.method = method
        self.register_buffer("start", scale.clone())
        self.register_buffer("zero", zero.clone())
        self.log = nn.Parameter(torch.zeros(1))

    def scale(self) -> Tensor:
        """float32 [1]."""
        return self.start * self.log.exp()

    def forward(self, x: Tensor) -> Tensor:
        """On the grid. LSQ's gradient is scaled by 1 / sqrt(values of an image x largest step): the paper's section 2.2."""
        rounding = self.method == "lsq"
        factor = (x[0].numel() * (HIGH - int(self.zero))) ** -0.5 if rounding else 1.0
        value: Tensor = Rounded.apply(x, self.scale(), self.zero, factor, rounding)
        return value


class MovingGrid(nn.Module):
    """A grid over the moving average of the batches' smallest and largest values. It moves in training mode."""

    low: Tensor
    high: Tensor

    def __init__(self, scale: Tensor, zero: Tensor, bits: int, symmetric: bool) -> None:
        super().__init__()
        self.bits, self.symmetric = bits, symmetric
        first, last = (HIGH + 1 - 2**bits, HIGH) if not symmetric else integer_range(bits, True)
        self.first, self.last = first, last
        self.register_buffer("low", (first - zero).double() * scale.double())  # exact: so the grid begins as it was found
        self.register_buffer("high", (last - zero).double() * scale.double())

    def scale(self) -> Tensor:
        """float32 [1]."""
        if self.symmetric:
            return (torch.maximum(-self.low, self.high) / self.last).float()
        return ((self.high - self.low) / (self.last - self.first)).float()

    @property
    def zero(self) -> Tensor:
        """int32 [1], as integers.quant_of rounds it."""
        if self.symmetric:
            return torch.zeros_like(self.low, dtype=torch.int32)
        steps = self.first - self.low * (self.last - self.first) / (self.high - self.low)
        return steps.round().clamp(self.first, self.last).int()

    def forward(self, x: Tensor) -> Tensor:
        """On the grid, after a move in training mode."""
        if self.training:
            with torch.no_grad():
                low, high = torch.aminmax(x)
                self.low.lerp_(low.double().clamp(max=0), MOMENTUM)
                self.high.lerp_(high.double().clamp(min=0), MOMENTUM)
        value: Tensor = Rounded.apply(x, self.scale(), self.zero, 1.0, False)
        return value


class FixedGrid(nn.Module):
    """A grid that stays: what the kernels insist on."""

    start: Tensor
    zero: Tensor

    def __init__(self, scale: Tensor, zero: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", scale.clone())
        self.register_buffer("zero", zero.clone())

    def scale(self) -> Tensor:
        """float32 [1]."""
        return self.start

    def forward(self, x: Tensor) -> Tensor:
        """On the grid."""
        value: Tensor = Rounded.apply(x, self.start, self.zero, 1.0, False)
        return value


Grid = LearnedGrid | MovingGrid | FixedGrid


# ---- weights --------------------------------------------------------------------------------------------------------------------


class Steps(nn.Module):
    """The steps of a layer's weights, one a channel or one for all.

    lsq: learned, as in LearnedGrid. pact: the last step is a share of the largest weight, that which they began with
    (quantized_weight clips where few bits are better used so). minmax: it is the largest weight.
    """

    start: Tensor

    def __init__(self, start: Tensor, weight: Tensor, axis: int, bits: int, method: Rounding) -> None:
        """start: float32 [1] or [channels], found for `weight`; axis: of the channels."""
        super().__init__()
        self.axis, self.method, self.last = axis, method, integer_range(bits, True)[1]
        self.single = len(start) == 1
        if method == "lsq":
            self.register_buffer("start", start.clone())
            self.log = nn.Parameter(torch.zeros_like(start))
        else:
            share = start.double() / (self._largest(weight) / self.last)
            self.register_buffer("start", share if method == "pact" else torch.ones_like(share))

    def steps(self, weight: Tensor) -> Tensor:
        """float32 [1] or [channels]."""
        if self.method == "lsq":
            return self.start * self.log.exp()
        return (self._largest(weight.detach()) / self.last * self.start).float()

    def _largest(self, weight: Tensor) -> Tensor:
        """float64, a channel or of all; an empty channel has the layer's."""
        rows = weight.double().abs().movedim(self.axis, 0).reshape(1 if self.single else weight.shape[self.axis], -1)
        largest = rows.amax(1)
        most = largest.amax()
        most = torch.where(most > 0, most, torch.ones_like(most))
        return torch.where(largest > TINY * most, largest, most)

    def forward(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(the weights on their grid, the steps without a gradient)."""
        steps = self.steps(weight)
        shape = [1] * weight.ndim
        shape[self.axis] = -1
        factor = (weight.numel() / len(steps) * self.last) ** -0.5
        value: Tensor = RoundedWeights.apply(weight, steps.reshape(shape), self.last, factor, self.method == "lsq")
        return value, steps.detach()
