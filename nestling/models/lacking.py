"""What a backbone holds that the Graph does not, found before anything is learned on it: then it can't be quantised later."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nestling.bundle import Bundle, Timm
from nestling.errors import NoGraph, UnsupportedOp
from nestling.models.float_graph import has_graph
from nestling.models.known import RECOMMENDED

if TYPE_CHECKING:
    from torch.export import ExportedProgram

CHECKS = ("aten::_assert_tensor_metadata", "aten::sym_constrain_range_for_size")  # torch's own, which compute nothing
MOST_NAMED = 3  # operations


@dataclass(frozen=True)
class Lacking:
    """name: of the backbone. what: the operations and their layers, in words. pte: whether ExecuTorch holds all of it, in float."""

    name: str
    what: str
    pte: bool

    @property
    def remains(self) -> str:
        """The formats that it can be printed in."""
        return "fp32 .pte" if self.pte else "none"

    def __str__(self) -> str:
        floats = "an fp32 .pte (nestling export MODEL --to pte --precision fp32), and " if self.pte else ""
        return (
            f"{self.name} can be neither quantised nor printed as .tflite, .onnx or C: the Graph has no place for {self.what}. "
            f"What remains: {floats}the bundle itself (predict, eval). Backbones without that:  nestling backbones"
        )


def lacking(bundle: Bundle) -> Lacking | None:
    """None where the bundle's backbone is a Graph, or becomes one, as those of the recommended names do.

    Any other is traced by torch, which takes some seconds; nothing is computed.
    """
    architecture = bundle.architecture
    if not isinstance(architecture, Timm) or has_graph(bundle) or architecture.name in RECOMMENDED:
        return None
    import torch

    from nestling.models.backbones import build_backbone
    from nestling.models.capture.capture import capture, exported

    backbone = build_backbone(architecture, bundle.arrays)
    height, width = bundle.preprocess.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's, to the network's makers
        try:
            capture(backbone, (height, width, bundle.preprocess.channels))
        except UnsupportedOp as refusal:
            program = exported(backbone, torch.zeros(1, bundle.preprocess.channels, height, width))
            return Lacking(architecture.name, _unknown(program) or refusal.what, _in_executorch(program))
        except NoGraph as refusal:  # torch.export, which a .pte needs as well, cannot follow it
            return Lacking(architecture.name, f"all of it ({refusal.message})", False)
    return None


def _unknown(program: ExportedProgram) -> str:
    """Operations that are not the Graph's, each with the first layer that has it; "" where only their forms are not."""
    from torch._ops import OpOverload

    from nestling.models.capture.aten import ATEN
    from nestling.models.capture.capture import layer_of

    layers: dict[str, str] = {}
    for node in program.graph.nodes:
        if isinstance(node.target, OpOverload) and node.users:
            name = node.target._schema.name.removeprefix("aten::")
            if name not in ATEN:
                layers.setdefault(name, layer_of(node))
    inner_first = sorted(layers.items(), key=lambda found: not found[1])  # a view in between tells less than a layer
    named = [f"{name} (layer {layer})" if layer else name for name, layer in inner_first[:MOST_NAMED]]
    more = [f"{len(layers) - MOST_NAMED} more"] if len(layers) > MOST_NAMED else []
    return ", ".join([*named, *more])


def _in_executorch(program: ExportedProgram) -> bool:
    """Whether the network comes apart into the operations that an ExecuTorch program may hold: those that torch calls core."""
    import torch
    from torch._ops import OpOverload

    with torch.no_grad():
        targets = [node.target for node in program.run_decompositions().graph.nodes if isinstance(node.target, OpOverload)]
    return all(torch.Tag.core in target.tags or target._schema.name in CHECKS for target in targets)
