"""head.nst: making one, asking it, and saving it so that a power cut finds a whole one. Its format is in head_format.py.

Saving X: X.part is written and fsynced; X.previous becomes a link to X; X.part is renamed to X; the folder is fsynced. So of X,
X.previous and X.part one is whole at any moment, and loading takes the whole one with the most `saves`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.device.head_format import (
    MOST_BYTES,
    HeadFile,
    Progress,
    Replay,
    Training,
    from_bytes,
    label_lines,
    to_bytes,
    up,
)
from nestling.errors import NestlingError, UnusableFile
from nestling.files import flush, make_folder, read_at_most, require_file_or_nothing
from nestling.graph.head import Head
from nestling.preprocess.image import Preprocess
from nestling.words import HeadOptimizer

__all__ = [
    "HeadFile",
    "Progress",
    "Replay",
    "Training",
    "from_bytes",
    "inputs_of",
    "logits",
    "made",
    "newest",
    "plain_head",
    "save",
    "to_bytes",
    "with_class",
    "with_optimizer",
]

ROOM = 32  # bytes kept free for the label of each class that may come
FloatArray = NDArray[np.float32]


# ---- making and asking -------------------------------------------------------------------------------------------------------


def made(
    labels: Sequence[str],
    max_classes: int,
    embeddings: NDArray[np.int8] | None,
    head: Head | None,
    *,
    embedding_scale: float,
    embedding_zero: int,
    preprocess: Preprocess,
    graph: str,
    training: Training = Training(),  # noqa: B008  # frozen
    replay_capacity: int = 0,
    inputs: int | None = None,
) -> HeadFile:
    """A head that has not learned on a device yet.

    embeddings: int8 [N, D], by which its inputs are centred and scaled to a mean distance of 1 as fit_head does; None: its inputs
    are the real numbers embedding_scale * (q - embedding_zero), and inputs (or head) says how many there are.
    head: the float head on those real numbers, whose answers are kept (computed in float64); None: all weights are 0.
    max_classes: rows that there is room for. replay_capacity: embeddings that the replay store has room for.
    Raises UnusableFile where the parts do not fit each other.
    """
    given = [n for n in (inputs, *(a.shape[1] for a in (embeddings, head.weight if head else None) if a is not None)) if n]
    if len(set(given)) != 1:
        raise UnusableFile(f"a new head: embeddings, head and inputs say {given or 'nothing'} of the length of an embedding.")
    if head is not None and len(head.bias) != len(labels):
        raise UnusableFile(f"a new head: {len(labels)} labels and a head of {len(head.bias)} classes.")
    width, rows = given[0], max(max_classes, len(labels))
    input_scale, offset = _standardised(embeddings, width, embedding_scale, embedding_zero)
    weights, bias = np.zeros((rows, width), np.float32), np.zeros(rows, np.float32)
    if head is not None:
        float_weights = head.weight.astype(np.float64) * (float(np.float32(embedding_scale)) / input_scale)
        to_real = float(np.float32(embedding_scale)) * embedding_zero
        float_bias = head.bias + float_weights @ offset.astype(np.float64) - to_real * head.weight.astype(np.float64).sum(axis=1)
        weights[: len(labels)], bias[: len(labels)] = float_weights, float_bias
    needed = len(label_lines(labels)) + ROOM * (rows - len(labels))
    new = HeadFile(
        labels=tuple(labels),
        label_bytes=up(needed, 8),
        weights=weights,
        bias=bias,
        offset=offset,
        input_scale=input_scale,
        embedding_scale=embedding_scale,
        embedding_zero=embedding_zero,
        image=(*preprocess.size, preprocess.channels),
        interpolation=preprocess.interpolation,
        crop=preprocess.crop,
        graph=graph,
        training=training,
        progress=Progress(),
        **_no_moments(training.optimizer, rows, width),
        replay=Replay(replay_capacity, 0, np.zeros(0, np.uint16), np.zeros(0, np.uint8), np.zeros((0, width), np.int8)),
    )
    return from_bytes(to_bytes(new), "a new head")


def with_optimizer(head: HeadFile, training: Training) -> HeadFile:
    """The head with other settings, its moments zero, as at the beginning of a training."""
    return replace(head, training=training, **_no_moments(training.optimizer, head.max_classes, head.inputs))


def with_class(head: HeadFile, label: str) -> HeadFile:
    """The head with one more class, whose row is 0. Raises UnusableFile where there is no room for it or for its label."""
    needed = len(label_lines((*head.labels, label)))
    if len(head.labels) >= head.max_classes or needed > head.label_bytes:
        raise UnusableFile(
            f"the head has no room for the class {label!r}: it holds {len(head.labels)} of {head.max_classes} classes, and their"
            f" names would take {needed} of {head.label_bytes} bytes.",
            "pack it again with room:  nestling pack my8.nest --max-classes N -o pkg/",
        )
    return replace(head, labels=(*head.labels, label))


def plain_head(head: HeadFile) -> Head:
    """The same head on a runtime's real embedding, embedding_scale * (q - embedding_zero); computed in float64."""
    weights = head.weights[: len(head.labels)].astype(np.float64)
    centre = head.input_scale * head.embedding_zero - head.offset.astype(np.float64)
    bias = head.bias[: len(head.labels)] + weights @ centre
    return Head((weights * (head.input_scale / head.embedding_scale)).astype(np.float32), bias.astype(np.float32))


def inputs_of(head: HeadFile, embeddings: NDArray[np.int8]) -> FloatArray:
    """int8 [N, D] -> what the head sees, x: float32 [N, D], the C's numbers."""
    return embeddings.astype(np.float32) * np.float32(head.input_scale) - head.offset


def logits(head: HeadFile, embeddings: NDArray[np.int8]) -> FloatArray:
    """int8 [N, D] -> float32 [N, classes]. The C's up to the order of its sums."""
    classes = len(head.labels)
    return inputs_of(head, embeddings) @ head.weights[:classes].T + head.bias[:classes]


def _standardised(embeddings: NDArray[np.int8] | None, width: int, scale: float, zero: int) -> tuple[float, FloatArray]:
    """input_scale, a float32 number, and offset."""
    if embeddings is None or not len(embeddings):
        input_scale = np.float32(scale)
        return float(input_scale), np.full(width, input_scale * np.float32(zero), np.float32)
    q = embeddings.astype(np.float64)
    mean = q.mean(axis=0)
    distance = float(np.sqrt(((q - mean) ** 2).sum(axis=1).mean())) or 1.0
    input_scale = np.float32(1 / distance)
    return float(input_scale), (mean * float(input_scale)).astype(np.float32)


def _no_moments(optimizer: HeadOptimizer, rows: int, width: int) -> dict[str, Any]:
    zeros, adam = np.zeros((rows, width), np.float32), optimizer == "adam"
    own = {"moment": zeros, "bias_moment": zeros[:, 0].copy()}
    return own | {"square": zeros.copy() if adam else None, "bias_square": zeros[:, 0].copy() if adam else None}


# ---- saving ------------------------------------------------------------------------------------------------------------------


def save(head: HeadFile, path: Path) -> HeadFile:
    """Write the head to `path`, one save more than any whole one there; the head as written. What was there becomes path.previous.

    Raises NestlingError where it cannot be written; what was saved before is then still there.
    """
    found, _, _ = _found(path)
    counted = max([head.progress.saves, *(other.saves for other in found.values())]) + 1
    saved = replace(head, progress=replace(head.progress, saves=counted))
    content = to_bytes(saved)
    previous, part = _beside(path)
    try:
        require_file_or_nothing(path)
        make_folder(path.parent)
        if part in found and _newest(found) == part:  # a save that was stopped before its rename: it is finished first
            _put_in_place(path, previous, part, keep=path in found)
            found[path] = found.pop(part)
        _write(part, content)
        _put_in_place(path, previous, part, keep=path in found)
    except OSError as error:
        raise NestlingError(
            f"{path} cannot be written: {error.strerror}.", "make room or allow it; what was saved before is still there"
        ) from error
    return saved


def newest(path: Path) -> tuple[HeadFile, Path, tuple[str, ...]]:
    """The newest whole head of path, path.previous and path.part; the file that it came from; what is to be said of the others.

    Nothing is to be said where the head is plainly path's. Raises UnusableFile where none of them is whole.
    """
    found, head, notes = _found(path)
    if head is None:
        if len(notes) == 1:
            raise UnusableFile(f"{notes[0]}.", "make one:  nestling pack my8.nest -o pkg/")
        raise UnusableFile(f"there is no whole head: {'; '.join(notes)}.", "pack it again:  nestling pack my8.nest -o pkg/")
    taken = _newest(found)
    if taken != path and path in found:
        notes = (*notes, f"{path} is older: {found[path].steps} steps")
    if taken != path:
        notes = (*notes, f"taken: {taken}, {found[taken].steps} steps")
    return head, taken, notes


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}.previous"), path.with_name(f"{path.name}.part")


def _newest(found: dict[Path, Progress]) -> Path:
    return max(found, key=lambda file: found[file].saves)  # of equals the first: path itself


def _found(path: Path) -> tuple[dict[Path, Progress], HeadFile | None, tuple[str, ...]]:
    """How far the whole ones of the three files are, the newest head, and why the others are none; of files that are not there only
    path is spoken of."""
    found: dict[Path, Progress] = {}
    newest_head: HeadFile | None = None
    notes: list[str] = []
    for file in (path, *_beside(path)):
        try:
            head = from_bytes(read_at_most(file, MOST_BYTES), str(file))
            found[file] = head.progress
            if newest_head is None or head.progress.saves > newest_head.progress.saves:
                newest_head = head
        except UnusableFile as error:
            notes.append(error.message.removesuffix("."))
        except OSError as error:
            if file == path or not isinstance(error, FileNotFoundError):
                notes.append(f"{file} cannot be read ({error.strerror})")
    return found, newest_head, tuple(notes)


def _write(part: Path, content: bytes) -> None:
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _put_in_place(path: Path, previous: Path, part: Path, keep: bool) -> None:
    """keep: path is whole and becomes previous; a damaged one does not take the place of a whole previous one."""
    if keep:
        previous.unlink(missing_ok=True)
        try:
            os.link(path, previous)
        except OSError:  # a file system without links
            path.replace(previous)
    part.replace(path)
    flush(path.parent)
