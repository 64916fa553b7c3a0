"""Gives an imported network its batch norms back, so that it can be trained like one that was never folded.

    python benchmarks/with_norms.py fitted.nest normed.nest [--data FOLDER_OR_TAR_GZ] [--images 512]

The network answers as before, see nestling/training/norms.py. The head stays.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from photographs import folder, named

from nestling.bundle import load, save
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.models.float_graph import float_graph
from nestling.models.graph_module import GraphModule
from nestling.training.norms import with_norms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=512)
    options = parser.parse_args()
    bundle = load(options.bundle)
    with folder(options.data or named(bundle)) as data:
        images = images_of(part(training_data(bundle, data), bundle, "train", options.images), bundle.preprocess)
    graph = float_graph(bundle)
    made = with_norms(graph, images)
    with torch.inference_mode():
        before, after = (GraphModule(each).eval()(torch.from_numpy(np.stack(images[:64]))).numpy() for each in (graph, made))
    save(replace(bundle, architecture=made, arrays={}, graph=None, yardstick=None), options.output)
    print(f"{options.output}: {sum(node.op == 'batch_norm' for node in made.nodes)} norms; embeddings differ by "
          f"{np.abs(before - after).max() / np.abs(before).max():.1e} of the largest")  # fmt: skip


if __name__ == "__main__":
    main()
