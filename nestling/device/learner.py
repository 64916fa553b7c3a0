"""The head's learner where Python is: loss and gradients by ExecuTorch's training runtime, the optimiser here.

The same steps as nestling_learn_step() of runtime/nestling_head_learn.c, sums in another order. Everything that the next step
depends on is in the HeadFile that it gives: a Learner made from it goes on as if it had never stopped, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.device.head_format import HeadFile, MomentType, Training
from nestling.errors import NestlingError
from nestling.formats.executorch.head_program import MASKED, MOST, Floats, Gradients


class Learner:
    """A head that learns. A class, for its parameters change in place.

    program: print_training_program's for this head's sizes, or a function that gives what it gives. frozen: classes whose rows stay
    as they are.
    Raises UnusableFile where the program is damaged, or of other sizes.
    """

    def __init__(
        self, head: HeadFile, program: bytes | Gradients, name: str = "head_train.pte", frozen: tuple[int, ...] = ()
    ) -> None:
        self._head = replace(head, training=as_kept(head.training))
        rows, inputs = head.weights.shape
        self._gradients = _run_here(program, name, rows, inputs) if isinstance(program, bytes) else program
        self._weight, self._bias = head.weights.astype(np.float32), head.bias.astype(np.float32)
        mask = np.full(head.max_classes, MASKED, np.float32)
        mask[: len(head.labels)] = 0
        self._mask = mask
        self._still = [*frozen, *range(len(head.labels), head.max_classes)]
        self._steps, self._lowest = head.progress.steps, head.progress.lowest_loss
        self._moments = tuple(np.array(some, np.float32) for some in (head.moment, head.bias_moment))
        self._squares = tuple(np.array(some, np.float32) for some in (head.square, head.bias_square) if some is not None)
        self._update = UPDATES[head.training.optimizer]

    def step(self, x: Floats, y: NDArray[np.int64]) -> float:
        """One step. x: float32 [B, D], standardised embeddings; y: int64 [B], labels; 1 <= B <= training_program.MOST.

        Returns the batch's mean cross-entropy as it was before the step. Raises NestlingError where that is not finite any more.
        """
        training = self._head.training
        if not 1 <= len(x) <= MOST:
            raise NestlingError(f"a batch has 1 to {MOST} samples, not {len(x)}.", "choose another one:  --batch 32")
        loss, *gradients = self._gradients(self._weight, self._bias, x, y, self._mask)
        if not math.isfinite(loss):
            raise diverged(loss, self._steps - self._head.progress.began, training.rate)
        self._steps += 1
        self._lowest = min(self._lowest, max(loss, 0.0))  # never below 0 but by rounding
        for index, (parameter, gradient) in enumerate(zip((self._weight, self._bias), gradients, strict=True)):
            if index == 0:
                gradient += np.float32(training.decay) * parameter
            gradient[self._still] = 0
            square = self._squares[index] if self._squares else None
            parameter -= self._update(gradient, self._moments[index], square, training, self._steps - self._head.progress.began)
        return loss

    @property
    def head(self) -> HeadFile:
        """The head as it is now, copied."""
        square, bias_square = (some.copy() for some in self._squares) if self._squares else (None, None)
        return replace(
            self._head,
            weights=self._weight.copy(),
            bias=self._bias.copy(),
            moment=self._moments[0].copy(),
            bias_moment=self._moments[1].copy(),
            progress=replace(self._head.progress, steps=self._steps, lowest_loss=self._lowest),
            square=square,
            bias_square=bias_square,
        )


def _run_here(program: bytes, name: str, rows: int, inputs: int) -> Gradients:
    from nestling.formats.executorch.gradients import gradients_of  # brings torch

    return gradients_of(program, name, rows, inputs)


def diverged(loss: float, cycles: int, rate: float) -> NestlingError:
    """What is said of a training whose loss is no number any more."""
    return NestlingError(
        f"the training has diverged: its loss is {loss} after {cycles} cycles.",
        f"choose a lower rate than {rate:g}:  --rate {rate / 10:g}; what was saved before is still there",
    )


# ---- optimisers: (gradient with decay, first moment, second moment, settings, steps of this training) -> what is taken off -----
# The moments are changed in place.


def _sgd(gradient: Floats, velocity: Floats, square: Floats | None, training: Training, step: int) -> Floats:
    """PyTorch's SGD with momentum and no dampening. A velocity in bfloat16 is rounded after the step has taken it."""
    fresh: Floats = np.float32(training.momentum) * velocity + gradient
    velocity[:] = bfloat16(fresh) if training.moment_type == "bfloat16" and fresh.ndim == 2 else fresh
    return np.float32(training.rate) * fresh


def _adam(gradient: Floats, mean: Floats, square: Floats | None, training: Training, step: int) -> Floats:
    """Source: Kingma and Ba 2015, algorithm 1; in PyTorch's order."""
    assert square is not None
    first, second = training.momentum, training.beta2
    mean[:] = np.float32(first) * mean + np.float32(1 - first) * gradient
    square[:] = np.float32(second) * square + np.float32(1 - second) * (gradient * gradient)
    root: Floats = np.sqrt(square)
    spread = root / np.float32(math.sqrt(1 - second**step)) + np.float32(training.epsilon)
    taken: Floats = np.float32(training.rate / (1 - first**step)) * (mean / spread)
    return taken


Update = Callable[[Floats, Floats, Floats | None, Training, int], Floats]
UPDATES: Mapping[str, Update] = {"sgd": _sgd, "adam": _adam}


def as_kept(training: Training) -> Training:
    """The settings as a file keeps them, in float32: so that a training that is gone on with has what it began with."""
    kept = {name: float(np.float32(getattr(training, name))) for name in ("rate", "momentum", "beta2", "epsilon", "decay")}
    moment_type: MomentType = training.moment_type if training.optimizer == "sgd" else "float32"
    return Training(training.optimizer, moment_type, **kept, seed=training.seed, balanced=training.balanced, batch=training.batch)


def bfloat16(values: Floats) -> Floats:
    """Each number's nearest bfloat16, of two the even one, as float32."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded: Floats = ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


# ---- the program ---------------------------------------------------------------------------------------------------------------
