"""Weights without zero points: channel by channel against plain arithmetic, and against LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.artifacts.import_model import import_model
from nestling.formats.about import about
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.executorch.symmetric import Requantised, symmetric_weights
from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.formats.tflite.read_builder import DTYPES
from nestling.graph import ir
from nestling.graph.edit import tidy
from nestling.graph.ends import ending, with_own_end
from nestling.graph.ir import Graph, Node, Quant, Tensor, same
from nestling.graph.spec import check

Shared = Callable[[str], Path]
CHANNELS = {"conv2d": 0, "depthwise_conv2d": 3, "fully_connected": 0}
ATTRS: Mapping[str, ir.Attrs] = {
    "conv2d": ir.Conv2d(padding=(1, 1, 1, 1), unsigned=True),
    "depthwise_conv2d": ir.DepthwiseConv2d(padding=(1, 1, 1, 1), unsigned=True),
    "fully_connected": ir.FullyConnected(),
    "average_pool": ir.AveragePool((6, 6), (6, 6), unsigned=True),
    "reshape": ir.Reshape(),
    "concat": ir.Concat(),
}


def per_tensor(scale: float, zero_point: int = 0) -> Quant:
    return Quant(np.array([scale], np.float32), np.array([zero_point], np.int32))


class Old:
    """A network of the uint8 age while it is built: activations [1, 6, 6, C] of scale 1 / 16, weights about a thousandth a step."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors = {"x": Tensor("x", (1, 6, 6, 4), "int8", None, per_tensor(1 / 16, -3))}
        self.nodes: list[Node] = []

    def constant(self, name: str, data: np.ndarray, quant: Quant) -> str:
        self.tensors[name] = Tensor(name, data.shape, DTYPES[data.dtype.name], data, quant)
        return name

    def layer(
        self, op: str, x: str, out: int, zero_point: int, spread: int = 128, scale: float = 1 / 1024, quant: Quant | None = None
    ) -> str:
        """weights: uniform within `spread` steps of the zero point, as far as int8 goes."""
        source, name = self.tensors[x], f"{op}{len(self.nodes)}"
        inside = source.shape[-1]
        shape = {"conv2d": (out, 3, 3, inside), "depthwise_conv2d": (1, 3, 3, inside), "fully_connected": (out, inside)}[op]
        steps = np.clip(zero_point + self.rng.integers(-spread, spread + 1, shape), -128, 127).astype(np.int8)
        weight = self.constant(f"{name}.weight", steps, per_tensor(scale, zero_point))
        bias = self.rng.integers(-20_000, 20_000, shape[CHANNELS[op]]).astype(np.int32)
        bias_name = self.constant(f"{name}.bias", bias, per_tensor(float(source.quant.scale[0]) * scale))
        return self.add(op, (x, weight, bias_name), name, quant)

    def add(self, op: str, inputs: tuple[str, ...], name: str, quant: Quant | None = None) -> str:
        shapes = [self.tensors[i].shape for i in inputs]
        shape = {
            "conv2d": lambda: (*shapes[0][:3], shapes[1][0]),
            "depthwise_conv2d": lambda: shapes[0],
            "fully_connected": lambda: (1, shapes[1][0]),
            "average_pool": lambda: (1, 1, 1, shapes[0][3]),
            "reshape": lambda: (1, shapes[0][3]),
            "concat": lambda: (*shapes[0][:3], sum(shape[3] for shape in shapes)),
        }[op]()
        kept = self.tensors[inputs[0]].quant if op in ("average_pool", "reshape") else per_tensor(1 / 16, 5)
        self.tensors[name] = Tensor(name, shape, "int8", None, quant or kept)
        self.nodes.append(Node(op, inputs, (name,), ATTRS[op]))
        return name

    def graph(self, out: str) -> Graph:
        return check(Graph(self.tensors, tuple(self.nodes), ("x",), (out,)))


def reals(tensor: Tensor, axis: int) -> np.ndarray:
    """The real numbers, float64 [channels, rest]."""
    quant = tensor.quant
    shape = [-1 if i == axis else 1 for i in range(len(tensor.shape))]
    steps = tensor.data.astype(np.float64) - quant.zero_point.astype(np.float64).reshape(shape if len(quant.scale) > 1 else 1)
    real = steps * quant.scale.astype(np.float64).reshape(shape if len(quant.scale) > 1 else 1)
    return np.moveaxis(real, axis, 0).reshape(tensor.shape[axis], -1)


def require_symmetric(old: Graph, new: Graph, said: Requantised) -> None:
    """Every layer of `new` beside that of `old`."""
    changed = of = 0
    for before, after in zip(old.nodes, (node for node in new.nodes if node.op != "quantize"), strict=True):
        assert not getattr(after.attrs, "unsigned", False)
        if before.op not in CHANNELS:
            continue
        axis = CHANNELS[before.op]
        weight, found = old.tensors[before.inputs[1]], new.tensors[after.inputs[1]]
        assert found.dtype == "int8" and found.data.min() >= -127 and not found.quant.zero_point.any()
        assert found.quant.axis == (axis if weight.shape[axis] > 1 else None)
        plain = np.moveaxis(weight.data.astype(int) - int(weight.quant.zero_point[0]), axis, 0).reshape(weight.shape[axis], -1)
        rows = np.moveaxis(found.data, axis, 0).reshape(plain.shape)
        bias, found_bias = (graph.tensors[node.inputs[2]] for graph, node in ((old, before), (new, after)))
        real, found_real = reals(weight, axis), reals(found, axis)
        for channel, steps in enumerate(plain):
            of += 1
            step = float(found.quant.scale[channel])
            bias_step = float(np.broadcast_to(found_bias.quant.scale, len(plain))[channel])
            was, now = (float(reals(t, 0)[channel, 0]) for t in (bias, found_bias))
            if np.abs(steps).max() <= 127:
                np.testing.assert_array_equal(rows[channel], steps)
                assert step == weight.quant.scale[0] and now == was and found_bias.data[channel] == bias.data[channel]
            else:
                changed += 1
                assert np.abs(rows[channel]).max() == 127
                assert np.abs(found_real[channel] - real[channel]).max() <= 0.5 * step * (1 + 1e-5)
                assert abs(now - was) <= 0.5 * bias_step * (1 + 1e-5) + 1e-6 * abs(was)
                np.testing.assert_allclose(bias_step, step * old.tensors[before.inputs[0]].quant.scale[0], rtol=1e-5)
    assert said == Requantised(changed, of)


LAYERS = st.lists(
    st.tuples(st.sampled_from(["conv2d", "depthwise_conv2d"]), st.integers(1, 5), st.integers(-128, 127), st.integers(0, 255)),
    min_size=1,
    max_size=3,
)


@settings(max_examples=80, deadline=None)
@given(LAYERS, st.integers(-128, 127), st.integers(0, 2**32 - 1))
def test_a_channel_keeps_its_integers_where_they_fit_and_is_within_half_a_step_elsewhere(
    layers: list[tuple[str, int, int, int]], last: int, seed: int
) -> None:
    old = Old(seed)
    x = "x"
    for op, out, zero_point, spread in layers:
        x = old.layer(op, x, out, zero_point, spread)
    x = old.add("reshape", (old.add("average_pool", (x,), "pooled"),), "flat")
    graph = old.graph(old.layer("fully_connected", x, 7, last))
    new, said = symmetric_weights(graph)
    if any(graph.tensors[node.inputs[1]].quant.zero_point.any() for node in graph.nodes if node.op in CHANNELS):
        require_symmetric(graph, check(new), said)
    else:
        assert new is graph and said == Requantised(0, 0)


def reference_difference(old: Graph, new: Graph) -> np.ndarray:
    """How many steps LiteRT's reference kernels' answers differ by, [images, numbers]; the old network's in uint8."""
    models = [tflite.print_graph(graph) for graph in (old, new)]
    off = []
    for seed in range(8):
        image = np.random.default_rng(seed).integers(0, 256, old.tensors["x"].shape).astype(np.uint8)
        was, now = tflite_run.run(models[0], [image])[0], tflite_run.run(models[1], [(image ^ np.uint8(128)).view(np.int8)])[0]
        off.append((was.astype(int) - 128 - now).reshape(-1))
    return np.stack(off)


def test_where_all_channels_fit_the_answers_stay() -> None:
    """But for a step here and there: the old kernels round the product of two scales first, and average_pool's halves upwards."""
    old = Old()
    x = old.layer("depthwise_conv2d", old.layer("conv2d", "x", 8, 37, 90), 0, -20, 100)
    x = old.add("reshape", (old.add("average_pool", (x,), "pooled"),), "flat")
    graph = old.graph(old.layer("fully_connected", x, 16, 9, 110))
    new, said = symmetric_weights(graph)
    off = reference_difference(graph, new)
    assert said == Requantised(0, 8 + 8 + 16)
    assert np.abs(off).max() <= 1 and np.mean(off != 0) < 0.1


def test_what_concat_reads_is_brought_to_its_scale() -> None:
    """The uint8 kernel rescaled its inputs itself; the int8 one copies bytes."""
    old = Old()
    parts = tuple(
        old.layer("conv2d", "x", 4, 11, 100, quant=quant) for quant in (per_tensor(1 / 9, 7), None, per_tensor(1 / 20, -40))
    )
    graph = old.graph(old.add("concat", parts, "all", per_tensor(1 / 16, 5)))
    new, _ = symmetric_weights(graph)
    assert [node.op for node in new.nodes].count("quantize") == 2
    off = reference_difference(graph, new)
    assert np.abs(off).max() <= 1 and np.mean(off != 0) < 0.05


def test_a_bias_that_layers_share_becomes_each_ones_own() -> None:
    """It follows the weights' new scales, which are not the same in both."""
    old = Old()
    parts = [old.layer("conv2d", "x", 4, zero_point, 220) for zero_point in (30, -100)]
    old.nodes[1] = replace(old.nodes[1], inputs=(*old.nodes[1].inputs[:2], old.nodes[0].inputs[2]))
    del old.tensors[f"{parts[1]}.bias"]
    graph = old.graph(old.add("concat", tuple(parts), "all"))
    new, said = symmetric_weights(graph)
    require_symmetric(graph, new, said)
    assert said.channels > 0
    assert np.mean(np.abs(reference_difference(graph, new))) < 1.5


def test_graphs_without_zero_points_come_back_as_they_are(shared_data: Shared) -> None:
    graph = import_model(shared_data("resnet8_cifar10_int8.tflite")).graph
    new, said = symmetric_weights(graph)
    assert new is graph and same(new, graph) and said == Requantised(0, 0)


# ---- networks of others as programs --------------------------------------------------------------------------------------------


def blots(count: int, side: int) -> np.ndarray:
    """Smooth coloured blots with an edge through them, uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:side, 0:side] / side
    images = np.empty((count, side, side, 3))
    for image in images:
        image[:] = rng.uniform(0, 255, 3)
        for _ in range(12):
            centre, width = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.4)
            blot = np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / width**2)
            image += blot[..., None] * rng.uniform(-200, 200, 3)
        image[(x - 0.5) * rng.normal() + (y - 0.5) * rng.normal() > 0] *= rng.uniform(0.5, 1)
    return np.clip(images, 0, 255).astype(np.uint8)


def scores(model: bytes, graph: Graph, name: str, images: np.ndarray, kernels: tflite_run.Kernels) -> np.ndarray:
    """What LiteRT computes at a tensor, as real numbers; the graph says how they are stored, 128 lower in old networks."""
    rows, quant = [], graph.tensors[name].quant
    interpreter = tflite_run.open_interpreter(model, name, kernels)
    source, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        values = interpreter.get_tensor(out["index"])
        rows.append(
            (values.astype(np.float64).reshape(-1) - (128 if values.dtype == np.uint8 else 0) - quant.zero_point) * quant.scale
        )
    return np.stack(rows)


def original_scores(path: Path, graph: Graph, name: str, images: np.ndarray) -> np.ndarray:
    """What LiteRT's reference kernels compute in the file as it is, before its softmax."""
    rows, quant, model = [], graph.tensors[name].quant, path.read_bytes()
    unsigned = tflite_run.open_interpreter(model, str(path)).get_input_details()[0]["dtype"] == np.uint8
    for image in images:
        values = tflite_run.activations(model, [image[None] if unsigned else (image[None] ^ np.uint8(128)).view(np.int8)])[name]
        rows.append((values.astype(np.float64).reshape(-1) - (128 if unsigned else 0) - quant.zero_point) * quant.scale)
    return np.stack(rows)


@pytest.mark.parametrize(
    ("name", "channels", "most", "agreement"),
    [
        ("resnet8_cifar10_int8.tflite", 0, 1.1, 0.9),
        ("vww_96_int8.tflite", 0, 1.1, 0.95),
        pytest.param("mobilenet_v2_1_0_224_quant.tflite", 56, 1.2, 0.85, marks=pytest.mark.slow),
    ],
)
@pytest.mark.kernels
def test_an_imported_network_answers_as_its_file(
    shared_data: Shared, name: str, channels: int, most: float, agreement: float
) -> None:
    """XNNPACK rounds once where the reference kernels round twice, in LiteRT as here: the program is about as near as LiteRT's own.

    most: the program's distance to the reference over LiteRT's own; requantised channels add to it.
    """
    path = shared_data(name)
    bundle = import_model(path)
    graph, images = bundle.graph, blots(40, bundle.preprocess.size[0])
    symmetric, said = symmetric_weights(with_own_end(graph))
    printed = executorch.print_program(GraphProgram(symmetric).eval(), about(bundle))
    assert said.channels == channels
    logits = ending(graph).logits
    reference = original_scores(path, graph, logits, images)
    quick = scores(tflite.print_graph(tidy(replace(graph, outputs=(logits,)))), graph, logits, images, "default")
    found = executorch_run.load_bytes(printed.content, "x.pte", 1)(images)
    noise, own = (np.sqrt(np.mean((other - reference) ** 2)) for other in (found, quick))
    assert noise <= most * own, (noise, own)
    assert noise < 0.25 * np.sqrt(np.mean((reference - reference.mean(0)) ** 2))
    assert np.mean(found.argmax(1) == reference.argmax(1)) >= agreement
    require_weights_inside(printed.content, graph)


def require_weights_inside(content: bytes, graph: Graph) -> None:
    """Every convolution's channels that fit, in the file's own integers less the zero point; a sample of each layer's."""
    found = 0
    for node in graph.nodes:
        if node.op != "conv2d":
            continue
        weight = graph.tensors[node.inputs[1]]
        steps = weight.data.astype(int) - int(weight.quant.zero_point[0])
        for channel in steps[:: max(1, len(steps) // 8)]:
            if np.abs(channel).max() <= 127:
                assert channel.astype(np.int8).tobytes() in content, node.name
                found += 1
    assert found > 20
