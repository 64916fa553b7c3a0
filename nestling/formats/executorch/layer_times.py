"""How long each operation of a .pte takes, from ExecuTorch's own event trace (ETDump), which the package's runtime has built in.

Outside the delegate every operator is an event. XNNPACK, which takes the whole network as one delegate, logs the operators that it
runs, too: their kinds and numbers ("Convolution (NHWC, QC8) IGEMM #2"), in whole microseconds, but not which layers they are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from nestling.errors import UnusableFile
from nestling.formats.layer_time import LayerTime
from nestling.formats.quiet import quiet

WARM = 3  # runs that do not count
AROUND: Final = ("OPERATOR_CALL", "DELEGATE_CALL", "Method::execute")  # events that hold others


def layer_times(content: bytes, runs: int, threads: int) -> tuple[LayerTime, ...]:
    """The mean time of each of the program's operations, in running order; together about a run.

    content: of a .pte that takes one uint8 image. threads: for the whole process. Names are the runtime's (see
    layer_time.with_names).
    Raises UnusableFile where the program does not run.
    """
    import torch

    with quiet(), tempfile.TemporaryDirectory() as folder:
        from executorch.devtools import Inspector
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        trace = str(Path(folder) / "trace.etdp")
        try:
            program = Runtime.get().load_program(content, enable_etdump=True)
            forward = program.load_method("forward")
            shape = forward.metadata.input_tensor_meta(0).sizes()
            image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
            for _ in range(WARM + runs):
                forward.execute([image])
            program.write_etdump_result_to_file(trace, f"{trace}.debug")
        except (RuntimeError, KeyError) as error:
            raise UnusableFile("the .pte cannot be run on one image of its network, so its layers cannot be timed.") from error
        events = [event for block in Inspector(trace).event_blocks if block.name == "Execute" for event in block.events]
    timed = [(event.name, float(np.mean(event.perf_data.raw[WARM:]))) for event in events if event.name not in AROUND]
    return tuple(LayerTime(name, name.partition(" #")[0], ms) for name, ms in timed)
