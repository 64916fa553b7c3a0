"""Batch norms for a network that has none any more: imported, or folded so that its weights could be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.graph.edit import free_name, tidy
from nestling.graph.ir import Array, BatchNorm, Conv2d, DepthwiseConv2d, Graph, MaxPool, Node, Tensor
from nestling.graph.spec import check
from nestling.models.graph_module import GraphModule
from nestling.quantization.calibrate import batches

EPSILON: Final = 1e-5


def with_norms(graph: Graph, images: Sequence[NDArray[np.uint8]]) -> Graph:
    """The prepared float graph with a batch norm behind each convolution that shares its weights with none, and the same answers.

    Mean and variance are those of the convolution's values on `images` (uint8 [H, W, C] each); gamma and beta undo them, and
    take over the bias. passes.prepare folds them again, under the convolutions' own names.
    """
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    renamed: dict[str, str] = {}  # what a convolution gave -> what its norm, or the clamp behind that, gives

    def added(name: str, like: Tensor) -> str:
        name = free_name(name, tensors)
        tensors[name] = replace(like, name=name)
        return name

    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        if not isinstance(node.attrs, Conv2d | DepthwiseConv2d) or len(graph.readers(node.inputs[1])) > 1:
            nodes.append(node)
            continue
        bias = graph.tensors[node.inputs[2]].data if len(node.inputs) > 2 else None
        neutral = _neutral(graph.tensors[node.name].shape[-1], bias)
        held = [added(f"{node.name}.{what}", Tensor(what, data.shape, "float32", data)) for what, data in neutral.items()]
        normed = added(f"{node.name}.normed", graph.tensors[node.name])
        nodes.append(replace(node, inputs=node.inputs[:2], attrs=replace(node.attrs, clamp="none")))
        nodes.append(Node("batch_norm", (node.name, *held), (normed,), BatchNorm(EPSILON), node.source))
        renamed[node.name] = normed
        if node.attrs.clamp != "none":  # a node of its own, as capture makes it
            renamed[node.name] = added(f"{node.name}.clamped", graph.tensors[node.name])
            clamp = MaxPool((1, 1), (1, 1), clamp=node.attrs.clamp)
            nodes.append(Node("max_pool", (normed,), (renamed[node.name],), clamp, node.source))
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return _with_statistics(check(tidy(Graph(tensors, tuple(nodes), graph.inputs, outputs))), images)


def _neutral(channels: int, bias: Array | None) -> dict[str, Array]:
    """The constants of a norm that adds the bias and does nothing else."""
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    return {"gamma": one, "beta": zero if bias is None else bias, "mean": zero, "variance": one - np.float32(EPSILON)}


def _with_statistics(graph: Graph, images: Sequence[NDArray[np.uint8]]) -> Graph:
    """graph: its norms are neutral. Each gets the statistics of what it reads."""
    norms = {node.inputs[0]: node for node in graph.nodes if node.op == "batch_norm"}
    sums = {name: torch.zeros(3, graph.tensors[name].shape[-1], dtype=torch.float64) for name in norms}

    def seen(name: str, value: torch.Tensor) -> torch.Tensor:
        if name in norms:
            rows = value.double().reshape(-1, value.shape[-1])
            sums[name] += torch.stack([torch.full_like(rows[0], len(rows)), rows.sum(0), rows.square().sum(0)])
        return value

    module = GraphModule(graph).eval()
    module.observe = seen
    with torch.inference_mode():
        for batch in batches(images):
            module(torch.from_numpy(batch))
    tensors = dict(graph.tensors)
    for name, norm in norms.items():
        count, total, squares = sums[name].numpy()
        mean, variance = total / count, np.maximum(squares / count - (total / count) ** 2, 0)
        beta = np.asarray(tensors[norm.inputs[2]].data, np.float64) + mean
        for place, data in zip((1, 2, 3, 4), (np.sqrt(variance + EPSILON), beta, mean, variance), strict=True):
            tensors[norm.inputs[place]] = replace(tensors[norm.inputs[place]], data=data.astype(np.float32))
    return replace(graph, tensors=tensors)
