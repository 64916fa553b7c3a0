"""update: photographs that came later. A bundle's head is learned again on all; what was in a part stays in it.

A network that learned on whole (finetune, distill) knows its training photographs, so none of these may come into the test part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from nestling.bundle import Bundle, fitted_head
from nestling.bundle import load as load_bundle
from nestling.data.choose import joined, labelled, places_of
from nestling.data.folders import Dataset, Source, scan
from nestling.data.split import split
from nestling.data.survey import said_of_set, survey
from nestling.embedding.cache import default_cache
from nestling.embedding.refit import VIEW_SETS, fit_settings
from nestling.errors import NestlingError, UnusableData
from nestling.models.lacking import lacking
from nestling.progress import Progress, silent
from nestling.training.fit import Fitted, fitted, step_of
from nestling.training.on_embeddings import learned


@dataclass(frozen=True)
class UpdateConfig:
    """classes: only these, beside the bundle's own; None for all that there are, or where the bundle took some of its folder's
    only, for its own. parts, strict: as in FitConfig.
    """

    classes: tuple[str, ...] | None = None
    parts: bool | None = None
    strict: bool = False


def update(bundle: Path | Bundle, data: Source, config: UpdateConfig | None = None, progress: Progress = silent) -> Fitted:
    """The bundle with its head learned again, on its photographs and those that came later. New class folders become classes.

    data: a folder with both; or with the new ones alone, where the folder that the bundle learned from is still there.
    Backbone, preprocessing, views, weights of classes and seed stay. Photographs that the bundle's split knows keep their part, the
    others are divided among themselves (data.split). Integers are dropped: they were of the old head's embeddings.
    Raises NestlingError for a bundle without head or split, UnusableData where none of its photographs are at hand.
    """
    config = config or UpdateConfig()
    name = str(bundle) if isinstance(bundle, Path) else "the bundle"
    old = load_bundle(bundle) if isinstance(bundle, Path) else bundle
    fitted_head(old)
    if old.split is None or old.architecture is None:
        lacks = "which photographs it learned from" if old.split is None else "a float network, on which a head is learned"
        raise NestlingError(f"{name} does not hold {lacks}.", f"begin anew:  nestling fit PHOTOS --backbone {name} -o my.nest")
    views, balanced = str(fit_settings(old).get("views", "none")), bool(fit_settings(old).get("balanced", False))
    if views not in VIEW_SETS:
        raise NestlingError(f"{name} was taught with the views {views!r}; this nestling knows {', '.join(VIEW_SETS)}.")
    start = perf_counter()
    dataset = _with_old_ones(old, _wanted(old, data, config), name)
    parts = split(dataset, old.split.seed, old.split)
    found = survey(dataset.items, progress, default_cache())
    scanned = perf_counter()

    kept = tuple(step for step in old.lineage if step.name != "quantize")
    backbone = replace(old, head=None, labels=(), split=None, graph=None, yardstick=None, lineage=kept)
    made = learned(backbone, dataset, parts, views, balanced, config.strict, progress)
    step = step_of("update", {"views": views, "balanced": balanced, "seed": old.split.seed}, dataset, made)
    said = said_of_set(found, old.preprocess.reading, chosen=True)
    counts = _counted(old, dataset)
    return fitted(replace(backbone, lineage=(*kept, step)), made, scanned - start, lacking(backbone), (*counts, *said))


def _wanted(old: Bundle, data: Source, config: UpdateConfig) -> Dataset:
    """The photographs that are named, of the classes that are wanted; labels: all classes that the new head will know."""
    dataset = scan(data, config.classes, config.parts, known=old.labels)
    if config.classes is None and fit_settings(old).get("classes"):
        own = [label for label in dataset.labels if label in old.labels]
        if not own:
            raise UnusableData(f"{dataset.root} has none of the bundle's classes.", "name new ones:  --classes NAME,NAME")
        dataset = scan(dataset, own)
    return labelled(dataset, sorted({*old.labels, *dataset.labels}))


def _with_old_ones(old: Bundle, dataset: Dataset, name: str) -> Dataset:
    """With the photographs of the places that the bundle names, where the data set lacks some that it learned from."""
    assert old.split is not None
    known = old.split.part_of()
    here = {item.fingerprint for item in dataset.items}
    if known.keys() - here:
        others = [path for path in places_of(old) if path.exists() and path.resolve() != dataset.root.resolve()]
        if others:
            dataset = joined(dataset, [_of_labels(path, old.labels, dataset.labels) for path in others])
    if not known.keys() & {item.fingerprint for item in dataset.items}:
        there = ", ".join(str(path) for path in places_of(old)) or "the bundle names no folder"
        raise UnusableData(
            f"none of the photographs that {name} learned from are in {dataset.root}, or where they were ({there}).",
            "put the new ones into the folder with the old ones, and name that",
        )
    return dataset


def _of_labels(path: Path, own: Sequence[str], labels: Sequence[str]) -> Dataset:
    """A folder's photographs of the bundle's own classes."""
    found = scan(path, known=own)
    return labelled(scan(found, [label for label in found.labels if label in own]), labels)


def _counted(old: Bundle, dataset: Dataset) -> tuple[str, ...]:
    assert old.split is not None
    known, here = old.split.part_of(), {item.fingerprint for item in dataset.items}
    new_labels = [label for label in dataset.labels if label not in old.labels]
    new = f"{len(here - known.keys())} photographs are new" + (f", with the classes {', '.join(new_labels)}" if new_labels else "")
    gone = len(known.keys() - here)
    lost = [f"{gone} photographs that it knew are not there any more"] if gone else []
    return (f"{new}; {len(here & known.keys())} keep their part", *lost)
