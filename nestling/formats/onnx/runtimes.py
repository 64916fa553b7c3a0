"""ONNX Runtime and OpenVINO, made ready and kept quiet: a model's bytes become a function."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nestling.formats.onnx.openvino import openvino_core
from nestling.formats.quiet import quiet
from nestling.graph.ir import Array

Runtime = Literal["onnxruntime", "openvino", "as written"]
Answer = Callable[[Array], Sequence[Array]]  # the one input -> every output, in the file's order

NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
FATAL = 4  # of ONNX Runtime's severities; errors come back as exceptions anyway


def import_onnxruntime() -> Any:
    """The package, imported without its telemetry.

    From 1.29 on it would leave an identifier in the user's cache folder and report to a server which models it runs. It looks at
    the environment once, on import. Raises ImportError where there is no ONNX Runtime.
    """
    if "onnxruntime" not in sys.modules:
        before = os.environ.get(NO_TELEMETRY)
        os.environ[NO_TELEMETRY] = "1"
        try:
            with quiet():
                importlib.import_module("onnxruntime")
        finally:
            del os.environ[NO_TELEMETRY]
            if before is not None:
                os.environ[NO_TELEMETRY] = before
    return importlib.import_module("onnxruntime")


def open_session(content: bytes, threads: int | None, profile: Path | None = None, as_written: bool = False) -> Any:
    """ONNX Runtime's session on the CPU.

    threads: None leaves the choice to it. profile: the beginning of a file's name, to which layers' times go.
    as_written: each operator by itself, as the file has it. Between dequantise and quantise all is float then, on any processor,
    where else they are fused into integer kernels, of which some processors have inexact ones.
    Waiting threads sleep: spinning ones take the processor from other runtimes in the process, and gained nothing (one thread), or
    halved the speed (two threads on two shared cores).
    """
    onnxruntime = import_onnxruntime()
    with quiet():
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL
        options.intra_op_num_threads = threads or 0
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if as_written:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: Any, value: Array) -> list[Array]:
    """Every output, in the file's order."""
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = FATAL
    outputs: list[Array] = session.run(None, {session.get_inputs()[0].name: value}, options)
    return outputs


def _onnxruntime(content: bytes, threads: int | None, as_written: bool = False) -> Answer:
    session = open_session(content, threads, as_written=as_written)
    return lambda value: run(session, value)


def _openvino(content: bytes, threads: int | None) -> Answer:
    """Float stays float32 (else it is bfloat16 where the processor has it)."""
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        "ENABLE_CPU_PINNING": False,
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    with quiet():
        core = openvino_core()
        request = core.compile_model(core.read_model(content), "CPU", settings).create_infer_request()

    def answer(value: Array) -> list[Array]:
        request.infer([value])
        return [np.array(tensor.data) for tensor in request.output_tensors]

    return answer


OPEN: Mapping[Runtime, Callable[[bytes, int | None], Answer]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "as written": partial(_onnxruntime, as_written=True),
}
