"""FastNAS: how wide each layer of a float Graph should be, by NVIDIA Model Optimizer.

Model Optimizer finds the layers that share a width, orders their channels by weight, and measures what each width costs while all
others are full: its sensitivity map. The width of every layer is then the smallest that costs no more than a common threshold, and
the threshold the lowest at which the subnet is small enough. That last step is done here: Model Optimizer's own takes one limit
only, and counts other operations than the Graph's count does. Nor is its way used of setting BatchNorm's statistics anew, which in
0.47 writes them to a copy of the ordered channels, where they are lost. A subnet is captured, and counted and scored as a Graph.
No file is written or read: Model Optimizer is given no checkpoint.
Source: Cai et al. 2020, "Once-for-All" (subnets that share weights); Model Optimizer's documentation of FastNAS.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from torch import nn

from nestling.compress.images import Images
from nestling.compress.layers import Layer, Layers
from nestling.errors import NestlingError
from nestling.graph.head import Head
from nestling.graph.ir import Graph

NARROWEST: Final = 0.25  # of a layer's channels: fewer cost most of the accuracy, and trying them would waste a candidate
INSTALL: Final = "pip install 'nestling[search]'"


@dataclass(frozen=True, eq=False)
class Subnet:
    """graph: with its batch norms. head: cut to the embedding, not learned again."""

    graph: Graph
    head: Head


@dataclass(frozen=True, eq=False)
class Limit:
    """what: for messages. count: what is limited, of a subnet; a narrower one has less. whole: of all. most: that may be left."""

    what: str
    count: Callable[[Subnet], int]
    whole: int
    most: int


@dataclass(frozen=True, eq=False)
class Found:
    """subnet: the one that was chosen. module: Model Optimizer's own network of it (see Images), from before it was captured.

    widths: of each group of layers that share one, by the layer that leads it: (chosen, of all). tried: subnets that were scored.
    """

    subnet: Subnet
    module: nn.Module
    widths: Mapping[str, tuple[int, int]]
    tried: int


def require_modelopt() -> None:
    """Raises NestlingError where what `search` needs is not installed."""
    try:
        with _quiet():
            import modelopt.torch.prune.fastnas  # noqa: F401  # registers itself
            import torchprofile.profile  # noqa: F401  # Model Optimizer imports it only when it counts
    except ImportError as error:
        raise NestlingError(f"search needs NVIDIA Model Optimizer, and {error.name} is not installed.", INSTALL) from error


def find(
    graph: Graph,
    head: Head,
    limits: Sequence[Limit],
    score: Callable[[Subnet], float],
    candidates: int,
    round_to: int,
    told: Callable[[], None] = lambda: None,
) -> Found:
    """The subnet of the graph that keeps all limits and most of the score.

    score: larger is better. candidates: how many subnets are scored at most, the whole one among them; but one at least for each
    group of layers. round_to: widths are multiples of it. told: called after each candidate.
    The same arguments give the same result.
    Raises NestlingError where Model Optimizer is missing, no width is free, or the smallest subnet is beyond a limit; UnsupportedOp
    for a graph whose channels cannot be followed.
    """
    require_modelopt()
    from modelopt.torch import nas
    from modelopt.torch.opt.utils import named_hparams
    from modelopt.torch.prune.fastnas import BinarySearcher

    images = Images(graph, head)
    out, err = sys.stdout, sys.stderr
    tried = 0

    def scored(_images: nn.Module) -> float:
        nonlocal tried
        tried += 1
        value = score(captured(images))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):  # a bar may write there
            told()
        return value

    def selected(widths: Mapping[str, int]) -> Subnet:
        nas.select(images, dict(widths), strict=False)
        return captured(images)

    with _quiet():
        try:
            images = nas.convert(images, [("fastnas", _rules(round_to))])
        except Exception as error:
            if type(error).__name__ != "ApplyModeError":
                raise
            raise NestlingError("nothing in this network can be searched: no layer's channels are free to go.") from error
        groups = dict(named_hparams(images, configurable=True))
        _spread(groups.values(), max(1, (candidates - 1) // len(groups)))
        _in_one_order(groups.values(), images)
        _require_reached(selected({name: group.min for name, group in groups.items()}), limits)
        searcher = BinarySearcher()
        settings = {"score_func": scored, "verbose": False, "checkpoint": None, "num_iters": 1}
        searcher.search(images, {"flops": "100%"}, images.example(), settings)
        chosen = _chosen(searcher.sensitivity_map, lambda widths: not _beyond(selected(widths), limits))
        subnet = selected(chosen)
        whole = {name: group.max for name, group in groups.items()}
        module = nas.export(images).eval()
    leads = {f"layers.{index}.out_channels": node.source or node.name for index, node in enumerate(graph.nodes)}
    return Found(subnet, module, {leads.get(name, name): (width, whole[name]) for name, width in chosen.items()}, tried)


# ---- which widths are tried -----------------------------------------------------------------------------------------------------


def _rules(round_to: int) -> dict[str, Any]:
    """Model Optimizer's search space: every multiple of round_to; kernels stay."""
    channels = {"*": {"channels_ratio": None, "channel_divisor": round_to, "kernel_size": ()}}
    features = {"*": {"features_ratio": None, "feature_divisor": round_to}}
    return {"nn.Conv2d": channels, "nn.BatchNorm2d": features}


def _spread(groups: Sequence[Any] | Any, most: int) -> None:
    """Leaves each group its whole width and up to `most` narrower ones, evenly from NARROWEST on."""
    for group in groups:
        enough = [width for width in group.choices if NARROWEST * group.max <= width < group.max] or [group.min]
        places = np.linspace(0, len(enough) - 1, min(most, len(enough))).round().astype(int)
        group.choices = sorted({*(enough[place] for place in places), group.max})


def _in_one_order(groups: Sequence[Any] | Any, images: nn.Module) -> None:
    """A group's importance is a sum over its layers, which Model Optimizer holds in a set's order: another in every process."""
    place = {id(module): index for index, module in enumerate(images.modules())}
    for group in groups:
        if group._importance_estimators:
            group._importance_estimators.sort(key=lambda one: place.get(id(getattr(one, "__self__", None)), -1))


def _chosen(sensitivity: Mapping[str, Mapping[int, float]], fits: Callable[[Mapping[str, int]], bool]) -> dict[str, int]:
    """The widths at the lowest threshold at which the subnet fits, and then what of them can be given back.

    sensitivity: of each group, what each width costs in score, never less for a narrower one.
    """

    def at(threshold: float) -> dict[str, int]:
        return {name: min(width for width, cost in costs.items() if cost <= threshold) for name, costs in sensitivity.items()}

    thresholds = sorted({cost for costs in sensitivity.values() for cost in costs.values()})
    low, high = 0, len(thresholds) - 1
    while low < high:  # narrower at every higher threshold, so halving finds the lowest that fits
        middle = (low + high) // 2
        low, high = (low, middle) if fits(at(thresholds[middle])) else (middle + 1, high)
    widths = at(thresholds[low])
    # scores are counts of photographs: many widths cost the same, and some of those that went at once need not have gone
    for name in sorted(widths, key=lambda name: sensitivity[name][widths[name]], reverse=True):
        for wider in sorted((width for width in sensitivity[name] if width > widths[name]), reverse=True):
            if fits(widths | {name: wider}):
                widths[name] = wider
                break
    return widths


# ---- subnets as Graphs ----------------------------------------------------------------------------------------------------------


def captured(images: Images) -> Subnet:
    """The network as wide as it is now."""
    with torch.random.fork_rng(devices=[]):  # torch's layers begin with random numbers
        layers = Layers(images.graph, images.whole_head)
        for index, node in enumerate(images.graph.nodes):
            layer = images.layer(index)
            if layer is not None:
                layers.layers[str(index)] = _in_graphs_form(layer, layers.layer(index), node.op)
        layers.head = _linear(images.head)
    return Subnet(layers.to_graph(), layers.to_head())


def _in_graphs_form(layer: nn.Module, was: Layer | None, op: str) -> nn.Module:
    """Of the kind that Layers holds, with the numbers of now."""
    if op == "fully_connected":
        return _linear(cast(nn.Conv2d, layer))
    if not isinstance(was, nn.BatchNorm1d):
        return layer
    norm = nn.BatchNorm1d(len(cast(nn.BatchNorm2d, layer).weight), eps=was.eps)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data.copy_(getattr(layer, name).data)
    return norm.eval()


def _linear(convolution: nn.Conv2d) -> nn.Linear:
    """The matrix product that a convolution of 1 x 1 is."""
    rows, columns = convolution.weight.shape[:2]
    linear = nn.Linear(columns, rows, convolution.bias is not None)
    linear.weight.data.copy_(convolution.weight.data[:, :, 0, 0])
    if convolution.bias is not None:
        linear.bias.data.copy_(convolution.bias.data)
    return linear


# ---- limits ---------------------------------------------------------------------------------------------------------------------


def _beyond(subnet: Subnet, limits: Sequence[Limit]) -> list[tuple[Limit, int]]:
    """The limits that the subnet does not keep, with its own counts."""
    return [(limit, count) for limit in limits if (count := limit.count(subnet)) > limit.most]


def _require_reached(smallest: Subnet, limits: Sequence[Limit]) -> None:
    for limit, count in _beyond(smallest, limits):
        share = math.ceil(1000 * count / limit.whole) / 10
        raise NestlingError(
            f"{limit.most / limit.whole:.1%} of the {limit.what} cannot be reached: the smallest subnet has {share:.1f}% of them.",
            f"ask for {share:.1f}% or more, search the result once more, or:  nestling prune",
        )


# ---- Model Optimizer's manners --------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """What it prints, logs and warns of is about its own inside; and random numbers that it may draw are not the caller's."""
    disabled, state = logging.root.manager.disable, random.getstate()
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[]),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        random.setstate(state)
