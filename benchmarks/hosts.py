"""The C on this computer beside LiteRT, ONNX Runtime, OpenVINO and ExecuTorch: networks printed from one int8 Graph each.

    python benchmarks/hosts.py [--networks lite0,vww,resnet8,ds-cnn] [--threads 2] [--data shared/data]
    python benchmarks/hosts.py --instructions

Milliseconds: one image at a time, one thread, every runtime in a process of its own, in rounds that take turns; medians. They
include about 0.01 ms that Python takes to call. The C runs once with each set of instructions that there is for this kind of
processor (NESTLING_ISA), all of which give the same bytes. --threads: C and LiteRT with so many threads as well, in the same
rounds. --instructions: instead, those of one image under Valgrind, which shows every program a processor with AVX2 and no 8-bit dot
products: of C from the call to its return, of LiteRT what 20 more images add to a process. Instructions are not milliseconds.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
from networks import DATA, NAMES, macs_of, network

from nestling import extras
from nestling.apart.runner import ApartRunner, start
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats import FORMATS
from nestling.formats.c import folder, machines, virtual
from nestling.formats.format import INTEGERS, ExportConfig, Job
from nestling.processor import processor, versions

ISA = "NESTLING_ISA"
C, LITERT = "c-host", "tflite"
OTHERS = ((LITERT, "LiteRT"), ("onnx", "ONNX Runtime"), ("onnx", "OpenVINO"), ("pte", "ExecuTorch"))
KITS: Mapping[
    str, Mapping[str, str]
] = {  # by machine: sets of instructions and what /proc/cpuinfo calls what they take, the best last
    "x86_64": {"portable": "fpu", "avx2": "avx2 fma", "avxvnni": "avx_vnni", "avx512vnni": "avx512_vnni avx512vbmi"},
    "aarch64": {"portable": "fp", "neon": "asimd", "dotprod": "asimddp"},
}
ROUNDS, TURN = 9, 60.0  # rounds; milliseconds of a turn in one
FEW, MORE = 2, 22  # images, under Valgrind


@dataclass(frozen=True)
class Way:
    """A format's file, what runs it, and of the C with which instructions."""

    form: str
    runtime: str
    kit: str = ""
    threads: int = 1

    @property
    def said(self) -> str:
        """As the table has it."""
        return f"{self.runtime}, {self.kit}" if self.kit else self.runtime


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--networks", default=",".join(NAMES))
    arguments.add_argument("--threads", type=int, default=1, help="more than one: beside one")
    arguments.add_argument("--data", type=Path, default=DATA, help="where vww_96_int8.tflite and resnet8_cifar10_int8.tflite lie")
    arguments.add_argument("--instructions", action="store_true")
    chosen = arguments.parse_args()
    print(f"{processor()};\n{', '.join(f'{package} {version}' for package, version in versions().items())}")
    print("lite0: EfficientNet-Lite0 at 224 pixels; vww: MobileNetV1 0.25 at 96; resnet8: at 32; ds-cnn: of 49 x 10 numbers\n")
    print(
        "| network | M MACs | | M instructions | a MAC | of LiteRT's |"
        if chosen.instructions
        else "| network | M MACs | | ms | of LiteRT's | GMAC/s |"
    )
    print("|---|---:|---|---:|---:|---:|")
    more = []
    for name in chosen.networks.split(","):
        bundle = network(name, chosen.data)
        if bundle is None:
            print(f"| {name} | | its file is not in {chosen.data} | | | |")
            continue
        macs = macs_of(bundle) / 1e6
        with TemporaryDirectory() as place:
            if chosen.instructions:
                rows = instructions(bundle, macs, Path(place))
            else:
                rows, scaled = milliseconds(bundle, macs, Path(place), chosen.threads)
                more += [f"| {name} | {row} |" for row in scaled]
        for row in rows:
            print(f"| {name} | {macs:.2f} | {row} |", flush=True)
    if more:
        print(f"\n| network | | 1 thread, ms | {chosen.threads} threads, ms | ratio |\n|---|---|---:|---:|---:|")
        print("\n".join(more))


# ---- milliseconds ---------------------------------------------------------------------------------------------------------------


def milliseconds(bundle: Bundle, macs: float, place: Path, threads: int) -> tuple[list[str], list[str]]:
    """Rows of the first table and of the second one, which is empty for one thread."""
    kits = kits_here()
    ways = [Way(form, runtime) for form, runtime in OTHERS if extras.has(FORMATS[form].runtimes[runtime].extra)]
    ways += [Way(C, "C", kit) for kit in kits]
    both = [way for way in ways if way.form == LITERT or way.kit == kits[-1]]
    more = [replace(way, threads=threads) for way in both] if threads > 1 else []
    files = {form: put(bundle, form, place) for form in dict.fromkeys(way.form for way in ways)}
    ms = dict(zip([*ways, *more], timed([*ways, *more], files), strict=True))
    least = next(ms[way] for way in ways if way.form == LITERT)
    rows = [f"{way.said} | {ms[way]:.3f} | {ms[way] / least:.2f} | {macs / ms[way]:.1f}" for way in ways]
    rows += [f"{runtime} | not installed | |" for form, runtime in OTHERS if Way(form, runtime) not in ways]
    rows += [f"C, {kit} | not run on this processor | |" for kit in KITS.get(platform.machine(), {}) if kit not in kits]
    return rows, [
        f"{way.said} | {ms[way]:.3f} | {ms[two]:.3f} | {ms[two] / ms[way]:.2f}" for way, two in zip(both, more, strict=bool(more))
    ]


def kits_here() -> list[str]:
    """The sets of instructions that this processor has, the best last."""
    info = Path("/proc/cpuinfo")
    found = set(re.findall(r"\S+", info.read_text())) if info.exists() else set()
    return [kit for kit, flags in KITS.get(platform.machine(), {}).items() if found.issuperset(flags.split())] or ["portable"]


def put(bundle: Bundle, form: str, place: Path) -> Path:
    """The bundle's int8 file in a format, or folder."""
    content = FORMATS[form].printers[INTEGERS](Job(bundle, ExportConfig())).content
    path = place / FORMATS[form].file("network", INTEGERS)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        folder.write(content, path)
    return path


def timed(ways: Sequence[Way], files: Mapping[str, Path]) -> list[float]:
    """Median milliseconds of each. Raises SystemExit where the C does not give the same bytes in every way."""
    workers: list[ApartRunner] = []
    try:
        for way in ways:
            with patch.dict(os.environ, {ISA: way.kit} if way.kit else {}):
                workers.append(start(files[way.form], way.threads, way.runtime, trust=True, measured=True))
        image = made_up(workers[0].preprocess, 1)
        answers = [worker(image).tobytes() for worker, way in zip(workers, ways, strict=True) if way.form == C]
        if len(set(answers)) > 1:
            raise SystemExit("the C gives other bytes with other instructions or threads")
        runs = [math.ceil(TURN / np.median(worker.milliseconds(5))) for worker in workers]
        times: list[list[float]] = [[] for _ in ways]
        for _ in range(ROUNDS):
            for worker, count, own in zip(workers, runs, times, strict=True):
                own.extend(worker.milliseconds(count))
    finally:
        for worker in workers:
            worker.process.close()
    return [float(np.median(own)) for own in times]


# ---- instructions ---------------------------------------------------------------------------------------------------------------


def instructions(bundle: Bundle, macs: float, place: Path) -> list[str]:
    """Rows, LiteRT's first."""
    least = of_litert(put(bundle, LITERT, place), made_up(bundle.preprocess, 1), place)
    counts = {"LiteRT": least} | {f"C, {kit}": of_c(put(bundle, C, place), kit, bundle, place) for kit in ("avx2", "portable")}
    return [f"{said} | {count / 1e6:.2f} | {count / 1e6 / macs:.3f} | {count / least:.2f}" for said, count in counts.items()]


def of_litert(file: Path, image: np.ndarray, place: Path) -> float:
    """Of an image: what a process executes for MORE images and not for FEW, a share each."""
    np.save(place / "image.npy", image)
    tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    command = [*tool, sys.executable, str(Path(__file__).with_name("raw_worker.py")), str(file), str(place / "image.npy")]
    counts = []
    for images in (FEW, MORE):
        said = subprocess.run(command, input=f"{images}\n", capture_output=True, text=True, check=True).stderr
        found = re.search(r"I\s+refs:\s+([\d,]+)", said)
        if found is None:
            raise SystemExit(f"valgrind did not run LiteRT: {said[-300:]}")
        counts.append(int(found[1].replace(",", "")))
    return (counts[1] - counts[0]) / (MORE - FEW)


def of_c(network: Path, kit: str, bundle: Bundle, place: Path) -> int:
    """Of a call of nestling_predict, in main_bench.c."""
    tool = ("valgrind", "--tool=callgrind", "--toggle-collect=nestling_predict", "--callgrind-out-file=counted")
    machine = replace(machines.machine("host"), counts="none", run=(*tool, "{elf}"))
    (place / kit).mkdir()
    with patch.dict(os.environ, {ISA: kit}):
        virtual.answer(virtual.build(network, machine, place / kit), made_up(bundle.preprocess, 1)[0])
    found = re.search(r"^(?:summary|totals): (\d+)", (place / kit / "counted").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    main()
