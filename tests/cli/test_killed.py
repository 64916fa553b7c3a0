"""Killed, commands lose nothing and leave nothing over; kill_commands.py kills them 200 times each by hand."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests import ROOT
from tests.helpers.commands import SMALL

KILLED = ("fit", "export", "pack-mcu", "finetune")


def test_a_few_kills_of_some_commands(tmp_path: Path) -> None:
    """In a process of its own, which forks."""
    command = [sys.executable, "-m", "tests.cli.kill_commands", "--kills", "3", *KILLED]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("nothing lost, nothing left over") == len(KILLED)


def test_ctrl_c_keeps_what_is_in_the_cache(photos: Path, bundle: Path, tmp_path: Path) -> None:
    """Exit status 130, one line, no half-written file; the bundle that was there stays."""
    own = tmp_path / "mine.nest"
    own.write_bytes(bundle.read_bytes())
    command = [sys.executable, "-m", "nestling", "fit", str(photos), "-o", str(own), *SMALL, "--seed", "5"]
    environment = os.environ | {"NESTLING_CACHE": str(tmp_path / "cache")}
    # what was started in the background ignores SIGINT, and so would its children
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=heard
    ) as process:
        assert process.stderr
        said = process.stderr.readline()  # "embedding (36)": it is at work
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert own.read_bytes() == bundle.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("mine.nest", "cache")] == []
