"""terminal_forks FOLDER: commands on bundles and photographs of hostile names, each in a forked child, under many streams.

FOLDER is filled here. Prints a JSON list, one entry a run: the command, its streams, its status, and stdout and stderr as latin-1.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

import nestling.cli.main
import nestling.formats.c.fitting
import nestling.measure.answers
import nestling.scores.agree
import nestling.training.fit  # noqa: F401  # all imported once, before the forks
from nestling import bundle as bundles
from nestling.__main__ import main
from nestling.formats.tflite import printing as tflite
from tests.helpers import seeds

HOSTILE = (
    "red\x1b[31m\x07", "a\x9b2J\x7f", "\u202egnp.x\u2066\u200f\u061c", "n\u200be\u2028w\x85l\rx", "\udc80\ud800", "[red]:smile:*/",
    "ü×−",
)  # fmt: skip
CLASSES = ("esc\x1b[2J", "rlo\u202eü", "a [bold]b")  # folders
PHOTO = os.fsdecode(b"\xff\xfe\x1b]0;pwned\x07\nerror: none.png")


# ---- streams ---------------------------------------------------------------------------------------------------------------------

Streams = Callable[[int, int], None]  # what a child does first, with pipes for its stdout and stderr


def encoded(name: str, errors: str = "strict") -> Streams:
    def streams(out: int, err: int) -> None:
        os.dup2(out, 1)
        os.dup2(err, 2)
        sys.stdout = _text(1, name, errors)
        sys.stderr = _text(2, name, "backslashreplace")

    return streams


def _text(number: int, name: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), name, errors)


def gone(out: int, err: int) -> None:
    """Whoever read stdout has ended."""
    theirs, ours = os.pipe()
    os.close(theirs)
    encoded("utf-8")(ours, err)


def both_gone(out: int, err: int) -> None:
    """Likewise with 2>&1."""
    theirs, ours = os.pipe()
    os.close(theirs)
    encoded("utf-8")(ours, ours)


def full(out: int, err: int) -> None:
    encoded("utf-8")(os.open("/dev/full", os.O_WRONLY), err)


def unheard(out: int, err: int) -> None:
    encoded("utf-8")(out, os.open("/dev/full", os.O_WRONLY))


def closed(out: int, err: int) -> None:
    """`<&- >&- 2>&-`, as a new Python finds it."""
    os.closerange(0, 3)
    sys.stdin = sys.stdout = sys.stderr = None


STREAMS: dict[str, Streams] = {
    "utf-8": encoded("utf-8"), "cp1252": encoded("cp1252"), "ascii": encoded("ascii", "surrogateescape"),
    "gone": gone, "both gone": both_gone, "full": full, "unheard": unheard, "closed": closed,
}  # fmt: skip


def run(words: Sequence[str], streams: Streams) -> dict[str, object]:
    pipes = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 99
        try:
            streams(pipes[0][1], pipes[1][1])
            sys.argv = ["nestling", *words]
            main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 98
        except BaseException as error:
            os.write(pipes[1][1], f"Traceback, not caught: {error!r}".encode("utf-8", "replace"))
        os._exit(status)
    contents: list[list[bytes]] = [[], []]

    def read(end: int, into: list[bytes]) -> None:
        with os.fdopen(end, "rb") as file:
            into.append(file.read())

    readers = []
    for (theirs, ours), into in zip(pipes, contents, strict=True):
        os.close(ours)
        readers.append(threading.Thread(target=read, args=(theirs, into)))  # both at once: a full pipe would stop the child
        readers[-1].start()
    for reader in readers:
        reader.join()
    _, status = os.waitpid(child, 0)
    out, err = (b"".join(content).decode("latin-1") for content in contents)
    return {"status": os.waitstatus_to_exitcode(status), "out": out, "err": err}


# ---- what is run -----------------------------------------------------------------------------------------------------------------


def fill(folder: Path) -> None:
    """bad.nest, whose labels and lineage are hostile; own.nest, which knows the classes of photos; a broken one; a .tflite."""
    random = np.random.default_rng(0)
    bundle = seeds.small_bundles()["quantised"]
    assert bundle.head is not None
    head = replace(bundle.head, weight=random.normal(0, 1, (7, 8)).astype(np.float32), bias=np.zeros(7, np.float32))
    step = replace(bundle.lineage[0], name="fit\x1b[31m", settings={"folder": HOSTILE[0], HOSTILE[2]: [HOSTILE[4], float("nan")]})
    bad = replace(bundle, head=head, labels=HOSTILE, lineage=(step,), yardstick=None)
    bundles.save(bad, folder / "bad.nest")
    bundles.save(replace(bad, labels=CLASSES + HOSTILE[3:]), folder / "own.nest")
    (folder / "broken\x1b[31m\udcff.nest").write_bytes(b"PK\x03\x04 nothing")
    (folder / "x\x1b[5m.tflite").write_bytes(tflite.print_graph(seeds.small_graph(True), labels=(*HOSTILE[:4], "p", "q", "r", "s")))
    for name in CLASSES:
        place = folder / "photos" / name
        place.mkdir(parents=True)
        for i in range(2):
            Image.fromarray(random.integers(0, 255, (12, 12, 3)).astype(np.uint8)).save(place / f"{i}{PHOTO}")
        (place / "not an image\x1b[7m.jpg").write_bytes(b"no image")


def commands(folder: Path) -> list[list[str]]:
    bad, own, photos = f"{folder}/bad.nest", f"{folder}/own.nest", f"{folder}/photos"
    photo = f"{photos}/{CLASSES[0]}/0{PHOTO}"
    plain = [
        ["predict", bad, photo],
        ["eval", own, photos],
        ["agree", own, own, photos],
        ["trace", own, photo, "-o", f"{folder}/trace\x1b[2J"],
        ["plan", bad],
    ]
    wrong = [
        ["predict", f"{folder}/broken\x1b[31m\udcff.nest", photo],
        ["eval", bad, photos],
        ["import", f"{folder}/x\x1b[5m.tflite", "-o", f"{folder}/imported\x1b.nest"],
        ["fit", photos, "--classes", "no\x1bne\nerror: none"],
        ["fit\x1b", photos],
        ["fit", "--wr\x1bong\udc80"],
        ["--help"],
    ]
    return [*plain, *([*words, "--json"] for words in plain), *wrong]


if __name__ == "__main__":
    work = Path(sys.argv[1])
    fill(work)
    os.environ |= {"NESTLING_CACHE": str(work / "cache"), "COLUMNS": "80"}
    found = [
        {"number": number, "command": words[0], "json": "--json" in words, "streams": name} | run(words, streams)
        for number, words in enumerate(commands(work))
        for name, streams in STREAMS.items()
    ]
    print(json.dumps(found))
