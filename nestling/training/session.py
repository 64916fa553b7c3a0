"""How a training is run, whatever it is told: what it says meanwhile, and how it goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nestling.progress import Progress, silent
from nestling.training.loop_state import Epoch
from nestling.training.team import Team


def _to_nobody(epoch: Epoch) -> None:
    pass


@dataclass(frozen=True)
class Session:
    """checkpoint: a file that is replaced after each epoch; resume goes on from it. team: processes that train together.

    told: called after each epoch.
    """

    progress: Progress = silent
    checkpoint: Path | None = None
    resume: bool = False
    team: Team = field(default_factory=Team)
    told: Callable[[Epoch], None] = _to_nobody
