"""Writes nestling/models/recorded/NAME.json, the backbones that need no torch: python scripts/record_backbones.py [NAME ...]

It takes torch and timm, and the packages with the numbers. tests/models/test_recorded.py captures them anew and compares.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import timm
import torch

from nestling.graph import structure as structures
from nestling.graph.ir import Graph
from nestling.models.backbones import build_backbone, create
from nestling.models.capture.capture import capture
from nestling.models.packages import PACKAGES, package_of, tensors_in
from nestling.models.plain import plain
from nestling.preprocess.image import to_plain

FOLDER = Path(__file__).parent.parent / "nestling" / "models" / "recorded"
# Halved again and again, and rounded up, one stays even and the other odd: padding that follows from the size differs between them.
EVEN, ODD = 64, 97


def captured(name: str, size: int | None = None) -> tuple[Graph, dict[str, Any], dict[str, Any]]:
    """(the float Graph, arrays, preprocess as plain values), all by way of torch."""
    architecture, arrays, preprocess = create(name, "package", size)
    return capture(build_backbone(architecture, arrays), (*preprocess.size, preprocess.channels)), arrays, to_plain(preprocess)


def recorded(name: str) -> dict[str, Any]:
    """What the file says."""
    graph, arrays, preprocess = captured(name)
    even, odd = (captured(name, size)[0] for size in (EVEN, ODD))
    same = [a.name for a, b in zip(even.nodes, odd.nodes, strict=True) if a.attrs != b.attrs]
    structure = structures.structure_of(graph, arrays)
    if structure.own:
        raise SystemExit(f"{name} has constants of its own: {list(structure.own)}")
    package = package_of(name)
    if package is None:
        raise SystemExit(f"{PACKAGES[name].distribution} is not installed.")
    return {
        "preprocess": preprocess,
        "arrays": [[own, list(array.shape)] for own, array in zip(_plain_names(name, arrays), tensors_in(package), strict=True)],
        "structure": structures.to_plain(structure),
        "same": same,
    }


def _plain_names(name: str, arrays: dict[str, Any]) -> list[str | None]:
    """For each of timm's tensors the plain network's name: found by numbering them and looking where the numbers go."""
    whole = timm.create_model(name).state_dict()
    backbone = timm.create_model(name, num_classes=0)
    with torch.no_grad():
        for number, key in enumerate(whole):
            if key in backbone.state_dict():
                backbone.state_dict()[key].fill_(number)
    of = {int(tensor.flatten()[0]): key for key, tensor in plain(backbone.eval()).state_dict().items()}
    names = [of.get(number) for number, key in enumerate(whole)]
    return [own if own in arrays else None for own in names]


def main() -> None:
    """All, or those that are named."""
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PACKAGES:
        text = json.dumps(recorded(name), separators=(",", ":"), sort_keys=True)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"{name}: {len(text):,} bytes")


if __name__ == "__main__":
    main()
