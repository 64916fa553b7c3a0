"""A network of two layers and a handful of images, for the training loop; run as a program, one process of a team."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from nestling.cli import show
from nestling.data.folders import Item
from nestling.errors import NestlingError
from nestling.preprocess.image import ImagePreprocess
from nestling.training.augment import AUGMENTATIONS, Augmentation
from nestling.training.loop import LoopConfig, Task, train
from nestling.training.samples import Samples
from nestling.training.session import Session
from nestling.training.team import joined

PREPROCESS = ImagePreprocess((16, 16), 3, 1.0, "bilinear", (0.5,) * 3, (0.5,) * 3)
CLASSES = 3


class Tiny(nn.Module):
    """uint8 [N, H, W, 3] -> logits [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        return self.head(self.norm(self.stem(x)).relu().mean((2, 3)))


def tiny() -> Tiny:
    torch.manual_seed(3)
    return Tiny()


def samples(count: int, augmentation: str | Augmentation = "none", seed: int = 0, side: int = 16) -> Samples:
    """Noise around a colour for each class."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    colours = np.array([(150, 110, 110), (110, 150, 110), (110, 110, 150)])
    images = np.clip(rng.normal(colours[labels][:, None, None], 50, (count, side, side, 3)), 0, 255).astype(np.uint8)
    items = tuple(Item(Path(f"{i}.png"), int(label), f"{i:016x}") for i, label in enumerate(labels))
    chosen = AUGMENTATIONS[augmentation] if isinstance(augmentation, str) else augmentation
    return Samples(items, labels.astype(np.int64), images, PREPROCESS, PREPROCESS, chosen)


def main(out: Path, epochs: int, pause: float) -> None:
    """Two steps an epoch with frozen norms; writes the weights, or says why not. pause: seconds after each epoch."""
    try:
        with joined() as team:
            # SGD, for AdamW would not notice gradients that are twice as large
            config = LoopConfig(epochs=epochs, batch=16, micro=4, optimiser="sgd", rate=0.05, freeze_norm=True)

            def told(epoch: object) -> None:
                print(f"epoch of {os.getpid()}", flush=True)
                time.sleep(pause)

            task = Task(samples(32, "light", side=20), samples(12, seed=1), CLASSES)
            trained = train(tiny(), task, config, Session(team=team, told=told))
            if team.leads:
                save_file(dict(trained.weights), out)
    except NestlingError as error:
        show.say(f"error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
