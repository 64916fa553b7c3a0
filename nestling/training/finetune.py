"""finetune: the backbone learns, too, from the labels alone."""

from __future__ import annotations

from pathlib import Path

from nestling.bundle import Bundle
from nestling.training.session import Session
from nestling.training.teach import Lesson, Taught, TrainingConfig, teach


def finetune(
    bundle: Bundle,
    data: Path | None = None,
    config: TrainingConfig | None = None,
    session: Session | None = None,
) -> Taught:
    """Train the bundle's float network on, beginning with its frozen head. See teach() for what comes in and out."""
    return teach(bundle, data, config or TrainingConfig(), Lesson("finetune"), session)
