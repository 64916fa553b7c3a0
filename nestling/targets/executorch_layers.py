"""How long each operation of a .pte takes, from ExecuTorch's own event trace (ETDump), which the package's runtime has built in.

Outside the delegate every operator is an event. XNNPACK, which takes the whole network as one delegate, logs the operators that it
runs, too: their kinds and numbers ("Convolution (NHWC, QC8) IGEMM #2"), in whole microseconds, but not which layers they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from nestling.errors import UnusableFile
from nestling.graph.ir import Graph, Node
from nestling.targets.layer_time import LayerTime
from nestling.targets.quiet import quiet

WARM = 3  # runs that do not count
AROUND: Final = ("OPERATOR_CALL", "DELEGATE_CALL", "Method::execute")  # events that hold others

# A runtime's operators that one kind of node becomes, one each: beginnings of names, XNNPACK's, ExecuTorch's and LiteRT's own.
KINDS: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    ("conv2d", "depthwise_conv2d", "fully_connected"): (
        "Convolution", "Fully Connected", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED",
    ),
    ("add", "table"): ("Add", "ADD"),
    ("mul", "table"): ("Multiply", "MUL"),
    ("table",): ("native_call__to_copy", "CAST"),
    ("mean", "average_pool"): ("Mean", "Average Pooling", "MEAN", "AVERAGE_POOL_2D"),
    ("max_pool",): ("Max Pooling", "MAX_POOL_2D"),
    ("softmax",): ("Softmax", "SOFTMAX"),
    ("hard_swish",): ("HardSwish", "HARD_SWISH"),
    ("logistic",): ("Sigmoid", "LOGISTIC"),
}  # fmt: skip


def layer_times(content: bytes, graph: Graph, runs: int, threads: int) -> tuple[LayerTime, ...]:
    """The mean time of each of the program's operations, in running order; together about a run.

    content: of a .pte that takes one uint8 image; graph: what it was printed from. threads: for the whole process.
    Raises UnusableFile where the program does not run.
    The names of convolutions, fully connected layers, additions, ... are the Graph's nodes' (see named); what layout, padding and
    grid changes take (Transpose, Constant Pad, Convert, ...) goes by the runtime's name.
    """
    import torch

    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, graph.tensors[graph.inputs[0]].shape).astype(np.uint8))
    with quiet(), tempfile.TemporaryDirectory() as folder:
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        trace = str(Path(folder) / "trace.etdp")
        try:
            program = Runtime.get().load_program(content, enable_etdump=True)
            forward = program.load_method("forward")
            for _ in range(WARM + runs):
                forward.execute([image])
            program.write_etdump_result_to_file(trace, f"{trace}.debug")
        except (RuntimeError, KeyError) as error:
            raise UnusableFile("the .pte cannot be run on one image of its network, so its layers cannot be timed.") from error
        events = [event for block in Inspector(trace).event_blocks if block.name == "Execute" for event in block.events]
    timed = [(event.name, float(np.mean(event.perf_data.raw[WARM:]))) for event in events if event.name not in AROUND]
    kinds = [name.partition(" #")[0] for name, _ in timed]
    return tuple(
        LayerTime(node or name, kind, ms) for (name, ms), kind, node in zip(timed, kinds, named(kinds, graph), strict=True)
    )


def named(kinds: Sequence[str], graph: Graph) -> list[str | None]:
    """For each of a runtime's operators, in running order, the Graph's node that it computes; None where that is not certain.

    The n-th operator of a kind is the n-th node of that kind, if there are as many of both and none contradicts its node.
    """
    names: list[str | None] = [None] * len(kinds)
    for ops, beginnings in KINDS.items():
        places = [i for i, kind in enumerate(kinds) if kind.startswith(beginnings)]
        nodes = [node for node in graph.nodes if node.op in ops]
        if len(places) == len(nodes) and all(_fits(kinds[i], node, graph) for i, node in zip(places, nodes, strict=True)):
            for i, node in zip(places, nodes, strict=True):
                names[i] = node.name
    return names


def _fits(kind: str, node: Node, graph: Graph) -> bool:
    """XNNPACK has kernels for convolutions a channel each (DWConv), and none for others than 1 x 1 as matrices."""
    if node.op not in ("conv2d", "depthwise_conv2d"):
        return True
    weight = graph.tensors[node.inputs[1]]
    deep = node.op == "depthwise_conv2d" or weight.shape[3] == 1
    return deep if "DWConv" in kind else weight.shape[1:3] == (1, 1) or not kind.startswith("Fully Connected")
