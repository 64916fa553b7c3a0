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
from torch import Tensor, nn

from nestling.errors import NestlingError, UnusableFile
from nestling.files import write_atomically
from nestling.outside import NOT_FINITE, Record, parsed, require_regular, require_small_header

Weights = Mapping[str, Tensor]
SCHEMA = "1"
MOST_EPOCHS = 1_000_000
MOMENTS: Mapping[type[torch.optim.Optimizer], tuple[str, ...]] = {  # what is kept of a parameter once it has moved
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.SGD: ("momentum_buffer",),
}


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
    tensors, metadata = _tensors(path)
    if metadata.get("nestling") != "checkpoint" or metadata.get("schema") != SCHEMA:
        raise UnusableFile(f"{path} is not a checkpoint of this nestling.", HINT)
    damaged = f"{path} is not a whole checkpoint"
    record = Record(parsed(metadata.get("state", "").encode(), damaged, HINT), damaged, HINT)
    history, found = tuple(map(_epoch, record.records("history", MOST_EPOCHS))), record.get("run", dict)
    if not history or any(epoch.number != place for place, epoch in enumerate(history, 1)):
        record.refuse("its epochs are not numbered from 1")
    if wrong := next((name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()), None):
        record.refuse(f"{wrong!r} holds {NOT_FINITE}")
    parts = {part: {n.partition("/")[2]: t for n, t in tensors.items() if n.startswith(f"{part}/")} for part in PARTS}
    state = State(history, micro=record.whole("micro", 1), **parts)
    wanted = json.loads(json.dumps(run))
    different = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    if different:
        listed = ", ".join(f"{name} ({_short(found.get(name))}, now {_short(wanted.get(name))})" for name in different)
        raise NestlingError(f"{path} belongs to another run; it differs in {listed}.", f"use the same settings, or: {HINT}")
    return state


def _tensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """All tensors of a .safetensors file, and its metadata."""
    require_regular(path, HINT)
    try:
        with path.open("rb") as opened:
            require_small_header(opened.read(8), str(path), HINT)
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  # no dict
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise UnusableFile(f"{path} is not a whole checkpoint ({error}).", HINT) from error


def _epoch(record: Record) -> Epoch:
    return Epoch(record.whole("number", 1), *(record.measured(name) for name in ("loss", "val_top1", "val_loss", "seconds")))


HINT = "begin anew, without --resume"


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def require_fitting(path: Path, state: State, network: nn.Module, optimiser: torch.optim.Optimizer, averaged: bool) -> None:
    """That a loaded state's tensors are this network's and this optimiser's. Raises UnusableFile, naming one that is not."""
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    for part, wanted in {"weights": shapes, "best": shapes, "average": shapes if averaged else {}}.items():
        found = {name: tensor.shape for name, tensor in getattr(state, part).items()}
        if wrong := [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]:
            raise UnusableFile(f"{path} is not a whole checkpoint: {part}/{min(wrong)} is not this network's.", HINT)
    names, known = MOMENTS[type(optimiser)], dict[str, torch.Size]()
    for number, parameter in enumerate(_parameters(optimiser)):
        kept = {f"{number}.{name}": torch.Size([]) if name == "step" else parameter.shape for name in names}
        known |= kept
        if 0 < sum(key in state.moments for key in kept) < len(kept):
            raise UnusableFile(f"{path} is not a whole checkpoint: the moments of parameter {number} are not whole.", HINT)
    if wrong := [key for key, tensor in state.moments.items() if known.get(key) != tensor.shape]:
        raise UnusableFile(f"{path} is not a whole checkpoint: moments/{min(wrong)} is not this optimiser's.", HINT)


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def moments_of(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors; a counter of steps is one too."""
    state = optimiser.state_dict()["state"]
    return {f"{i}.{name}": value for i, some in state.items() for name, value in some.items() if isinstance(value, Tensor)}


def restore_moments(optimiser: torch.optim.Optimizer, moments: Weights) -> None:
    """The inverse of moments_of, for an optimiser of the same parameters: in their memory layout, as the optimiser makes them."""
    parameters = _parameters(optimiser)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in moments.items():
        number, _, name = key.partition(".")
        like = parameters[int(number)]
        laid = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[name] = laid.detach()
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
