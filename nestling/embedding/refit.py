"""A head learned again on other embeddings: what a bundle's fit was told, and how its head follows when the network changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nestling.bundle import PARTS, Bundle, Part, fitted_head
from nestling.data.folders import labels_of
from nestling.embedding.cache import VIEWS, Features
from nestling.embedding.head import Embeddings, fit_head
from nestling.errors import NestlingError
from nestling.scores.evaluate import Evaluation, judge

VIEW_SETS: Mapping[str, tuple[str, ...]] = {
    "none": ("as-is",),
    "mirror": ("as-is", "left-right"),
    "flips": tuple(VIEWS),  # for what has no up and no down: parts from above, cells, slides
}


def embeddings_of(features: Features, side: Mapping[str, Part], part: Part) -> Embeddings:
    """Every view of the part's photographs, one after the other."""
    chosen = [i for i, item in enumerate(features.items) if side[item.fingerprint] == part]
    x = features.x[:, chosen]
    y = np.array([features.items[i].label for i in chosen], np.int64)
    return Embeddings(x.reshape(len(x) * len(chosen), -1), np.tile(y, len(x)))


def refitted(bundle: Bundle, features: Sequence[Features]) -> Bundle:
    """The same bundle with its head learned again on other embeddings (those that a device will see), of train and of val."""
    assert bundle.split is not None
    side = bundle.split.part_of()
    train, val = (embeddings_of(some, side, part) for some, part in zip(features, PARTS, strict=False))
    balanced = bool(fit_settings(bundle).get("balanced", False))
    return replace(bundle, head=fit_head(train, val, len(bundle.labels), balanced).head)


def judged_by(bundle: Bundle, features: Features) -> Evaluation:
    """What the bundle's head says to embeddings (their first view), held against their classes."""
    paths = [item.path for item in features.items]
    return judge(fitted_head(bundle).logits(features.x[0]), labels_of(features.items), paths, bundle.labels)


def fit_settings(bundle: Bundle) -> Mapping[str, Any]:
    """What the bundle's head was learned with, by fit or, with photographs that came later, by update; empty where by neither."""
    return next((step.settings for step in reversed(bundle.lineage) if step.name in ("fit", "update")), {})


def training_views(bundle: Bundle) -> tuple[str, ...]:
    """The views of training photographs that the head learned from. Raises NestlingError for those of another nestling."""
    views = fit_settings(bundle).get("views", "none")
    if views not in VIEW_SETS:
        raise NestlingError(f"the bundle was taught with the views {views!r}; this nestling knows {', '.join(VIEW_SETS)}.")
    return VIEW_SETS[views]
