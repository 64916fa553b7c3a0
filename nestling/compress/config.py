"""Settings of pruning and searching: plain values that are checked when they are made. Without torch, as training/config.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from nestling.errors import WrongOption
from nestling.training.config import require_word
from nestling.words import Importance, Ranking, Zeros


@dataclass(frozen=True)
class PruneConfig:
    """macs: share of the multiply-accumulates that stay at most, between 0 and 1.

    importance: what a channel is judged by: l1 (its weights), taylor (weights times gradients on training photographs),
    norm (BatchNorm's scales). round_to: layers keep multiples of so many channels. steps: channels go in so many steps and are
    judged anew in each. images: training photographs for taylor and for BatchNorm's statistics, drawn with `seed`.
    Raises WrongOption for a value that cannot be.
    """

    macs: float = 0.5
    importance: Importance = "taylor"
    round_to: int = 8
    steps: int = 5
    images: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        _require_share("--macs", "stays", self.macs, "half of them:  --macs 50%")
        require_word("--importance", self.importance, get_args(Importance))
        if min(self.round_to, self.steps, self.images) < 1:
            raise WrongOption("--round, --steps and --images are 1 at least.")


@dataclass(frozen=True)
class SparseConfig:
    """sparsity: share of sparse.prunable()'s weights that become zero, between 0 and 1.

    method: single weights, or blocks of four neighbouring input channels. ranking: what goes first, see sparse.masks().
    Raises WrongOption for a value that cannot be.
    """

    method: Zeros = "unstructured"
    sparsity: float = 0.8
    ranking: Ranking = "lamp"

    def __post_init__(self) -> None:
        require_word("--method", self.method, ("structured", *get_args(Zeros)))
        require_word("--ranking", self.ranking, get_args(Ranking))
        _require_share("--sparsity", "becomes zero", self.sparsity, "four of five:  --sparsity 80%")


@dataclass(frozen=True)
class SearchConfig:
    """macs, params: share of the multiply-accumulates, and of the learned numbers, that stay at most: between 0 and 1.

    params: None for no such limit. candidates: subnets that are tried at most. images: validation photographs that judge each,
    drawn with `seed`, as are the training photographs for its statistics. round_to: layers get multiples of so many channels.
    Raises WrongOption for a value that cannot be.
    """

    macs: float = 0.6
    params: float | None = None
    candidates: int = 100
    images: int = 1000
    round_to: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for option, share in (("--macs", self.macs), ("--params", self.params)):
            if share is not None:
                _require_share(option, "stays", share, f"six tenths:  {option} 60%")
        if min(self.round_to, self.candidates, self.images) < 1:
            raise WrongOption("--round, --candidates and --images are 1 at least.")


def _require_share(option: str, what: str, share: float, hint: str) -> None:
    if not 0 < share < 1:
        raise WrongOption(f"{option} is the share that {what}, above 0% and below 100%; found {share:.0%}.", hint)
