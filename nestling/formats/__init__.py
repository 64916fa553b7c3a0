"""Targets: printers of a network, and loaders of what they printed. One line each in the table below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from nestling import bundle as bundles
from nestling.bundle import Bundle, Split
from nestling.data.choose import split_again
from nestling.data.folders import Dataset
from nestling.errors import NestlingError, UnusableFile
from nestling.formats.about import About
from nestling.formats.c import trusted
from nestling.formats.layer_time import LayerTime
from nestling.formats.runner import Runner
from nestling.temporary import restored


@dataclass(frozen=True)
class _What:
    """file: where it lies, name: what it is called in messages. threads: None leaves the runtime's own choice."""

    file: Path
    name: Path
    threads: int | None


Loader = Callable[[_What], Runner]


def _load_pte(what: _What) -> Runner:
    from nestling.formats.executorch import run as executorch_run

    return executorch_run.load(what.file, what.threads)


def _load_tflite(what: _What) -> Runner:
    from nestling.formats.tflite import run as tflite_run

    return tflite_run.load(what.file, threads=what.threads or 1)


def _load_onnx(what: _What) -> Runner:
    from nestling.formats.onnx.run import load as load_onnx

    return load_onnx(what.file, what.threads)


def _load_onnx_openvino(what: _What) -> Runner:
    from nestling.formats.onnx.run import load as load_onnx

    return load_onnx(what.file, what.threads, "openvino")


def _load_bundle(what: _What) -> Runner:
    bundle = bundles.load(what.file)
    if bundle.graph is not None:
        from nestling.formats.nest.integers import integer_runner

        return integer_runner(bundle, quick=True)
    from nestling.formats.nest.floats import float_runner

    return float_runner(bundle, what.threads)


def _load_c(what: _What) -> Runner:
    from nestling.formats.c import host

    return host.load(what.file, what.name)


FOLDER = "folder of C"
LOADERS: Mapping[str, Mapping[str, Loader]] = {  # by suffix and runtime; the first is what runs a file where none is named
    ".nest": {"nestling": _load_bundle},
    ".pte": {"ExecuTorch": _load_pte},
    ".tflite": {"LiteRT": _load_tflite},
    ".onnx": {"ONNX Runtime": _load_onnx, "OpenVINO": _load_onnx_openvino},
    FOLDER: {"C": _load_c},
}


def _prepare_pte() -> None:
    from nestling.formats.executorch.run import import_runtime

    import_runtime()


def _prepare_tflite() -> None:
    from nestling.formats.tflite import run  # noqa: F401


def _prepare_onnx() -> None:
    from nestling.formats.onnx import run  # noqa: F401
    from nestling.formats.onnx import runtimes as onnx_runtimes

    onnx_runtimes.import_onnxruntime()


def _prepare_openvino() -> None:
    from nestling.formats.onnx import run  # noqa: F401
    from nestling.formats.onnx.openvino import openvino_core

    openvino_core()


PREPARED: Mapping[str, Callable[[], None]] = {
    "ExecuTorch": _prepare_pte,
    "LiteRT": _prepare_tflite,
    "ONNX Runtime": _prepare_onnx,
    "OpenVINO": _prepare_openvino,
}
WITH_TORCH = ("nestling", "ExecuTorch")  # runtimes that import it, here; on a phone they don't


def prepare(runtime: str) -> None:
    """Import what runs a file before one is there; that it is not installed, `load` will say."""
    with suppress(ImportError):
        PREPARED.get(runtime, lambda: None)()


def _layers_of_pte(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.executorch import layer_times as executorch_layers

    return executorch_layers.layer_times(content, RUNS, threads)


def _layers_of_tflite(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.tflite import layer_times as tflite_layers

    return tflite_layers.layer_times(content, RUNS, threads)


def _layers_of_onnx(content: bytes, threads: int) -> tuple[LayerTime, ...]:
    from nestling.formats.onnx.layer_times import layer_times

    return layer_times(content, RUNS, threads)


RUNS = 30  # of one image
LAYERS: Mapping[str, Callable[[bytes, int], tuple[LayerTime, ...]]] = {
    ".pte": _layers_of_pte,
    ".tflite": _layers_of_tflite,
    ".onnx": _layers_of_onnx,
}


def layer_times(path: Path, threads: int) -> tuple[LayerTime, ...]:
    """How long each operation of a file (of one of LAYERS) takes in its first runtime, in this process."""
    return LAYERS[path.suffix](path.read_bytes(), threads)


def load(path: Path, threads: int | None = None, runtime: str | None = None, trust: bool = False) -> Runner:
    """A bundle or an artifact, ready to answer in this process, which a damaged one may take with it (nestling.apart does not).

    threads: None leaves the runtime's own choice. runtime: one of runtimes(path). trust: compile a folder of C, whoever wrote it.
    Raises UnusableFile, naming the file and the reason; NotTrusted.
    """
    chosen = runtime_of(path, runtime)
    with trusted.copied(path, trust) if path.is_dir() else nullcontext(path) as file:
        return LOADERS[_kind(path)][chosen](_What(file, path, threads))


def runtime_of(path: Path, runtime: str | None = None) -> str:
    """What will run a file: `runtime`, or the first of runtimes(path).

    Raises UnusableFile where there is no file, or nothing for it.
    """
    if not restored(path).exists():
        raise UnusableFile(f"{path} does not exist.", "make it:  nestling fit PHOTOS -o my.nest, nestling export my.nest --to pte")
    known = runtimes(path)
    if runtime is not None and runtime not in known:
        raise NestlingError(f"{path} is run by {' or '.join(known)}, not by {runtime!r}.")
    return runtime or known[0]


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
