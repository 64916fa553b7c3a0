"""Which photographs of a folder a network may be judged on: those that it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nestling.bundle import Bundle, Part, Split
from nestling.data.folders import Dataset, Item, Source, by_path, fingerprint, scan, whole
from nestling.data.split import of_part, split
from nestling.errors import UnusableData
from nestling.preprocess.image import of_photographs


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


def split_again(dataset: Dataset, seed: int | None, data: str, test: Sequence[str] = ()) -> Split | None:
    """The split of an artifact that carries only the seed and the data set's fingerprint; None where this is another data set.

    test: the test part's fingerprints, where the artifact carries these because the seed does not tell them; val is then in train.
    """
    if seed is None or not data or fingerprint(dataset) != data:
        return None
    if test:
        return Split(seed, tuple(sorted({item.fingerprint for item in dataset.items}.difference(test))), (), tuple(test))
    return split(dataset, seed)


def scan_for(labels: Sequence[str], root: Source) -> Dataset:
    """The folder's images of the classes that the network knows, labels in the network's order.

    Raises UnusableData where the folder has a class that the network does not know, or none that it does.
    """
    dataset = scan(root, known=labels)
    unknown = [label for label in dataset.labels if label not in labels]
    if len(unknown) == len(dataset.labels):
        raise UnusableData(f"{dataset.root} has the classes {_listed(dataset.labels)}; the network knows {_listed(labels)}.")
    if unknown:
        dataset = scan(dataset, [label for label in dataset.labels if label in labels])
    return labelled(dataset, labels)


def labelled(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The same with other labels, among which its own are."""
    places = [list(labels).index(label) for label in dataset.labels]
    items = tuple(replace(item, label=places[item.label]) for item in dataset.items)
    return replace(dataset, labels=tuple(labels), items=items)


def joined(first: Dataset, others: Sequence[Dataset]) -> Dataset:
    """One data set of several with the same labels; its root is the first's."""
    found = (first, *others)
    return whole(
        replace(
            first,
            items=tuple(item for one in found for item in one.items),
            left_out=tuple(entry for one in found for entry in one.left_out),
            folders=tuple(folder for one in found for folder in one.folders),
            beside=tuple(one.root for one in others),
        )
    )


def places(dataset: Dataset) -> dict[str, Any]:
    """What a step of the lineage keeps of where its photographs lay; nothing of those in memory."""
    if not dataset.root.exists():
        return {}
    beside = {"before": [str(root.resolve()) for root in dataset.beside]} if dataset.beside else {}
    return {"folder": str(dataset.root.resolve()), **beside}


def places_of(bundle: Bundle) -> tuple[Path, ...]:
    """Where the photographs lay that it learned from, as the last step of its lineage says it that does; () where none does."""
    settings = next((step.settings for step in reversed(bundle.lineage) if "folder" in step.settings), {})
    return tuple(Path(name) for name in (settings.get("folder"), *settings.get("before", ())) if isinstance(name, str))


def training_data(bundle: Bundle, data: Source | None) -> Dataset:
    """The folder that the bundle learned from: `data`, or the one that its lineage names (with photographs that were added later,
    those).

    Raises UnusableData where there is none, or it holds nothing that the bundle was trained on; NestlingError where the network
    takes no photographs.
    """
    of_photographs(bundle.preprocess)
    known = places_of(bundle)
    root, *beside = (data,) if data is not None else known or (None,)
    if root is None or (isinstance(root, Path) and not root.exists()):
        where = f"the folder it learned from, {root}, is not there" if root else "the bundle names no folder that it learned from"
        raise UnusableData(f"this needs training images: {where}.", "name the folder:  --data PHOTOS")
    dataset = scan_for(bundle.labels, root)
    if beside:
        dataset = joined(dataset, [scan_for(bundle.labels, path) for path in beside if isinstance(path, Path) and path.exists()])
    if bundle.split is None or not of_part(dataset, bundle.split, "train"):
        raise UnusableData(
            f"{dataset.root} holds none of the photographs that this bundle learned from.", "name the folder:  --data PHOTOS"
        )
    return dataset


def part(dataset: Dataset, bundle: Bundle, which: Part, most: int | None = None) -> tuple[Item, ...]:
    """Up to `most` photographs of a part, in the order of their fingerprints, which is as good as a shuffled one."""
    assert bundle.split is not None
    return tuple(sorted(of_part(dataset, bundle.split, which), key=lambda item: item.fingerprint))[:most]


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(repr(label) for label in labels[:8]) + (", ..." if len(labels) > 8 else "")
