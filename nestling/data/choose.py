"""Which photographs of a folder a network may be judged on: those that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nestling.bundle import Bundle, Part, Split
from nestling.data.folders import Dataset, Item, by_path, fingerprint, scan
from nestling.data.split import of_part, split
from nestling.errors import UnusableData


@dataclass(frozen=True)
class Chosen:
    """items: one a photograph. said: which they are, in words for the person who reads the result."""

    items: tuple[Item, ...]
    said: str


def for_evaluation(dataset: Dataset, known: Split | None) -> Chosen:
    """The test part where the split is known; with photographs that are new since, for those were not learned from either."""
    if known is None:
        first = {item.fingerprint: item for item in reversed(dataset.items)}
        chosen = tuple(sorted(first.values(), key=by_path))
        return Chosen(chosen, f"all {len(chosen)} images: it cannot be told which of them the network has learned from")
    parts = known.part_of()
    new = tuple({i.fingerprint: i for i in reversed(dataset.items) if i.fingerprint not in parts}.values())
    test = of_part(dataset, known, "test")
    if not test and not new:
        raise UnusableData(f"{dataset.root} holds only photographs that the network has learned from.", "give it others")
    if not test:
        return Chosen(new, f"all {len(new)} images, none of which the network has seen")
    also = f" and {len(new)} images that are new since" if new else ""
    return Chosen(test + new, f"the test part, {len(test)} images that the network has not learned from{also}")


def split_again(dataset: Dataset, seed: int | None, data: str) -> Split | None:
    """The split of an artifact that carries only the seed and the data set's fingerprint; None where this is another data set."""
    return split(dataset, seed) if seed is not None and data and fingerprint(dataset) == data else None


def scan_for(labels: Sequence[str], root: Path) -> Dataset:
    """The folder's images of the classes that the network knows, labels in the network's order.

    Raises UnusableData where the folder has a class that the network does not know, or none that it does.
    """
    dataset = scan(root, known=labels)
    unknown = [label for label in dataset.labels if label not in labels]
    if len(unknown) == len(dataset.labels):
        raise UnusableData(f"{root} has the classes {_listed(dataset.labels)}; the network knows {_listed(labels)}.")
    if unknown:
        dataset = scan(root, [label for label in dataset.labels if label in labels], known=labels)
    places = [list(labels).index(label) for label in dataset.labels]
    items = tuple(replace(item, label=places[item.label]) for item in dataset.items)
    return replace(dataset, labels=tuple(labels), items=items)


def training_data(bundle: Bundle, data: Path | None) -> Dataset:
    """The folder that the bundle learned from: `data`, or the one that its lineage names.

    Raises UnusableData where there is none, or it holds nothing that the bundle was trained on.
    """
    named = next((step.settings["folder"] for step in reversed(bundle.lineage) if "folder" in step.settings), None)
    root = data or (Path(named) if named else None)
    if root is None or not root.exists():
        where = f"the folder it learned from, {root}, is not there" if root else "the bundle names no folder that it learned from"
        raise UnusableData(f"this needs training images: {where}.", "name the folder:  --data PHOTOS")
    dataset = scan_for(bundle.labels, root)
    if bundle.split is None or not of_part(dataset, bundle.split, "train"):
        raise UnusableData(
            f"{root} holds none of the photographs that this bundle learned from.", "name the folder:  --data PHOTOS"
        )
    return dataset


def part(dataset: Dataset, bundle: Bundle, which: Part, most: int | None = None) -> tuple[Item, ...]:
    """Up to `most` photographs of a part, in the order of their fingerprints, which is as good as a shuffled one."""
    assert bundle.split is not None
    return tuple(sorted(of_part(dataset, bundle.split, which), key=lambda item: item.fingerprint))[:most]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels[:8]) + (", ..." if len(labels) > 8 else "")
