"""Fixtures that several folders of tests share."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

# One thread a process: the tests run as many processes as there are cores, and threads that wait for each other by spinning
# would take them from one another. Before NumPy and torch are imported; the processes that tests start inherit it.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reports to its makers from Linux too; tests import it directly

os.environ["NESTLING_CONFIG"] = tempfile.mkdtemp(prefix="nestling-tests-")  # not the user's own key
atexit.register(shutil.rmtree, os.environ["NESTLING_CONFIG"], ignore_errors=True)

import pytest

from tests import SHARED


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """The path of a file of the shared data; the test is skipped, saying which file, where it is absent."""

    def find(name: str) -> Path:
        path = (SHARED / name).resolve()
        if not path.exists():
            pytest.skip(f"needs {name}, which is not part of the repository (looked in {SHARED.resolve()})")
        return path

    return find


@pytest.fixture(scope="session")
def shared_case() -> Callable[[str], Path]:
    """The same for the small inputs that once went wrong."""

    def find(name: str) -> Path:
        path = (SHARED.parent / "cases" / name).resolve()
        if not path.exists():
            pytest.skip(f"needs {name}, which is not part of the repository (looked in {path.parent})")
        return path

    return find
