"""The float network behind integers: torch on the real weights is the judge."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from nestling.graph import ir
from nestling.graph.float_twin import float_twin
from nestling.graph.ir import Graph
from nestling.models.graph_module import GraphModule
from tests.helpers.quantization_cases import Inverted, calibrated, captured, noise, pictures, seeded, torch_float


def _answers(graph: Graph) -> np.ndarray:
    module = GraphModule(graph).eval()
    with torch.inference_mode():
        return np.concatenate([module(torch.from_numpy(image[None])).numpy() for image in pictures(8, seed=1)])


def test_it_is_the_float_network_but_for_the_weights_rounding() -> None:
    module = seeded(Inverted, nn.ReLU6)
    integers, _ = calibrated(captured(module), pictures(32))
    twin = float_twin(integers)
    assert not any(tensor.quant for tensor in twin.tensors.values())
    assert 0 < noise(torch_float(module, pictures(8, seed=1)), _answers(twin)) < 0.1


def test_a_range_that_begins_at_zero_is_a_clamp() -> None:
    """Old uint8 networks do not write their relu6 down: their ranges saturate instead."""
    integers, _ = calibrated(captured(seeded(Inverted, nn.ReLU6)), pictures(32))
    clamped = (ir.Conv2d, ir.DepthwiseConv2d, ir.FullyConnected, ir.Add, ir.Mul)
    silent = tuple(replace(n, attrs=replace(n.attrs, clamp="none")) if isinstance(n.attrs, clamped) else n for n in integers.nodes)
    assert silent != integers.nodes
    assert noise(_answers(float_twin(integers)), _answers(float_twin(replace(integers, nodes=silent)))) < 0.05
