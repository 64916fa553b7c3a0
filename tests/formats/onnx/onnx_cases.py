"""Graphs printed as ONNX, and how they are judged node by node."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import reject

from nestling.errors import UnusableFile
from nestling.formats.about import About
from nestling.formats.onnx.printing import print_graph
from nestling.formats.onnx.run import activations
from nestling.formats.onnx.runtimes import OPEN, Runtime, import_onnxruntime
from nestling.graph import reference
from nestling.graph.ir import Array, Conv2d, Graph, Node, Quant, Tensor
from nestling.graph.spec import check
from nestling.preprocess.image import ImagePreprocess
from nestling.preprocess.pictures import Reading
from nestling.words import OnnxWeights

onnxruntime = import_onnxruntime()
SIXTEEN = About(("a", "b"), ImagePreprocess((16, 16), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3, Reading(1023, "srgb")))
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
EMBEDDING = replace(SIXTEEN, gives="embedding")  # of graphs whose outputs are no two scores
MOVES = ("table", "pad", "max_pool", "reshape", "pad_channels", "resize_nearest", "slice")


def quant(scale: float, zero_point: int) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int32))


def one_node(node: Node, *tensors: Tensor) -> Graph:
    """tensors: the node's inputs, then its output."""
    return Graph({tensor.name: tensor for tensor in tensors}, (node,), node.inputs[:1], node.outputs)


def saturates() -> bool:
    """Whether sums of products of bytes are cut off here. ONNX Runtime itself is asked: an emulator shows another processor than
    /proc/cpuinfo does.
    """
    one, steps = quant(1.0, 0), 255 * 127 * 32
    tensors = (
        Tensor("x", (1, 4, 4, 32), "int8", None, quant(1.0, -128)),
        Tensor("w", (16, 1, 1, 32), "int8", np.full((16, 1, 1, 32), 127, np.int8), one),
        Tensor("y", (1, 4, 4, 16), "int8", None, quant(steps / 255, -128)),
    )
    graph = one_node(Node("conv2d", ("x", "w"), ("y",), Conv2d()), *tensors)
    (found,) = OPEN["onnxruntime"](print_graph(graph, SIXTEEN, "int8"), 1)(np.full((1, 4, 4, 32), 255, np.uint8))
    return bool(np.abs(found - steps).max() > 0.02 * steps)


SATURATES = saturates()
# OpenVINO's products are oneDNN's, which a switch can keep from newer instructions
EXACT = {"onnxruntime": not SATURATES, "openvino": not SATURATES and "ONEDNN_MAX_CPU_ISA" not in os.environ}
needs_exact_products = pytest.mark.skipif(SATURATES, reason="needs a processor that sums products of bytes in 32 bits (VNNI)")
WEIGHTS = ("uint8", pytest.param("int8", marks=needs_exact_products))


def session(content: bytes, optimised: Path | None = None, **entries: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    if optimised:
        options.optimized_model_filepath = str(optimised)
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def outputs(content: bytes, value: Array, **entries: Any) -> list[Array]:
    ready = session(content, **entries)
    return ready.run(None, {ready.get_inputs()[0].name: value})


def as_input(value: Array) -> Array:
    """int8 inputs are printed as uint8, 128 higher."""
    return (value.astype(np.int16) + 128).astype(np.uint8) if value.dtype == np.int8 else value


def steps_off(graph: Graph, value: Array, weights: OnnxWeights) -> dict[str, int]:
    """By node: how far ONNX Runtime's integers are from the reference's for the inputs that ONNX Runtime itself had."""
    values = activations(print_graph(graph, SIXTEEN, weights), as_input(value)) | {graph.inputs[0]: value}
    values |= {name: tensor.data for name, tensor in graph.tensors.items() if tensor.data is not None}
    off = {}
    for node in graph.nodes:
        if graph.tensors[node.name].dtype == "int8":
            wanted = reference.step(graph, node, tuple(values[name] for name in node.inputs))
            assert values[node.name].shape == wanted.shape and values[node.name].dtype == np.int8
            off[node.name] = int(np.abs(values[node.name].astype(int) - wanted).max())
    return off


def most_steps(node: Node, graph: Graph) -> float:
    """The largest product that a mul's operands can have, in steps of its output; 0 of real numbers."""
    grids = [graph.tensors[name].quant for name in (*node.inputs, node.name)]
    if any(grid is None for grid in grids):
        return 0
    a, b, out = (float(grid.scale.max()) for grid in grids)
    return a * b * 255**2 / out


def judge(graph: Graph, value: Array, weights: OnnxWeights) -> None:
    """No node is further off than a step, and what only moves integers not at all. A Graph that the spec refuses is not judged."""
    try:
        check(graph)
    except UnusableFile:  # the strategies may draw scales that an op's kernel cannot take
        reject()
    if any(node.op == "mul" and most_steps(node, graph) >= 2**31 for node in graph.nodes):
        reject()  # ONNX Runtime's QuantizeLinear goes through int32: what is past it, every processor turns into what it likes
    old = any(getattr(node.attrs, "unsigned", False) for node in graph.nodes)
    found = steps_off(graph, value, weights)
    for node in graph.nodes:
        most = 0 if node.op in MOVES or (node.op == "concat" and not old) else 1
        assert found.get(node.name, 0) <= most, (node.op, found[node.name])
