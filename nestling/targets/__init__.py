"""Targets: printers of a network, and loaders of what they printed. One line each in the table below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from nestling import bundle as bundles
from nestling.bundle import Bundle, Split
from nestling.data.choose import split_again
from nestling.data.folders import Dataset
from nestling.errors import NestlingError, UnusableFile
from nestling.targets.about import About
from nestling.targets.runner import Runner
from nestling.temporary import restored

Loader = Callable[[Path, int | None], Runner]


def _load_pte(path: Path, threads: int | None) -> Runner:
    from nestling.targets import executorch

    return executorch.load(path, threads)


def _load_tflite(path: Path, threads: int | None) -> Runner:
    from nestling.targets import tflite

    return tflite.load(path, threads=threads or 1)


def _load_onnx(path: Path, threads: int | None) -> Runner:
    from nestling.targets.onnx import load as load_onnx

    return load_onnx(path, threads)


def _load_onnx_openvino(path: Path, threads: int | None) -> Runner:
    from nestling.targets.onnx import load as load_onnx

    return load_onnx(path, threads, "openvino")


def _load_bundle(path: Path, threads: int | None) -> Runner:
    bundle = bundles.load(path)
    if bundle.graph is not None:
        from nestling.models.integer_runner import integer_runner

        return integer_runner(bundle, quick=True)
    from nestling.models.runner import float_runner

    return float_runner(bundle, threads)


def _load_c(path: Path, threads: int | None) -> Runner:
    from nestling.targets.c import host

    return host.load(path)


FOLDER = "folder of C"
LOADERS: Mapping[str, Mapping[str, Loader]] = {  # by suffix and runtime; the first is what runs a file where none is named
    ".nest": {"nestling": _load_bundle},
    ".pte": {"ExecuTorch": _load_pte},
    ".tflite": {"LiteRT": _load_tflite},
    ".onnx": {"ONNX Runtime": _load_onnx, "OpenVINO": _load_onnx_openvino},
    FOLDER: {"C": _load_c},
}


def load(path: Path, threads: int | None = None, runtime: str | None = None) -> Runner:
    """A bundle or an artifact, ready to answer. threads: None leaves the runtime's own choice. runtime: one of runtimes(path).

    Raises UnusableFile, naming the file and the reason.
    """
    if not restored(path).exists():
        raise UnusableFile(f"{path} does not exist.", "make it:  nestling fit PHOTOS -o my.nest, nestling export my.nest --to pte")
    known = runtimes(path)
    if runtime is not None and runtime not in known:
        raise NestlingError(f"{path} is run by {' or '.join(known)}, not by {runtime!r}.")
    return LOADERS[_kind(path)][runtime or known[0]](path, threads)


def runtimes(path: Path) -> tuple[str, ...]:
    """What can run a file, by its suffix. Raises UnusableFile where nothing can."""
    if _kind(path) not in LOADERS:
        raise UnusableFile(f"{path} is none of {', '.join(LOADERS)}.", "make one:  nestling fit PHOTOS -o my.nest")
    return tuple(LOADERS[_kind(path)])


def _kind(path: Path) -> str:
    return FOLDER if path.is_dir() else path.suffix


def known_split(runner: Runner, dataset: Dataset) -> Split | None:
    """Which of the data set's photographs the runner's network has learned from; None where that cannot be told."""
    bundle, about = getattr(runner, "bundle", None), getattr(runner, "about", None)
    if isinstance(bundle, Bundle):
        return bundle.split
    return split_again(dataset, about.seed, about.data) if isinstance(about, About) else None
