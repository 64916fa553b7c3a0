"""What a comparison of bundles found, as plain values: compare.py fills them, words.py and page.py show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from nestling.brief import as_table, in_short
from nestling.bundle import Step
from nestling.measure.weighed import Weights


@dataclass(frozen=True)
class Score:
    """Right answers on the test photographs. interval: Wilson, 95%. p: McNemar's, two-sided and exact, against the first bundle;

    None for the first bundle itself, and where it has no such answers.
    """

    top1: float
    interval: tuple[float, float]
    images: int
    p: float | None = None


@dataclass(frozen=True)
class File:
    """A printed file in one runtime. top1, interval: its own answers on the test photographs. agreement: share of answers that are

    those of the network it was printed from, noise_ratio: as in the manifest. ms: of one image, on one thread; None where it could
    not be timed. failed: why it did not pass its gates. lost: right answers of the comparison's best that became wrong; won: the
    reverse.
    """

    file: str
    format: str
    precision: str
    runtime: str
    bytes: int
    top1: float
    interval: tuple[float, float]
    agreement: float
    noise_ratio: float | None = None
    ms_median: float | None = None
    ms_p95: float | None = None
    failed: tuple[str, ...] = ()
    lost: int | None = None
    won: int | None = None


@dataclass(frozen=True)
class Board:
    """The C for a machine. instructions: of one image, counted by QEMU. None where that was not run.

    failed: why its gates were not passed.
    """

    machine: str
    title: str
    arena_bytes: int | None
    flash_bytes: int | None
    stack_bytes: int | None
    instructions: int | None
    failed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """One bundle. floats: of its float network; integers: of its int8 one (quantised_here: it had none and was given one).

    difference: int8's top-1 minus float's; difference_p: McNemar's of these two. notes: what could not be measured and why.
    """

    name: str
    path: str
    weights: Weights
    floats: Score | None = None
    integers: Score | None = None
    quantised_here: bool = False
    difference: float | None = None
    difference_p: float | None = None
    files: tuple[File, ...] = ()
    board: Board | None = None
    lineage: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """bundles: in the order asked for, the first is what the others are held against. images: test photographs; data: which.

    warnings: what should not be overlooked. machine: this computer's processor. versions: of packages. best: (bundle, float or
    int8) of the network that is right most often, which every file's lost and won are about.
    """

    __repr__, _repr_html_ = in_short, as_table

    bundles: tuple[Compared, ...]
    images: int
    data: str
    labels: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    best: tuple[str, str] | None = None

    @property
    def numbered(self) -> tuple[tuple[int, Compared], ...]:
        """The bundles with their numbers, from 1."""
        return tuple(enumerate(self.bundles, 1))

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be measured, each with its bundle's name."""
        return tuple(f"{one.name}: {note}" for one in self.bundles for note in one.notes)


def to_plain(comparison: Comparison) -> list[dict[str, Any]]:
    """The bundles as --json prints them: of the lineage the steps' names, the rest as the fields above."""
    return [asdict(one) | {"lineage": _names(one.lineage)} for one in comparison.bundles]


def _names(lineage: Sequence[Step]) -> list[str]:
    return [step.name for step in lineage]
