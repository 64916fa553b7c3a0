"""How long each operator of a .onnx takes, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling.formats.layer_time import LayerTime
from nestling.formats.onnx.file import read
from nestling.formats.onnx.runtimes import open_session, run
from nestling.preprocess.image import noise


def layer_times(content: bytes, runs: int, threads: int) -> tuple[LayerTime, ...]:
    """What each operator takes in ONNX Runtime, in running order, from its own profile. The first run is left out: it prepares.

    A fused operator carries the name of the Graph node that it was made of. What the file or the runtime adds to the Graph (a clamp
    of integers, the cast before a table, reorders and transposes) has a line and a name of its own.
    Raises UnusableFile as load_bytes.
    """
    model, about = read(content, "the printed graph")
    image = noise(about.preprocess)
    with TemporaryDirectory() as folder:
        session = open_session(content, threads, Path(folder) / "profile")
        for _ in range(runs + 1):
            run(session, image)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    names = {output: node.name for node in model.graph.node for output in node.output}
    names |= {node.name: node.name for node in model.graph.node}
    times: dict[tuple[str, str], list[float]] = {}  # microseconds by name and operator, in running order
    for event in events:
        if event["name"].endswith(TIMED):
            key = _known(event["name"].removesuffix(TIMED), names), event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"])
    return tuple(LayerTime(name, kind, sum(own[len(own) // (runs + 1) :]) / runs / 1e3) for (name, kind), own in times.items())


TIMED = "_kernel_time"


ADDED = re.compile(r"(_token_\d+|_nchwc|_nhwc|/\w+Fusion/)$")  # what ONNX Runtime puts behind the name of a node that it changes


def _known(name: str, names: Mapping[str, str]) -> str:
    """Which node of the file a node of the runtime's was made of; else its own name.

    names: of the file's nodes, by their own names and by those of what they write: the runtime builds on either.
    """
    shorter = name
    while shorter not in names:
        if not ADDED.search(shorter):
            return name
        shorter = ADDED.sub("", shorter)
    return names[shorter]
