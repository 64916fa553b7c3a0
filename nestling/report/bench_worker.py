"""A process that times one artifact for bench.py: python -m nestling.report.bench_worker FILE RUNTIME THREADS.

Reads a question a line, as JSON, and answers each with a line of JSON:

    {"runs": 15}                                   {"ms": [...]}, one a run
    {"peak": true}                                 {"peak": bytes}
    {"images": "a.npy", "answers": "b.npy"}        {}, the logits of the images written to b.npy
"""

import json
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch  # noqa: F401  (taken before memory is measured: runtimes of some formats bring it, a device has none of it)
from numpy.typing import NDArray

from nestling.targets import load

Image = NDArray[np.uint8]
Ask = Callable[[Image], NDArray[np.float32]]


def main() -> None:
    """See the module's text."""
    _forget_peak()
    before = _peak()
    runner = load(Path(sys.argv[1]), int(sys.argv[3]), sys.argv[2])
    features = getattr(getattr(runner, "about", None), "gives", "logits") == "embedding"
    ask: Ask = runner.features if features else runner
    shape = (1, *runner.preprocess.size, runner.preprocess.channels)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for line in sys.stdin:
        question = json.loads(line)
        answer = next(work for key, work in ANSWERS.items() if key in question)(ask, image, question)
        if "peak" in answer:
            answer["peak"] -= before
        print(json.dumps(answer), flush=True)


def _timed(ask: Ask, image: Image, question: Mapping[str, Any]) -> dict[str, Any]:
    times = []
    for _ in range(question["runs"]):
        start = perf_counter()
        ask(image)
        times.append((perf_counter() - start) * 1e3)
    return {"ms": times}


def _answered(ask: Ask, image: Image, question: Mapping[str, Any]) -> dict[str, Any]:
    np.save(question["answers"], ask(np.load(question["images"])))
    return {}


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


ANSWERS: Mapping[str, Callable[[Ask, Image, Mapping[str, Any]], dict[str, Any]]] = {
    "runs": _timed,
    "peak": lambda _ask, _image, _question: {"peak": _peak()},
    "images": _answered,
}


if __name__ == "__main__":
    main()
