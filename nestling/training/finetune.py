"""finetune: the backbone learns, too, from the labels alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nestling.bundle import Bundle
from nestling.progress import Progress, silent
from nestling.training.loop_state import Epoch
from nestling.training.teach import Lesson, Taught, TrainingConfig, teach
from nestling.training.team import Team


def finetune(
    bundle: Bundle,
    data: Path | None = None,
    config: TrainingConfig | None = None,
    progress: Progress = silent,
    checkpoint: Path | None = None,
    resume: bool = False,
    team: Team | None = None,
    told: Callable[[Epoch], None] = lambda epoch: None,
) -> Taught:
    """Train the bundle's float network on, beginning with its frozen head. See teach() for what comes in and out."""
    return teach(bundle, data, config or TrainingConfig(), Lesson("finetune"), progress, checkpoint, resume, team, told)
