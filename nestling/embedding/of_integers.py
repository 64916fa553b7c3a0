"""The embeddings of an int8 Graph for thousands of images: its printed .tflite, run by LiteRT.

The quick kernels answer within a few steps of the reference (on EfficientNet-Lite0 85% of an embedding's bytes are equal, and the
rest add a sixth of the noise that quantisation made): good enough to learn a head on. The reference kernels give the reference's
own bytes.
"""

from __future__ import annotations

import hashlib
import os
import queue
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from ai_edge_litert import __version__ as version

from nestling.embedding.engine import Engine, Image, Vector
from nestling.formats.tflite.printing import print_graph
from nestling.formats.tflite.run import Kernels, open_interpreter
from nestling.graph.ir import Graph


def integer_engine(graph: Graph, kernels: Kernels = "default") -> Engine:
    """An Engine for an int8 graph: uint8 image [1, H, W, C] -> int8 embedding [1, D]; the vectors are its real numbers, float32.

    One interpreter of one thread a core; integers do not depend on how many there are.
    """
    model = print_graph(graph)
    embedding = graph.tensors[graph.outputs[0]]
    assert embedding.quant is not None
    quant = embedding.quant

    def embed(images: Iterator[Image]) -> Iterator[Vector]:
        workers = os.cpu_count() or 1
        free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(workers):
            free.put(open_interpreter(model, "the int8 graph", kernels))

        def one(image: Image) -> Vector:
            interpreter = free.get()
            try:
                interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
                interpreter.invoke()
                steps = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
            finally:
                free.put(interpreter)
            return quant.real(steps)

        pending: deque[Future[Vector]] = deque()
        with ThreadPoolExecutor(workers, thread_name_prefix="litert") as pool:
            for image in images:
                pending.append(pool.submit(one, np.ascontiguousarray(image)))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    digest = hashlib.sha256(model).hexdigest()[:16]
    return Engine(f"litert-{version} int8 {kernels} {digest}", embedding.shape[1], embed)
