"""Runs one .onnx, .pte or .tflite of anybody's for others.py: python raw_worker.py FILE INPUTS.npy. INPUTS: [N, ...], one a run.

Reads a number a line: how often to run the first input; answers {"ms": [...]}. 0 asks for the answers to all: {"answers": path}.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np


def onnx(path: str) -> Callable[[np.ndarray], np.ndarray]:
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: session.run(None, {name: x})[0]


def pte(path: str) -> Callable[[np.ndarray], np.ndarray]:
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(Path(path)).load_method("forward")
    assert method is not None
    return lambda x: method.execute([torch.from_numpy(x)])[0].numpy()


def tflite(path: str) -> Callable[[np.ndarray], np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def main() -> None:
    run = {".onnx": onnx, ".pte": pte, ".tflite": tflite}[Path(sys.argv[1]).suffix](sys.argv[1])
    inputs = np.load(sys.argv[2])
    for _ in range(3):
        run(inputs[:1])
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = perf_counter()
            run(inputs[:1])
            times.append((perf_counter() - start) * 1e3)
        if not times:
            np.save(f"{sys.argv[1]}.answers.npy", np.concatenate([run(x[None]).copy() for x in inputs]))
        print(json.dumps({"ms": times} if times else {"answers": f"{sys.argv[1]}.answers.npy"}), flush=True)


if __name__ == "__main__":
    main()
