"""Zeros that were made on purpose stay zero in every training that comes after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import get_args

from torch import nn

from nestling.bundle import Bundle
from nestling.training.loop import AfterStep, Changing
from nestling.words import Zeros


def zeros_kept(network: nn.Module) -> AfterStep:
    """Weights of the backbone that are zero are zero again after each step, whatever the optimiser made of them."""
    zero = {name: parameter.detach() == 0 for name, parameter in _weights(network)}

    def after_step(network: nn.Module, step: int, steps: int) -> None:
        for name, parameter in _weights(network):
            zero[name] = parameter.masked_fill_(zero[name], 0) == 0

    return after_step


def _weights(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Of any part of a network: biases and norms are vectors; the head's zeros mean nothing."""
    return ((n, p) for n, p in network.named_parameters() if p.ndim > 1 and not n.startswith("head."))


def keeping(bundle: Bundle, changing: Changing | None) -> Changing | None:
    """What a training changes after its steps, with the zeros of a bundle that was made sparse kept besides."""
    if not is_sparse(bundle):
        return changing
    return _in_turn(zeros_kept, changing) if changing else zeros_kept


def is_sparse(bundle: Bundle) -> bool:
    """Whether its zeros were made on purpose."""
    return any(step.name == "prune" and step.settings.get("method") in get_args(Zeros) for step in bundle.lineage)


def _in_turn(*changing: Changing) -> Changing:
    def begun(network: nn.Module) -> AfterStep:
        every: list[Callable[[nn.Module, int, int], None]] = [one(network) for one in changing]

        def after_step(network: nn.Module, step: int, steps: int) -> None:
            for one in every:
                one(network, step, steps)

        return after_step

    return begun
