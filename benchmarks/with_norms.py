"""Gives an imported network its batch norms back, so that it can be trained like one that was never folded.

    python benchmarks/with_norms.py fitted.nest normed.nest [--data FOLDER_OR_TAR_GZ] [--images 512]

The network answers as before: behind each convolution stands a norm whose mean and variance are those of its values on
training photographs, and whose gamma and beta undo it (they take over the bias). The head stays.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from photographs import folder

from nestling.bundle import load, save
from nestling.compress.measure import photographs, unfolded_graph
from nestling.data.choose import part, training_data
from nestling.graph.ir import BatchNorm, Conv2d, DepthwiseConv2d, Graph, MaxPool, Node, Tensor
from nestling.graph.spec import check
from nestling.models.graph_module import GraphModule
from nestling.preprocess import table

EPSILON = 1e-5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    bundle = load(options.bundle)
    named = Path(str(next(step.settings["folder"] for step in reversed(bundle.lineage) if "folder" in step.settings)))
    with folder(options.data or named) as data:
        dataset = training_data(bundle, data)
        images, _ = photographs(part(dataset, bundle, "train"), bundle.preprocess, options.images, 0, dataset.root)
    graph = unfolded_graph(bundle)
    values = images
    if graph.tensors[graph.inputs[0]].dtype == "float32":
        values = np.stack([row[images[..., channel]] for channel, row in enumerate(table(bundle.preprocess))], axis=-1)
    made = with_norms(graph, values)
    with torch.inference_mode():
        before, after = (GraphModule(each).eval()(torch.from_numpy(values[:64])).numpy() for each in (graph, made))
    save(replace(bundle, architecture=made, arrays={}, graph=None, yardstick=None), options.output)
    print(f"{options.output}: {sum(node.op == 'batch_norm' for node in made.nodes)} norms; embeddings differ by "
          f"{np.abs(before - after).max() / np.abs(before).max():.1e} of the largest")  # fmt: skip


def with_norms(graph: Graph, images: np.ndarray) -> Graph:
    """images: float32 or uint8 [N, H, W, C], as the graph takes them."""
    nodes: list[Node] = []
    tensors = dict(graph.tensors)

    def constant(name: str, data: np.ndarray) -> str:
        tensors[name] = Tensor(name, data.shape, "float32", data.astype(np.float32))
        return name

    statistics = statistics_of(graph, images)
    for node in graph.nodes:
        if not isinstance(node.attrs, Conv2d | DepthwiseConv2d):
            nodes.append(node)
            continue
        mean, variance = statistics[node.name]
        bias = np.zeros_like(mean) if len(node.inputs) == 2 else graph.tensors[node.inputs[2]].data
        assert bias is not None
        linear, normed = (f"{node.name}/{end}" for end in ("linear", "normed"))
        tensors[linear] = replace(tensors[node.name], name=linear)
        tensors[normed] = replace(tensors[node.name], name=normed)
        gamma, beta = constant(f"{node.name}/gamma", np.sqrt(variance + EPSILON)), constant(f"{node.name}/beta", mean + bias)
        held = constant(f"{node.name}/mean", mean), constant(f"{node.name}/variance", variance)
        nodes.append(replace(node, inputs=node.inputs[:2], outputs=(linear,), attrs=replace(node.attrs, clamp="none")))
        nodes.append(Node("batch_norm", (linear, gamma, beta, *held), (normed,), BatchNorm(EPSILON), node.source))
        # a clamp of its own, as capture makes it
        nodes.append(Node("max_pool", (normed,), node.outputs, MaxPool((1, 1), (1, 1), clamp=node.attrs.clamp), node.source))
    used = {name for node in nodes for name in (*node.inputs, *node.outputs)} | set(graph.inputs)
    kept = {name: tensor for name, tensor in tensors.items() if name in used}
    return check(Graph(kept, tuple(nodes), graph.inputs, graph.outputs))


def statistics_of(graph: Graph, images: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(mean, variance) a channel of what each convolution gives without bias and clamp, float64."""
    convolutions = {node.name: node for node in graph.nodes if isinstance(node.attrs, Conv2d | DepthwiseConv2d)}
    linear = {name: replace(node, attrs=replace(node.attrs, clamp="none")) for name, node in convolutions.items()}
    clamps = {name: node.attrs.clamp for name, node in convolutions.items()}  # type: ignore[union-attr]  # all have one
    module = GraphModule(replace(graph, nodes=tuple(linear.get(node.name, node) for node in graph.nodes))).eval()
    sums: dict[str, list[torch.Tensor]] = {name: [torch.zeros(1, dtype=torch.float64)] * 2 for name in convolutions}
    count = dict.fromkeys(convolutions, 0)

    def seen(name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in convolutions:
            return value
        bias = module.constant(convolutions[name].inputs[2]) if len(convolutions[name].inputs) > 2 else torch.zeros(1)
        rows = (value - bias).double().reshape(-1, value.shape[-1])
        sums[name] = [sums[name][0] + rows.sum(0), sums[name][1] + rows.square().sum(0)]
        count[name] += len(rows)
        return torch.clamp(value, 0, {"none": None, "relu": None, "relu6": 6}[clamps[name]]) if clamps[name] != "none" else value

    module.observe = seen
    with torch.inference_mode():
        for at in range(0, len(images), 64):
            module(torch.from_numpy(images[at : at + 64]))
    means = {name: (total / count[name]).numpy() for name, (total, _) in sums.items()}
    return {name: (means[name], (squares / count[name]).numpy() - means[name] ** 2) for name, (_, squares) in sums.items()}


if __name__ == "__main__":
    main()
