"""Damaged heads, images, split.csv files, folders and caches of embeddings, given to net_runner's C under sanitizers.

    python -m tests.fuzz.fuzz_c_readers --seconds 300

Heads get their checksum made right again, so that what lies behind it is reached. Case number i of a seed is always the same
damage: what is found is printed as a command that repeats it. Memory is limited to 1 GiB, what the sanitizers need included.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from nestling.device.head_file import HeadFile, Training, made, to_bytes
from nestling.device.replay import stored
from nestling.preprocess.image import ImagePreprocess
from tests import ROOT

HERE = Path(__file__).parent
RUNTIME = ROOT / "nestling" / "device" / "runtime"
OTHERS = ("net_runner.c", "embedder_c.c", "main_learn.c")  # the first is compiled with another main, the second has a stand-in
PARTS = sorted(file for file in RUNTIME.glob("*.c") if file.name not in OTHERS)
FLAGS = ("-std=c99", "-g", "-O1", "-ffp-contract=off", "-fno-omit-frame-pointer", f"-I{RUNTIME}")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MEMORY = 1024  # MiB
PATIENCE = 120  # seconds that one case may take, machine under load
EVER = 2**62


# ---- what is damaged -----------------------------------------------------------------------------------------------------------


def heads() -> Iterator[HeadFile]:
    """Of each optimiser, small, with replay stores; of one class and of many."""
    kinds = (
        Training(rate=0.1, batch=4),
        Training(rate=0.1, batch=4, moment_type="bfloat16", balanced=True),
        Training("adam", rate=0.01, batch=4),
    )
    for number, (training, inputs, classes) in enumerate(zip((*kinds, kinds[0]), (9, 33, 5, 1), (3, 2, 3, 40), strict=True)):
        rng = np.random.default_rng(number)
        preprocess = ImagePreprocess((16, 8 + 8 * number), 3, 0.875, "bicubic" if number else "bilinear", (0.5,) * 3, (0.5,) * 3)
        some = rng.integers(-99, 99, (12, inputs)).astype(np.int8)
        head = made(
            [*"abc", *(f"class {place}" for place in range(40))][:classes], classes + 2, some, None, embedding_scale=0.02,
            embedding_zero=-3, preprocess=preprocess, graph="ab" * 32, training=training,
        )  # fmt: skip
        weights = head.weights.copy()
        weights[:classes] = rng.normal(size=(classes, inputs))
        yield stored(replace(head, weights=weights), some, rng.integers(0, classes, len(some)), "c", 4 * number)


def write_seeds(folder: Path) -> None:
    """head-*, image-*: BMP of 8, 24 and 32 bits, PGM, PPM, and a format that is read in Python only."""
    folder.mkdir()
    for number, head in enumerate(heads()):
        (folder / f"head-{number}").write_bytes(to_bytes(head))
    noise = np.random.default_rng(0).integers(0, 256, (11, 13, 4), np.uint8)
    for mode in ("L", "P", "RGB", "RGBA"):
        Image.fromarray(noise).convert(mode).save(folder / f"image-{mode}.bmp")
    for mode, ending in (("L", "pgm"), ("RGB", "ppm")):
        Image.fromarray(noise).convert(mode).save(folder / f"image-{mode}.{ending}")
    Image.fromarray(noise).save(folder / "image-last.png")


def build(folder: Path, compiler: str) -> Path:
    """The fuzzer with all that reads files in net_runner, under the address and undefined-behaviour sanitizers."""
    program = folder / "fuzz_c_readers"
    net_runner = folder / "net_runner.o"
    command = [compiler, *FLAGS, *SANITIZED]
    subprocess.run([*command, "-Dmain=net_runner", "-c", str(RUNTIME / "net_runner.c"), "-o", str(net_runner)], check=True)
    sources = [str(HERE / "fuzz_c_readers.c"), str(HERE / "fuzz_damage.c"), *map(str, PARTS)]
    subprocess.run([*command, "-Wall", "-Wextra", *sources, str(net_runner), "-o", str(program)], check=True)
    return program


# ---- the runs ------------------------------------------------------------------------------------------------------------------


@contextmanager
def place() -> Iterator[Path]:
    """A folder in memory where there is one: the cases are mostly files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


def environment() -> dict[str, str]:
    limits = f"allocator_may_return_null=1:max_allocation_size_mb={MEMORY}:hard_rss_limit_mb={MEMORY}"
    options = f"detect_leaks=0:quarantine_size_mb=16:{limits}"
    return {**os.environ, "ASAN_OPTIONS": options, "UBSAN_OPTIONS": "print_stacktrace=1"}


def main(arguments: list[str] | None = None) -> int:
    """0 where nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--cases", type=int, help="that many, however long they take")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this case")
    parser.add_argument("--compiler", default="cc")
    options = parser.parse_args(arguments)
    if shutil.which(options.compiler) is None:
        parser.error(f"{options.compiler} is not there")
    with place() as folder:
        write_seeds(folder / "seeds")
        program = build(folder, options.compiler)
        if options.case is not None:
            return watch(program, folder, options.seed, options.case, 1, EVER)
        return watch(program, folder, options.seed, 0, options.cases or EVER, EVER if options.cases else options.seconds)


def watch(program: Path, folder: Path, seed: int, first: int, cases: int, seconds: int) -> int:
    """Start the program, again after each finding, and say what was found."""
    end, until, found = first + cases, time.time() + seconds, 0
    while first < end and (left := until - time.time()) > 0:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        numbers = map(str, (seed, first, end - first, min(int(left) + 1, EVER)))
        problem = ""
        said = folder / "said"
        try:
            with said.open("wb") as file:
                done = subprocess.run(
                    [program, folder / "seeds", work, *numbers], stdout=subprocess.PIPE, stderr=file, text=True, check=False,
                    env=environment(), timeout=left + PATIENCE if seconds < EVER else None,
                )  # fmt: skip
            if done.returncode:
                problem = f"ended with {done.returncode}\n{said.read_text(errors='replace')[-6000:]}"
        except subprocess.TimeoutExpired:
            problem = "did not come to an end"
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        if not problem:
            count, read, ran = map(int, done.stdout.split())
            print(f"{count} cases, {read} of them read, {ran} runs of net_runner; {peak} MiB at most", flush=True)
            return 1 if found or peak > MEMORY else 0
        reached = (work / "progress").read_bytes() if (work / "progress").exists() else b""
        if not reached:
            print(f"no case was reached: {problem}")
            return 1
        number = int.from_bytes(reached, "little")
        print(f"case {number}: {problem}\nagain:  python -m tests.fuzz.fuzz_c_readers --seed {seed} --case {number}", flush=True)
        found, first = found + 1, number + 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
