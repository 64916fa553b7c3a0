"""The network that quantisation-aware training trains: a float Graph with fake quantisers where the int8 Graph has Quants."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nestling.graph.float_twin import real
from nestling.graph.head import Head
from nestling.graph.integers import (
    FIXED,
    SHARING,
    QuantizeConfig,
    Range,
    bits_of,
    groups,
    weighted,
    with_integers,
)
from nestling.graph.ir import OUT_AXIS, BatchNorm, Graph, Mean, Node, Quant
from nestling.graph.passes import prepare
from nestling.models.graph_module import GraphModule, to_graph
from nestling.quantization.calibrate import Statistics, choose_ranges
from nestling.training.fake_quant import HIGH, LOW, FixedGrid, Grid, LearnedGrid, MovingGrid, Steps
from nestling.words import Rounding

LEAST: Final = 0.25  # share of its variance that a channel is taken to have at least, see FakeQuantised.keep_up


class FakeQuantised(nn.Module):
    """uint8 [N, H, W, C] -> logits float32 [N, classes], every value rounded as the int8 Graph of the moment would round it.

    backbone: the float Graph, folded or with its batch norms. These learn their statistics in training mode until `folded` is
    set; from then on they are constants, as in the folded Graph. Weights are rounded as they will be once the norm behind them is
    folded: times gamma / sigma of the running statistics (Krishnamoorthi 2018, section 3.2.2).
    """

    folded: Tensor

    def __init__(self, graph: Graph, prepared: Graph, head: Head, config: QuantizeConfig, method: Rounding, start: Graph) -> None:
        """graph: what learns, with or without batch norms; prepared: passes.prepare of it; start: its first integers (placed)."""
        super().__init__()
        self.prepared, self.config, self.method = prepared, config, method
        self.backbone = GraphModule(graph)
        self.backbone.observe, self.backbone.observe_constant = self._activation, self._constant
        self.head = nn.Linear(head.weight.shape[1], head.weight.shape[0])
        self.head.load_state_dict({"weight": torch.tensor(head.weight), "bias": torch.tensor(head.bias)})
        norms = [node for node in graph.nodes if node.op == "batch_norm"]
        self.register_buffer("folded", torch.tensor(not norms))
        self._least = {norm.inputs[4]: self.backbone.constant(norm.inputs[4]).detach() * LEAST for norm in norms}

        self.group = groups(prepared)
        self.grids = nn.ModuleList()
        self._grid_of: dict[str, int] = {}  # group -> its grid
        self._grid_of_value: dict[str, int] = {}  # activation of `graph` -> its grid
        for name, root in self.group.items():
            quant = start.tensors[name].quant
            if quant is None:
                continue
            if root not in self._grid_of:
                self._grid_of[root] = len(self.grids)
                self.grids.append(_grid(quant, _is_fixed(prepared, root), config, method))
            for value in (name, _after_absorbed(graph, prepared, name)):
                self._grid_of_value[value] = self._grid_of[root]
        rounding = {_after_absorbed(graph, prepared, name) for name in _rounding(prepared, self.group)}
        self._rounded = {name: place for name, place in self._grid_of_value.items() if name in rounding}

        bits = bits_of(prepared, config)
        layers = {node.name: node for node in weighted(graph)}
        self.steps = nn.ModuleList()
        self._steps_at: dict[str, int] = {}  # weight of `graph` -> its steps
        self._steps_of: dict[str, int] = {}  # layer -> its steps
        self._norm_after: dict[str, Node] = {}  # weight of `graph` -> the norm that it will take in
        self._layer_before: dict[str, tuple[Node, Node, bool]] = {}  # norm -> its layer, itself, whether they will be clamped
        self._layer_of_bias: dict[str, Node] = {}  # bias of `graph` -> its layer, where no norm is behind it
        self._late: dict[str, Node] = {}  # lifted after the sum: layers that give negative values or have no bias, and others
        self._now: dict[str, Tensor] = {}  # weight -> its steps in this pass
        for node in weighted(prepared):
            own = layers[node.name]
            if own.inputs[1] not in self._steps_at:
                found = start.tensors[node.inputs[1]].quant
                assert found is not None
                weight = torch.tensor(prepared.tensors[node.inputs[1]].data)
                self._steps_at[own.inputs[1]] = len(self.steps)
                self.steps.append(Steps(torch.tensor(found.scale), weight, OUT_AXIS[node.op], bits[node.name], method))
            self._steps_of[node.name] = self._steps_at[own.inputs[1]]
            behind = graph.readers(own.name)
            clamped = _is_clamped(node)
            if behind and behind[0].op == "batch_norm":
                self._norm_after[own.inputs[1]] = behind[0]
                self._layer_before[behind[0].name] = own, behind[0], clamped
                continue
            if len(own.inputs) > 2:
                self._layer_of_bias[own.inputs[2]] = own
            if len(own.inputs) == 2 or not clamped:
                self._late[own.name] = own

        for node in prepared.nodes:
            twice = node.op in ("mean", "average_pool", "concat") or (node.op == "mul" and set(node.inputs) <= self.group.keys())
            if twice and _after_absorbed(graph, prepared, node.name) == node.name:
                self._late[node.name] = next(own for own in graph.nodes if own.name == node.name)

        self._carried: dict[str, str] = {}
        for place, (name, values) in enumerate(_carried(graph, start).items()):
            self._carried[name] = f"constant_{place}"
            self.register_buffer(f"constant_{place}", torch.from_numpy(values))

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, C] -> the real numbers of the int8 embedding, float32 [N, D]."""
        self.backbone.train(self.training and not bool(self.folded))
        embedding: Tensor = self.backbone(images)
        return embedding

    def _activation(self, name: str, value: Tensor) -> Tensor:
        if name in self._layer_before and (bool(self.folded) or not self.training):
            value = self._as_folded(*self._layer_before[name], value)
        if name not in self._rounded:
            return value
        if name in self._late:
            value = value + self._lift(self._late[name]) * self._direction(self._late[name], value)
        rounded: Tensor = self.grids[self._rounded[name]](value)
        return rounded

    def _constant(self, name: str, value: Tensor) -> Tensor:
        if name in self._carried:
            return self.get_buffer(self._carried[name])
        if name in self._layer_of_bias:
            return self._bias(self._layer_of_bias[name], value)
        if name not in self._steps_at:
            return value
        steps = self.steps[self._steps_at[name]]
        assert isinstance(steps, Steps)
        if name not in self._norm_after:
            rounded, self._now[name] = steps.forward(value)
            return rounded
        factor = self._factor(self._norm_after[name], value.ndim, steps.axis)
        rounded, self._now[name] = steps.forward(value * factor)
        return rounded / factor

    def _as_folded(self, layer: Node, norm: Node, clamped: bool, value: Tensor) -> Tensor:
        """A norm's output with the roundings that _bias and _lift bring where it is folded."""
        with torch.no_grad():
            _, beta, mean, _ = (self.backbone.constant(name) for name in norm.inputs[1:])
            bias = beta - mean.double() * self._factor(norm, 1, 0)  # the layer has none of its own, see norms.py
            lift = self._lift(layer)
            change = (self._carried_bias(layer, bias) - bias).to(value.dtype)
            change = change + lift if clamped else change + lift * (value + change).sign()
        return value + change

    def _bias(self, layer: Node, value: Tensor) -> Tensor:
        """On the grid of its int32, and lifted (see _lift); the gradient goes straight through."""
        with torch.no_grad():
            carried = self._carried_bias(layer, value.double())
            lifted = carried + self._lift(layer) if _is_clamped(layer) else carried
            change = lifted.to(value.dtype) - value
        return value + change

    def _carried_bias(self, layer: Node, bias: Tensor) -> Tensor:
        """float64 [channels], whole numbers of input scale x weight step."""
        unit = self._scale(layer.inputs[0]).double() * self._now[layer.inputs[1]]
        return torch.round(bias / unit) * unit

    def _lift(self, node: Node) -> Tensor:
        """What is to be added to positive outputs, float32 [1] or [channels], so that they round as the integers do.

        These round twice: the accumulator times a multiplier in 0.5 .. 1 to a whole number, then that over 2^n (gemmlowp's
        fixed-point rescaling, docs/integer-semantics.md): what is within 2^-(n + 1) of a half goes up, too. A mean divides the
        multiplier by its number of values, and keeps its bits by a larger n. An average_pool rounds once, halves away from zero.
        """
        with torch.no_grad():
            out = self._scale(node.name)
            if node.op == "average_pool":
                return out * 2.0**-10
            ratio = self._now[node.inputs[1]].double() / out if node.op in OUT_AXIS else 1 / out.double()
            for name in self._rescaled_inputs(node):
                ratio = ratio * self._scale(name)
            _, exponent = torch.frexp(ratio)
            if isinstance(node.attrs, Mean):
                shape = self.backbone.graph.tensors[node.inputs[0]].shape
                exponent = exponent - (math.prod(shape[axis] for axis in node.attrs.axes).bit_length() - 1)
            return torch.where(exponent < 0, torch.pow(2.0, exponent - 1) * out, 0.0)

    def _rescaled_inputs(self, node: Node) -> Iterable[str]:
        """The activations whose scales are in the multiplier; of a concat, one that has another scale."""
        if node.op != "concat":
            return (name for name in node.inputs if name in self._grid_of_value)
        own = self._grid_of_value[node.name]
        return [name for name in node.inputs if self._grid_of_value.get(name, own) != own][:1]

    def _direction(self, node: Node, value: Tensor) -> Tensor:
        """The sign of what the integers round: an average_pool's still hold their zero point."""
        with torch.no_grad():
            if node.op != "average_pool":
                return value.sign()
            grid = self.grids[self._grid_of_value[node.name]]
            assert isinstance(grid, Grid)
            return (value + grid.scale() * grid.zero).sign()

    def _scale(self, name: str) -> Tensor:
        """The scale of an activation of `graph`, float32 [1]."""
        grid = self.grids[self._grid_of_value[name]]
        assert isinstance(grid, Grid)
        return grid.scale().detach()

    def _factor(self, norm: Node, dimensions: int, axis: int) -> Tensor:
        """gamma / sigma of a norm as a constant, shaped to multiply the weights before it. None of them is 0."""
        assert isinstance(norm.attrs, BatchNorm)
        gamma, variance = self.backbone.constant(norm.inputs[1]), self.backbone.constant(norm.inputs[4])
        factor = gamma.detach() / torch.sqrt(variance + norm.attrs.epsilon)
        factor = torch.where(factor.abs() < 1e-12, torch.full_like(factor, 1e-12), factor)
        return factor.reshape([-1 if place == axis else 1 for place in range(dimensions)])

    def keep_up(self) -> None:
        """After a step: no running variance under LEAST of what it began with.

        A channel that rounds to zeros has none. Its gamma / sigma would grow until its folded weights, which count for nothing,
        took the step of a whole layer.
        """
        for name, least in self._least.items():
            variance = self.backbone.constant(name)
            torch.maximum(variance, least.to(variance.device), out=variance)

    def with_norms_folded(self) -> FakeQuantised:
        """The same network over float_graph(), whose biases are rounded too: nearer to the integers than where norms stand."""
        graph = self.float_graph()
        head = Head(self.head.weight.detach().cpu().numpy(), self.head.bias.detach().cpu().numpy())
        same = FakeQuantised(graph, graph, head, self.config, self.method, self.integers(graph))
        for ours, theirs in ((same.grids, self.grids), (same.steps, self.steps)):
            ours.load_state_dict(theirs.state_dict())
        return same.train(self.training)

    def in_double(self) -> FakeQuantised:
        """The same network, to be evaluated: the same grids and steps, sums in float64. Then no value lies so near a half that
        float32, on one processor or another, rounds it to another integer."""
        same = copy.deepcopy(self)
        same.backbone.double()
        same.head.double()
        for name in same._carried.values():
            same.register_buffer(name, same.get_buffer(name).double())
        return same

    # ---- back to Graphs ----------------------------------------------------------------------------------------------------------

    def float_graph(self) -> Graph:
        """What was trained without its quantisers: prepared, norms folded."""
        return prepare(to_graph(self.backbone))

    def integers(self, graph: Graph) -> Graph:
        """The int8 Graph of float_graph(): with the grids and steps as they are now."""
        quants = {root: _as_quant(self.grids[i]) for root, i in self._grid_of.items() if not isinstance(self.grids[i], FixedGrid)}
        ranges = _ranges(graph, self.group, quants, self.config.symmetric)
        steps = {}
        for node in weighted(graph):
            own = self.steps[self._steps_of[node.name]]
            assert isinstance(own, Steps)
            steps[node.name] = own.steps(torch.tensor(graph.tensors[node.inputs[1]].data)).detach().cpu().numpy()
        return with_integers(graph, ranges, eight(self.config), steps)


# ---- how it begins ---------------------------------------------------------------------------------------------------------------


def eight(config: QuantizeConfig) -> QuantizeConfig:
    """The config for ranges that are placed (see placed): they hold the bits of the activations already."""
    return replace(config, bits_activations=8)


def placed(prepared: Graph, statistics: Mapping[str, Statistics], config: QuantizeConfig) -> Graph:
    """The first int8 Graph: calibrated as quantize does, grids of fewer than 8 bits moved to the upper end of int8.

    There a value that is clamped at 0 has no more integers than its bits allow: int8 itself saturates above, the clamp below.
    (At the lower end of a value that is not clamped, and around a zero point of 0, the bits fix the step alone.)
    The table of the normalisation has 8 bits.
    """
    ranges = choose_ranges(statistics, config.range, config.bits_activations, config.symmetric)
    nominal = with_integers(prepared, ranges, config)
    up = 0 if config.symmetric else HIGH - (2 ** (config.bits_activations - 1) - 1)
    group = groups(prepared)
    moved = {}
    for name, root in group.items():
        quant = nominal.tensors[name].quant
        if quant is not None and not _is_fixed(prepared, root):
            moved[root] = replace(quant, zero_point=quant.zero_point + np.int32(up))
    return with_integers(prepared, _ranges(prepared, group, moved, config.symmetric), eight(config))


def _ranges(prepared: Graph, group: Mapping[str, str], quants: Mapping[str, Quant], symmetric: bool) -> dict[str, Range]:
    """Ranges from which integers.quant_of makes these quants again, of 8 bits. quants: of groups; fixed ones are not asked for."""
    found = {}
    for name in prepared.tensors:
        quant = quants.get(group.get(name, ""))
        if quant is None:
            found[name] = Range(0.0, 0.0)  # widens nothing where it joins others
        else:
            scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
            found[name] = Range((LOW + symmetric - zero) * scale, (HIGH - zero) * scale)
    return found


def _is_fixed(prepared: Graph, root: str) -> bool:
    """Whether a group's quant does not depend on ranges."""
    node = prepared.producer(root)
    return node is not None and (node.op in FIXED or node.op == "table")


def _rounding(prepared: Graph, group: Mapping[str, str]) -> Iterator[str]:
    """The activations that are rounded: the others hold what was rounded before."""
    for node in prepared.nodes:
        moves = node.op in SHARING and node.op != "average_pool"
        joins = node.op == "concat" and all(group.get(name) == group[node.name] for name in node.inputs)
        if not moves and not joins and node.op != "table":
            yield node.name


def _after_absorbed(graph: Graph, prepared: Graph, name: str) -> str:
    """Where a value of `prepared` stands in the graph with norms: behind the norm and the clamp that the layer takes in."""
    own = {node.name for node in prepared.nodes}
    while len(readers := graph.readers(name)) == 1 and readers[0].name not in own:
        name = readers[0].name
    return name


def _is_clamped(layer: Node) -> bool:
    return getattr(layer.attrs, "clamp", "none") != "none"


def _grid(quant: Quant, fixed: bool, config: QuantizeConfig, method: Rounding) -> Grid:
    scale, zero = torch.tensor(quant.scale), torch.tensor(quant.zero_point)
    if fixed:
        return FixedGrid(scale, zero)
    if method == "minmax":
        return MovingGrid(scale, zero, config.bits_activations, config.symmetric)
    return LearnedGrid(scale, zero, method)


def _carried(graph: Graph, start: Graph) -> dict[str, NDArray[np.float32]]:
    """The constants that do not learn (the table, operands of add and mul) as their integers carry them."""
    names = {name for node in graph.nodes if node.op in ("table", "add", "mul") for name in node.inputs}
    return {name: real(start.tensors[name]) for name in graph.tensors if name in names and graph.tensors[name].data is not None}


def _as_quant(grid: nn.Module) -> Quant:
    assert isinstance(grid, Grid)
    return Quant(grid.scale().detach().cpu().numpy(), grid.zero.cpu().numpy())
