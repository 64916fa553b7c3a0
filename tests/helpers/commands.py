"""nestling's command line, called by the tests."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from nestling.cli.main import main


@dataclass(frozen=True)
class Done:
    """What a command left with and wrote."""

    status: int
    stdout: str
    stderr: str


Nestling = Callable[..., Done]


SMALL = ("--backbone", "mobilenetv2_050", "--weights", "none", "--size", "64")
# What `export --features` makes of fruit.nest in the formats that are one file each.
FILES = [
    *(f"fruit-{precision}.{form}" for form in ("pte", "features.pte", "onnx") for precision in ("fp32", "int8")),
    *(f"fruit-{precision}.tflite" for precision in ("fp32", "fp16", "dynamic", "int8")),
]


def rounded(metric: float) -> object:
    """A lineage holds six digits of a number; what a command has just measured is held against it to as many."""
    return pytest.approx(metric, abs=1e-6)


def in_process(words: list[str], settings: dict[str, str]) -> Done:
    ran = subprocess.run([sys.executable, "-m", "nestling", *words], capture_output=True, text=True, env=os.environ | settings)
    return Done(ran.returncode, ran.stdout, ran.stderr)


def here(words: list[str], settings: dict[str, str]) -> Done:
    """In this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in settings.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as left:
            main(words)
    return Done(int(left.value.code or 0), out.getvalue(), err.getvalue())
