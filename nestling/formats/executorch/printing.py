"""A torch module as a .pte program, from uint8 NHWC to logits, or to the embedding, lowered to XNNPACK."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nestling.errors import NestlingError
from nestling.formats.about import About, to_json
from nestling.formats.quiet import quiet
from nestling.preprocess.image import Preprocess, shape_of

ABOUT_METHOD = "nestling"  # the constant method that returns the JSON


@dataclass(frozen=True)
class Printed:
    """A program's bytes, and how many of its operations XNNPACK runs."""

    content: bytes
    delegated: int
    operations: int


def print_program(module: nn.Module, what: About) -> Printed:
    """Lower an eval-mode module, uint8 [1, H, W, C] -> float32, to a .pte; what.gives says what comes out.

    Raises NestlingError where a convolution is left outside XNNPACK: such a program would crawl.
    """
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.devtools.backend_debug import get_delegation_info
        from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

        exported = torch.export.export(module, (blank(what.preprocess),))
        lowered = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_skip_dim_order=True),  # else the image's cast is an operator 20 times as slow
            constant_methods={ABOUT_METHOD: to_json(what)},
        )
        outside = lowered.exported_program().graph_module
        left = [str(node.target) for node in outside.graph.nodes if "convolution" in str(node.target)]
        if left:
            raise NestlingError(f"{len(left)} convolutions could not be given to XNNPACK ({left[0]}).")
        share = get_delegation_info(outside)
        content = bytes(lowered.to_executorch().buffer)
    return Printed(content, share.num_delegated_nodes, share.num_delegated_nodes + share.num_non_delegated_nodes)


def blank(preprocess: Preprocess) -> torch.Tensor:
    """One black image, uint8 [1, H, W, C]."""
    return torch.zeros(1, *shape_of(preprocess), dtype=torch.uint8)
