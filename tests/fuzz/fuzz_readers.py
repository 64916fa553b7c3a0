"""Damaged .tflite files, bundles and graphs, given to everything that reads them: only NestlingError may come out.

    python tests/fuzz/fuzz_readers.py --seconds 300

The work is done in a process of its own, so that a crash is seen, with the address space limited to 1 GiB more than it begins with.
Case number i of a seed is always the same damage: what is found is printed as a command that repeats it.
LiteRT is not asked: its own kernels are free to stop at constants that we would refuse.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import mmap
import resource
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from seeds import bundle_files, small_graph, tflite_files

from nestling import bundle as bundles
from nestling import targets
from nestling.errors import NestlingError
from nestling.graph import file as graph_file
from nestling.graph.read_tflite import read_tflite
from nestling.models.import_model import import_model
from nestling.targets.tflite_normalization import normalization

MEMORY = 2**30
PATIENCE = 120  # seconds that one case may take, machine under load
EXTREMES = (0, 1, 3, 4, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)
ODD = (
    None, True, -1, 0, 1, 255, 2**31, 2**63, 10**30, -0.5, 1e308, float("nan"), float("inf"),
    "", "x" * 5000, "image", [], {}, [[]], [0] * 300,
)  # fmt: skip
Rng = np.random.Generator


# ---- damage --------------------------------------------------------------------------------------------------------------------


def damaged(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """A few of: flips, extremes where an offset or a length may stand, truncation, pieces left out or put in from another file."""
    content = bytearray(data)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 8]))):
        if len(content) < 8:
            break
        at = _place(len(content), rng)
        length = int(2 ** rng.uniform(0, 10))
        match int(rng.integers(8)):
            case 0 | 1:
                content[at] ^= 1 << int(rng.integers(8))
            case 2 | 3 | 4:
                at = min(at & ~3, len(content) - 4)
                value = EXTREMES[rng.integers(len(EXTREMES))] if rng.random() < 0.7 else int(rng.integers(len(content)))
                content[at : at + 4] = value.to_bytes(4, "little")
            case 5:
                del content[at:]
            case 6:
                del content[at : at + length]
            case 7:
                other = others[rng.integers(len(others))]
                start = _place(len(other), rng)
                content[at : at + (length if rng.random() < 0.5 else 0)] = other[start : start + length]
    return bytes(content)


def _place(size: int, rng: Rng) -> int:
    """Anywhere, or near either end, where the tables are."""
    near = int(min(size - 1, rng.exponential(600)))
    return int(rng.integers(size)) if rng.random() < 0.4 else near if rng.random() < 0.5 else size - 1 - near


def damaged_json(value: Any, rng: Rng) -> Any:
    """One place of a JSON value replaced, left out or doubled."""
    value = copy.deepcopy(value)
    for _ in range(int(rng.choice([1, 1, 2, 4]))):
        here = value
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here))) if isinstance(here, list) else []
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.85:
                here = here[key]
                continue
            match int(rng.integers(5)):
                case 0:
                    del here[key]
                case 1 if isinstance(here, list):
                    here.append(copy.deepcopy(here[key]))
                case 2:
                    here[key] = copy.deepcopy(here[keys[rng.integers(len(keys))]])
                case _:
                    here[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
            break
    return value


def damaged_arrays(arrays: dict[str, Any], rng: Rng) -> dict[str, Any]:
    """An array missing, of another dtype or shape, or with odd values."""
    name = list(arrays)[rng.integers(len(arrays))]
    array = np.array(arrays[name])
    flat = array.reshape(-1)
    found: dict[int, Callable[[], Any]] = {
        0: lambda: None,
        1: lambda: array.astype([np.float64, np.int64, np.float16, np.bool_, np.int8, np.uint8][rng.integers(6)]),
        2: lambda: flat[: rng.integers(len(flat) + 1)],
        3: lambda: array[None],
        4: lambda: np.where(rng.random(array.shape) < 0.3, array.dtype.type(0), array),
        5: lambda: np.full_like(array, [np.nan, np.inf, 1e-45, -1][rng.integers(4)] if array.dtype == np.float32 else -128),
        6: lambda: arrays[list(arrays)[rng.integers(len(arrays))]],
    }
    with np.errstate(all="ignore"):
        made = found[int(rng.integers(len(found)))]()
    return {key: value for key, value in (arrays | {name: made}).items() if value is not None}


def damaged_bundle(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """One member damaged and packed again with its checksum right; else the bytes of the whole."""
    if rng.random() < 0.3:
        return damaged(data, others, rng)
    members = bundles._unzip(data, "seed")
    name = list(members)[rng.integers(len(members))]
    if name.endswith(".json") and rng.random() < 0.8:
        members[name] = json.dumps(damaged_json(json.loads(members[name]), rng)).encode()
    elif rng.random() < 0.1:
        members[name] = members[list(members)[rng.integers(len(members))]]
    elif rng.random() < 0.05:
        del members[name]
    else:
        members[name] = damaged(members[name], list(members.values()), rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if rng.random() < 0.02 else zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return packed.getvalue()


# ---- what reads ----------------------------------------------------------------------------------------------------------------


class Cases:
    """Case number i: what to read, and with what."""

    def __init__(self, seed: int, folder: Path, shared: bool) -> None:
        self.seed, self.folder = seed, folder
        self.tflite = list(tflite_files(shared).values())
        self.small = [data for data in self.tflite if len(data) < 50_000]
        self.bundles = list(bundle_files().values())
        self.graphs = [graph_file.to_plain(small_graph(integer)) for integer in (False, True)]

    def run(self, number: int) -> str:
        """Read; "read" where the damage did not matter, "refused" where NestlingError came, which is all that may come."""
        rng = np.random.default_rng([self.seed, number])
        try:
            match int(rng.integers(10)):
                case 0 | 1 | 2 | 3:
                    self._tflite(rng)
                case 4 | 5 | 6 | 7:
                    self._bundle(rng)
                case _:
                    self._graph(rng)
        except NestlingError:
            return "refused"
        return "read"

    def _tflite(self, rng: Rng) -> None:
        pool = self.small if rng.random() < 0.8 else self.tflite
        data = damaged(pool[rng.integers(len(pool))], self.tflite, rng)
        normalization(data)
        if rng.random() < 0.5:
            read_tflite(data)
            return
        path = self.folder / "case.tflite"
        path.write_bytes(data)
        bundles.from_bytes(bundles.to_bytes(import_model(path)), "imported")

    def _bundle(self, rng: Rng) -> None:
        data = damaged_bundle(self.bundles[rng.integers(len(self.bundles))], self.bundles, rng)
        found = bundles.from_bytes(data, "case.nest")
        if found.graph is not None:  # else torch would come along
            path = self.folder / "case.nest"
            path.write_bytes(data)
            targets.load(path)

    def _graph(self, rng: Rng) -> None:
        plain, arrays = self.graphs[rng.integers(2)]
        plain = damaged_json(plain, rng) if rng.random() < 0.7 else plain
        graph_file.from_plain(plain, damaged_arrays(dict(arrays), rng) if rng.random() < 0.5 else arrays)


# ---- the two processes ---------------------------------------------------------------------------------------------------------


def work(cases: Cases, first: int, until: float, progress: mmap.mmap) -> None:
    """Cases from number `first` on; the number of the one that is being read always stands in `progress`."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    counts = {"read": 0, "refused": 0}
    number = first
    while time.time() < until:
        progress[:8] = number.to_bytes(8, "little")
        try:
            counts[cases.run(number)] += 1
        except BaseException:
            print(json.dumps({"failed": number, "trace": traceback.format_exc(limit=-6)}), flush=True)
            return
        number += 1
    print(json.dumps(counts | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this case, in this process")
    parser.add_argument("--own-seeds", action="store_true", help="without the shared files, so that a case is the same everywhere")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.worker:
            progress, first, until = options.worker
            with Path(progress).open("r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
                cases = Cases(options.seed, Path(folder), not options.own_seeds)
                work(cases, int(first), float(until), shared)
            return 0
        if options.case is not None:
            print(Cases(options.seed, Path(folder), not options.own_seeds).run(options.case))
            return 0
        return watch(options, Path(folder) / "progress")


def watch(options: argparse.Namespace, progress: Path) -> int:
    """Start the worker, again after each finding, and say what was found."""
    progress.write_bytes(bytes(8))
    until, first, found = time.time() + options.seconds, 0, 0
    same = ["--seed", str(options.seed), *(["--own-seeds"] if options.own_seeds else [])]
    while time.time() < until:
        command = [sys.executable, __file__, *same, "--worker", str(progress), str(first), str(until)]
        try:
            left = max(until - time.time(), 0) + PATIENCE
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, check=False)
            said = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 and done.stdout else {}
            problem = said.get("trace") or ("" if said else f"ended with {done.returncode}\n{done.stderr[-2000:]}")
        except subprocess.TimeoutExpired:
            said, problem = {}, "did not come to an end"
        number = int.from_bytes(progress.read_bytes(), "little")
        if problem:
            found += 1
            print(f"case {number}: {problem}\nagain:  python {__file__} {' '.join(same)} --case {number}", flush=True)
        else:
            over = said["peak"] > MEMORY
            found += over
            counts = f"{said['read'] + said['refused']} cases, {said['read']} of them read"
            print(f"{counts}, up to number {number}; {said['peak'] / 2**20:.0f} MiB at most", flush=True)
        first = number + 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
