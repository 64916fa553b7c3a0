"""Small .tflite networks that take numbers of any shape, no photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.helpers.tflite_files import CODE, activation, constant, file, ints, op, quant

RNG = np.random.default_rng(0)
Q, STEP = quant(0.05, -3), np.float32(0.05)


def network(shape: tuple[int, ...], integer: bool) -> bytes:
    """x of any shape -> one row -> two dense layers, the first with RELU -> y [1, 5]."""
    count, q = int(np.prod(shape)), Q if integer else None
    tensors = [activation("x", shape, q), ints("row", 1, count), activation("flat", (1, count), q)]
    operators = [op(CODE.RESHAPE, "x row", "flat", schema.ReshapeOptionsT(), 1)]
    last, width = "flat", count
    for name, units, clamp in (("h", 8, 1), ("y", 5, 0)):
        if integer:
            weight = constant(f"{name}.w", RNG.integers(-127, 128, (units, width)).astype(np.int8), quant(0.007))
            bias = constant(f"{name}.b", RNG.integers(-500, 500, units).astype(np.int32), quant(float(STEP * np.float32(0.007))))
        else:
            weight = constant(f"{name}.w", RNG.normal(0, 0.2, (units, width)).astype(np.float32))
            bias = constant(f"{name}.b", RNG.normal(0, 1, units).astype(np.float32))
        tensors += [weight, bias, activation(name, (1, units), q)]
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=clamp)
        operators.append(op(CODE.FULLY_CONNECTED, f"{last} {name}.w {name}.b", name, options, 4 if integer else 1))
        last, width = name, units
    return file(tensors, operators)


def kept(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path
