"""A Runner whose file is run by another process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling import formats
from nestling.apart.process import Limits, Process
from nestling.formats.about import About, from_json
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.graph.ir import Array
from nestling.preprocess.image import Preprocess

BUNDLE = ".nest"
Floats = NDArray[np.float32]
OWN_RUNS = 33  # images that a runtime's own profile takes


@dataclass(frozen=True, eq=False)
class ApartRunner:
    """A loaded file: uint8 images in, float logits out. about: what the file says of itself."""

    process: Process
    about: About

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.about.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.about.preprocess

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        """images: uint8 [N, H, W, C], already resized -> logits, float32 [N, classes]. Raises as Process.ask."""
        return self._answers(images, False)

    def features(self, images: NDArray[np.uint8]) -> Floats:
        """images as above -> embeddings, float32 [N, D]; NestlingError where the file does not give them."""
        return self._answers(images, True)

    def milliseconds(self, runs: int) -> list[float]:
        """Of each run of one made-up image, through what the file gives first."""
        found, _ = self.process.ask("time", {"file": self._file, "runs": runs, "features": self._gives_features}, images=runs)
        return [float(ms) for ms in found]

    def isa(self) -> str | None:
        """The processor's instructions that compute it, as NESTLING_ISA calls them; None where the runtime does not tell."""
        found = self.process.ask("isa", {})[0]
        return None if found is None else str(found)

    def peak(self) -> int:
        """Bytes of memory that the file took at most, so far."""
        return int(self.process.ask("peak", {})[0])

    def activations(self, image: NDArray[np.uint8]) -> dict[str, Array]:
        """Of a folder of C: what every layer answers to an image, uint8 [H, W, C]; see host.CRunner."""
        names, values = self.process.ask("activations", {"file": self._file}, [image])
        return dict(zip(names, values, strict=True))

    @property
    def _file(self) -> str:
        return str(self.process.file)

    @property
    def _gives_features(self) -> bool:
        return self.about.gives == "embedding"

    def _answers(self, images: NDArray[np.uint8], features: bool) -> Floats:
        """One image a message: each has its time, and runtimes take one at a time anyway."""
        rows: list[Array] = []
        for start in range(max(1, len(images))):
            _, (answer,) = self.process.ask("answer", {"file": self._file, "features": features}, [images[start : start + 1]])
            rows.append(answer)
        return np.concatenate(rows)


def load(
    path: Path, threads: int | None = None, runtime: str | None = None, trust: bool = False, within: Limits | None = None
) -> Runner:
    """As formats.load; a bundle, which no stranger's kernels compute, in this process, all else in one of its own."""
    if path.suffix == BUNDLE and not path.is_dir():
        return formats.load(path, threads, runtime)
    return start(path, threads, runtime, trust, within=within)


def start(
    path: Path,
    threads: int | None = None,
    runtime: str | None = None,
    trust: bool = False,
    measured: bool = False,
    within: Limits | None = None,
) -> ApartRunner:
    """As load, bundles too. measured: for `peak`, what runtimes bring in general does not count."""
    runtime = formats.runtime_of(path, runtime)
    process = _started(path, runtime, measured, within)
    said, _ = process.ask("load", {"file": str(path), "runtime": runtime, "threads": threads, "trust": trust})
    return ApartRunner(process, from_json(said, str(path)))


def activations(path: Path, inputs: Sequence[Array], within: Limits | None = None) -> dict[str, Array]:
    """What every operator of a .tflite file writes under LiteRT's reference kernels, by name: see tflite.activations."""
    process = _started(path, formats.runtime_of(path), False, within)
    names, values = process.ask("activations", {"file": str(path)}, inputs)
    process.close()
    return dict(zip(names, values, strict=True))


def layer_times(path: Path, threads: int, within: Limits | None = None) -> tuple[LayerTime, ...]:
    """How long each operation of a file takes: see report.layers."""
    process = _started(path, formats.runtime_of(path), False, within)
    found, _ = process.ask("layers", {"file": str(path), "threads": threads}, images=OWN_RUNS)
    process.close()
    return tuple(LayerTime(str(name), str(kind), float(ms)) for name, kind, ms in found)


def gradients(path: Path, rows: int, inputs: int, within: Limits | None = None) -> Callable[..., tuple[float, Floats, Floats]]:
    """As formats.executorch.gradients.gradients_of, of a file on disk."""
    process = _started(path, formats.runtime_of(path), False, within)
    process.ask("gradients", {"file": str(path), "rows": rows, "inputs": inputs})

    def ask(*arrays: Array) -> tuple[float, Floats, Floats]:
        loss, (of_weight, of_bias) = process.ask("gradients", {"file": str(path)}, arrays)
        return float(loss), of_weight.astype(np.float32), of_bias.astype(np.float32)

    return ask


def _started(path: Path, runtime: str, measured: bool, within: Limits | None) -> Process:
    process = Process(path, runtime, within)
    process.ask("start", {"file": str(path), "runtime": runtime, "measured": measured}, starting=True)
    return process
