"""Single weights, or blocks of four, that become zero while the network learns, and stay zero in whatever it learns later.

Nothing is remembered from step to step but the weights themselves: what is zero stays zero. So a training that was interrupted
goes on to the same bits, and the processes of a team agree.
Sources: Zhu and Gupta 2017, "To prune, or not to prune" (the schedule); Lee et al. 2021, "Layer-adaptive sparsity for the
magnitude-based pruning" (LAMP).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from nestling.errors import NestlingError
from nestling.models.graph_module import GraphModule
from nestling.training.loop import AfterStep, Changing
from nestling.training.zeros import zeros_kept
from nestling.words import Ranking, Zeros

WIDTH: Final[Mapping[Zeros, int]] = {"unstructured": 1, "block1x4": 4}  # neighbouring weights that go together
RAMP = (3, 5)  # share of the steps in which zeros are made; in the rest the network recovers
RANKED = 30  # times that weights are ranked anew meanwhile: sorting millions of them takes longer than a step


# ---- when ------------------------------------------------------------------------------------------------------------------------


def ramp_of(steps: int) -> int:
    """Of so many steps (or epochs), those in which zeros are made: the first three fifths, rounded up."""
    return -(-RAMP[0] * steps // RAMP[1])


def sparsity_at(step: int, steps: int, final: float) -> float:
    """Share of zeros after step 0..steps-1: final (1 - (1 - t)^3), t the share of the ramp that is done.

    Source: Zhu and Gupta 2017, equation 1, from 0: many go early, when there are many to spare.
    """
    done = min(1.0, (step + 1) / ramp_of(steps))
    return final * (1 - (1 - done) ** 3)


# ---- which -----------------------------------------------------------------------------------------------------------------------


def masks(weights: Sequence[Tensor], share: float, width: int = 1, ranking: Ranking = "lamp") -> list[Tensor]:
    """For each of the weights [..., I] a bool tensor of its shape, True where they stay.

    The least of all of them together go, in blocks of `width` neighbours along the last axis (a last one may be shorter), until
    `share` of the weights is gone, rounded to whole weights and up to one block. What is zero goes first. A block counts by its
    mean square: its L2 norm, where blocks are equally long. lamp: over the sum of those in its layer that are no smaller, so that
    layers are compared fairly and none is emptied while others have weights to spare. Of equal blocks the first ones go.
    """
    squares = [_mean_squares(weight.detach().double(), width) for weight in weights]
    scores = torch.cat([(_lamp(some) if ranking == "lamp" else some).flatten() for some in squares])
    sizes = torch.cat([_sizes(weight, width).flatten() for weight in weights])
    stays = scores > 0
    missing = round(share * sum(weight.numel() for weight in weights)) - int(sizes[~stays].sum())
    if missing > 0:
        alive = stays.nonzero().flatten()
        order = alive[torch.sort(scores[alive], stable=True).indices]
        before = sizes[order].cumsum(0) - sizes[order]  # weights gone before each block goes
        stays[order[before < missing]] = False
    found = []
    for weight, part in zip(weights, torch.split(stays, [some.numel() for some in squares]), strict=True):
        blocks = part.reshape(*weight.shape[:-1], -1)
        found.append(blocks.repeat_interleave(width, -1)[..., : weight.shape[-1]])
    return found


def _mean_squares(weight: Tensor, width: int) -> Tensor:
    """float64 [..., blocks]."""
    padded = nn.functional.pad(weight.square(), (0, -weight.shape[-1] % width))
    return padded.reshape(*padded.shape[:-1], -1, width).sum(-1) / _sizes(weight, width)


def _sizes(weight: Tensor, width: int) -> Tensor:
    """How many weights each block has, int64 [..., blocks]."""
    starts = torch.arange(0, weight.shape[-1], width, device=weight.device)
    return (weight.shape[-1] - starts).clamp(max=width).expand(*weight.shape[:-1], -1)


def _lamp(squares: Tensor) -> Tensor:
    """Each over the sum of those that are no smaller; 0 stays 0."""
    flat = squares.flatten()
    alive = flat.nonzero().flatten()
    ordered, order = torch.sort(flat[alive], descending=True, stable=True)
    scores = torch.zeros_like(flat)
    scores[alive[order]] = ordered / ordered.cumsum(0)
    return scores.reshape(squares.shape)


def prunable(network: nn.Module) -> dict[str, Tensor]:
    """The weights that may become zero, OHWI (or OI), as views: what changes them changes the network. By name of their layer.

    network: models.build's. Those of convolutions and linear layers of the backbone. Left dense: the first layer and depthwise
    convolutions, which hold few of the weights (5% in EfficientNet-Lite0) and of which each channel has only a handful.
    """
    backbone = network.backbone
    assert isinstance(backbone, nn.Module)
    layers = _graph_weights(backbone) if isinstance(backbone, GraphModule) else _torch_weights(backbone)
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for place, (name, weight, dense) in enumerate(layers):
        if place > 0 and not dense and weight.data_ptr() not in seen:
            found[name] = weight
        seen.add(weight.data_ptr())
    if not found:
        raise NestlingError("this network has no weights that can become zero: only a first layer and depthwise convolutions.")
    return found


def _torch_weights(backbone: nn.Module) -> Iterator[tuple[str, Tensor, bool]]:
    """(name, weight, whether it stays dense) of every layer."""
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            depthwise = layer.groups > 1 and layer.groups == layer.in_channels
            yield name, layer.weight.detach().permute(0, 2, 3, 1), depthwise
        elif isinstance(layer, nn.Linear):
            yield name, layer.weight.detach(), False


def _graph_weights(module: GraphModule) -> Iterator[tuple[str, Tensor, bool]]:
    for node in module.graph.nodes:
        if node.op in ("conv2d", "depthwise_conv2d", "fully_connected") and module.graph.tensors[node.inputs[1]].data is not None:
            yield node.name, module.constant(node.inputs[1]).detach(), node.op == "depthwise_conv2d"


# ---- in a training ---------------------------------------------------------------------------------------------------------------


def growing(method: Zeros, final: float, ranking: Ranking = "lamp") -> Changing:
    """After the steps of a training more and more weights are zero, up to the share `final` of prunable() after the ramp."""

    def begun(network: nn.Module) -> AfterStep:
        hold = zeros_kept(network)

        def after_step(network: nn.Module, step: int, steps: int) -> None:
            nonlocal hold
            hold(network, step, steps)
            ramp = ramp_of(steps)
            if step < ramp and ((step + 1) % max(1, ramp // RANKED) == 0 or step + 1 == ramp):
                weights = list(prunable(network).values())
                stays = masks(weights, sparsity_at(step, steps, final), WIDTH[method], ranking)
                for weight, mask in zip(weights, stays, strict=True):
                    weight.masked_fill_(~mask, 0)
                hold = zeros_kept(network)

        return after_step

    return begun
