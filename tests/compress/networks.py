"""Networks whose channels can be counted by hand, and what stands around them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nestling.bundle import Bundle, Timm
from nestling.graph.head import Head
from nestling.graph.ir import Graph
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.torch_networks import randomised

PREPROCESS = ImagePreprocess((8, 8), 3, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def head_for(graph: Graph, classes: int = 4) -> Head:
    width = graph.tensors[graph.outputs[0]].shape[-1]
    weight = np.random.default_rng(1).normal(size=(classes, width)).astype(np.float32)
    return Head(weight, np.zeros(classes, np.float32))


class Tiny(nn.Module):
    """Counted by hand for 8 x 8 pixels: 64 * 9 * 3 * 16 = 27,648 and 64 * 16 * 24 = 24,576."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.b(torch.relu(self.norm(self.a(x))))).mean((2, 3))


def tiny() -> Tiny:
    torch.manual_seed(0)
    return randomised(Tiny())


class Branches(nn.Module):
    """Two convolutions side by side, a grouped one, a learned scale and shift; sides that differ in padding."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(40, 32, 3)
        self.d, self.e = nn.Conv2d(32, 32, 1, groups=2), nn.Conv2d(32, 48, 1)
        self.scale, self.shift = nn.Parameter(torch.rand(1, 40, 1, 1) + 0.5), nn.Parameter(torch.rand(1, 40, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([torch.relu(self.a(x)), torch.relu(self.b(x))], 1) * self.scale + self.shift
        y = torch.relu(self.c(nn.functional.pad(joined, (0, 1, 0, 1))))
        return nn.functional.adaptive_avg_pool2d(torch.relu(self.e(self.d(y))), 1).flatten(1)


def branches(masks: Mapping[str, tuple[int, ...]] | None = None) -> Branches:
    torch.manual_seed(0)
    module = Branches().eval()
    if masks:  # the channels as torch's indexing removes them
        with torch.no_grad():
            a, b, e = (list(masks[name]) for name in "abe")
            joined = [*a, *(16 + i for i in b)]
            for layer, out in ((module.a, a), (module.b, b), (module.e, e)):
                layer.weight, layer.bias = nn.Parameter(layer.weight[out]), nn.Parameter(layer.bias[out])
            module.c.weight = nn.Parameter(module.c.weight[:, joined])
            module.scale, module.shift = nn.Parameter(module.scale[:, joined]), nn.Parameter(module.shift[:, joined])
    return module


def bundle_of(architecture: Timm | Graph | None, head: Head | None, graph: Graph | None = None) -> Bundle:
    return Bundle(architecture, {}, head, ("a", "b", "c", "d"), PREPROCESS, graph=graph)
