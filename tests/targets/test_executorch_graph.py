"""int8 .pte printed from the Graph: ExecuTorch's answers against LiteRT's reference kernels, and the integers found in the file."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graph.quantization_cases import Everything, Inverted, calibrated, captured, litert, pictures, seeded, torch_float
from torch import nn

from nestling.bundle import Head
from nestling.errors import UnsupportedOp
from nestling.graph import ir
from nestling.graph.heads import with_head
from nestling.graph.ir import Graph, Node, Quant
from nestling.preprocess import ImagePreprocess
from nestling.targets import executorch
from nestling.targets.about import About
from nestling.targets.executorch_graph import QdqModule

CALIBRATION, UNSEEN = pictures(32), pictures(40, seed=1)
WHAT = About(("a", "b"), ImagePreprocess((16, 16), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3))


@pytest.fixture(scope="module", params=[Everything, Inverted])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Graph, bytes]:
    module = seeded(request.param)
    graph, _ = calibrated(captured(module), CALIBRATION)
    return module, graph, executorch.print_program(QdqModule(graph).eval(), WHAT).content


def test_it_adds_less_noise_than_quantisation_did(case: tuple[nn.Module, Graph, bytes]) -> None:
    module, graph, content = case
    reference = litert(graph, UNSEEN)
    answers = executorch.load_bytes(content, "x.pte")(np.stack(UNSEEN))
    quantisation = np.sqrt(np.mean((torch_float(module, UNSEEN) - reference) ** 2))
    assert np.sqrt(np.mean((answers - reference) ** 2)) < 0.75 * quantisation


def test_every_convolutions_integers_stand_in_the_file(case: tuple[nn.Module, Graph, bytes]) -> None:
    """OHWI, as XNNPACK keeps them; depthwise ones have a layout of their own there."""
    _, graph, content = case
    weights = [graph.tensors[node.inputs[1]].data for node in graph.nodes if node.op == "conv2d"]
    assert weights and all(weight.tobytes() in content for weight in weights)


def test_a_float_head_stays_float(case: tuple[nn.Module, Graph, bytes]) -> None:
    """The head's own numbers are in the program, and its logits are those of the embedding."""
    _, graph, _ = case
    width = graph.tensors[graph.outputs[0]].shape[1]
    head = Head(np.random.default_rng(0).normal(0, 1, (2, width)).astype(np.float32), np.array([0.5, -1], np.float32))
    module = QdqModule(with_head(graph, head)).eval()
    with torch.no_grad():
        logits = np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in UNSEEN[:8]])
        embeddings = np.concatenate([QdqModule(graph)(torch.from_numpy(image[None])).numpy() for image in UNSEEN[:8]])
    np.testing.assert_allclose(logits, embeddings @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4)


def test_a_weight_zero_point_is_refused_by_name(case: tuple[nn.Module, Graph, bytes]) -> None:
    _, graph, _ = case
    name = next(node.inputs[1] for node in graph.nodes if node.op == "conv2d")
    weight = graph.tensors[name]
    shifted = replace(weight, quant=Quant(weight.quant.scale, weight.quant.zero_point + 3, weight.quant.axis))
    with pytest.raises(UnsupportedOp, match="zero point"):
        QdqModule(replace(graph, tensors={**graph.tensors, name: shifted}))


def test_an_op_without_a_form_is_refused_by_name(case: tuple[nn.Module, Graph, bytes]) -> None:
    _, graph, _ = case
    node = Node("batch_norm", (graph.outputs[0],) * 5, ("late",), ir.BatchNorm(), "stem.bn")
    with pytest.raises(UnsupportedOp, match=r"stem\.bn"):
        QdqModule(replace(graph, nodes=(*graph.nodes, node)))
