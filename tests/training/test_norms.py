"""Norms that are put back: the answers stay, the statistics are those that torch's own norms would take."""

from __future__ import annotations

import numpy as np
import torch

from nestling.graph.passes import prepare
from nestling.models.graph_module import GraphModule
from nestling.training.norms import EPSILON, with_norms
from tests.helpers.quantization_cases import Everything, Inverted, captured, pictures, seeded, torch_float


def test_the_answers_stay_and_folding_brings_the_network_back() -> None:
    images = pictures(6)
    for kind, convolutions in ((Everything, 8), (Inverted, 8)):
        module = seeded(kind)
        graph, wanted = captured(module), torch_float(module, images)
        made = with_norms(graph, pictures(20, seed=2))
        assert sum(node.op == "batch_norm" for node in made.nodes) == convolutions
        with torch.inference_mode():
            found = GraphModule(made).eval()(torch.from_numpy(np.stack(images))).numpy()
        assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()
        again = prepare(made)
        assert [(n.name, n.op, n.attrs) for n in again.nodes] == [(n.name, n.op, n.attrs) for n in graph.nodes]
        for node, old in zip(again.nodes, graph.nodes, strict=True):
            for ours, theirs in zip(node.inputs[1:2], old.inputs[1:2], strict=True):
                weight = graph.tensors[theirs].data
                if weight is not None:
                    np.testing.assert_allclose(again.tensors[ours].data, weight, rtol=1e-5, atol=1e-7)


def test_the_statistics_are_those_of_the_images() -> None:
    """torch's norm in training mode, with a momentum of 1, takes the same from one batch; its variance is over n - 1."""
    images = pictures(20)
    made = with_norms(captured(seeded(Inverted)), images)
    module = GraphModule(made, momentum=1.0).train()
    module(torch.from_numpy(np.stack(images)))
    for node in made.nodes:
        if node.op == "batch_norm":
            gamma, _, mean, variance = (made.tensors[name].data for name in node.inputs[1:])
            np.testing.assert_allclose(gamma, np.sqrt(np.add(variance, EPSILON)), rtol=1e-6)
            for name, held, tolerance in ((node.inputs[3], mean, 1e-4), (node.inputs[4], variance, 1e-2)):
                theirs = module.constant(name).detach().numpy()
                np.testing.assert_allclose(held, theirs, rtol=tolerance, atol=1e-4 * np.abs(theirs).max())


def test_shared_weights_get_no_norm() -> None:
    """They could not go into both."""

    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.shared = torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.shared(self.shared(self.first(x)).relu()).mean((2, 3))

    images, module = pictures(6), seeded(Twice)
    made = with_norms(captured(module), images)
    assert sum(node.op == "batch_norm" for node in made.nodes) == 1
    with torch.inference_mode():
        found = GraphModule(made).eval()(torch.from_numpy(np.stack(images))).numpy()
    np.testing.assert_allclose(found, torch_float(module, images), rtol=1e-4, atol=1e-4)
