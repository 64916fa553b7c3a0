"""Fixtures that several folders of tests share."""

from collections.abc import Callable
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """The path of a file of the shared data; the test is skipped, saying which file, where it is absent."""

    def find(name: str) -> Path:
        path = (SHARED / name).resolve()
        if not path.exists():
            pytest.skip(f"needs {name}, which is not part of the repository (looked in {SHARED.resolve()})")
        return path

    return find
