"""What figures depend on besides the network: the processor and the versions of what ran."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("nestling", "torch", "executorch", "ai-edge-litert", "onnxruntime", "openvino")
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")  # that matter to 8-bit kernels


def processor() -> str:
    """The processor's name, its vector instructions that matter here, and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line) if info.exists() else {}
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    has = (fields.get("flags") or fields.get("Features") or "").split()
    known = [flag for flag in FLAGS if flag in has]
    name = fields.get("model name", platform.processor() or platform.machine())
    return f"{name} ({', '.join(known) or platform.machine()}), {cores()} cores"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> Mapping[str, str]:
    """Of the packages that print and run; those that are not installed are left out."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
