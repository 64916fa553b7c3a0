"""Small torch networks that hold every operation, and the judges: torch in float, LiteRT's reference kernels in integers."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.formats.tflite import printing as tflite
from nestling.formats.tflite import run as tflite_run
from nestling.graph.integers import QuantizeConfig, with_integers
from nestling.graph.ir import Graph
from nestling.graph.passes import prepare
from nestling.models.plain import plain
from nestling.quantization.calibrate import Statistics, choose_ranges, observe
from tests.helpers.torch_networks import captured_once, randomised

SIDE = 16
TABLE = ((np.arange(256, dtype=np.float64)[None] / 255 - [[0.5], [0.4], [0.45]]) / [[0.25], [0.2], [0.3]]).astype(np.float32)

M = TypeVar("M", bound=nn.Module)


class Everything(nn.Module):
    """Convolutions, relu6, a residual add, SE with hard_sigmoid, hard_swish, a concat of branches, pools, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.deep = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.narrow = nn.Conv2d(16, 8, 1, bias=False)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.one, self.two = nn.Conv2d(8, 6, 1), nn.Conv2d(8, 10, 3, 1, 1)
        self.last = nn.Linear(16, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = nn.functional
        x = f.hardswish(self.stem(x))
        x = x + self.narrow(f.relu6(self.deep(f.relu6(self.wide(x)))))
        x = x * f.hardsigmoid(self.excite(f.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        x = torch.cat([f.max_pool2d(self.one(x), 3, 1, 1), torch.sigmoid(self.two(x))], 1)
        return self.last(f.avg_pool2d(x, 2).mean((2, 3)))


class Inverted(nn.Module):
    """MobileNetV2-like with relu, so that channels may be rescaled: two blocks, one of them residual."""

    def __init__(self, clamp: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()

        def block(inside: int, wide: int, out: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inside, wide, 1), clamp(), nn.Conv2d(wide, wide, 3, 1, 1, groups=wide), clamp(), nn.Conv2d(wide, out, 1)
            )

        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), clamp())
        self.first, self.second = block(16, 32, 16), block(16, 32, 16)
        self.last = nn.Sequential(nn.Conv2d(16, 40, 1), clamp())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(self.stem(x))
        return self.last(x + self.second(x)).mean((2, 3))


def seeded(make: type[M], *args: object) -> M:
    """In evaluation mode, with weights that keep a picture's differences alive through the layers."""
    torch.manual_seed(0)
    module = make(*args)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return module.eval()


def small_timm(name: str) -> nn.Module:
    torch.manual_seed(0)
    return plain(randomised(timm.create_model(name, num_classes=0)))


def pictures(count: int, side: int = SIDE, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Patches of one colour and noise, so that means differ from picture to picture."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(30, 225, (count, 2, 2, 3)).repeat(side // 2, 1).repeat(side // 2, 2)
    return list(np.clip(rng.normal(centre, 25), 0, 255).astype(np.uint8))


def captured(module: nn.Module, side: int = SIDE) -> Graph:
    return prepare(captured_once(module, (side, side, 3), TABLE))


def torch_float(module: nn.Module, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """torch's own answer; the normalisation is done here in float64."""
    x = np.stack([TABLE.astype(np.float64)[np.arange(3), image] for image in images])
    with torch.no_grad():
        return module(torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)).numpy()


def calibrated(
    graph: Graph, images: list[NDArray[np.uint8]], config: QuantizeConfig | None = None
) -> tuple[Graph, dict[str, Statistics]]:
    config = config or QuantizeConfig()
    found = observe(graph, images)
    return with_integers(graph, choose_ranges(found, config.range, config.bits_activations, config.symmetric), config), found


def litert(graph: Graph, images: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """The real numbers that LiteRT's reference kernels give for the printed graph."""
    model, quant = tflite.print_graph(graph), graph.tensors[graph.outputs[0]].quant
    rows = np.concatenate([tflite_run.run(model, [image[None]])[0] for image in images])
    return rows if quant is None else (rows.astype(np.float32) - quant.zero_point) * quant.scale


def noise(wanted: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Root mean square difference over the signal's own spread around its mean a channel."""
    spread = np.sqrt(np.mean((wanted - wanted.mean(0)) ** 2))
    return float(np.sqrt(np.mean((wanted - found) ** 2)) / spread)
