"""What of a network learns, how many images at a time it learns from most quickly, and the bundle that comes of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.models.backbones import Network, to_arrays
from nestling.models.float_graph import with_structure
from nestling.models.graph_module import GraphModule, to_graph
from nestling.progress import Progress
from nestling.training.loop import Batch, autocast, channels_last, classification, train_mode
from nestling.training.team import Team

MICRO = (64, 32, 16, 8)  # images at a time that are tried
TRIED = 2  # times each


def blocks_of(backbone: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The names of the backbone's parameters, block by block from the image on.

    A block is what timm calls one (its group_matcher): a residual block; stem and last convolution are blocks of their own. Of a
    float Graph it is a layer with weights, with the norm behind it.
    """
    if isinstance(backbone, GraphModule):
        return _graph_blocks(backbone)
    matcher: Any = backbone.group_matcher
    groups: Mapping[int, list[str]] = group_parameters(backbone, matcher(coarse=False))
    return tuple(tuple(groups[number]) for number in sorted(groups))


def _graph_blocks(module: GraphModule) -> tuple[tuple[str, ...], ...]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    blocks: list[tuple[str, ...]] = []
    seen: set[str] = set()
    for node in module.graph.nodes:
        held = [module.constant(name) for name in node.inputs if module.graph.tensors[name].data is not None]
        own = tuple(names[id(value)] for value in held if id(value) in names and names[id(value)] not in seen)
        seen.update(own)
        if own and node.op == "batch_norm" and blocks:
            blocks[-1] += own
        elif own:
            blocks.append(own)
    return tuple(blocks)


def learning(network: nn.Module, blocks: int | None) -> nn.Module:
    """The network with the first blocks' parameters fixed."""
    assert isinstance(network, Network)
    if blocks is None:
        return network
    found = blocks_of(network.backbone)
    if not 0 <= blocks <= len(found):
        raise NestlingError(f"this network has {len(found)} blocks; found --blocks {blocks}.", "leave out --blocks for all of them")
    fixed = {name for block in found[: len(found) - blocks] for name in block}
    for name, parameter in network.backbone.named_parameters():
        parameter.requires_grad_(name not in fixed)
    return network


def with_weights(bundle: Bundle, network: nn.Module) -> Bundle:
    """The bundle with the numbers of its network (models.build's, trained); without what was made from the old ones."""
    assert isinstance(network, Network) and isinstance(network.head, nn.Linear)
    head = Head(*(p.detach().cpu().numpy().copy() for p in (network.head.weight, network.head.bias)))
    lineage = tuple(step for step in bundle.lineage if step.name != "quantize")
    made = replace(bundle, head=head, graph=None, yardstick=None, lineage=lineage)
    if isinstance(network.backbone, GraphModule):
        return replace(made, architecture=to_graph(network.backbone))
    return with_structure(replace(made, arrays=to_arrays(network.backbone)))


def quickest(network: nn.Module, image: Tensor, classes: int, share: int, team: Team, progress: Progress) -> int:
    """How many images at a time, of the `share` that a process has of a step, train quickest here with frozen norms.

    image: one that the network takes, of any content. With frozen norms the answer changes nothing else.
    """
    tried = [m for m in MICRO if m <= share and share % m == 0] or [max(1, share)]
    if len(tried) == 1:
        return tried[0]
    seconds: dict[int, float] = {}
    trial = channels_last(copy.deepcopy(network).to(team.device))
    train_mode(trial, freeze_norm=True)
    image = image.to(team.device)
    with progress("trying batch sizes", len(tried)) as advance:
        for micro in tried:
            targets = torch.eye(classes, device=team.device)[:1].expand(micro, -1)
            batch = Batch(image.expand(micro, *image.shape), targets, torch.arange(micro))
            took = []
            for _ in range(1 + TRIED):  # the first one also prepares
                began = perf_counter()
                with autocast(team.device, "auto"):
                    loss = classification(trial, batch).sum()
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
                loss.item()  # waits for a GPU
                took.append(perf_counter() - began)
            seconds[micro] = min(took[1:]) / micro
            advance(1)
    return min(tried, key=seconds.__getitem__)
