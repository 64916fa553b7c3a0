"""The process that runs one file for process.py: reads a message, does one of CALLS, and answers with another message.

An answer's value is [error, value]; error is [kind, message, hint], or null. What a runtime prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO

import numpy as np

from nestling.apart.messages import packed, unpacked
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.ir import Array

PR_SET_PDEATHSIG = 1
LACKING = "end other programs, or lift the limit of memory (ulimit -v); or install nestling again:  pip install nestling"
Arguments = Mapping[str, Any]
Answer = tuple[Any, Sequence[Array]]


@dataclass
class Held:
    """What stays between two calls: the loaded runner, and the memory that was resident before it. Changes in place."""

    runner: Any = None
    before: int = 0
    image: Array = field(default_factory=lambda: np.empty(0, np.uint8))


def main() -> None:
    """See the module's text."""
    _go_with(int(sys.argv[1]))
    source, target = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    held = Held()
    with suppress(EOFError):
        while True:
            (call, arguments), arrays = unpacked(_taking(source))
            try:
                value, answer = CALLS[call](held, arguments, arrays)
                message = packed([None, value], answer)
            except NestlingError as error:
                message = packed([[type(error).__name__, error.message, error.hint], None])
            except Exception as error:  # the runtimes' own kinds
                traceback.print_exc()
                reason = (str(error).strip().splitlines() or [""])[0].rstrip(".")
                said = f"{arguments.get('file')} cannot be run: {type(error).__name__}{reason and ': '}{reason}."
                hint = LACKING if isinstance(error, MemoryError | ImportError) else ""
                message = packed([[UnusableFile.__name__, said, hint], None])
            target.write(message)
            target.flush()


def _go_with(parent: int) -> None:
    """End when the one that asks does, also where it is killed; leave Ctrl-C to it; and go first where memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # other systems than Linux: then it ends at its next look for a message
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _taking(source: BinaryIO) -> Callable[[int], bytes]:
    def take(count: int) -> bytes:
        taken = source.read(count)
        if len(taken) < count:
            raise EOFError
        return taken

    return take


# ---- calls: (what is held, arguments, arrays) -> (a plain value, arrays) ---------------------------------------------------------


def _start(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """file, runtime: is imported. measured: only torch is, where the runtime brings it; a device has none of it."""
    from nestling import formats

    path, runtime = Path(arguments["file"]), arguments["runtime"]
    if not arguments["measured"]:
        formats.prepare(path, runtime)
    elif formats.of(path).runtimes[runtime].brings_torch:
        import torch  # noqa: F401  # so that its memory is there before the file's
    return None, ()


def _load(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """file, runtime, threads, trust -> what the file says of itself, as about.to_json."""
    from nestling import formats
    from nestling.formats.about import About, to_json
    from nestling.preprocess.image import noise

    _forget_peak()
    held.before = _peak()
    runner = formats.load(Path(arguments["file"]), arguments["threads"], arguments["runtime"], arguments["trust"])
    about = getattr(runner, "about", None) or About(runner.labels, runner.preprocess)
    held.runner, held.image = runner, noise(about.preprocess)
    return to_json(about), ()


def _isa(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """The processor's instructions that compute it, where the runtime tells."""
    return getattr(held.runner, "isa", None), ()


def _answer(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """Images -> logits, or with `features` embeddings."""
    return None, [(held.runner.features if arguments["features"] else held.runner)(arrays[0])]


def _time(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """Milliseconds of each of `runs` runs of a made-up image."""
    ask = held.runner.features if arguments["features"] else held.runner
    times = []
    for _ in range(arguments["runs"]):
        start = perf_counter()
        ask(held.image)
        times.append((perf_counter() - start) * 1e3)
    return times, ()


def _taken(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """Bytes: the most that was resident at once, above what was before the file."""
    return _peak() - held.before, ()


def _activations(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """Names, and what each layer of a .tflite file (reference kernels) or of the loaded folder of C answers."""
    if held.runner is not None:
        found = held.runner.activations(arrays[0])
    else:
        from nestling.formats.tflite import run as tflite_run

        found = tflite_run.activations(Path(arguments["file"]).read_bytes(), arrays, file=arguments["file"])
    numbers = {name: values for name, values in found.items() if values.dtype.kind in "biuf"}
    return list(numbers), list(numbers.values())


def _layers(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """[name, kind, milliseconds] of each operation."""
    from nestling import formats

    return [[time.name, time.kind, time.ms] for time in formats.layer_times(Path(arguments["file"]), arguments["threads"])], ()


def _gradients(held: Held, arguments: Arguments, arrays: Sequence[Array]) -> Answer:
    """weight, bias, x, y, mask -> the loss, the gradients of weight and bias, of a head_train.pte. Without arrays it is loaded."""
    from nestling.formats.executorch.gradients import gradients_of

    if not arrays:
        file, rows, inputs = Path(arguments["file"]), arguments["rows"], arguments["inputs"]
        held.runner = gradients_of(file.read_bytes(), str(file), rows, inputs)
        return None, ()
    loss, *found = held.runner(*arrays)
    return loss, found


def _forget_peak() -> None:
    """Lets the process's peak begin again at what it has now (Linux; elsewhere the peak stays what the imports made it)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Bytes: the most that was resident at once since _forget_peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


CALLS: Mapping[str, Callable[[Held, Arguments, Sequence[Array]], Answer]] = {
    "start": _start,
    "load": _load,
    "isa": _isa,
    "answer": _answer,
    "time": _time,
    "peak": _taken,
    "activations": _activations,
    "layers": _layers,
    "gradients": _gradients,
}


if __name__ == "__main__":
    main()
