"""What skipped zeros save in C: instructions and flash of a network's 1x1 convolutions, dense and with most blocks of four zero.

    python benchmarks/zeros.py vww_96_int8.tflite [--machines cortex-m4,cortex-m55,rv32imc] [--share 80%]

In each 1x1 convolution the blocks with the smallest sum of squares become zero: as `prune --method block1x4` leaves them, but
untrained, since what an answer costs does not depend on how good it is. Before, all that the network has of zeros and of channels
that no longer answer is filled up (noise, a layer's largest scale, small biases), so that nothing can be skipped. Weights: bytes
without the constants of rescaling. A machine that counts no instructions gives milliseconds. Prints Markdown.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.artifacts.yardstick import made_up
from nestling.bundle import Bundle
from nestling.formats.about import about
from nestling.formats.c import folder, machines, virtual
from nestling.formats.c.fitting import whole
from nestling.formats.c.kernels import blocks, windows
from nestling.formats.c.kernels.layers import Layer
from nestling.formats.c.lower import lower
from nestling.graph.ir import Graph, Node
from nestling.graph.spec import check


def filled(graph: Graph) -> Graph:
    """The graph without zeros in its 1x1 convolutions, and without channels of them that answer nothing."""
    tensors, rng = dict(graph.tensors), np.random.default_rng(0)
    for node in graph.nodes:
        if of_interest(node, graph):
            x, weight, bias = (graph.tensors[name] for name in node.inputs)
            assert x.quant is not None and weight.quant is not None and bias.quant is not None and bias.data is not None
            scale = np.full_like(weight.quant.scale, weight.quant.scale.max())
            noise = rng.integers(1, 20, weight.shape) * rng.choice([-1, 1], weight.shape)
            data = np.where(weight.data == 0, noise, weight.data).astype(np.int8)
            tensors[weight.name] = replace(weight, data=data, quant=replace(weight.quant, scale=scale))
            of_bias = replace(bias.quant, scale=(scale * x.quant.scale[0]).astype(np.float32))
            tensors[bias.name] = replace(bias, data=np.clip(bias.data, -1000, 1000).astype(np.int32), quant=of_bias)
    return check(replace(graph, tensors=tensors))


def pruned(graph: Graph, share: float) -> Graph:
    """The graph with this share of the blocks of every 1x1 convolution zero."""
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if of_interest(node, graph):
            weight = graph.tensors[node.inputs[1]]
            assert weight.data is not None
            tensors[weight.name] = replace(weight, data=without_smallest(np.asarray(weight.data, np.int8), share))
    return replace(graph, tensors=tensors)


def without_smallest(weight: NDArray[np.int8], share: float) -> NDArray[np.int8]:
    """int8 [O, 1, 1, I] with this share of its blocks zero."""
    out, depth = weight.shape[0], weight.shape[3]
    padded = np.pad(weight.reshape(out, depth), ((0, 0), (0, -depth % blocks.WIDTH))).reshape(out, -1, blocks.WIDTH)
    squares = (padded.astype(np.int64) ** 2).sum(axis=2)
    gone = np.argsort(squares, axis=None, kind="stable")[: round(share * squares.size)]
    padded.reshape(-1, blocks.WIDTH)[gone] = 0
    return padded.reshape(out, -1)[:, :depth].reshape(weight.shape)


def of_interest(node: Node, graph: Graph) -> bool:
    return node.op == "conv2d" and windows.is_1x1(node, graph)


def weights_of(layer: Layer, graph: Graph) -> int:
    """Bytes of flash: blocks and their places, or every weight."""
    node = next(node for node in graph.nodes if node.name == layer.writes)
    places = next((constant for constant in layer.constants if constant.role == "places"), None)
    dense = int(np.prod(graph.tensors[node.inputs[1]].shape))
    return dense if places is None else places.bytes + blocks.WIDTH * places.data.size


def ran(graph: Graph, bundle: Bundle, name: str) -> virtual.Ran:
    machine = machines.machine(name)
    with TemporaryDirectory() as place:
        folder.write(folder.print_network(graph, about(bundle), machine), Path(place) / "network")
        return virtual.run(Path(place) / "network", machine, made_up(bundle.preprocess, 1)[0])


def rows(bundle: Bundle, name: str, share: float) -> list[str]:
    """A machine's table: a row a convolution, and all of them."""
    dense = filled(whole(bundle))
    graphs = (dense, pruned(dense, share))
    found = [ran(graph, bundle, name) for graph in graphs]
    programs = [lower(graph, machines.machine(name)) for graph in graphs]
    nodes = {node.name for node in dense.nodes if of_interest(node, dense)}
    made = [f"\n{machines.machine(name).title}\n", "| | layer | MACs | dense | pruned | of dense | weights | pruned | of dense |"]
    made.append(f"|---|---|{'---:|' * 7}")
    totals = np.zeros(5)
    for counts, layers in zip(
        zip(*(one.layers for one in found), strict=True), zip(*(p.layers for p in programs), strict=True), strict=True
    ):
        if counts[0].name in nodes:
            sizes = [weights_of(layer, dense) for layer in layers]
            figures = [counts[0].macs, *(count.instructions or count.ms or 0 for count in counts), *sizes]
            totals += figures
            made.append(_row(f"{'x'.join(map(str, counts[0].shape))} | {layers[1].kind}", figures))
    made.append(_row("all | ", totals.tolist()))
    wholes = [sum(layer.instructions or layer.ms or 0 for layer in one.layers) for one in found]
    flash = [(one.code or 0) + (one.constants or 0) for one in found]
    return [
        *made,
        f"\nThe whole network: {_count(wholes[0])} before, {_count(wholes[1])} after; flash {flash[0]:,} and {flash[1]:,} bytes.",
    ]


def _row(name: str, figures: list[float]) -> str:
    macs, dense, sparse, bytes_before, bytes_after = figures
    return (
        f"| {name} | {macs:,.0f} | {_count(dense)} | {_count(sparse)} | {sparse / dense:.2f} | "
        f"{bytes_before:,.0f} | {bytes_after:,.0f} | {bytes_after / bytes_before:.2f} |"
    )


def _count(value: float) -> str:
    """Instructions, or milliseconds, which are no whole numbers."""
    return f"{value:,.0f}" if value == round(value) else f"{value:.4f}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("network", type=Path, help="an int8 .tflite, or a quantised bundle")
    arguments.add_argument("--machines", default="cortex-m4,cortex-m55,rv32imc")
    arguments.add_argument("--share", default="80%")
    chosen = arguments.parse_args()
    bundle = bundles.load(chosen.network) if chosen.network.suffix == ".nest" else import_model(chosen.network)
    share = float(chosen.share.removesuffix("%")) / 100
    print(f"{chosen.network.name}, {chosen.share} of the blocks of each 1x1 convolution zero")
    for name in chosen.machines.split(","):
        print("\n".join(rows(bundle, name, share)))


if __name__ == "__main__":
    main()
