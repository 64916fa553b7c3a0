"""Killed at random moments, fit and export lose nothing: the earlier files and the cache stay whole."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli.conftest import SMALL, Nestling

from nestling import bundle as bundles
from nestling.targets import load
from nestling.training import features

KILLS = 20
# Imports once, says so, then does the work again and again, so that every kill falls into the work.
FIT = """
import sys
from pathlib import Path
from nestling.bundle import save
from nestling.training.fit import FitConfig, fit
seed = int(sys.argv[3])
fit_once = lambda k: save(fit(Path(sys.argv[1]), FitConfig("mobilenetv3_small_050", "none", 64, k)).bundle, Path(sys.argv[2]))
print("ready", flush=True)
while True:
    fit_once(seed)
    seed += 1
"""
EXPORT = """
import sys
from pathlib import Path
from nestling.targets.export import export
print("ready", flush=True)
while True:
    export(Path(sys.argv[1]), Path(sys.argv[2]), [("tflite", "fp32"), ("tflite", "fp16")])
"""


def killed(program: str, arguments: list[object], cache: Path, after: float) -> None:
    environment = os.environ | {"NESTLING_CACHE": str(cache)}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(after)
        assert process.poll() is None, "it ended by itself"
        process.kill()


@pytest.mark.slow
def test_twenty_kills(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    own, out, moments = tmp_path / "mine.nest", tmp_path / "out", random.Random(0)
    own.write_bytes(bundle.read_bytes())
    nestling("export", bundle, "--to", "tflite", "--precision", "fp32,fp16", "-o", out)
    for kill in range(KILLS):
        if kill % 2:
            killed(EXPORT, [bundle, out], tmp_path / "cache", moments.uniform(0, 3))
        else:
            killed(FIT, [photos, own, kill], tmp_path / "cache", moments.uniform(0, 3))
        assert bundles.load(own).labels == ("apple", "lime ü", "plum")
        for file in ("fruit-fp32.tflite", "fruit-fp16.tflite"):
            assert np.isfinite(load(out / file)(np.zeros((1, 64, 64, 3), np.uint8))).all()
        entries = [path for path in (tmp_path / "cache").rglob("*-as-is") if not path.name.startswith(".")]
        assert all(features._read(path) is not None for path in entries), "a cache entry is damaged"
    nestling("fit", photos, "-o", own, *SMALL, NESTLING_CACHE=str(tmp_path / "cache"))
    assert own.read_bytes() == bundle.read_bytes()


def test_ctrl_c_keeps_what_is_in_the_cache(photos: Path, bundle: Path, tmp_path: Path) -> None:
    """Exit status 130, one line, no half-written file; the bundle that was there stays."""
    own = tmp_path / "mine.nest"
    own.write_bytes(bundle.read_bytes())
    command = [sys.executable, "-m", "nestling", "fit", str(photos), "-o", str(own), *SMALL, "--seed", "5"]
    environment = os.environ | {"NESTLING_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr
        said = process.stderr.readline()  # "embedding (36)": it is at work
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert own.read_bytes() == bundle.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("mine.nest", "cache")] == []
