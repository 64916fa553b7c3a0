"""A process that times one artifact for bench.py: python -m nestling.report.bench_worker FILE THREADS.

Reads a number a line: how often to run; answers one line of JSON, {"ms": [...]}. 0 asks for the memory: {"peak": bytes}.
"""

import json
import resource
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
import torch  # noqa: F401  (taken before memory is measured: runtimes of some formats bring it, a device has none of it)

from nestling.targets import load


def main() -> None:
    """See the module's text."""
    _forget_peak()
    before = _peak()
    runner = load(Path(sys.argv[1]), int(sys.argv[2]))
    shape = (1, *runner.preprocess.size, runner.preprocess.channels)
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    for _ in range(3):
        runner(image)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = perf_counter()
            runner(image)
            times.append((perf_counter() - start) * 1e3)
        print(json.dumps({"ms": times} if times else {"peak": _peak() - before}), flush=True)


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


if __name__ == "__main__":
    main()
