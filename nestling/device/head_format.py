"""The format of head.nst: a head that learns, with all that is needed to go on. The twin of runtime/nestling_head.h.

docs/head-file.md has it as a table, with the bounds of each field; use it through head_file.py. A head takes the int8 embedding q
of an int8 Graph: x = input_scale * q - offset, logits = weights @ x + bias.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.brief import as_table, in_short
from nestling.errors import UnusableFile
from nestling.preprocess.image import LONGEST, SIDES, Interpolation
from nestling.words import HeadOptimizer

MAGIC = b"NSTHEAD\n"
VERSION = 1
RUNTIMES, RUNTIME_BYTES = 4, 32
MOST_BYTES = 2**29  # of a file
AGAIN = "fetch it again, or pack it again:  nestling pack my8.nest -o pkg/"
MomentType = Literal["float32", "bfloat16"]
OPTIMIZERS: tuple[HeadOptimizer, ...] = get_args(HeadOptimizer)
MOMENT_TYPES: tuple[MomentType, ...] = get_args(MomentType)
RATES: Mapping[HeadOptimizer, float] = {"sgd": 0.5, "adam": 0.005}  # at which ten epochs are enough: benchmarks/head_step.py
INTERPOLATIONS: tuple[Interpolation, ...] = ("bilinear", "bicubic")
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Field:
    """A number of the header. code: struct's. least, most: its bounds, both included; None where it may be any."""

    name: str
    code: str
    least: float | None = None
    most: float | None = None


COUNTED = 2**48  # which none that is counted gets to
SMALLEST = 2.0**-126  # the smallest float32 with all its digits
BELOW_1 = 1 - 2.0**-24  # the largest float32 below 1

# In the file's order. runtime/nestling_head_format.c has the same bounds, and docs/head-file.md: tests/device/test_head_bounds.py.
FIELDS = (
    Field("magic", "8s"),
    Field("version", "I", VERSION, VERSION),
    Field("bytes", "I"),  # the sum of the parts, at most MOST_BYTES
    Field("inputs", "I", 1, 2**24),
    Field("classes", "I", 1, 65535),  # a replay entry holds its label in 16 bits
    Field("max_classes", "I", 1, 65535),
    Field("label_bytes", "I", 8, 2**24),
    Field("optimizer", "I", 0, len(OPTIMIZERS) - 1),
    Field("moment_type", "I", 0, len(MOMENT_TYPES) - 1),
    Field("replay_capacity", "I", 0, 2**24),
    Field("replay_count", "I", 0, 2**24),
    Field("replay_seen", "Q", 0, COUNTED),
    Field("rate", "f", 0, 1e9),
    Field("momentum", "f", 0, BELOW_1),
    Field("beta2", "f", 0, BELOW_1),
    Field("epsilon", "f", SMALLEST, 1e9),
    Field("decay", "f", 0, 1e9),
    Field("input_scale", "f", SMALLEST, 1e9),
    Field("embedding_scale", "f", SMALLEST, 1e9),
    Field("embedding_zero", "i", -128, 127),
    Field("seed", "Q"),
    Field("steps", "Q", 0, COUNTED),
    Field("began", "Q", 0, COUNTED),
    Field("epoch", "I", 0, 2**31 - 1),
    Field("position", "I", 0, 2**31 - 1),
    Field("items", "I", 0, 2**31 - 1),
    Field("balanced", "I", 0, 1),
    Field("batch", "I", 1, 65536),
    Field("saves", "I", 0, 2**31 - 1),
    Field("lowest_loss", "f", 0, math.inf),
    Field("best_accuracy", "f", 0, 1),
    Field("image_height", "I", *SIDES),
    Field("image_width", "I", *SIDES),
    Field("image_channels", "I", 1, 3),
    Field("interpolation", "I", 0, len(INTERPOLATIONS) - 1),
    Field("crop", "d", 0.05, 1),
    Field("graph", "32s"),
    Field("data", "32s"),
)
HEADER = struct.Struct("<" + "".join(field.code for field in FIELDS))


@dataclass(frozen=True, eq=False)
class Training:
    """How it learns. moment_type: of SGD's velocity; Adam's moments are float32. momentum: SGD's, or Adam's beta1.

    decay: loss + decay / 2 * |W|^2. seed: of the order of the data. balanced: each class comes as often as the largest one.
    The numbers are held as float32: what comes out of a file may differ in the eighth digit from what went in.
    """

    optimizer: HeadOptimizer = "sgd"
    moment_type: MomentType = "float32"
    rate: float = RATES["sgd"]
    momentum: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 1e-4
    seed: int = 0
    balanced: bool = False
    batch: int = 32


@dataclass(frozen=True, eq=False)
class Progress:
    """How far it is. steps: taken ever; began: steps when this training began. epoch, position: what the next batch begins with.

    items: that the order is of. data: SHA-256 of the items, 64 hex digits, zeros before the first training.
    saves: how often the head was saved: of two whole files the newer has more.
    """

    steps: int = 0
    began: int = 0
    epoch: int = 0
    position: int = 0
    items: int = 0
    lowest_loss: float = math.inf
    best_accuracy: float = 0.0
    saves: int = 0
    data: str = "0" * 64


@dataclass(frozen=True, eq=False)
class Replay:
    """Embeddings kept for later trainings. capacity: how many there is room for. seen: how many were offered.

    labels: uint16 [n]; runtimes: uint8 [n], indices into the head's runtimes; embeddings: int8 [n, D].
    """

    capacity: int
    seen: int
    labels: NDArray[np.uint16]
    runtimes: NDArray[np.uint8]
    embeddings: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class HeadFile:
    """A head.nst. Rows of weights, bias and the moments from len(labels) on are 0. FIELDS has the bounds of its numbers.

    label_bytes: room for labels in the file. weights, moment, square: float32 [max_classes, D]; bias, bias_moment, bias_square:
    float32 [max_classes]; offset: float32 [D]. moment: velocity, or Adam's m; square: Adam's v, None with SGD.
    image: (height, width, channels). graph: SHA-256 of the int8 Graph that makes the embeddings, 64 hex digits (graph.file.digest).
    runtimes: names of those that made embeddings of the replay store.
    """

    __repr__, _repr_html_ = in_short, as_table

    labels: tuple[str, ...]
    label_bytes: int
    weights: FloatArray
    bias: FloatArray
    offset: FloatArray
    input_scale: float
    embedding_scale: float
    embedding_zero: int
    image: tuple[int, int, int]
    interpolation: Interpolation
    crop: float
    graph: str
    training: Training
    progress: Progress
    moment: FloatArray
    bias_moment: FloatArray
    square: FloatArray | None
    bias_square: FloatArray | None
    replay: Replay
    runtimes: tuple[str, ...] = ()

    @property
    def max_classes(self) -> int:
        """Classes that there is room for."""
        return len(self.bias)

    @property
    def inputs(self) -> int:
        """Length of an embedding."""
        return len(self.offset)


# ---- as bytes ----------------------------------------------------------------------------------------------------------------


def to_bytes(head: HeadFile) -> bytes:
    """The file. The same head gives the same bytes. Raises UnusableFile where its parts do not fit each other."""
    name, training, progress, replay = "the head", head.training, head.progress, head.replay
    lines, names = label_lines(head.labels), [runtime.encode() for runtime in head.runtimes]
    if len(lines) > head.label_bytes or len(names) > RUNTIMES or any(not n or b"\0" in n or len(n) >= RUNTIME_BYTES for n in names):
        raise UnusableFile(f"{name} has no room for the names {(*head.labels, *head.runtimes)}.")
    _require_shapes(head, name)
    sections = _sections(head.inputs, head.max_classes, head.label_bytes, training.optimizer, training.moment_type, replay.capacity)
    size = HEADER.size + sum(sections.values()) + 4
    if size > MOST_BYTES:
        raise UnusableFile(f"{name} would take {size} bytes; a file holds {MOST_BYTES}.", "less room: --max-classes, --replay")
    stored = training.moment_type if training.optimizer == "sgd" else "float32"
    content: Mapping[str, bytes] = {
        "labels": lines,
        "runtimes": b"".join(n.ljust(RUNTIME_BYTES, b"\0") for n in names),
        "offset": _little(head.offset),
        "weights": _little(head.weights),
        "bias": _little(head.bias),
        "moment": _little(head.moment) if stored == "float32" else _as_bfloat16(head.moment).astype("<u2").tobytes(),
        "bias_moment": _little(head.bias_moment),
        "square": b"" if head.square is None else _little(head.square),
        "bias_square": b"" if head.bias_square is None else _little(head.bias_square),
        "replay": _replay_bytes(replay, head.inputs),
    }
    values = {
        "magic": MAGIC, "version": VERSION, "bytes": size, "inputs": head.inputs,
        "classes": len(head.labels), "max_classes": head.max_classes, "label_bytes": head.label_bytes,
        "optimizer": OPTIMIZERS.index(training.optimizer), "moment_type": MOMENT_TYPES.index(stored),
        "replay_capacity": replay.capacity, "replay_count": len(replay.labels), "replay_seen": replay.seen,
        "rate": training.rate, "momentum": training.momentum, "beta2": training.beta2, "epsilon": training.epsilon,
        "decay": training.decay, "input_scale": head.input_scale, "embedding_scale": head.embedding_scale,
        "embedding_zero": head.embedding_zero, "seed": training.seed, "steps": progress.steps, "began": progress.began,
        "epoch": progress.epoch, "position": progress.position, "items": progress.items, "balanced": int(training.balanced),
        "batch": training.batch, "saves": progress.saves, "lowest_loss": progress.lowest_loss,
        "best_accuracy": progress.best_accuracy, "image_height": head.image[0], "image_width": head.image[1],
        "image_channels": head.image[2], "interpolation": INTERPOLATIONS.index(head.interpolation), "crop": head.crop,
    }  # fmt: skip
    try:
        values |= {"graph": bytes.fromhex(head.graph), "data": bytes.fromhex(progress.data)}
        header = HEADER.pack(*(values[field.name] for field in FIELDS))
    except (struct.error, ValueError, OverflowError) as error:
        raise UnusableFile(f"{name} holds a number that does not fit into a file ({error}).") from error
    whole = b"".join([header, *(content[part].ljust(size, b"\0") for part, size in sections.items())])
    whole += struct.pack("<I", zlib.crc32(whole))
    from_bytes(whole, name)  # what is written can be read
    return whole


def from_bytes(content: bytes, name: str) -> HeadFile:
    """The inverse of to_bytes. `name` is the file's name in messages. Raises UnusableFile for what is not a whole head.nst."""
    of = _header(content, name)
    optimizer, moment_type = OPTIMIZERS[of["optimizer"]], MOMENT_TYPES[of["moment_type"]]
    inputs, max_classes, capacity = of["inputs"], of["max_classes"], of["replay_capacity"]
    parts: dict[str, memoryview] = {}
    place = HEADER.size
    for part, size in _sections(inputs, max_classes, of["label_bytes"], optimizer, moment_type, capacity).items():
        parts[part] = memoryview(content)[place : place + size]
        place += size
    shape = (max_classes, inputs)
    wide = np.frombuffer(parts["moment"], "<u2" if moment_type == "bfloat16" else "<f4")[: max_classes * inputs].reshape(shape)
    head = HeadFile(
        labels=_labels(bytes(parts["labels"]), of["classes"], name),
        label_bytes=of["label_bytes"],
        weights=_floats(parts["weights"]).reshape(shape),
        bias=_floats(parts["bias"]),
        offset=_floats(parts["offset"]),
        input_scale=of["input_scale"],
        embedding_scale=of["embedding_scale"],
        embedding_zero=of["embedding_zero"],
        image=(of["image_height"], of["image_width"], of["image_channels"]),
        interpolation=INTERPOLATIONS[of["interpolation"]],
        crop=of["crop"],
        graph=of["graph"].hex(),
        training=Training(
            optimizer, moment_type, of["rate"], of["momentum"], of["beta2"], of["epsilon"], of["decay"], of["seed"],
            bool(of["balanced"]), of["batch"],
        ),
        progress=Progress(
            of["steps"], of["began"], of["epoch"], of["position"], of["items"], of["lowest_loss"], of["best_accuracy"],
            of["saves"], of["data"].hex(),
        ),
        moment=_from_bfloat16(wide) if moment_type == "bfloat16" else wide.astype(np.float32),
        bias_moment=_floats(parts["bias_moment"]),
        square=_floats(parts["square"]).reshape(shape) if optimizer == "adam" else None,
        bias_square=_floats(parts["bias_square"]) if optimizer == "adam" else None,
        replay=_replay(parts["replay"], capacity, of["replay_count"], of["replay_seen"], inputs),
        runtimes=_runtimes(bytes(parts["runtimes"]), name),
    )  # fmt: skip
    _require_shapes(head, name)
    _require_numbers(head, name)
    return head


def _header(content: bytes, name: str) -> dict[str, Any]:
    """The header's fields by name, once the file is known to be whole and they to be in their bounds and to fit each other."""
    if content[: len(MAGIC)] != MAGIC[: len(content)] or not content:
        raise UnusableFile(f"{name} is no head.nst.", AGAIN)
    if len(content) < HEADER.size + 4:
        raise UnusableFile(f"{name} is cut short: {len(content)} bytes, fewer than the header has.", AGAIN)
    of = dict(zip((field.name for field in FIELDS), HEADER.unpack_from(content), strict=True))
    if of["version"] != VERSION:
        raise UnusableFile(f"{name} is of version {of['version']}; this nestling reads version {VERSION}.", AGAIN)
    for field in FIELDS:
        if field.least is None or field.most is None or field.least <= of[field.name] <= field.most:
            continue
        wanted = f"{_shown(field.least)} to {_shown(field.most)}"
        raise UnusableFile(f"{name} says that {field.name} is {_shown(of[field.name])}; it goes from {wanted}.", AGAIN)
    turns = of["classes"] if of["balanced"] else 1  # the longest order that there can be: of one class mostly
    fitting = {
        "its sizes": of["classes"] <= of["max_classes"] and of["label_bytes"] % 8 == 0,
        "its optimiser and its moments": not (of["moment_type"] and of["optimizer"]),
        "the counts of its replay store": of["replay_count"] <= min(of["replay_capacity"], of["replay_seen"]),
        "its steps": of["began"] <= of["steps"],
        "its position and its items": not of["items"] or of["position"] <= turns * of["items"],
        "its image and its crop": of["image_channels"] != 2 and max(of["image_height"], of["image_width"]) / of["crop"] <= LONGEST,
    }
    if wrong := [what for what, fits in fitting.items() if not fits]:
        raise UnusableFile(f"{name} is damaged: {wrong[0]} do not fit each other.", AGAIN)
    sizes = (of["label_bytes"], OPTIMIZERS[of["optimizer"]], MOMENT_TYPES[of["moment_type"]], of["replay_capacity"])
    size = HEADER.size + sum(_sections(of["inputs"], of["max_classes"], *sizes).values()) + 4
    if of["bytes"] != size or size > MOST_BYTES:
        raise UnusableFile(f"{name} is damaged: its sizes do not fit each other, or a file (of {MOST_BYTES} bytes at most).", AGAIN)
    if len(content) != size:
        raise UnusableFile(f"{name} has {len(content)} bytes where it says {size}.", AGAIN)
    if zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
        raise UnusableFile(f"{name} is damaged: its checksum differs.", AGAIN)
    return of


def _shown(number: float) -> str:
    return f"{number:.9g}" if isinstance(number, float) else str(number)


def _sections(
    inputs: int, max_classes: int, label_bytes: int, optimizer: HeadOptimizer, moment_type: MomentType, capacity: int
) -> dict[str, int]:
    """What follows the header, in order: name -> bytes."""
    matrix, rows = 4 * max_classes * inputs, 4 * max_classes
    adam = optimizer == "adam"
    return {
        "labels": label_bytes,
        "runtimes": RUNTIMES * RUNTIME_BYTES,
        "offset": 4 * inputs,
        "weights": matrix,
        "bias": rows,
        "moment": up(matrix // 2 if moment_type == "bfloat16" and not adam else matrix, 8),
        "bias_moment": rows,
        "square": matrix if adam else 0,
        "bias_square": rows if adam else 0,
        "replay": capacity * _stride(inputs),
    }


def _require_shapes(head: HeadFile, name: str) -> None:
    """That arrays, labels and replay store fit each other, and that unused rows are 0."""
    classes, rows, width = len(head.labels), head.max_classes, head.inputs
    adam = head.training.optimizer == "adam"
    matrices = [head.weights, head.moment, *([head.square] if head.square is not None else [])]
    vectors = [head.bias, head.bias_moment, *([head.bias_square] if head.bias_square is not None else [])]
    fitting = (
        len(matrices) == len(vectors) == 2 + adam
        and all(array.shape == (rows, width) for array in matrices)
        and all(array.shape == (rows,) for array in vectors)
        and head.replay.embeddings.shape == (len(head.replay.labels), width)
        and len(head.replay.runtimes) == len(head.replay.labels) <= head.replay.capacity
        and all(array.dtype == np.float32 for array in (*matrices, *vectors, head.offset))
    )
    if not fitting:
        raise UnusableFile(f"{name} has arrays whose shapes or types do not fit each other.")
    if (head.replay.labels >= classes).any() or (head.replay.runtimes >= len(head.runtimes)).any():
        raise UnusableFile(f"{name} has a replay store of classes or runtimes that it does not name.")
    if any((array[classes:] != 0).any() for array in (*matrices, *vectors)):
        raise UnusableFile(f"{name} has numbers in rows that no class uses.")


def _require_numbers(head: HeadFile, name: str) -> None:
    """That weights and moments are numbers which a training can go on with."""
    hint = "choose a lower rate:  --rate" if name == "the head" else AGAIN
    arrays = {part: getattr(head, part) for part in ("offset", "weights", "bias", "moment", "bias_moment", "square", "bias_square")}
    for part, array in arrays.items():
        if array is None:
            continue
        if not np.isfinite(array).all():
            raise UnusableFile(f"{name} has numbers in its {part} that are not finite, as a training that diverges leaves.", hint)
        if "square" in part and (array < 0).any():
            raise UnusableFile(f"{name} has numbers below 0 in its {part}.", hint)


# ---- the parts ---------------------------------------------------------------------------------------------------------------


def label_lines(labels: Iterable[str]) -> bytes:
    """Names as the file holds them. Raises UnusableFile for a name that cannot be one, and for one that comes twice."""
    known: set[str] = set()
    for label in labels:
        if not label or "\n" in label or "\0" in label or label.encode("utf-8", "ignore").decode() != label:
            raise UnusableFile(f"a head cannot hold a class named {label!r}.")
        if label in known:
            raise UnusableFile(f"a head cannot hold two classes named {label!r}.")
        known.add(label)
    return "".join(f"{label}\n" for label in labels).encode()


def _labels(content: bytes, classes: int, name: str) -> tuple[str, ...]:
    lines = content.rstrip(b"\0").split(b"\n")
    try:
        labels = tuple(line.decode() for line in lines[:-1])
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{name} has a label that is not UTF-8.") from error
    if len(labels) != classes or lines[-1] or not all(labels) or any("\0" in label for label in labels):
        raise UnusableFile(f"{name} does not name its {classes} classes.")
    if len(set(labels)) != classes:
        raise UnusableFile(f"{name} has two classes of one name.")
    return labels


def _runtimes(content: bytes, name: str) -> tuple[str, ...]:
    rows = [content[place : place + RUNTIME_BYTES] for place in range(0, len(content), RUNTIME_BYTES)]
    names = [row.rstrip(b"\0") for row in rows]
    used = sum(map(bool, names))
    try:
        decoded = tuple(each.decode() for each in names[:used])
    except UnicodeDecodeError as error:
        raise UnusableFile(f"{name} has a runtime whose name is not UTF-8.") from error
    if not all(decoded) or any(b"\0" in each or len(each) == RUNTIME_BYTES for each in names):
        raise UnusableFile(f"{name} does not name the runtimes of its replay store.")
    return decoded


def _replay_bytes(replay: Replay, inputs: int) -> bytes:
    rows = np.zeros((len(replay.labels), _stride(inputs)), np.uint8)
    rows[:, :2] = replay.labels.astype("<u2").reshape(-1, 1).view(np.uint8)
    rows[:, 2] = replay.runtimes
    rows[:, 4 : 4 + inputs] = replay.embeddings.view(np.uint8)
    return rows.tobytes()


def _replay(content: memoryview, capacity: int, count: int, seen: int, inputs: int) -> Replay:
    rows = np.frombuffer(content, np.uint8).reshape(capacity, _stride(inputs))[:count]
    labels = rows[:, :2].copy().view("<u2").reshape(-1).astype(np.uint16)
    return Replay(capacity, seen, labels, rows[:, 2].copy(), rows[:, 4 : 4 + inputs].copy().view(np.int8))


def _stride(inputs: int) -> int:
    """Bytes of a replay entry."""
    return up(4 + inputs, 4)


def up(value: int, to: int) -> int:
    """The next multiple."""
    return -(-value // to) * to


def _little(array: FloatArray) -> bytes:
    return array.astype("<f4").tobytes()


def _floats(content: memoryview) -> FloatArray:
    return np.frombuffer(content, "<f4").astype(np.float32)


def _as_bfloat16(values: FloatArray) -> NDArray[np.uint16]:
    """Rounded to the nearest, halves to even; the upper half of a float32's bits."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def _from_bfloat16(values: NDArray[np.uint16]) -> FloatArray:
    return (values.astype(np.uint32) << 16).view(np.float32)
