"""Photographs of three colours, each a class: noise around a mean, so that a small network can learn them, but not at once."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"apple": (170, 90, 90), "lime": (90, 160, 90), "plum": (110, 90, 150)}
EACH = 15


def colour_photos(root: Path, height: int, width: int) -> Path:
    """root/photos/CLASS/NN.png; the same pixels each time."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "photos" / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = np.clip(rng.normal(colour, 60, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i:02}.png")
    return root / "photos"
