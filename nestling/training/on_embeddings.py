"""A head learned on the embeddings of a backbone that stays as it is: what `fit` does, and `fit --update` again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import PARTS, Bundle, Split
from nestling.data.folders import Dataset, require_enough, without
from nestling.embedding.cache import embed
from nestling.embedding.head import Embeddings, fit_head
from nestling.embedding.of_bundle import bundle_engine
from nestling.embedding.refit import VIEW_SETS, embeddings_of
from nestling.errors import UnusableData
from nestling.graph.head import Head
from nestling.progress import Progress, silent
from nestling.scores import doubts
from nestling.scores.evaluate import Evaluation, judge


@dataclass(frozen=True, eq=False)
class Learned:
    """used: the photographs that could be read; split: of these. test: the head's answers on its test part. one_answer: the class
    that all of val gets, None where it gets several. doubts: what the figures leave open. computed: embeddings that the cache
    lacked. seconds: of embeddings and head.
    """

    head: Head
    weight_decay: float
    val_top1: float
    used: Dataset
    split: Split
    test: Evaluation
    one_answer: str | None
    doubts: tuple[str, ...]
    computed: int
    seconds: Mapping[str, float]


def learned(
    backbone: Bundle, dataset: Dataset, parts: Split, views: str, balanced: bool, strict: bool, progress: Progress = silent
) -> Learned:
    """parts: of all photographs of the data set; what it knows of others stays. views: key of VIEW_SETS.

    Raises UnusableData where too few photographs can be read, with strict also where one cannot.
    """
    start = perf_counter()
    preprocess = backbone.preprocess
    engine = bundle_engine(backbone, count=len(dataset.items) * len(VIEW_SETS[views]))
    side = parts.part_of()
    first = {item.fingerprint: item for item in reversed(dataset.items)}
    taught = [item for item in first.values() if side[item.fingerprint] == "train"]
    judged = [item for item in first.values() if side[item.fingerprint] != "train"]
    features = (embed(taught, preprocess, engine, VIEW_SETS[views], progress), embed(judged, preprocess, engine, progress=progress))
    embedded = perf_counter()

    left_out = tuple(entry for some in features for entry in some.left_out)
    used = without(dataset, left_out)
    require_enough(used)
    if strict and used.left_out:
        listed = "\n".join(f"  {entry.path}: {entry.reason}" for entry in used.left_out)
        raise UnusableData(
            f"{len(used.left_out)} files in {dataset.root} cannot be used:\n{listed}", "mend or remove them, or leave out --strict"
        )
    sources = {"train": features[0], "val": features[1], "test": features[1]}
    train, val, test = (embeddings_of(sources[part], side, part) for part in PARTS)
    with progress("fitting the head", 1) as advance:
        fitted = fit_head(train, val, len(dataset.labels), balanced)
        advance(1)
    paths = [item.path for item in features[1].items if side[item.fingerprint] == "test"]
    evaluation = judge(_logits(fitted.head, test), test.y, paths, dataset.labels)
    alone = doubts.one_answer(_logits(fitted.head, val), dataset.labels)
    bad = {item.fingerprint for item in dataset.items} - {item.fingerprint for item in used.items}
    counts = Counter(dataset.labels[item.label] for item in features[0].items)
    return Learned(
        fitted.head,
        fitted.weight_decay,
        fitted.val_top1,
        used,
        Split(parts.seed, *(tuple(print_ for print_ in getattr(parts, part) if print_ not in bad) for part in PARTS)),
        evaluation,
        alone,
        _doubts(evaluation, alone, counts, balanced),
        sum(some.computed for some in features),
        {"embeddings": embedded - start, "head": perf_counter() - embedded},
    )


def _doubts(test: Evaluation, alone: str | None, train: Mapping[str, int], balanced: bool) -> tuple[str, ...]:
    answers = doubts.of_answers(test)
    if alone is not None:
        advice = "add photographs, or take another --backbone or --size" + ("" if balanced else ", or --balanced")
        answers = (f"{doubts.of_one_answer(alone, 'the validation part')}; {advice}",)
    return (*answers, *doubts.of_classes(test, train, balanced))


def _logits(head: Head, part: Embeddings) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = head.logits(part.x)
    return logits
