"""Wrong files are refused: a network is printed with one thing broken, and judged as what it should have been."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph.quantization_cases import Inverted, calibrated, captured, pictures, seeded
from torch import nn

from nestling.bundle import Bundle, Head
from nestling.graph.ir import Graph, Tensor
from nestling.preprocess import ImagePreprocess
from nestling.targets.gates import dropped, judge
from nestling.targets.printers import PRINTERS, ExportConfig, Job
from nestling.targets.yardstick import Expected, expected

LABELS = ("ant", "bee", "cat", "dog")
MEAN, STD = (0.5, 0.4, 0.45), (0.25, 0.2, 0.3)  # quantization_cases.TABLE's
Break = Callable[[Bundle], Bundle]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    graph = captured(seeded(Inverted, nn.ReLU6))
    integers, _ = calibrated(graph, pictures(32))
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(4, 40)).astype(np.float32), np.zeros(4, np.float32))
    return Bundle(graph, {}, head, LABELS, ImagePreprocess((16, 16), 3, 1.0, "bilinear", MEAN, STD), graph=integers)


@pytest.fixture(scope="module")
def wanted(bundle: Bundle) -> Expected:
    return expected(bundle, integers=True)


def _with(bundle: Bundle, tensor: Tensor) -> Bundle:
    graph = bundle.graph
    assert graph is not None
    return replace(bundle, graph=replace(graph, tensors={**graph.tensors, tensor.name: tensor}))


def _conv(graph: Graph | None, index: int) -> tuple[Tensor, Tensor]:
    """(weight, output) of the index-th convolution."""
    assert graph is not None
    node = [node for node in graph.nodes if node.op == "conv2d"][index]
    return graph.tensors[node.inputs[1]], graph.tensors[node.name]


def scale(bundle: Bundle) -> Bundle:
    """One activation's scale, half as large again."""
    out = _conv(bundle.graph, 2)[1]
    assert out.quant is not None
    return _with(bundle, replace(out, quant=replace(out.quant, scale=out.quant.scale * np.float32(1.5))))


def weight_scale(bundle: Bundle) -> Bundle:
    """One channel's weights, twice as large."""
    weight = _conv(bundle.graph, 2)[0]
    assert weight.quant is not None
    scales = weight.quant.scale.copy()
    scales[3] *= 2
    return _with(bundle, replace(weight, quant=replace(weight.quant, scale=scales)))


def weight(bundle: Bundle) -> Bundle:
    """The largest weight of a layer has the other sign."""
    tensor = _conv(bundle.graph, 1)[0]
    assert tensor.data is not None
    data = tensor.data.copy()
    data.flat[np.abs(data.astype(int)).argmax()] *= -1
    return _with(bundle, replace(tensor, data=data))


def padding(bundle: Bundle) -> Bundle:
    """The window of one depthwise layer is a pixel off."""
    graph = bundle.graph
    assert graph is not None
    at = next(i for i, node in enumerate(graph.nodes) if node.op == "depthwise_conv2d")
    node = replace(graph.nodes[at], attrs=replace(graph.nodes[at].attrs, padding=(0, 2, 0, 2)))
    return replace(bundle, graph=replace(graph, nodes=(*graph.nodes[:at], node, *graph.nodes[at + 1 :])))


def labels(bundle: Bundle) -> Bundle:
    """The right network, its labels sorted the other way round."""
    return replace(bundle, labels=LABELS[::-1])


def bgr(bundle: Bundle) -> Bundle:
    """It takes blue for red."""
    tensor = _conv(bundle.graph, 0)[0]
    assert tensor.data is not None
    return _with(bundle, replace(tensor, data=np.ascontiguousarray(tensor.data[..., ::-1])))


def table(bundle: Bundle) -> Bundle:
    """One channel is normalised with another's deviation."""
    graph = bundle.graph
    assert graph is not None
    tensor = graph.tensors[graph.nodes[0].inputs[1]]
    assert tensor.data is not None and graph.nodes[0].op == "table"
    data = tensor.data.copy()
    data[1] = np.clip(np.rint(data[1] * 0.8), -128, 127)
    return _with(bundle, replace(tensor, data=data))


def _problems(bundle: Bundle, printed_from: Bundle, form: str, wanted: Expected) -> tuple[str, ...]:
    printed = PRINTERS[form, "int8"](Job(printed_from, ExportConfig()))
    job = Job(bundle, ExportConfig())
    return judge(printed, f"x.{form}", form, "int8", bundle, job.inside(form, "int8"), wanted).problems


@pytest.mark.parametrize("form", ["tflite", "onnx", "pte", "features.pte"])
def test_the_right_file_passes(bundle: Bundle, wanted: Expected, form: str) -> None:
    assert _problems(bundle, bundle, form, wanted) == ()


@pytest.mark.parametrize("broken", [scale, weight_scale, weight, padding, labels, bgr, table])
@pytest.mark.parametrize("form", ["tflite", "onnx", "pte"])
def test_a_wrong_file_is_refused(bundle: Bundle, wanted: Expected, form: str, broken: Break) -> None:
    assert _problems(bundle, broken(bundle), form, wanted), f"{form} with a broken {broken.__name__} was let through"


def test_the_message_names_the_layer(bundle: Bundle, wanted: Expected) -> None:
    for form in ("tflite", "onnx", "pte"):
        said = " ".join(_problems(bundle, weight(bundle), form, wanted))
        assert "first.0" in said and "conv2d" in said, (form, said)
    assert "label 0 is 'dog', not 'ant'" in " ".join(_problems(bundle, labels(bundle), "tflite", wanted))


@pytest.mark.parametrize(
    ("lost", "won", "refused"),
    [
        (1, 0, False),  # one photograph of 200 is the half point
        (4, 0, False),  # four coins on one side: 1 in 16
        (5, 0, True),  # 1 in 32
        (4, 2, False),
        (9, 2, True),  # 67 in 2,048
        (20, 14, False),
        (40, 20, True),
        (2, 9, False),  # better is no reason
    ],
)
def test_near_ties_that_fall_either_way_are_no_drop(lost: int, won: int, refused: bool) -> None:
    truth = np.zeros(200, np.int64)
    before, after = np.full(200, True), np.full(200, True)
    after[:lost] = False
    before[lost : lost + won] = False

    def logits(right: np.ndarray) -> np.ndarray:
        return np.stack([right, ~right], axis=1).astype(np.float32)

    wanted = Expected(np.zeros((200, 8, 8, 3), np.uint8), logits(before), None, truth, "")
    assert bool(list(dropped(logits(after), wanted))) == refused
