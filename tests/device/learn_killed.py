"""learn_killed PACKAGE DATA CYCLES KILLS SEED: `learn --resume` on a package, in processes that are killed KILLS times.

Half of the killed ones kill themselves instead of a rename, the others are killed from outside at a random moment. The last one
runs to CYCLES. Prints, a line a start, the notes of what it went on from; exit status 3: CYCLES came before KILLS.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from executorch.extension import training  # noqa: F401  # once for all the processes: the import takes longer than a training
from executorch.extension.pybindings import portable_lib  # noqa: F401  # likewise
from executorch.runtime import Runtime  # noqa: F401  # likewise

from nestling.device.head_file import newest
from nestling.device.learn import LearnConfig, learn
from nestling.errors import NestlingError
from tests.device.learn_forks import halting

torch.set_num_threads(1)


def said_first(output: Path) -> str:
    """What a start will find, said before it begins: it may not live to say it itself."""
    try:
        head, taken, notes = newest(output)
        return f"{head.progress.steps} {taken.name} {'; '.join(notes)}"
    except NestlingError as error:
        return f"0 none {error.message}"


def main(package: Path, data: Path, cycles: int, kills: int, seed: int) -> int:
    chance, killed, longest = random.Random(seed), 0, 0.5
    while True:
        last = killed == kills
        halt = chance.randint(1, 12) if not last and chance.random() < 0.5 else 0
        print(said_first(package / "trained.nst").replace("\n", " "), flush=True)
        begun, child = time.monotonic(), os.fork()
        if child == 0:
            if halt:
                halting(halt)
            learn(package, data, LearnConfig(cycles=cycles, save_every=1, resume=True))
            os._exit(0)
        if not last and not halt:
            time.sleep(chance.uniform(0, longest))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            continue
        longest = min(longest, time.monotonic() - begun) if halt == 0 else longest
        if last:
            return os.WEXITSTATUS(status)
        if newest(package / "trained.nst")[0].progress.steps >= cycles:
            return 3


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:])))
