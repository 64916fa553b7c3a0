"""The state of a training run after an epoch, and its file: one safetensors file, its JSON inside; no pickle."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nestling.errors import NestlingError, UnusableFile
from nestling.files import write_atomically

Weights = Mapping[str, Tensor]
SCHEMA = "1"


@dataclass(frozen=True)
class Epoch:
    """number: from 1. loss: mean over the training images. val_top1, val_loss: NaN where there are no validation images."""

    number: int
    loss: float
    val_top1: float
    val_loss: float
    seconds: float

    def better_than(self, other: Epoch) -> bool:
        """Higher top-1, or the same with a lower loss: top-1 moves in steps of one image."""
        return (self.val_top1, -self.val_loss) > (other.val_top1, -other.val_loss)


@dataclass(frozen=True, eq=False)
class State:
    """All that a run needs to go on after an epoch; random numbers need nothing, for they depend on seed and epoch alone.

    weights: of the module; average: their moving average, empty where there is none; best: those of the best epoch.
    moments: the optimiser's tensors, "number of the parameter.name". micro: images that go through the network at a time.
    """

    history: tuple[Epoch, ...]
    weights: Weights
    average: Weights
    best: Weights
    moments: Weights
    micro: int


PARTS = ("weights", "average", "best", "moments")


def best_of(history: tuple[Epoch, ...], settled: int = 1) -> Epoch:
    """The best epoch by validation from epoch `settled` on, of equals the first; the last one where there is none of these."""
    best = history[-1]
    if math.isnan(best.val_top1) or best.number < settled:
        return best
    for epoch in reversed(history[settled - 1 :]):
        best = best if best.better_than(epoch) else epoch
    return best


def curves_of(history: tuple[Epoch, ...]) -> dict[str, tuple[float, ...]]:
    """As a step of the lineage keeps them: one number an epoch; without those that are no numbers."""
    names = ("loss", "val_top1", "val_loss")
    curves = {name: tuple(round(float(getattr(epoch, name)), 6) for epoch in history) for name in names}
    return {name: values for name, values in curves.items() if not any(map(math.isnan, values))}


def save_state(path: Path, state: State, run: Mapping[str, Any]) -> None:
    """Write beside and rename. run: what the state belongs to (settings, data, network), as plain values."""
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous().clone()  # clones: safetensors refuses tensors that share memory
        for part in PARTS
        for name, tensor in getattr(state, part).items()
    }
    plain = {"run": run, "history": [asdict(epoch) for epoch in state.history], "micro": state.micro}
    write_atomically(path, save(tensors, {"nestling": "checkpoint", "schema": SCHEMA, "state": json.dumps(plain)}))


def load_state(path: Path, run: Mapping[str, Any]) -> State:
    """The inverse of save_state.

    Raises UnusableFile, naming the file, where it is damaged or no checkpoint; NestlingError where it belongs to another run,
    saying in what that one differs.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("nestling") != "checkpoint" or metadata.get("schema") != SCHEMA:
                raise UnusableFile(f"{path} is not a checkpoint of this nestling.", HINT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
        plain = json.loads(metadata["state"])
        parts = {part: {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{part}/")} for part in PARTS}
        state = State(tuple(Epoch(**epoch) for epoch in plain["history"]), micro=int(plain["micro"]), **parts)
        found = dict(plain["run"])
        if not state.history:
            raise UnusableFile(f"{path} holds no epoch.", HINT)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(f"{path} is not a whole checkpoint ({type(error).__name__}: {error}).", HINT) from error
    wanted = json.loads(json.dumps(run))
    different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if different:
        listed = ", ".join(f"{name} ({_short(found.get(name))}, now {_short(wanted.get(name))})" for name in different)
        raise NestlingError(f"{path} belongs to another run; it differs in {listed}.", f"use the same settings, or: {HINT}")
    return state


HINT = "begin anew, without --resume"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors; a counter of steps is one too."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": value for i, some in state.items() for name, value in some.items() if isinstance(value, Tensor)}


def restore_moments(optimiser: torch.optim.Optimizer, moments: Weights) -> None:
    """The inverse of moments_of, for an optimiser of the same parameters: in their memory layout, as the optimiser makes them."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
