"""nestling finetune, as a user types it; with torchrun, too."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from nestling.bundle import load
from tests.helpers.commands import Nestling

QUICK = ("--epochs", 2, "--batch", 8, "--freeze-norm", "--rate", 0.0005)
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nestling")


def test_json_is_one_object_and_nothing_else(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "fine.nest"
    done = nestling("finetune", bundle, photos, "-o", out, *QUICK, "--json", process=True)
    result = json.loads(done.stdout)
    assert set(result) == {"bundle", "images", "top1", "interval", "majority", "majority_class", "one_answer", "seconds"}
    assert result["majority"] == 4 / 12 and result["one_answer"] is None
    assert result["images"] == {"train": 36, "val": 12, "test": 12, "left_out": 0}
    assert "val top-1" in done.stderr  # the table of epochs
    assert [path.name for path in tmp_path.iterdir()] == ["fine.nest"]  # the checkpoint has gone
    evaluated = json.loads(nestling("eval", out, photos, "--json").stdout)
    assert evaluated["top1"] == result["top1"]


def test_the_table_and_the_next_command(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    """The folder is the one that the bundle names."""
    done = nestling("finetune", bundle, "-o", tmp_path / "fine.nest", *QUICK)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["epoch", "loss", "val", "top-1", "val", "loss", "seconds"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[-1].startswith("next:  nestling export ")


def test_mistakes(nestling: Nestling, photos: Path, bundle: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "fine.nest")
    assert "none, light, strong" in nestling("finetune", bundle, photos, *out, "--augment", "wild", status=2).stderr
    assert "--epochs" in nestling("finetune", bundle, photos, *out, "--epochs", 0, status=2).stderr
    assert "nowhere" in nestling("finetune", bundle, "nowhere", *out, status=1).stderr
    (tmp_path / "fine.nest.checkpoint").write_bytes(b"rubbish")
    said = nestling("finetune", bundle, photos, *out, *QUICK, "--resume", status=1).stderr
    assert "fine.nest.checkpoint is not a whole checkpoint" in said


def test_killed_and_resumed_is_the_same_file(nestling: Nestling, photos: Path, bundle: Path, cache: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole.nest", tmp_path / "stopped.nest"
    settings = ("--epochs", 3, "--batch", 8, "--ema", "--mixup", 0.2)
    nestling("finetune", bundle, photos, "-o", whole, *settings, process=True)
    command = [sys.executable, "-m", "nestling", "finetune", bundle, photos, "-o", stopped, *settings]
    environment = os.environ | {"NESTLING_CACHE": str(cache)}
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        _wait_for(tmp_path / "stopped.nest.checkpoint", process)
        process.kill()
    assert not stopped.exists()
    nestling("finetune", bundle, photos, "-o", stopped, *settings, "--resume", process=True)
    assert stopped.read_bytes() == whole.read_bytes()


def test_torchrun(nestling: Nestling, photos: Path, bundle: Path, cache: Path, tmp_path: Path) -> None:
    """Two processes, frozen norms: one file, written once, and the weights are those of one process with the same micro-batches."""
    same = (*QUICK, "--micro", 4, "--optimiser", "sgd")  # AdamW divides a gradient by its size, and so enlarges its rounding
    one, two = tmp_path / "one.nest", tmp_path / "two.nest"
    nestling("finetune", bundle, photos, "-o", one, *same)
    words = [*TORCHRUN, "finetune", bundle, photos, "-o", two, *same, "--json"]
    ran = subprocess.run([*map(str, words)], capture_output=True, text=True, env=os.environ | {"NESTLING_CACHE": str(cache)})
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["bundle"] == str(two)
    alone, together = load(one), load(two)
    for name, array in alone.arrays.items():
        assert np.abs(together.arrays[name] - array).max() <= 1e-4 * np.abs(array).max(), name


def test_torchrun_says_when_a_process_was_killed(photos: Path, bundle: Path, cache: Path, tmp_path: Path) -> None:
    words = [*TORCHRUN, "finetune", bundle, photos, "-o", tmp_path / "two.nest", *QUICK[2:], "--epochs", 500]
    environment = os.environ | {"NESTLING_CACHE": str(cache)}
    with subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment) as run:
        _wait_for(tmp_path / "two.nest.checkpoint", run)
        children = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(run.pid)], capture_output=True, text=True).stdout
        members = [int(line.split()[0]) for line in children.splitlines() if "finetune" in line]
        assert len(members) == 2
        os.kill(members[1], signal.SIGKILL)
        assert run.stderr
        said = run.stderr.read()
    assert run.returncode != 0 and "another one ended before its work was done" in said and "--resume" in said


def _wait_for(path: Path, process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    while not path.exists():
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.01)
