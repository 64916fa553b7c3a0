"""The head's step in torch, in ExecuTorch and in C: its time, how far the three drift apart, what each learns, what is forgotten.

    python benchmarks/head_step.py [--rounds 40] [--data FOLDER_OR_TAR_GZ [--size 96]]

Batch 32, 1280 inputs, 10 classes, SGD with momentum and decay, one thread. The three take turns; medians over the rounds. With
--data (a folder a class): the accuracy of `fit`'s head, of the C's and of ExecuTorch's on the same int8 embeddings of
EfficientNet-Lite0, learned from zeros with the defaults; and what is forgotten when a class of 20 photographs comes (the demo's
solar cells to all the others, then each class in turn to the rest), with and without 64 KB of replay. Prints Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # before torch comes

import numpy as np
import torch
from numpy.typing import NDArray
from photographs import folder
from torch.nn.functional import cross_entropy

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.data.choose import part, training_data
from nestling.data.folders import scan
from nestling.device import manifest
from nestling.device.build import HEAD_SOURCES
from nestling.device.head_file import inputs_of, logits, made
from nestling.device.head_format import RATES, HeadFile, Training, from_bytes, to_bytes
from nestling.device.learn import EPOCHS, LearnConfig, learn
from nestling.device.learner import Learner
from nestling.device.manifest import Manifest, PackedFile
from nestling.device.order import order
from nestling.embedding.cache import embed
from nestling.embedding.engine import graph_engine
from nestling.embedding.head import Embeddings, fit_head
from nestling.embedding.refit import fit_settings
from nestling.formats import FORMATS
from nestling.formats.executorch.format import FEATURES
from nestling.formats.executorch.training_program import print_training_program
from nestling.formats.format import INTEGERS, ExportConfig, Job
from nestling.graph.file import digest
from nestling.preprocess.image import ImagePreprocess, to_plain
from nestling.processor import processor
from nestling.quantization.quantize import quantize
from nestling.training.fit import FitConfig, fit

BATCH, INPUTS, CLASSES = 32, 1280, 10
RUNTIME = Path(__file__).parents[1] / "nestling" / "device" / "runtime"
Bytes = NDArray[np.int8]
Labels = NDArray[np.int64]
Step = Callable[[Bytes, Labels], object]


# ---- the three learners --------------------------------------------------------------------------------------------------------


SAMPLE = np.dtype([("embedding", np.uintp), ("label", np.uint32)], align=True)  # nestling_sample


class CLearner:
    """nestling_head_*.c, compiled -O3 for any processor of this kind, called through ctypes."""

    def __init__(self, head: HeadFile, library: ctypes.CDLL) -> None:
        content = to_bytes(head)
        self.library, self.size = library, len(content)
        self.memory = np.zeros(-(-len(content) // 8), np.uint64)  # aligned to 8 bytes
        self.memory.view(np.uint8)[: len(content)] = np.frombuffer(content, np.uint8)
        self.opened = ctypes.create_string_buffer(256)  # room for a nestling_head
        self.work = np.zeros((1024, head.max_classes), np.float32)
        self.work_at = self.work.ctypes.data_as(ctypes.c_void_p)
        if library.nestling_head_open(self.memory.ctypes.data_as(ctypes.c_void_p), len(content), self.opened):
            raise SystemExit("the C does not open the head")

    def step(self, q: Bytes, y: Labels) -> object:
        samples = np.empty(len(y), SAMPLE)
        samples["embedding"] = q.ctypes.data + q.shape[1] * np.arange(len(y))
        samples["label"] = y
        return self.library.nestling_learn_step(self.opened, samples.ctypes.data_as(ctypes.c_void_p), len(y), self.work_at)

    @property
    def head(self) -> HeadFile:
        self.library.nestling_head_seal(self.opened)
        return from_bytes(self.memory.view(np.uint8)[: self.size].tobytes(), "the C's head")


class TorchLearner:
    """torch's own forward, backward and SGD."""

    def __init__(self, head: HeadFile) -> None:
        self.start, how, classes = head, head.training, len(head.labels)
        self.weight = torch.from_numpy(head.weights[:classes].copy()).requires_grad_()
        self.bias = torch.from_numpy(head.bias[:classes].copy()).requires_grad_()
        groups = [{"params": [self.weight], "weight_decay": how.decay}, {"params": [self.bias], "weight_decay": 0.0}]
        self.optimiser = torch.optim.SGD(groups, lr=how.rate, momentum=how.momentum)

    def step(self, q: Bytes, y: Labels) -> object:
        x = torch.from_numpy(inputs_of(self.start, q))
        loss = cross_entropy(torch.nn.functional.linear(x, self.weight, self.bias), torch.from_numpy(y))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()

    @property
    def head(self) -> HeadFile:
        return replace(self.start, weights=self.weight.detach().numpy().copy(), bias=self.bias.detach().numpy().copy())


def executorch_step(learner: Learner, head: HeadFile) -> Step:
    return lambda q, y: learner.step(inputs_of(head, q), y)


def compiled(place: Path) -> ctypes.CDLL:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("needs a C compiler: gcc or clang")
    path = place / "head.so"
    flags = ("-std=c99", "-O3", "-ffp-contract=off", "-shared", "-fPIC")
    subprocess.run([compiler, *flags, "-o", path, *(RUNTIME / name for name in HEAD_SOURCES)], check=True)
    library = ctypes.CDLL(str(path))
    library.nestling_learn_step.restype = ctypes.c_float
    return library


# ---- time and drift ------------------------------------------------------------------------------------------------------------


def made_up(training: Training) -> tuple[HeadFile, list[tuple[Bytes, Labels]]]:
    """(an untrained head, 200 batches)."""
    rng = np.random.default_rng(0)
    centres = rng.integers(-100, 40, (CLASSES, INPUTS))
    batches = []
    for _ in range(200):
        y = rng.integers(0, CLASSES, BATCH)
        batches.append((np.clip(centres[y] + rng.normal(0, 60, (BATCH, INPUTS)), -128, 127).astype(np.int8), y.astype(np.int64)))
    preprocess = ImagePreprocess((224, 224), 3, 0.875, "bicubic", (0.5,) * 3, (0.5,) * 3)
    names = [f"class {i}" for i in range(CLASSES)]
    q = np.concatenate([q for q, _ in batches])
    head = made(
        names,
        CLASSES,
        q,
        None,
        embedding_scale=0.02,
        embedding_zero=-128,
        preprocess=preprocess,
        graph="00" * 32,
        training=training,
    )
    return head, batches


def times(rounds: int, library: ctypes.CDLL) -> None:
    head, batches = made_up(Training(rate=RATES["sgd"], batch=BATCH))
    program = print_training_program(INPUTS, CLASSES)
    learners = {"torch": TorchLearner(head), "ExecuTorch": Learner(head, program), "C": CLearner(head, library)}
    steps: dict[str, Step] = {
        "torch": learners["torch"].step,
        "ExecuTorch": executorch_step(learners["ExecuTorch"], head),
        "C": learners["C"].step,
    }
    for q, y in batches:
        for step in steps.values():
            step(q, y)
    flat = {name: np.append(learner.head.weights, learner.head.bias) for name, learner in learners.items()}
    distance = {name: np.linalg.norm(some - flat["torch"]) / np.linalg.norm(flat["torch"]) for name, some in flat.items()}
    distance_c = np.linalg.norm(flat["C"] - flat["ExecuTorch"]) / np.linalg.norm(flat["ExecuTorch"])
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = perf_counter()
            for q, y in batches[:50]:
                step(q, y)
            seconds[name].append((perf_counter() - start) / 50)
    print("| learner | ms a step | of torch's | distance from torch after 200 steps |\n|---|---:|---:|---:|")
    for name, some in seconds.items():
        ratio = median(a / b for a, b in zip(some, seconds["torch"], strict=True))
        print(f"| {name} | {1e3 * median(some):.3f} | {ratio:.2f} | {distance[name]:.1e} |")
    print(f"\nBatch {BATCH}, {INPUTS} inputs, {CLASSES} classes; int8 in, loss out. C and ExecuTorch are {distance_c:.1e} apart.\n")


# ---- accuracy ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Part:
    q: Bytes
    y: Labels


def integers_of(bundle: Bundle) -> dict[str, Part]:
    """The int8 embeddings of each part."""
    assert bundle.graph is not None
    engine, dataset = graph_engine(bundle.graph), training_data(bundle, None)
    quant = bundle.graph.tensors[bundle.graph.outputs[0]].quant
    assert quant is not None
    found = {}
    for name in ("train", "val", "test"):
        items = sorted(part(dataset, bundle, name), key=lambda item: (item.label, item.fingerprint))
        features = embed(items, bundle.preprocess, engine)
        steps = np.rint(features.x[0] / quant.scale[0]) + quant.zero_point[0]
        found[name] = Part(steps.astype(np.int8), np.array([item.label for item in features.items], np.int64))
    return found


def zero_head(bundle: Bundle, q: Bytes, room: int = 0) -> HeadFile:
    """What `pack --untrained` puts into a package."""
    assert bundle.graph is not None
    quant = bundle.graph.tensors[bundle.graph.outputs[0]].quant
    assert quant is not None
    training = Training(rate=RATES["sgd"], batch=BATCH, decay=float(fit_settings(bundle)["weight_decay"]))
    return made(
        bundle.labels, len(bundle.labels) + room, q, None, embedding_scale=float(quant.scale[0]),
        embedding_zero=int(quant.zero_point[0]), preprocess=bundle.preprocess, graph=digest(bundle.graph), training=training,
    )  # fmt: skip


def accuracies(bundle: Bundle, library: ctypes.CDLL) -> None:
    parts = integers_of(bundle)
    train, test = parts["train"], parts["test"]
    head = zero_head(bundle, train.q)
    fitted = fit_head(*(Embeddings(inputs_of(head, some.q), some.y) for some in (train, parts["val"])), len(bundle.labels)).head
    fits = float(((inputs_of(head, test.q) @ fitted.weight.T + fitted.bias).argmax(1) == test.y).mean())
    right = {"fit": fits}
    program = print_training_program(head.inputs, head.max_classes)
    for optimizer, rate in RATES.items():
        start = zero_head_of(head, optimizer, rate)
        executorch, c = Learner(start, program), CLearner(start, library)
        for name, learner, step in (("ExecuTorch", executorch, executorch_step(executorch, start)), ("C", c, c.step)):
            for epoch in range(EPOCHS):
                places = order(0, epoch, len(train.y))
                for at in range(0, len(places), BATCH):
                    chosen = places[at : at + BATCH]
                    step(np.ascontiguousarray(train.q[chosen]), train.y[chosen])
            right[f"{name}, {optimizer} at {rate}"] = float((logits(learner.head, test.q).argmax(1) == test.y).mean())
    print(f"| head, learned on {len(train.y)} int8 embeddings | test top-1 of {len(test.y)} | from fit's |\n|---|---:|---:|")
    for name, share in right.items():
        print(f"| {name} | {100 * share:.1f} | {100 * (share - fits):+.1f} |")
    print(f"\n{EPOCHS} epochs, batch {BATCH}, decay {head.training.decay:.2g} (fit's), from zeros.\n")


def zero_head_of(head: HeadFile, optimizer: str, rate: float) -> HeadFile:
    training = replace(head.training, optimizer=optimizer, rate=rate)
    squares = (np.zeros_like(head.weights), np.zeros_like(head.bias)) if optimizer == "adam" else (None, None)
    return replace(head, training=training, square=squares[0], bias_square=squares[1])


# ---- forgetting ----------------------------------------------------------------------------------------------------------------


def package(bundle: Bundle, head: HeadFile, place: Path) -> Path:
    """What `learn` needs of a package."""
    place.mkdir()
    split = bundle.split
    assert split is not None
    lines = sorted(f"{print_},{name}" for name in ("train", "val", "test") for print_ in getattr(split, name))
    features = FORMATS[FEATURES].printers[INTEGERS](Job(bundle, ExportConfig())).content
    assert isinstance(features, bytes)
    files = {
        "features.pte": features,
        "head_train.pte": print_training_program(head.inputs, head.max_classes),
        "head.nst": to_bytes(head),
        "split.csv": "\n".join(["fingerprint,part", *lines, ""]).encode(),
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    listed = {name: PackedFile(len(content), sha256(content).hexdigest()) for name, content in files.items()}
    said = Manifest("linux", "any", "c", head.labels, to_plain(bundle.preprocess), head.graph, head.max_classes, {}, "", {}, listed)
    (place / manifest.NAME).write_bytes(manifest.to_bytes(said))
    return place


def only(data: Path, labels: Iterable[str], place: Path, chosen: slice = slice(None)) -> Path:
    """A folder with links to photographs of these classes; chosen: which of each class, in the order of their fingerprints."""
    dataset = scan(data)
    for label in labels:
        own = {item.fingerprint: item.path for item in dataset.items if dataset.labels[item.label] == label}
        (place / label).mkdir(parents=True)
        for print_ in sorted(own)[chosen]:
            (place / label / f"{print_}{own[print_].suffix}").symlink_to(own[print_].resolve())
    return place


def old_and_new(pkg: Path, old: Path, new: Path, others: Path, kilobytes: int, place: Path) -> tuple[float, float, float]:
    """(test top-1 of the old classes before, and after a new one was learned; share of other photographs of it that are found)."""
    first = learn(pkg, old, LearnConfig(replay=kilobytes, output=place / "first.nst"))
    second = LearnConfig(begin_with=place / "first.nst", replay=kilobytes, output=place / "second.nst")
    learned = learn(pkg, new, second)
    after = LearnConfig(begin_with=place / "second.nst", cycles=0)
    found = learn(pkg, others, after).after["test"]
    recall = next((row.recall for row in found.per_class if row.label == learned.new[0]), None)
    assert recall is not None, "too few photographs to tell"
    return first.after["test"].top1, learn(pkg, old, after).after["test"].top1, recall


def forgetting(bundle: Bundle, data: Path, place: Path) -> None:
    print("| old classes | new class, 20 photographs | replay | old, before | old, after | change | new class found |")
    print("|---|---|---:|---:|---:|---:|---:|")
    parts = integers_of(bundle)
    with folder(None) as cells:
        cases = [("all", tuple(bundle.labels), cells, "defective")]
        cases += [
            (f"all but {label}", tuple(name for name in bundle.labels if name != label), data, label) for label in bundle.labels
        ]
        for number, (name, labels, source, new_label) in enumerate(cases):
            everything = place / f"{number}"
            own = part_of_classes(bundle, labels)
            keep = np.isin(parts["train"].y, [bundle.labels.index(label) for label in labels])
            pkg = package(own, zero_head(own, parts["train"].q[keep], room=1), everything)
            old = only(data, labels, everything / "old")
            few = only(source, [new_label], everything / "few", slice(20))
            others = only(source, [new_label], everything / "others", slice(20, 520))
            for kilobytes in (64, 0):
                before, after, found = old_and_new(pkg, old, few, others, kilobytes, everything)
                shares = f"{100 * before:.1f} | {100 * after:.1f} | {100 * (after - before):+.1f} | {100 * found:.0f}%"
                print(f"| {name} | {new_label} | {kilobytes} KB | {shares} |", flush=True)


def part_of_classes(bundle: Bundle, labels: tuple[str, ...]) -> Bundle:
    """The bundle as if it knew these classes only: its backbone, its integers."""
    return replace(bundle, labels=labels, head=bundles.Head(*_rows(bundle, labels)))


def _rows(bundle: Bundle, labels: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    assert bundle.head is not None
    places = [bundle.labels.index(label) for label in labels]
    return bundle.head.weight[places], bundle.head.bias[places]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--size", type=int, default=96, help="side of the input in pixels")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}; torch {version('torch')}, executorch {version('executorch')}\n")
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        library = compiled(place)
        times(options.rounds, library)
        if options.data is None:
            return
        with folder(options.data) as data:
            bundle = quantize(fit(data, config=FitConfig(size=options.size)).bundle)
            accuracies(bundle, library)
            forgetting(bundle, data, place)


if __name__ == "__main__":
    main()
