"""The runtime's C, compiled once for all tests of it."""

from typing import Any

import pytest

from tests.device import c_head, runner_program


@pytest.fixture(scope="session")
def c_learner(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return c_head.library(tmp_path_factory.mktemp("learner"))


@pytest.fixture(scope="session")
def c_parts(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return runner_program.library(tmp_path_factory.mktemp("parts"))
