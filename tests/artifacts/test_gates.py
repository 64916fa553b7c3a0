"""Wrong files are refused: a network is printed with one thing broken, and judged as what it should have been."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from nestling.artifacts import gates, manifest
from nestling.artifacts.export import export, exported
from nestling.artifacts.gates import Judgement, dropped, judge
from nestling.artifacts.yardstick import Expected, expected
from nestling.bundle import Bundle, Step, save
from nestling.errors import GateFailed
from nestling.formats import FORMATS
from nestling.formats.format import ExportConfig, Job, Printed, Printer
from nestling.graph.head import Head
from nestling.graph.ir import DepthwiseConv2d, Graph, Tensor
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.quantization_cases import Inverted, calibrated, captured, pictures, seeded

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
    attrs = graph.nodes[at].attrs
    assert isinstance(attrs, DepthwiseConv2d)
    node = replace(graph.nodes[at], attrs=replace(attrs, padding=(0, 2, 0, 2)))
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


def right(bundle: Bundle) -> Bundle:
    """Nothing is broken."""
    return bundle


@cache
def _printed(bundle: Bundle, broken: Break, form: str) -> Printed:
    return FORMATS[form].printers["int8"](Job(broken(bundle), ExportConfig()))


def _judged(bundle: Bundle, broken: Break, form: str, wanted: Expected) -> Judgement:
    """What is printed of the broken bundle, as the bundle's file."""
    graph = Job(bundle, ExportConfig()).inside(FORMATS[form], "int8")
    return judge(_printed(bundle, broken, form), f"x.{form}", FORMATS[form], "int8", bundle, graph, wanted)


def _problems(bundle: Bundle, broken: Break, form: str, wanted: Expected) -> tuple[str, ...]:
    return _judged(bundle, broken, form, wanted).problems


@pytest.mark.kernels
@pytest.mark.parametrize("form", ["tflite", "onnx", "pte", "features.pte"])
def test_the_right_file_passes(bundle: Bundle, wanted: Expected, form: str) -> None:
    assert _problems(bundle, right, form, wanted) == ()


@pytest.mark.parametrize("broken", [scale, weight_scale, weight, padding, labels, bgr, table])
@pytest.mark.parametrize("form", ["tflite", "onnx", "pte"])
def test_a_wrong_file_is_refused(bundle: Bundle, wanted: Expected, form: str, broken: Break) -> None:
    assert _problems(bundle, broken, form, wanted), f"{form} with a broken {broken.__name__} was let through"


@dataclass(frozen=True)
class Coarse:
    """A runtime whose answers are `noise` off, as on a processor with inexact kernels."""

    runner: Any
    noise: float

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        answers = self.runner(images)
        return answers + np.random.default_rng(int(images.sum())).normal(0, self.noise, answers.shape).astype(np.float32)


def coarse(monkeypatch: pytest.MonkeyPatch, form: str, noise: float) -> None:
    loaded = FORMATS[form].loaded
    assert loaded is not None
    coarsely = replace(FORMATS[form], loaded=lambda printed, name: Coarse(loaded(printed, name), noise))
    monkeypatch.setitem(FORMATS, form, coarsely)


def quantisation(wanted: Expected) -> float:
    assert wanted.floats is not None
    return float(np.sqrt(np.mean((wanted.floats - wanted.answers) ** 2)))


@pytest.mark.kernels
@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_a_right_file_in_a_coarse_runtime_is_told_and_a_wrong_one_refused(
    bundle: Bundle, wanted: Expected, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse(monkeypatch, form, 3 * quantisation(wanted))
    judged = _judged(bundle, right, form, wanted)
    assert judged.problems == () and judged.noise_ratio is not None and judged.noise_ratio > 2
    assert "its runtime is coarse" in " ".join(judged.coarse)
    wrong = _judged(bundle, scale, form, wanted)
    assert wrong.problems and not wrong.coarse


@pytest.mark.kernels
def test_a_pte_is_right_that_rounds_each_layer_once(bundle: Bundle, wanted: Expected) -> None:
    """A reference that lies further from it than quantisation is stands for a network that feels every step."""
    noise = quantisation(wanted)
    away = wanted.answers + np.random.default_rng(0).normal(0, 2 * noise, wanted.answers.shape).astype(np.float32)
    far = replace(wanted, answers=away, floats=away + np.float32(noise))
    judged = _judged(bundle, right, "pte", far)
    assert judged.problems == () and "rounded once" in " ".join(judged.coarse)
    for broken in (padding, table):  # the file gate does not see these
        wrong = _judged(bundle, broken, "pte", far)
        assert wrong.problems and not wrong.coarse, broken.__name__


def test_export_keeps_what_is_right_and_the_manifest_tells(
    bundle: Bundle, wanted: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse(monkeypatch, "tflite", 3 * quantisation(wanted))
    save(bundle, tmp_path / "a.nest")
    made = exported(tmp_path / "a.nest", tmp_path, [("tflite", "int8")])
    assert not made.refused and (tmp_path / "a-int8.tflite").is_file()
    (artifact,) = manifest.read(tmp_path)
    assert "reference kernels" in " ".join(artifact.coarse) and artifact.failed == ()


def test_a_network_of_random_weights_is_refused_with_the_reason(
    bundle: Bundle, wanted: Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse(monkeypatch, "tflite", 3 * quantisation(wanted))
    monkeypatch.setattr(gates, "proof_of", lambda *_: "")
    fitted = Step("fit", {"weights": "none (seed 0)"})
    tuned = Step("finetune", {}, curves={"loss": (0.5,)})
    for lineage, random in (((fitted,), True), ((fitted, tuned), False), ((Step("fit", {"weights": "package"}),), False)):
        save(replace(bundle, lineage=lineage), tmp_path / "a.nest")
        with pytest.raises(GateFailed, match="noise of quantisation") as refusal:
            export(tmp_path / "a.nest", tmp_path, [("tflite", "int8")])
        assert ("weights are random" in refusal.value.message) == random, lineage
    save(replace(bundle, lineage=(fitted,)), tmp_path / "a.nest")
    form = FORMATS["tflite"]
    monkeypatch.setitem(FORMATS, "tflite", replace(form, printers={"int8": _of_another(form.printers["int8"])}))
    with pytest.raises(GateFailed) as refusal:  # a wrong file is refused for what it is
        export(tmp_path / "a.nest", tmp_path, [("tflite", "int8")])
    assert "random" not in refusal.value.message


def _of_another(printer: Printer) -> Printer:
    return lambda job: printer(Job(weight(job.bundle), job.config))


def test_the_message_names_the_layer(bundle: Bundle, wanted: Expected) -> None:
    for form in ("tflite", "onnx", "pte"):
        said = " ".join(_problems(bundle, weight, form, wanted))
        assert "first.0" in said and "conv2d" in said, (form, said)
    assert "label 0 is 'dog', not 'ant'" in " ".join(_problems(bundle, labels, "tflite", wanted))


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
