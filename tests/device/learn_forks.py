"""learn_forks HEAD STEPS SAVE_EVERY KILLS SEED: a Python learner that saves in a loop, in processes that are killed KILLS times.

Each start prints a line: steps found, and what newest() said of the files. Half of the killed ones kill themselves instead of a
rename, the others are killed from outside at a random moment. The last one runs to STEPS. Exit status 3: STEPS came before KILLS.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from nestling.device.head_file import HeadFile, inputs_of, newest, save
from nestling.device.order import order

ITEMS = 20


def stepped(head: HeadFile) -> HeadFile:
    """One step of plain SGD with momentum, in the order of the head."""
    how, done, classes = head.training, head.progress, len(head.labels)
    y = np.arange(ITEMS) % classes
    q = np.random.default_rng(5).integers(-128, 128, (ITEMS, head.inputs)).astype(np.int8)
    chosen = order(how.seed, done.epoch, ITEMS)[done.position : done.position + how.batch]
    x = inputs_of(head, q[chosen])
    logits = x @ head.weights[:classes].T + head.bias[:classes]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    d = (p / p.sum(axis=1, keepdims=True) - np.eye(classes, dtype=np.float32)[y[chosen]]) / len(chosen)
    moment, weights = head.moment.copy(), head.weights.copy()
    moment[:classes] = how.momentum * moment[:classes] + d.T @ x
    weights[:classes] -= how.rate * moment[:classes]
    position = done.position + len(chosen)
    ended = position == ITEMS
    after = replace(done, steps=done.steps + 1, epoch=done.epoch + ended, position=0 if ended else position)
    return replace(head, weights=weights.astype(np.float32), moment=moment.astype(np.float32), progress=after)


def learn(path: Path, steps: int, every: int) -> None:
    head, _, notes = newest(path)
    os.write(
        1, f"{head.progress.steps} {'; '.join(notes)}\n".encode()
    )  # at once: a line that is killed in the middle tells nothing
    while head.progress.steps < steps:
        head = stepped(head)
        if head.progress.steps % every == 0 or head.progress.steps == steps:
            head = save(head, path)


def halting(at: int) -> None:
    """From now on the at-th rename kills the process before it happens."""
    rename, left = os.replace, [at]

    def replaced(source: str, target: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)

    os.replace = replaced  # type: ignore[assignment]  # that is what is tried


def main(path: Path, steps: int, every: int, kills: int, seed: int) -> int:
    chance, killed = random.Random(seed), 0
    while killed <= kills:
        last = killed == kills
        halt = chance.randint(1, 3) if not last and chance.random() < 0.5 else 0
        child = os.fork()
        if child == 0:
            if halt:
                halting(halt)
            learn(path, steps, every)
            os._exit(0)
        if not last and not halt:
            time.sleep(chance.uniform(0, 0.03))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            return os.WEXITSTATUS(status) or (0 if last else 3)
        killed += 1
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *map(int, sys.argv[2:])))
