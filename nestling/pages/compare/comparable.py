"""Which photographs several bundles may be compared on: those that none of them has learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

from nestling.bundle import Bundle
from nestling.data.choose import scan_for
from nestling.data.folders import Dataset, Item, by_path
from nestling.errors import NestlingError, UnusableData


@dataclass(frozen=True)
class Judges:
    """items: one a photograph, the same for all bundles. said: which they are, in words. warnings: what that leaves open."""

    dataset: Dataset
    items: tuple[Item, ...]
    said: str
    warnings: tuple[str, ...]


def judges(bundles: Mapping[str, Bundle], data: Path | None = None) -> Judges:
    """bundles: name -> bundle, in order. data: a folder of photographs; None for the one that the first bundle's lineage names.

    Raises NestlingError where the bundles know different classes, UnusableData where there are no photographs, and where some that
    one bundle keeps for the test were learned from by another.
    """
    _require_same_labels(bundles)
    labels = next(iter(bundles.values())).labels
    dataset = scan_for(labels, data or _folder(bundles))
    here = {item.fingerprint: item for item in reversed(dataset.items)}
    warnings = [
        f"It cannot be told which photographs {name} has learned from." for name, one in bundles.items() if one.split is None
    ]
    for (a, first), (b, second) in permutations(bundles.items(), 2):
        if first.split is None or second.split is None:
            continue
        learned = {*second.split.train, *second.split.val}
        mixed = learned.intersection(first.split.test)
        if not mixed.isdisjoint(here):
            count = len(mixed.intersection(here))
            raise UnusableData(
                f"{b} has learned from {count} of the photographs that {a} keeps for its test: they cannot be compared on these.",
                "fit both with the same --seed on the same folder, or name photographs that none has seen:  --data OTHERS",
            )
        if mixed:
            warnings.append(f"{b} has learned from photographs that {a} keeps for its test; these here neither has seen.")
    splits = [one.split for one in bundles.values() if one.split is not None]
    learned_from = {print_ for split in splits for print_ in (*split.train, *split.val)}
    kept = {print_ for split in splits for print_ in split.test}
    items = tuple(sorted((item for print_, item in here.items() if print_ not in learned_from), key=by_path))
    if not items:
        raise UnusableData(
            f"{dataset.root} holds only photographs that the bundles have learned from.", "give others:  --data OTHERS"
        )
    count = sum(item.fingerprint in kept for item in items)
    who = "the network has" if len(bundles) == 1 else "any of the networks has"
    said = f"the test part, {count} photographs that none of these has learned from" if count else ""
    new = f"{len(items) - count} photographs that none of {'them' if count else 'these'} has seen" if len(items) > count else ""
    if not splits:
        return Judges(dataset, items, f"all {len(items)} photographs: it cannot be told which {who} learned from", tuple(warnings))
    return Judges(dataset, items, " and ".join(filter(None, (said, new))), tuple(dict.fromkeys(warnings)))


def learned_here(bundle: Bundle, dataset: Dataset) -> bool:
    """Whether the folder holds photographs that the bundle was trained on."""
    return bundle.split is not None and not {item.fingerprint for item in dataset.items}.isdisjoint(bundle.split.train)


def _require_same_labels(bundles: Mapping[str, Bundle]) -> None:
    (first, one), *others = bundles.items()
    for name, other in others:
        if other.labels != one.labels:
            raise NestlingError(
                f"{first} and {name} know different classes, or another order of them: {_listed(one.labels)} and "
                f"{_listed(other.labels)}.",
                "compare bundles that were fitted to the same folder",
            )
    if not one.labels:
        raise NestlingError(f"{first} knows no classes yet.", "teach it:  nestling fit PHOTOS --backbone THIS.nest -o my.nest")


def _folder(bundles: Mapping[str, Bundle]) -> Path:
    """The folder that the first bundle which names one learned from."""
    steps = [step for one in bundles.values() for step in reversed(one.lineage)]
    named = next((Path(step.settings["folder"]) for step in steps if step.settings.get("folder")), None)
    if named is None or not named.exists():
        where = f"the folder they learned from, {named}, is not there" if named else "the bundles name no folder"
        raise UnusableData(f"a comparison needs photographs: {where}.", "name the folder:  --data PHOTOS")
    return named


def _listed(labels: tuple[str, ...]) -> str:
    return ", ".join(map(repr, labels[:8])) + (", ..." if len(labels) > 8 else "")
