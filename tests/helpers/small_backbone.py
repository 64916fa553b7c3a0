"""A network of seven layers with batch norms, as a backbone of any size: what quantisation-aware training is tried on."""

from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
from torch import nn

from nestling.bundle import Bundle, save
from nestling.models.capture.capture import capture
from nestling.preprocess.image import ImagePreprocess
from tests.helpers.quantization_cases import seeded
from tests.helpers.torch_networks import randomised

SIDE, WIDTH = 24, 20


class Small(nn.Module):
    """A stem, an inverted residual with its add, and a last layer; relu6, relu and none."""

    def __init__(self) -> None:
        super().__init__()

        def layer(inside: int, out: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inside, out, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(out))

        self.stem, self.deep = layer(3, 8, 3, 2), layer(8, 8, 3, 1, 8)
        self.wide, self.wide_deep, self.narrow = layer(8, 24), layer(24, 24, 3, 1, 24), layer(24, 8)
        self.down, self.last = layer(8, 16, 3, 2), layer(16, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu6(self.deep(F.relu6(self.stem(x))))
        x = x + self.narrow(F.relu6(self.wide_deep(F.relu6(self.wide(x)))))
        return F.relu(self.last(F.relu6(self.down(x)))).mean((2, 3))


def save_backbone(path: Path) -> Path:
    """Its norms' statistics and scales differ from channel to channel, as in a trained network."""
    graph = capture(randomised(seeded(Small)), (SIDE, SIDE, 3))
    preprocess = ImagePreprocess((SIDE, SIDE), 3, 1.0, "bilinear", (0.5, 0.4, 0.45), (0.25, 0.2, 0.3))
    save(Bundle(graph, {}, None, (), preprocess), path)
    return path
