"""OpenVINO: imported without its telemetry, and its one Core."""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import Any

TELEMETRY = "openvino_telemetry"


def import_openvino(*modules: str) -> Any:
    """The package, after those of its modules that are named: their own imports must find the telemetry gone, too.

    On import it would write into the home folder and report to a server. It takes a stub where its telemetry package is absent, so
    absent it is while openvino is imported. Raises ImportError where there is no OpenVINO.
    """
    present = sys.modules.get(TELEMETRY)
    sys.modules[TELEMETRY] = None  # type: ignore[assignment]  # Python's own way of saying "can't be imported"
    try:
        for module in modules:
            importlib.import_module(module)
        return importlib.import_module("openvino")
    finally:
        del sys.modules[TELEMETRY]
        if present is not None:
            sys.modules[TELEMETRY] = present


@cache
def openvino_core() -> Any:
    """The Core, the same for the whole process.

    OpenVINO 2026.4 gives the thread in which the first network is compiled another stack for signals, for AMX's registers do not
    fit on the usual one; with its Core it frees the stack, and leaves the thread on it. The next signal that Python handles, a
    Ctrl-C or the end of a DataLoader's worker, would then write into freed memory. So the Core stays.
    """
    return import_openvino().Core()
