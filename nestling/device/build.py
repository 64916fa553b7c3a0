"""net_runner, built for the processor of a device: with a network's C inside, or with ExecuTorch's libraries beside it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nestling import extras
from nestling.device.manifest import RUNNER
from nestling.errors import NestlingError
from nestling.formats.c import machines
from nestling.words import System

RUNTIME = Path(__file__).with_name("runtime")
HEAD_SOURCES = ("nestling_head_format.c", "nestling_head_learn.c", "nestling_head_order.c", "nestling_head_flash.c")
HEAD_FILES = ("nestling_head.h", "nestling_head_parts.h", *HEAD_SOURCES)  # the learner: all that a firmware needs of it
LEAST_CMAKE = (3, 28)  # earlier ones write "$ORIGIN" wrongly
LIBRARIES = tuple(  # of ExecuTorch, that net_runner is linked with
    f"libexecutorch{part}.so" for part in ("", "_backend_xnnpack", "_kernels_optimized", "_kernels_quantized", "_threadpool")
)


@dataclass(frozen=True)
class Target:
    """system, machine: as --for and --machine name it. c_machine: as formats.c.machines calls it.

    processor: as the operating system calls it, "" where there is none; prefix: of a compiler for it on other computers; install:
    Debian packages of that compiler.
    """

    system: System
    machine: str
    c_machine: str
    processor: str = ""
    prefix: str = ""
    install: tuple[str, ...] = ()


X86_64 = ("x86-64", "host", "x86_64", "x86_64-linux-gnu-", ("gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"))
ARM64 = ("arm64", "linux-arm64", "aarch64", "aarch64-linux-gnu-", ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"))
BARE = tuple(name for name in machines.names() if machines.machine(name).counts == "instructions")
ALL = (
    Target("linux", *X86_64),
    Target("linux", *ARM64),
    Target("android", *ARM64),  # without Android's own C library: linked statically it needs none
    *(Target("mcu", name, name) for name in BARE),
)
TARGETS: Mapping[tuple[str, str], Target] = {(target.system, target.machine): target for target in ALL}


def built(network: Mapping[str, bytes], target: Target) -> tuple[dict[str, bytes], str]:
    """(net_runner, static and stripped, by its name; what its compiler calls itself). network: the folder of C, content by name.

    Raises NestlingError where a tool is missing or the C does not compile.
    """
    prefix = "" if platform.machine() == target.processor else target.prefix
    compiler, strip = f"{prefix}gcc" if prefix else "cc", f"{prefix}strip"
    packages = target.install if prefix else ("gcc", "libc6-dev")
    missing = [tool for tool in (compiler, strip, "make") if shutil.which(tool) is None]
    if missing:
        raise NestlingError(
            f"net_runner for {target.machine} cannot be built here: {', '.join(missing)} missing.",
            f"sudo apt-get install {' '.join((*packages, 'make'))}",
        )
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        shutil.copytree(RUNTIME, place / "runtime")
        (place / "network").mkdir()
        for name, content in network.items():
            (place / "network" / name).write_bytes(content)
        jobs = f"-j{os.cpu_count() or 1}"
        _run(["make", jobs, "-C", "runtime", "NETWORK=../network", f"CC={compiler}", "LDFLAGS=-static", "net_runner"], place)
        program = place / "runtime" / "net_runner"
        _run([strip, str(program)], place)
        return {RUNNER: program.read_bytes()}, _run([compiler, "--version"], place).partition("\n")[0]


def built_with_executorch(target: Target) -> tuple[dict[str, bytes], str]:
    """(net_runner and the libraries that are to lie beside it, content by name; what its compiler calls itself).

    The libraries come in ExecuTorch's wheel, so only for a processor as this computer's.
    Raises NestlingError for another one, where a tool is missing, or the program does not compile.
    """
    if platform.machine() != target.processor:
        raise NestlingError(
            f"ExecuTorch's libraries here are for {platform.machine()}, not for {target.machine}.",
            f"run this on such a computer, or take --runner c, which is built for {target.machine} anywhere",
        )
    missing = [tool for tool in ("cc", "c++", "make", "strip") if shutil.which(tool) is None]
    if missing:
        raise NestlingError(
            f"net_runner with ExecuTorch cannot be built here: {', '.join(missing)} missing.", "sudo apt-get install gcc g++ make"
        )
    cmake = _cmake()
    extras.require("executorch", "--runner executorch")
    wheel = Path(import_module("executorch").__path__[0])
    with TemporaryDirectory() as temporary:
        place = Path(temporary)
        _run([cmake, "-S", str(RUNTIME), "-B", ".", "-DCMAKE_BUILD_TYPE=Release", f"-DCMAKE_PREFIX_PATH={wheel}"], place)
        _run(["make", f"-j{os.cpu_count() or 1}", "net_runner"], place)
        program = place / RUNNER
        _run(["strip", str(program)], place)
        files = {RUNNER: program.read_bytes()} | {name: (wheel / "lib" / name).read_bytes() for name in LIBRARIES}
        return files, _run(["c++", "--version"], place).partition("\n")[0]


def _cmake() -> str:
    """A cmake that is new enough: the one on the PATH, or that of the Python package. Raises NestlingError where there is none."""
    places = [shutil.which("cmake"), *(str(Path(folder) / "cmake") for folder in _folders_of_cmake())]
    for program in filter(None, places):
        found = re.search(r"version (\d+)\.(\d+)", _run([program, "--version"], RUNTIME))
        if found and (int(found[1]), int(found[2])) >= LEAST_CMAKE:
            return program
    wanted = ".".join(map(str, LEAST_CMAKE))
    raise NestlingError(f"net_runner with ExecuTorch needs CMake {wanted} or newer.", f"pip install 'cmake>={wanted}'")


def _folders_of_cmake() -> list[str]:
    return [cmake.CMAKE_BIN_DIR] if (cmake := _module("cmake")) else []


def _module(name: str) -> Any:
    return import_module(name) if find_spec(name) else None


def runtime_file(name: str) -> bytes:
    """A source file of the learner or of net_runner."""
    return (RUNTIME / name).read_bytes()


def _run(command: Sequence[str], place: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "CFLAGS", "LDFLAGS")}
    ended = subprocess.run(
        command,
        cwd=place,
        capture_output=True,
        encoding="utf-8",
        errors="backslashreplace",
        check=False,
        env=environment | {"LC_ALL": "C"},
    )
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if "error" in line or "undefined" in line] or ended.stderr.splitlines()
        raise NestlingError(f"net_runner could not be built: {lines[0] if lines else f'{command[0]} said nothing'}.")
    return ended.stdout
