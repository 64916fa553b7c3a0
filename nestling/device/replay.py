"""The replay store: a few embeddings of what was learned, so that what comes later does not make the head forget it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nestling.device.head_format import RUNTIMES, HeadFile, Replay
from nestling.errors import NestlingError

Bytes = NDArray[np.int8]
Labels = NDArray[np.int64]
ENTRY = 4  # bytes of an entry besides its embedding


def room(kilobytes: int, inputs: int) -> int:
    """How many embeddings of `inputs` numbers fit into so many KB (of 1,024 bytes)."""
    return kilobytes * 1024 // (-(-(ENTRY + inputs) // 4) * 4)


def not_among(replay: Replay, embeddings: Bytes, labels: Labels) -> NDArray[np.int64]:
    """The entries, int64 [n], that are no copies of training items: those whose photographs are not there any more."""
    there = {_key(embedding, int(label)) for embedding, label in zip(embeddings, labels, strict=True)}
    keys = (_key(embedding, int(label)) for embedding, label in zip(replay.embeddings, replay.labels, strict=True))
    return np.array([place for place, key in enumerate(keys) if key not in there], np.int64)


def stored(head: HeadFile, embeddings: Bytes, labels: Labels, runtime: str, capacity: int) -> HeadFile:
    """The head with a store of up to `capacity` embeddings, of those it had and of a training's.

    embeddings: int8 [N, D], made by `runtime`; labels: int64 [N]. The classes share the room equally; what one has too few for goes
    to the others. Of a class those with the smallest SHA-256 are kept: a uniform sample, the same in whatever order they came, and
    again a uniform one when others come later. Raises NestlingError where the head has no room for the runtime's name.
    """
    old = head.replay
    runtimes = head.runtimes if runtime in head.runtimes or not capacity else (*head.runtimes, runtime)
    if len(runtimes) > RUNTIMES:
        raise NestlingError(f"the head has room for the names of {RUNTIMES} runtimes; it has {', '.join(head.runtimes)}.")
    others = not_among(old, embeddings, labels)
    before = len(others) < len(old.labels)  # it has some of them: they were offered before
    offered = 0 if before or not capacity else len(labels)
    all_embeddings = np.concatenate([embeddings, old.embeddings[others]])
    all_labels = np.concatenate([labels, old.labels[others].astype(np.int64)])
    made_by = np.concatenate([np.full(len(labels), runtimes.index(runtime) if capacity else 0), old.runtimes[others]])
    keys = [_key(embedding, int(label)) for embedding, label in zip(all_embeddings, all_labels, strict=True)]
    chosen: list[int] = []
    for label, count in enumerate(_shares(np.bincount(all_labels, minlength=len(head.labels)).tolist(), capacity)):
        own = {keys[place]: place for place in np.flatnonzero(all_labels == label).tolist()}  # one of equal ones
        chosen += [own[key] for key in sorted(own)[:count]]
    replay = Replay(
        capacity,
        max(old.seen + offered, len(chosen)),
        all_labels[chosen].astype(np.uint16),
        made_by[chosen].astype(np.uint8),
        all_embeddings[chosen],
    )
    return replace(head, replay=replay, runtimes=runtimes)


def _shares(counts: Sequence[int], capacity: int) -> list[int]:
    """How many of each class: as equal as the counts allow; what cannot be divided goes to the first ones."""
    shares = [0] * len(counts)
    left = capacity
    while left:
        wanting = [place for place, count in enumerate(counts) if shares[place] < count]
        if not wanting:
            break
        for place in wanting[:left] if left < len(wanting) else wanting:
            more = max(1, min(left // len(wanting), counts[place] - shares[place]))
            shares[place] += more
        left = capacity - sum(shares)
    return shares


def _key(embedding: Bytes, label: int) -> bytes:
    return hashlib.sha256(f"{label}:".encode() + embedding.tobytes()).digest()
