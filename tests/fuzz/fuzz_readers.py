"""Damaged files of every kind that nestling's Python reads, given to what reads them: only NestlingError may come out.

    python -m tests.fuzz.fuzz_readers --seconds 300

The work is done in a process of its own, so that a crash is seen, with the address space limited to 1 GiB more than it begins with;
a case that takes the process above 1 GiB of memory is a finding, too.
Case number i of a seed is always the same damage: what is found is printed as a command that repeats it.
LiteRT is not asked: its own kernels are free to stop at constants that we would refuse.
"""

from __future__ import annotations

import argparse
import json
import mmap
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nestling import bundle as bundles
from nestling import formats, outside
from nestling.artifacts import manifest
from nestling.artifacts.import_model import import_model, read_labels
from nestling.data.prepare_lists import read_list, read_names
from nestling.device import manifest as packages
from nestling.device.parts import read_split
from nestling.embedding import cache as features
from nestling.errors import NestlingError
from nestling.formats import about
from nestling.formats.onnx import file as onnx_file
from nestling.formats.tflite.normalization import normalization
from nestling.formats.tflite.read import read_tflite
from nestling.graph import file as graph_file
from nestling.models.weights import fill, names_of, network_in, states_in
from nestling.training.loop_state import load_state
from tests.helpers.damage import Rng, archive, as_text, damaged, damaged_arrays, damaged_json, odd_archive, odd_old_pth
from tests.helpers.seeds import bundle_files, json_files, list_files, small_graph, tensor_files, tflite_files, weighted

MEMORY = 2**30
PATIENCE = 120  # seconds that one case may take, machine under load


def damaged_bundle(data: bytes, others: list[bytes], rng: Rng) -> bytes:
    """One member damaged and packed again with its checksum right; the archive itself; else the bytes of the whole."""
    if rng.random() < 0.2:
        return damaged(data, others, rng)
    members = outside.unzipped(data, "seed")
    name = list(members)[rng.integers(len(members))]
    if name.endswith(".json") and rng.random() < 0.8:
        members[name] = as_text(damaged_json(json.loads(members[name]), rng), rng)
    elif name.endswith(".safetensors") and rng.random() < 0.5:
        members[name] = damaged_header(members[name], rng)
    elif rng.random() < 0.1:
        members[name] = members[list(members)[rng.integers(len(members))]]
    elif rng.random() < 0.05:
        del members[name]
    else:
        members[name] = damaged(members[name], list(members.values()), rng)
    return odd_archive(members, rng) if rng.random() < 0.15 else archive(members)


def damaged_header(data: bytes, rng: Rng) -> bytes:
    """A .safetensors file whose list of tensors says something else."""
    size = int.from_bytes(data[:8], "little")
    header = as_text(damaged_json(json.loads(data[8 : 8 + size]), rng), rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


# ---- what reads ----------------------------------------------------------------------------------------------------------------


class Cases:
    """Case number i: what to read, and with what."""

    def __init__(self, seed: int, folder: Path, shared: bool) -> None:
        self.seed, self.folder = seed, folder
        self.tflite = list(tflite_files(shared).values())
        self.small = [data for data in self.tflite if len(data) < 50_000]
        self.bundles = list(bundle_files().values())
        self.graphs = [graph_file.to_plain(small_graph(integer)) for integer in (False, True)]
        self.json, self.lists, self.tensors = json_files(), list_files(), tensor_files(folder)
        self.kinds: tuple[tuple[int, Callable[[Rng], None]], ...] = (
            (6, self._tflite),
            (7, self._bundle),
            (2, self._graph),
            (3, self._json),
            (1, self._list),
            (3, self._tensors),
        )

    def run(self, number: int) -> str:
        """Read; "read" where the damage did not matter, "refused" where NestlingError came, which is all that may come."""
        rng = np.random.default_rng([self.seed, number])
        kinds = [kind for weight, kind in self.kinds for _ in range(weight)]
        try:
            kinds[rng.integers(len(kinds))](rng)
        except NestlingError as error:
            str(error).encode("utf-8", "backslashreplace")
            return "refused"
        return "read"

    def _written(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def _tflite(self, rng: Rng) -> None:
        pool = self.small if rng.random() < 0.8 else self.tflite
        data = damaged(pool[rng.integers(len(pool))], self.tflite, rng)
        normalization(data)
        if rng.random() < 0.5:
            read_tflite(data)
            return
        path = self._written("case.tflite", data)
        said: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)} if rng.random() < 0.5 else {}  # most float files do not say it
        bundles.from_bytes(bundles.to_bytes(import_model(path, **said)), "imported")

    def _bundle(self, rng: Rng) -> None:
        data = damaged_bundle(self.bundles[rng.integers(len(self.bundles))], self.bundles, rng)
        found = bundles.from_bytes(data, "case.nest")
        if found.graph is not None:
            formats.load(self._written("case.nest", data))

    def _graph(self, rng: Rng) -> None:
        plain, arrays = self.graphs[rng.integers(2)]
        plain = outside.parsed(as_text(damaged_json(plain, rng), rng), "graph") if rng.random() < 0.7 else plain
        graph_file.from_plain(plain, damaged_arrays(dict(arrays), rng) if rng.random() < 0.5 else arrays)

    def _json(self, rng: Rng) -> None:
        """What artifacts say of themselves, and the two manifests."""
        kind, value = list(self.json.items())[rng.integers(len(self.json))]
        text = as_text(damaged_json(value, rng), rng)
        text = damaged(text, [text], rng) if rng.random() < 0.1 else text
        if kind == "about":
            about.from_json(text if rng.random() < 0.5 else text.decode("utf-8", "replace"), "case")
        else:
            self._written("manifest.json", text)
            (manifest.read if kind == "artifacts" else packages.read)(self.folder)

    def _list(self, rng: Rng) -> None:
        kind, data = list(self.lists.items())[rng.integers(len(self.lists))]
        data = damaged(data, list(self.lists.values()), rng).replace(b"0", b"9" * 5000 if rng.random() < 0.1 else b"0")
        path = self._written("case.txt", data)
        readers: dict[str, Callable[[Path], Any]] = {
            "images": lambda path: read_list(path, self.folder, read_names(path) if rng.random() < 0.2 else None, 0),
            "names": read_names,
            "labels": read_labels,
            "split": read_split,
        }
        readers[kind](path)

    def _tensors(self, rng: Rng) -> None:
        """Checkpoints, files of weights, an embedding in the cache, an .onnx file."""
        name = list(self.tensors)[rng.integers(len(self.tensors))]
        data = self.tensors[name]
        if name.endswith(".safetensors") and rng.random() < 0.7:
            data = damaged_header(data, rng)
        elif name.endswith(".pth") and rng.random() < 0.3:
            data = odd_old_pth(data, rng) if name == "old.pth" else odd_archive(outside.unzipped(data, name), rng)
        else:
            data = damaged(data, list(self.tensors.values()), rng)
        path = self._written(name, data)
        match name:
            case "checkpoint.safetensors":
                load_state(path, {"seed": 0})
            case "embedding":
                features._read(path, 8)
            case "network.onnx":
                onnx_file.read(data, name)
            case _:
                fill(weighted(), network_in(states_in(path), names_of(weighted()), name), name)


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
            if _peak() > MEMORY:
                raise MemoryError(f"{_peak() / 2**20:.0f} MiB")
        except BaseException:
            print(json.dumps({"failed": number, "trace": traceback.format_exc(limit=-6)}), flush=True)
            return
        number += 1
    print(json.dumps(counts | {"peak": _peak()}), flush=True)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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
        command = [sys.executable, "-m", "tests.fuzz.fuzz_readers", *same, "--worker", str(progress), str(first), str(until)]
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
            print(
                f"case {number}: {problem}\nagain:  python -m tests.fuzz.fuzz_readers {' '.join(same)} --case {number}", flush=True
            )
        else:
            counts = f"{said['read'] + said['refused']} cases, {said['read']} of them read"
            print(f"{counts}, up to number {number}; {said['peak'] / 2**20:.0f} MiB at most", flush=True)
        first = number + 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
