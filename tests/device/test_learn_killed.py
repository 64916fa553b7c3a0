"""`learn` is killed again and again, and ends at the weights of one that was never stopped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nestling.device.head_file import newest
from nestling.device.head_format import to_bytes
from nestling.device.learn import LearnConfig, learn
from tests import ROOT
from tests.helpers.packages import Photos, package, untrained

LABELS = ("apple", "lime", "plum")
CYCLES, KILLS = 4000, 25


def content(path: Path) -> bytes:
    """The file without how often it was saved."""
    head, _, _ = newest(path)
    return to_bytes(replace(head, progress=replace(head.progress, saves=0)))


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_at_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_CACHE", str(tmp_path / "cache"))
    photos = Photos(tmp_path)("photos", dict.fromkeys(LABELS, 15))
    whole, cut = (package(tmp_path / name, untrained(LABELS)) for name in ("whole", "cut"))
    learn(whole, photos, LearnConfig(cycles=CYCLES, save_every=1000))
    command = [sys.executable, "-m", "tests.device.learn_killed", str(cut), str(photos), str(CYCLES), str(KILLS), "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = [int(line.split()[0]) for line in done.stdout.splitlines()]
    assert len(steps) == KILLS + 1 and steps == sorted(steps) and 0 < steps[-1] < CYCLES, "nothing that was saved is lost"
    assert content(cut / "trained.nst") == content(whole / "trained.nst")
