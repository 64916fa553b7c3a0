"""learn: the head goes on learning where Python is, from a package and a folder of photographs.

A batch a cycle, in the order of order.py; what is saved is the same head.nst that net_runner writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling import extras
from nestling.apart.runner import gradients
from nestling.brief import as_table, in_short
from nestling.data.folders import LeftOut
from nestling.device import manifest
from nestling.device.c_learner import CLearner
from nestling.device.device_features import AGAIN, Embedded, checked_features, embedded, require_sum
from nestling.device.head_file import inputs_of, logits, newest, save, with_class, with_optimizer
from nestling.device.head_format import RATES, HeadFile, Training
from nestling.device.head_format import Progress as Position
from nestling.device.learner import Learner, as_kept
from nestling.device.order import order
from nestling.device.parts import Parts, parts, read_split
from nestling.device.replay import not_among, room, stored
from nestling.device.whose import is_known
from nestling.errors import NestlingError, UnusableData
from nestling.outside import content
from nestling.progress import Progress, silent
from nestling.scores.evaluate import Evaluation, judge
from nestling.temporary import restored
from nestling.words import HeadOptimizer

TRAIN = "head_train.pte"
EPOCHS = 10  # where no number of cycles is named
LEAST_CYCLES = 300  # likewise: a new class of a few photographs has epochs of a few batches
WATCHED_EVERY = 20  # cycles between two looks at val


@dataclass(frozen=True)
class LearnConfig:
    """What a training is told; None: as the head says.

    begin_with: the head to begin with, None for the package's head.nst. output: None for PACKAGE/trained.nst. cycles: batches; None
    for about 10 epochs. stop_accuracy: val's, at which it ends early; None: never. save_every: cycles. replay: KB of embeddings
    that are kept for later trainings. resume: go on where `output` was left.
    """

    begin_with: Path | None = None
    output: Path | None = None
    cycles: int | None = None
    batch: int | None = None
    optimizer: HeadOptimizer | None = None
    rate: float | None = None
    stop_accuracy: float | None = None
    save_every: int = 20
    replay: int | None = None
    resume: bool = False


@dataclass(frozen=True, eq=False)
class Learned:
    """head: as saved in `output`. before, after: of val and test, where the folder has such; before: with the head it began with.

    new: classes that it did not know. cycles: taken in this training, by this run and those that it went on from. replayed:
    embeddings of the replay store that were learned from. notes: what is to be said of files that were not taken and why.
    """

    __repr__, _repr_html_ = in_short, as_table

    head: HeadFile
    output: Path
    before: Mapping[str, Evaluation]
    after: Mapping[str, Evaluation]
    new: tuple[str, ...]
    images: Mapping[str, int]
    replayed: int
    cycles: int
    notes: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    seconds: Mapping[str, float]


def learn(package: Path, data: Path, config: LearnConfig | None = None, progress: Progress = silent) -> Learned:
    """Go on learning on a folder of photographs (data.folders.scan's), the backbone frozen.

    package: a folder that `nestling pack --for linux` made; one that this user's nestling did not pack has its programs run in
    processes of their own. A class folder that the head does not know becomes a class. Classes
    that the folder has no photographs to learn from keep their rows as they are; the replay store's embeddings of them tell the
    others where not to go. Then, and with new classes, each class comes equally often.
    With 0 cycles nothing is saved.
    Raises UnusableFile for a package that is not whole (also where features.pte changes meanwhile), UnusableData for a folder that
    cannot be learned from, NestlingError where the result cannot be written.
    """
    config = config or LearnConfig()
    output = config.output or package / "trained.nst"
    _require_not_packed(output, package)
    start = perf_counter()
    first, _, notes = newest(config.begin_with or restored(package) / "head.nst")
    ours = is_known(package)
    checked = checked_features(package, first, apart=not ours)
    divided = parts(data, first.labels, read_split(package / "split.csv"), first.training.seed)
    known = _with_classes(first, divided.new)
    seen = embedded(divided, checked, known, progress)
    items = _items(known, seen)
    head = _begun(known, items, divided, config)
    notes = (*notes, *_forgotten(known, items))
    before = _evaluations(first, seen, divided.labels)
    ready = perf_counter()

    if config.resume:
        head, said = _gone_on(head, output)
        notes = (*notes, *said)
    learner, rows = _learner(package, head, ours, items)
    head = _run(learner, rows, items, seen, config, output, progress)
    train = seen["train"]
    if config.cycles != 0:
        capacity = head.replay.capacity if config.replay is None else room(config.replay, head.inputs)
        head = save(stored(head, train.embeddings, train.labels, checked.runtime, capacity), output)
    checked.require_unchanged()
    return Learned(
        head,
        output,
        before,
        _evaluations(head, seen, divided.labels),
        divided.new,
        {part: len(some.labels) for part, some in seen.items()},
        len(items.labels) - len(train.labels),
        head.progress.steps - head.progress.began,
        notes,
        (*divided.left_out, *(entry for some in seen.values() for entry in some.left_out)),
        {"embeddings": ready - start, "learning": perf_counter() - ready},
    )


def _require_not_packed(output: Path, package: Path) -> None:
    """What was packed stays as it was: the device is sent just that, and a training can begin anew."""
    packed = (*manifest.read(package).files, manifest.NAME)
    if output.resolve().parent == package.resolve() and output.name in packed:
        raise NestlingError(f"{output} is a file of the package: it is not overwritten.", "name another one with -o")


def _learner(package: Path, head: HeadFile, ours: bool, items: _Items) -> tuple[Learner | CLearner, NDArray[Any]]:
    """(who learns, what it takes of the items): by the package's head_train.pte, in a process of its own where it is not ours; in C
    where there is none, or no ExecuTorch.
    """
    path, listed = package / TRAIN, manifest.read(package).files
    if not extras.has("executorch") or (TRAIN not in listed and not path.exists()):
        return CLearner(head, items.frozen), items.steps
    found = content(path, AGAIN)
    if TRAIN in listed:
        require_sum(path, found, listed[TRAIN].sha256)
    program = found if ours and TRAIN in listed else gradients(path, *head.weights.shape)
    return Learner(head, program, frozen=items.frozen), items.x


# ---- what is learned from ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Items:
    """x: float32 [N, D], of steps: int8 [N, D]; labels: int64 [N]; photographs sorted by (label, fingerprint), then replayed ones.

    digest: of what they are, 64 hex digits. frozen: classes without photographs.
    """

    x: NDArray[np.float32]
    steps: NDArray[np.int8]
    labels: NDArray[np.int64]
    digest: str
    frozen: tuple[int, ...]


def _items(head: HeadFile, seen: Mapping[str, Embedded]) -> _Items:
    train = seen["train"]
    extra = not_among(head.replay, train.embeddings, train.labels)
    lines = "".join(f"{item.label}:{item.fingerprint}\n" for item in train.items)
    digest = sha256((lines + (f"replay {len(extra)}\n" if len(extra) else "")).encode()).hexdigest()
    frozen = tuple(sorted(set(range(len(head.labels))) - set(train.labels.tolist())))
    embeddings = np.concatenate([train.embeddings, head.replay.embeddings[extra]])
    labels = np.concatenate([train.labels, head.replay.labels[extra].astype(np.int64)])
    return _Items(inputs_of(head, embeddings), embeddings, labels, digest, frozen)


def _forgotten(head: HeadFile, items: _Items) -> Iterator[str]:
    """Where nothing at all stands for a class, the others have no reason not to take its place."""
    there = set(items.labels.tolist())
    if lost := [label for place, label in enumerate(head.labels) if place not in there]:
        yield (
            f"nothing is kept of {', '.join(lost)} and there are no photographs of it: it will be forgotten. Add some, or begin "
            "with a head that keeps embeddings (pack --replay KB, learn --replay KB)"
        )


def _with_classes(head: HeadFile, new: tuple[str, ...]) -> HeadFile:
    for label in new:
        head = with_class(head, label)
    return head


def _begun(head: HeadFile, items: _Items, divided: Parts, config: LearnConfig) -> HeadFile:
    """The head at the beginning of a training."""
    if not divided.train or not len(items.labels):
        raise UnusableData("the folder holds no photographs to learn from: the split puts them all into val and test.", "add some")
    balanced = head.training.balanced or bool(divided.new) or bool(items.frozen)
    optimizer = config.optimizer or head.training.optimizer
    usual = head.training.rate if optimizer == head.training.optimizer else RATES[optimizer]
    rate = usual if config.rate is None else config.rate
    batch = config.batch or head.training.batch
    training = replace(head.training, optimizer=optimizer, rate=rate, balanced=balanced, batch=batch)
    progress = Position(steps=head.progress.steps, began=head.progress.steps, items=len(items.labels), data=items.digest)
    return replace(with_optimizer(head, as_kept(training)), progress=replace(progress, saves=head.progress.saves))


def _gone_on(head: HeadFile, output: Path) -> tuple[HeadFile, tuple[str, ...]]:
    """The training that `output` holds, where it is of the same data with the same settings; else `head`, and why."""
    try:
        found, taken, notes = newest(output)
    except NestlingError as error:
        return head, (f"begun anew: {error.message}",)
    compared = {
        "its classes": (found.labels, head.labels),
        "the photographs that it learned from": (found.progress.data, head.progress.data),
        "the network": (found.graph, head.graph),
        "its settings": (astuple(found.training), astuple(head.training)),
        "its room for classes": (found.weights.shape, head.weights.shape),
    }
    if different := [what for what, (theirs, ours) in compared.items() if theirs != ours]:
        return head, (*notes, f"begun anew: {taken} holds another training ({', '.join(different)} differ)")
    return found, (*notes, f"gone on from {taken}, {found.progress.steps - found.progress.began} cycles")


# ---- the loop ------------------------------------------------------------------------------------------------------------------


def _run(
    learner: Learner | CLearner,
    rows: NDArray[Any],
    items: _Items,
    seen: Mapping[str, Embedded],
    config: LearnConfig,
    output: Path,
    progress: Progress,
) -> HeadFile:
    """Learn until the cycles are over or val is good enough; the head as it then is, saved on the way."""
    head = learner.head
    batches = _batches(head, items)
    cycles = _enough(head, items) if config.cycles is None else config.cycles
    done = head.progress.steps - head.progress.began
    with progress("learning", max(0, cycles - done)) as advance:
        while done < cycles and not _good(head, config):
            chosen, epoch, place = next(batches)
            learner.step(rows[chosen], items.labels[chosen])
            done += 1
            advance(1)
            watched, saved = done % WATCHED_EVERY == 0 or done == cycles, done % config.save_every == 0
            if watched or saved:
                head = _at(learner.head, epoch, place, head.progress.best_accuracy)
            if watched:
                head = _at(head, epoch, place, max(head.progress.best_accuracy, _accuracy(head, seen["val"])))
            if saved:
                save(head, output)
    return head


def _good(head: HeadFile, config: LearnConfig) -> bool:
    return config.stop_accuracy is not None and head.progress.best_accuracy >= float(np.float32(config.stop_accuracy))


def _at(head: HeadFile, epoch: int, place: int, best_accuracy: float) -> HeadFile:
    return replace(head, progress=replace(head.progress, epoch=epoch, position=place, best_accuracy=best_accuracy))


def _batches(head: HeadFile, items: _Items) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """(the items of a batch, epoch and position after it), from where the head is on. A batch never spans two epochs."""
    epoch, place = head.progress.epoch, head.progress.position
    while True:
        places = _order(head.training, epoch, items)
        while place < len(places):
            chosen = places[place : place + head.training.batch]
            place += len(chosen)
            yield (chosen, epoch, place) if place < len(places) else (chosen, epoch + 1, 0)
        epoch, place = epoch + 1, 0


def _order(training: Training, epoch: int, items: _Items) -> NDArray[np.int64]:
    return order(training.seed, epoch, len(items.labels), items.labels if training.balanced else None)


def _enough(head: HeadFile, items: _Items) -> int:
    """Cycles of about ten epochs, at least 300."""
    return max(LEAST_CYCLES, EPOCHS * math.ceil(len(_order(head.training, 0, items)) / head.training.batch))


# ---- how good it is ------------------------------------------------------------------------------------------------------------


def _accuracy(head: HeadFile, seen: Embedded) -> float:
    if not len(seen.labels):
        return 0.0
    return float(np.float32((logits(head, seen.embeddings).argmax(axis=1) == seen.labels).mean()))  # as the file keeps it


def _evaluations(head: HeadFile, seen: Mapping[str, Embedded], labels: tuple[str, ...]) -> dict[str, Evaluation]:
    """Of val and test, as far as there are photographs. A class that the head does not know is never answered."""
    return {part: _evaluation(head, seen[part], labels) for part in ("val", "test") if len(seen[part].labels)}


def _evaluation(head: HeadFile, seen: Embedded, labels: tuple[str, ...]) -> Evaluation:
    answers = np.full((len(seen.labels), len(labels)), -np.inf, np.float32)
    answers[:, : len(head.labels)] = logits(head, seen.embeddings)
    return judge(answers, seen.labels, [item.path for item in seen.items], labels)
