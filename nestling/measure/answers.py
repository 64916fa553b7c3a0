"""The verbs that ask a network: eval, agree, predict. A bundle or any artifact will do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from nestling.apart.runner import load
from nestling.brief import as_table, in_short
from nestling.bundle import Bundle, Split
from nestling.data.arrays import Images, OneImage, item_of, several
from nestling.data.choose import Chosen, for_evaluation, scan_for, split_again
from nestling.data.folders import Dataset, Item, LeftOut, Source, labels_of
from nestling.data.stream import stream
from nestling.data.survey import said_of_asked, survey
from nestling.data.walk import files_below, why_no_image
from nestling.embedding.cache import default_cache
from nestling.errors import NestlingError, UnusableData, WrongOption
from nestling.formats.about import About
from nestling.formats.runner import Runner
from nestling.preprocess.image import of_photographs, try_load
from nestling.progress import Progress, silent
from nestling.scores.agree import Agreement, agreement
from nestling.scores.evaluate import Evaluation, judge, softmax

CHUNK = 64  # images held at once


@dataclass(frozen=True, eq=False)
class Evaluated:
    """said: which photographs were used. left_out: those that could not be read. notes: lines on how they were read."""

    __repr__, _repr_html_ = in_short, as_table

    evaluation: Evaluation
    said: str
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Predicted:
    """found: what each image that could be read shows, in order. left_out: the others, and why."""

    __repr__, _repr_html_ = in_short, as_table

    found: tuple[Prediction, ...]
    left_out: tuple[LeftOut, ...]

    def __len__(self) -> int:
        return len(self.found)

    def __getitem__(self, index: int) -> Prediction:
        return self.found[index]


@dataclass(frozen=True)
class Prediction:
    """probability: of `label`; top: the most probable labels, best first."""

    image: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]


def evaluate(model: Path, data: Source, progress: Progress = silent, trust: bool = False) -> Evaluated:
    """How good a bundle or artifact is on a folder's test part (on all of it where the parts cannot be told).

    trust: compile a folder of C, whoever wrote it; without, NotTrusted is raised for one of somebody else's.
    """
    runner = load(model, trust=trust)
    of_photographs(runner.preprocess)
    dataset = scan_for(runner.labels, data)
    chosen = for_evaluation(dataset, known_split(runner, dataset))
    items, logits, left_out = answers([runner], chosen.items, progress)
    evaluation = judge(logits[0], labels_of(items), [item.path for item in items], runner.labels)
    notes = said_of_asked(survey(items, progress, default_cache()), runner.preprocess.reading)
    return Evaluated(evaluation, chosen.said, dataset.left_out + left_out, notes)


def agree(a: Path, b: Path, data: Source, progress: Progress = silent, trust: bool = False) -> tuple[Agreement, Chosen]:
    """How often b answers as a does, on a folder's photographs that neither has learned from where that can be told.

    trust: as in evaluate.
    """
    first, second = load(a, trust=trust), load(b, trust=trust)
    if first.labels != second.labels:
        raise NestlingError(f"{a} and {b} know different classes: {list(first.labels)} and {list(second.labels)}.")
    of_photographs(first.preprocess)
    dataset = scan_for(first.labels, data)
    split = known_split(first, dataset) or known_split(second, dataset)
    chosen = for_evaluation(dataset, split)
    _, logits, _ = answers([first, second], chosen.items, progress)
    return agreement(logits[0], logits[1]), chosen


def predict(
    model: Path, images: OneImage | Images, top: int = 3, trust: bool = False, told: Callable[[str], None] = lambda line: None
) -> Predicted:
    """What each image shows; of a folder, each image below it. Files that cannot be read are passed over, and named.

    images: see data.arrays.Images, or one of these. top: how many labels of each, the most probable first. trust: as in evaluate.
    told: is given lines on how they were read, where a person should know.
    """
    if top < 1:
        raise WrongOption(f"--top is 1 or more; found {top}.")
    runner = load(model, trust=trust)
    of_photographs(runner.preprocess)
    items: list[Item] = []
    found: list[Prediction] = []
    left_out: list[LeftOut] = []
    for item in _asked(images):
        image = item.reason if isinstance(item, LeftOut) else try_load(runner.preprocess, item.file)
        if isinstance(item, LeftOut) or isinstance(image, str):
            left_out.append(LeftOut(item.path, str(image)))
            continue
        probabilities = softmax(runner(image[None]))[0]
        best = [(runner.labels[i], float(probabilities[i])) for i in np.argsort(-probabilities, kind="stable")[:top]]
        found.append(Prediction(str(item.path), *best[0], top=tuple(best)))
        items.append(item)
    for line in said_of_asked(survey(items), runner.preprocess.reading):
        told(line)
    return Predicted(tuple(found), tuple(left_out))


def _asked(images: OneImage | Images) -> Iterator[Item | LeftOut]:
    """What is asked about, in order; of a folder the images below it: a README among them is none of our business."""
    for index, image in enumerate(several(images)):
        if not isinstance(image, str | Path):
            yield item_of(image, 0, f"images[{index}]")
        elif not Path(image).is_dir():
            yield Item(Path(image), 0, "")
        else:
            below = files_below(Path(image), Path(image))
            yield from (Item(file, 0, "") for file in below if isinstance(file, Path) and why_no_image(file) is None)


def answers(
    runners: Sequence[Runner], items: Sequence[Item], progress: Progress = silent, most_seconds: float = math.inf
) -> tuple[tuple[Item, ...], list[NDArray[np.float32]], tuple[LeftOut, ...]]:
    """Every runner's logits, float32 [N, classes] each, for the items that can be read; and those that can't.

    most_seconds: a runner that has taken as long answers no more: its logits are those of the first items only.
    Raises UnusableData where none can be read.
    """
    used: list[Item] = []
    left_out: list[LeftOut] = []
    logits: list[list[NDArray[np.float32]]] = [[] for _ in runners]
    taken = [0.0 for _ in runners]
    # runners of one network take the same image; those that differ in preprocessing each get their own
    kinds = list(dict.fromkeys(runner.preprocess for runner in runners))
    decoded = zip(*(stream(items, preprocess, workers=2) for preprocess in kinds), strict=True)
    with progress("asking", len(items)) as advance:
        # a runner has a chunk to itself: runtimes whose idle threads wait by spinning slow each other down image by image
        while chunk := list(islice(decoded, CHUNK)):
            advance(len(chunk))
            left_out += [row[0][1] for row in chunk if isinstance(row[0][1], LeftOut)]
            whole = [row for row in chunk if not isinstance(row[0][1], LeftOut)]
            used += [items[row[0][0]] for row in whole]
            for i, runner in enumerate(runners):
                kind = kinds.index(runner.preprocess)
                if whole and taken[i] < most_seconds:
                    images = np.stack([image for row in whole if not isinstance(image := row[kind][1], LeftOut)])
                    start = perf_counter()
                    logits[i].append(runner(images))
                    taken[i] += perf_counter() - start
    if not used:
        raise UnusableData("none of the images can be read.")
    return tuple(used), [np.concatenate(own) for own in logits], tuple(left_out)


def known_split(runner: Runner, dataset: Dataset) -> Split | None:
    """Which of the data set's photographs the runner's network has learned from; None where that cannot be told."""
    bundle, about = getattr(runner, "bundle", None), getattr(runner, "about", None)
    if isinstance(bundle, Bundle):
        return bundle.split
    return split_again(dataset, about.seed, about.data, about.test) if isinstance(about, About) else None
