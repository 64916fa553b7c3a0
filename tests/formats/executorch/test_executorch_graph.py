"""Programs printed from the Graph: ExecuTorch's answers against LiteRT's reference kernels, and the integers found in the file."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nestling.errors import UnsupportedOp
from nestling.formats.about import About
from nestling.formats.executorch import printing as executorch
from nestling.formats.executorch import run as executorch_run
from nestling.formats.executorch.format import PROGRAM
from nestling.formats.executorch.graph_program import GraphProgram
from nestling.formats.format import Printed
from nestling.graph import ir
from nestling.graph.ends import with_head
from nestling.graph.head import Head
from nestling.graph.ir import Graph, Node, Quant, Tensor
from nestling.graph.passes import prepare
from nestling.graph.spec import check, output_shape
from nestling.preprocess.image import ImagePreprocess, of_photographs
from tests.helpers.quantization_cases import (
    TABLE,
    Everything,
    Inverted,
    calibrated,
    captured,
    litert,
    pictures,
    seeded,
    torch_float,
)
from tests.helpers.torch_networks import captured_once

CALIBRATION, UNSEEN = pictures(32), pictures(40, seed=1)
WHAT = About(("a", "b"), ImagePreprocess((16, 16), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3))


@pytest.fixture(scope="module", params=[Everything, Inverted])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Graph, bytes]:
    module = seeded(request.param)
    graph, _ = calibrated(captured(module), CALIBRATION)
    return module, graph, executorch.print_program(GraphProgram(graph).eval(), replace(WHAT, gives="embedding")).content


@pytest.mark.kernels
def test_it_adds_less_noise_than_quantisation_did(case: tuple[nn.Module, Graph, bytes]) -> None:
    module, graph, content = case
    reference = litert(graph, UNSEEN)
    answers = executorch_run.load_bytes(content, "x.pte").features(np.stack(UNSEEN))
    quantisation = np.sqrt(np.mean((torch_float(module, UNSEEN) - reference) ** 2))
    assert np.sqrt(np.mean((answers - reference) ** 2)) < 0.75 * quantisation


def test_every_convolutions_integers_stand_in_the_file(case: tuple[nn.Module, Graph, bytes]) -> None:
    """OHWI, as XNNPACK keeps them; depthwise ones have a layout of their own there."""
    _, graph, content = case
    weights = [graph.tensors[node.inputs[1]].data for node in graph.nodes if node.op == "conv2d"]
    assert weights and all(weight.tobytes() in content for weight in weights)


class Grey(nn.Module):
    """Its first layer is an ordinary convolution, which XNNPACK stores as a depthwise one: of a single channel."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.stem, self.last = nn.Conv2d(1, 8, size, 2), nn.Conv2d(8, 12, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.stem(x))).mean((2, 3))


@pytest.mark.parametrize("size", [(3, 3), (10, 4)])
def test_a_grey_networks_weights_are_found_and_altered_ones_are_not(size: tuple[int, int]) -> None:
    images = [picture[..., :1] for picture in (*CALIBRATION, *UNSEEN[:4])]
    graph, _ = calibrated(prepare(captured_once(seeded(Grey, size), (16, 16, 1), TABLE[:1])), images)
    what = replace(
        WHAT, preprocess=replace(of_photographs(WHAT.preprocess), channels=1, mean=(0.5,), std=(0.5,)), gives="embedding"
    )
    printed = executorch.print_program(GraphProgram(graph).eval(), what)
    runner = executorch_run.load_bytes(printed.content, "x.pte")

    def wrong(graph: Graph) -> list[str]:
        return PROGRAM.wrong(Printed(printed.content), graph, np.stack(images), runner)

    assert wrong(graph) == []
    for node in graph.nodes:
        if node.op == "conv2d":
            weight = graph.tensors[node.inputs[1]]
            altered = np.array(weight.data, np.int8)
            altered.flat[altered.size // 2] ^= 1
            one_other = replace(graph, tensors={**graph.tensors, weight.name: replace(weight, data=altered)})
            assert "the weights of" in wrong(one_other)[0] and node.source in wrong(one_other)[0]


def test_a_float_head_stays_float(case: tuple[nn.Module, Graph, bytes]) -> None:
    """The head's own numbers are in the program, and its logits are those of the embedding."""
    _, graph, _ = case
    width = graph.tensors[graph.outputs[0]].shape[1]
    head = Head(np.random.default_rng(0).normal(0, 1, (2, width)).astype(np.float32), np.array([0.5, -1], np.float32))
    module = GraphProgram(with_head(graph, head)).eval()
    with torch.no_grad():
        logits = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in UNSEEN[:8]])
        embeddings = np.concatenate([GraphProgram(graph)(torch.from_numpy(image[None])).numpy() for image in UNSEEN[:8]])
    np.testing.assert_allclose(logits, embeddings @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4)


# ---- shapes and windows that no ordinary backbone has ----------------------------------------------------------------------------


def forms() -> Graph:
    """float: windows padded on one side, slices of channels, columns and numbers, broadcasts by the Graph's order of dimensions,
    reshapes of maps, a mean of one axis.
    """
    rng = np.random.default_rng(6)
    tensors = {"image": Tensor("image", (1, 8, 8, 3), "uint8"), "table": Tensor("table", TABLE.shape, "float32", TABLE)}
    nodes: list[Node] = []

    def then(attrs: ir.Attrs, *constants: tuple[int, ...], shape: tuple[int, ...] | None = None) -> None:
        op = next(op for op, kind in ir.OPS.items() if type(attrs) is kind)
        x = tensors[nodes[-1].name if nodes else "image"]
        names = [f"{op}{len(nodes)}.{i}" for i in range(len(constants))]
        for name, size in zip(names, constants, strict=True):
            tensors[name] = Tensor(name, size, "float32", rng.normal(0.1, 1 / np.sqrt(np.prod(size[1:])), size).astype(np.float32))
        inputs = (x.name, *(names or (["table"] if op == "table" else [])))
        out = f"{op}{len(nodes)}"
        tensors[out] = Tensor(out, shape or output_shape(op, attrs, *(tensors[name].shape for name in inputs)), "float32")
        nodes.append(Node(op, inputs, (out,), attrs))

    then(ir.Table())
    then(ir.Conv2d(padding=(1, 1, 1, 1)), (10, 3, 3, 3), (10,))
    then(ir.Slice(3, 1, 9))
    then(ir.AveragePool((3, 3), (2, 2), (0, 1, 0, 1)))  # [1, 4, 4, 8]
    then(ir.Mul(), (1, 8))
    then(ir.Add(), (4, 8))
    then(ir.MaxPool((3, 3), (1, 1), (0, 2, 1, 1)))
    then(ir.ResizeNearest((8, 9)))
    then(ir.Slice(2, 1, 9))
    then(ir.Gelu())
    then(ir.ResizeNearest((4, 4), half_pixel_centers=True))
    then(ir.Mean((1,)))  # [1, 4, 8]
    then(ir.Reshape(), shape=(1, 2, 2, 8))
    then(ir.Conv2d(clamp="relu"), (6, 1, 1, 8), (6,))
    then(ir.Reshape(), shape=(1, 24))
    then(ir.FullyConnected(), (14, 24), (14,))
    then(ir.Slice(1, 2, 14))
    then(ir.Reshape(), shape=(1, 2, 1, 6))
    then(ir.Softmax())
    then(ir.Reshape(), shape=(1, 12))
    return check(Graph(tensors, tuple(nodes), ("image",), (nodes[-1].name,)))


def program_of(graph: Graph) -> executorch.Printed:
    about = replace(WHAT, preprocess=replace(of_photographs(WHAT.preprocess), size=(8, 8)), gives="embedding")
    return executorch.print_program(GraphProgram(graph).eval(), about)


def test_odd_forms_are_computed_as_the_graph_has_them() -> None:
    """In float to rounding errors, in integers to a step or two of a softmax that a dozen other roundings lead to."""
    graph, images = forms(), pictures(40, 8)
    integers, _ = calibrated(graph, images[:20])
    floats, steps = (
        executorch_run.load_bytes(program_of(some).content, "x").features(np.stack(images)) for some in (graph, integers)
    )
    wanted, reference = litert(graph, images), litert(integers, images)
    np.testing.assert_allclose(floats, wanted, atol=1e-5)
    assert np.std(wanted, 0).mean() > 9 / 256  # or a constant would do
    assert np.abs(steps - reference).max() < 4.5 / 256 and np.sqrt(np.mean((steps - reference) ** 2)) < 1 / 256


@pytest.mark.parametrize("size", [(16, 24), (5, 11)])
def test_resizes_channels_of_zeros_and_leaky_relu(size: ir.Pair) -> None:
    """In integers the line in place of the table may be a step off, and the leaky relu another; all else only moves them."""
    wide = (*size, 6)
    tensors = {"image": Tensor("image", (1, 8, 8, 3), "uint8"), "table": Tensor("table", TABLE.shape, "float32", TABLE)}
    shapes = {"x": (8, 8, 3), "l": (8, 8, 3), "c": (8, 8, 6), "r": wide}
    tensors |= {name: Tensor(name, (1, *shape), "float32") for name, shape in shapes.items()}
    tensors["e"] = Tensor("e", (1, int(np.prod(wide))), "float32")
    nodes = (
        Node("table", ("image", "table"), ("x",), ir.Table()),
        Node("leaky_relu", ("x",), ("l",), ir.LeakyRelu(0.3)),
        Node("pad_channels", ("l",), ("c",), ir.PadChannels(1, 2)),
        Node("resize_nearest", ("c",), ("r",), ir.ResizeNearest(size)),
        Node("reshape", ("r",), ("e",), ir.Reshape()),
    )
    graph, images = check(Graph(tensors, nodes, ("image",), ("e",))), pictures(8, 8)
    integers, _ = calibrated(graph, images)
    step = float(integers.tensors["e"].quant.scale[0])
    for some, most in ((graph, 1e-5), (integers, 2.01 * step)):
        found = executorch_run.load_bytes(program_of(some).content, "x").features(np.stack(images))
        off = np.abs(found - litert(some, images))
        assert off.max() < most and (off > 1e-5).mean() < 0.1


class Gated(nn.Module):
    """GhostNetV2's: a gate from a smaller map, resized; stride 8 leaves it one place."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stem, self.gate, self.deep = nn.Conv2d(3, 8, 3, stride, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        gate = torch.sigmoid(self.gate(nn.functional.avg_pool2d(x, 2)))
        return (self.deep(x) * nn.functional.interpolate(gate, size=x.shape[-2:])).mean((2, 3))


@pytest.mark.parametrize("stride", [4, 8])
def test_a_gate_is_resized_behind_the_delegate(stride: int) -> None:
    graph, _ = calibrated(captured(seeded(Gated, stride)), CALIBRATION)
    content = executorch.print_program(GraphProgram(graph).eval(), replace(WHAT, gives="embedding")).content
    found = executorch_run.load_bytes(content, "x.pte").features(np.stack(UNSEEN[:8]))
    step = graph.tensors[graph.outputs[0]].quant.scale[0]
    assert np.abs(found - litert(graph, UNSEEN[:8])).max() < 2.5 * step


def test_a_constant_of_four_dimensions_is_one_a_channel() -> None:
    """As converters write them; of [1, C, 1, 1] XNNPACK would make another layout's."""
    rng = np.random.default_rng(4)
    held = {"table": TABLE, "factor": rng.normal(0, 1, (1, 1, 1, 3)).astype(np.float32)}
    tensors = {name: Tensor(name, data.shape, "float32", data) for name, data in held.items()}
    tensors |= {"image": Tensor("image", (1, 8, 8, 3), "uint8"), "out": Tensor("out", (1, 3), "float32")}
    tensors |= {name: Tensor(name, (1, 8, 8, 3), "float32") for name in ("x", "y")}
    nodes = (
        Node("table", ("image", "table"), ("x",), ir.Table()),
        Node("mul", ("x", "factor"), ("y",), ir.Mul()),
        Node("mean", ("y",), ("out",), ir.Mean()),
    )
    graph, images = check(Graph(tensors, nodes, ("image",), ("out",))), pictures(4, 8)
    answers = executorch_run.load_bytes(program_of(graph).content, "x").features(np.stack(images))
    np.testing.assert_allclose(answers, litert(graph, images), atol=1e-5)


def test_an_image_that_is_not_bytes_is_refused() -> None:
    graph = forms()
    rest = replace(graph, nodes=graph.nodes[1:], inputs=("table0",))
    with pytest.raises(UnsupportedOp, match="bytes"):
        GraphProgram(rest)


# ---- refusals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["conv2d", "depthwise_conv2d", "fully_connected"])
def test_a_weight_zero_point_is_refused_by_name(op: str) -> None:
    graph, _ = calibrated(captured(seeded(Everything)), CALIBRATION)
    name = next(node.inputs[1] for node in graph.nodes if node.op == op)
    weight = graph.tensors[name]
    shifted = replace(weight, quant=Quant(weight.quant.scale, weight.quant.zero_point + 3, weight.quant.axis))
    with pytest.raises(UnsupportedOp, match=re.escape(name)):
        GraphProgram(replace(graph, tensors={**graph.tensors, name: shifted}))


def test_an_op_without_a_form_is_refused_by_name(case: tuple[nn.Module, Graph, bytes]) -> None:
    _, graph, _ = case
    node = Node("batch_norm", (graph.outputs[0],) * 5, ("late",), ir.BatchNorm(), "stem.bn")
    with pytest.raises(UnsupportedOp, match=r"stem\.bn"):
        GraphProgram(replace(graph, nodes=(*graph.nodes, node)))
