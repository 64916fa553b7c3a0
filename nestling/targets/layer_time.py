"""How long one operation of an artifact takes, as its runtime's own profile has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LayerTime:
    """One line of a runtime's profile.

    name: the Graph node's name where it can be told, else the runtime's own. kind: the runtime's operator. ms: mean of one run.
    """

    name: str
    kind: str
    ms: float
