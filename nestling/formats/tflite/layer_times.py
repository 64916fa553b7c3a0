"""How long each operator of a .tflite takes within a run, from LiteRT's own profiler.

The Python API of ai_edge_litert (2.3) has no profiler; the C API of the shared library in its package has one, which also tells
XNNPACK's operators apart. It is called through ctypes, in a process of its own: where another version wants other arguments, that
process ends, and not the caller's.

    python -m nestling.formats.tflite.layer_times FILE RUNS THREADS    prints [[operator, milliseconds], ...] as JSON
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nestling.errors import NestlingError
from nestling.formats.layer_time import LayerTime, with_names
from nestling.formats.tflite.read import read_tflite
from nestling.python import python

WARM = 3  # runs that do not count
OPERATOR, DELEGATED = 2, 8  # types of events: an operator of LiteRT's own kernels, one within a delegate
CPU, WRITE = 1, 1  # an accelerator, a way to lock a buffer


def layer_times(model: bytes, runs: int, threads: int) -> tuple[LayerTime, ...]:
    """The mean time of each operator of the file, in running order; together about a run. Default kernels: XNNPACK where it can.

    model: a .tflite file's bytes. The names of convolutions, additions, ... are those of the Graph's nodes, which are the names of
    the file's tensors (see layer_time.named). XNNPACK's times are in whole microseconds.
    Raises UnusableFile for a damaged file, NestlingError where the profiler cannot be had from this version of LiteRT.
    """
    graph, _ = read_tflite(model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        file.write_bytes(model)
        command = [*python("nestling.formats.tflite.layer_times"), str(file), str(runs), str(threads)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="backslashreplace", check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise NestlingError(
            f"LiteRT's profiler could not time the layers ({said[-1] if said else f'its process ended with {done.returncode}'}).",
            "it is known to work with ai-edge-litert 2.3:  pip install 'ai-edge-litert==2.3.*'",
        )
    return with_names([LayerTime(kind, kind, ms) for kind, ms in json.loads(done.stdout.splitlines()[-1])], graph)


# ---- the process: LiteRT's C API, as in LiteRT 2.3 (litert/c/*.h) ----------------------------------------------------------------

Handle = ctypes.c_void_p
Place = ctypes.c_size_t  # an index or a count


class Event(ctypes.Structure):
    """ProfiledEventData: what, which type, and how long, in microseconds. The rest nobody reads."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start", ctypes.c_uint64),
        ("elapsed", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


def main() -> None:
    """See the module's text."""
    file, runs, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    package = find_spec("ai_edge_litert")
    libraries = sorted(Path(package.origin).parent.glob("libLiteRt.*")) if package and package.origin else []
    if not libraries:
        sys.exit("its package holds no libLiteRt")
    times = list(_profile(ctypes.CDLL(str(libraries[0])), file, WARM + runs, threads))[WARM:]
    operators = [kind for kind, _ in times[0]]
    if any([kind for kind, _ in run] != operators for run in times):
        sys.exit("its runs differ from each other")
    print(json.dumps([[kind, sum(run[i][1] for run in times) / runs] for i, kind in enumerate(operators)]))


def _profile(lite_rt: Any, file: str, runs: int, threads: int) -> Iterator[list[tuple[str, float]]]:
    """(operator, milliseconds) of every run."""

    def made(function: str, *arguments: Any) -> Handle:
        handle = Handle()
        _call(lite_rt, function, *arguments, ctypes.byref(handle))
        return handle

    environment = made("LiteRtCreateEnvironment", ctypes.c_int(0), None)
    model = made("LiteRtCreateModelFromFile", environment, file.encode())
    options = made("LiteRtCreateOptions")
    _call(lite_rt, "LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(CPU))
    settings = {"runtime_options_string": b"enable_profiling = true\n", "xnnpack": f"num_threads = {threads}\n".encode()}
    kept = [ctypes.create_string_buffer(text) for text in settings.values()]
    keep = ctypes.CFUNCTYPE(None, Handle)(lambda _: None)  # called to free what is ours
    for name, text in zip(settings, kept, strict=True):
        _call(lite_rt, "LiteRtAddOpaqueOptions", options, made("LiteRtCreateOpaqueOptions", name.encode(), text, keep))
    compiled = made("LiteRtCreateCompiledModel", environment, model, options)
    profiler = made("LiteRtCompiledModelGetProfiler", compiled)
    signature = made("LiteRtGetModelSignature", model, Place(0))

    def buffers(side: str) -> tuple[Place, Any]:
        count = Place()
        _call(lite_rt, f"LiteRtGetNumSignature{side}s", signature, ctypes.byref(count))
        return count, (Handle * count.value)(*(buffer(side, Place(i)).value for i in range(count.value)))

    def buffer(side: str, place: Place) -> Handle:
        kind = ctypes.create_string_buffer(1024)  # LiteRtRankedTensorType, which is smaller
        _call(lite_rt, "LiteRtGetRankedTensorType", made(f"LiteRtGetSignature{side}TensorByIndex", signature, place), kind)
        needs = made(f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, Place(0), place)
        memory = made("LiteRtCreateManagedTensorBufferFromRequirements", environment, kind, needs)
        _clear(lite_rt, memory)
        return memory

    inputs, outputs = buffers("Input"), buffers("Output")
    for _ in range(runs):
        _call(lite_rt, "LiteRtResetProfiler", profiler)
        _call(lite_rt, "LiteRtStartProfiler", profiler)
        _call(lite_rt, "LiteRtRunCompiledModel", compiled, Place(0), *inputs, *outputs)
        _call(lite_rt, "LiteRtStopProfiler", profiler)
        events = _events(lite_rt, profiler)
        yield [(event.tag.decode(), event.elapsed / 1e3) for event in events if event.type in (OPERATOR, DELEGATED)]


def _events(lite_rt: Any, profiler: Handle) -> Any:
    count = ctypes.c_int()
    _call(lite_rt, "LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    events = (Event * count.value)()
    _call(lite_rt, "LiteRtGetProfilerEvents", profiler, count, events)
    return events


def _clear(lite_rt: Any, memory: Handle) -> None:
    """Zeros: whatever lay there could be numbers that take longer."""
    start, size = Handle(), Place()
    _call(lite_rt, "LiteRtGetTensorBufferPackedSize", memory, ctypes.byref(size))
    _call(lite_rt, "LiteRtLockTensorBuffer", memory, ctypes.byref(start), ctypes.c_int(WRITE))
    ctypes.memset(start, 0, size.value)
    _call(lite_rt, "LiteRtUnlockTensorBuffer", memory)


def _call(lite_rt: Any, function: str, *arguments: Any) -> None:
    status = getattr(lite_rt, function)(*arguments)
    if status != 0:
        sys.exit(f"{function}: status {status}")


if __name__ == "__main__":
    main()
