"""The frozen front of a network answers each image once; what learns goes on from its answers.

Worth it where only the last blocks learn, and the images that they learn from come again: the same few variations of each.
"""

from __future__ import annotations

import copy
import math
import operator
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from nestling.bundle import Bundle
from nestling.embedding.engine import Engine
from nestling.embedding.network_engine import engine_of
from nestling.embedding.of_bundle import bundle_engine
from nestling.graph.edit import free_name, tidy
from nestling.graph.ends import ending_in
from nestling.graph.ir import Node, Reshape
from nestling.graph.ir import Tensor as GraphTensor
from nestling.graph.spec import check
from nestling.models.backbones import Network
from nestling.models.graph_module import GraphModule, to_graph
from nestling.progress import Progress, silent
from nestling.training.loop import train_mode
from nestling.training.samples import Inputs, batches
from nestling.training.team import Team

MOST_BYTES = 2_000_000_000  # of answers that are held
READ = 64  # images that are prepared at a time


@dataclass(frozen=True, eq=False)
class Activations:
    """What the front says of each image, in the place of the images.

    labels: int64 [N]. held: float32 [variations, N, D].
    """

    labels: NDArray[np.int64]
    held: NDArray[np.float32]

    def image(self, index: int, seed: int, epoch: int) -> NDArray[np.float32]:
        """float32 [D], the front's answer to this variation; the seed is that of the images that it saw."""
        answer: NDArray[np.float32] = self.held[epoch, index]
        return answer


@dataclass(frozen=True, eq=False)
class Stage:
    """What goes through the training loop: a network and the inputs that it takes.

    front: the name of the engine that answered for the frozen part; None where the whole network sees the images.
    """

    network: nn.Module
    samples: Inputs
    val: Inputs
    front: str | None = None


def without_front(
    stage: Stage,
    bundle: Bundle,
    variations: int,
    seed: int,
    workers: int = 0,
    team: Team | None = None,
    progress: Progress = silent,
    most_bytes: int = MOST_BYTES,
) -> Stage:
    """The stage of the network's back, whose inputs are the front's answers; the stage itself, where that cannot be.

    stage.network: models.build(bundle), some of its parameters fixed. variations: of each training image, 0..variations-1.
    Training this stage is training the other one, up to the order of sums; its parameters are the network's own, under their names.
    A team divides the images. A warning says it where the network does not come apart, or its answers would take more memory.
    """
    team = team or Team()
    if all(parameter.requires_grad for parameter in stage.network.parameters()):
        return stage
    shape = (*bundle.preprocess.size, bundle.preprocess.channels)
    parts = cut(stage.network, torch.zeros(1, *shape, dtype=torch.uint8))
    if parts is None:
        warnings.warn(
            "what does not learn is computed anew in each epoch: this network can't be cut there into two that answer as it does",
            stacklevel=2,
        )
        return stage
    front, back = parts
    count = variations * len(stage.samples.labels) + len(stage.val.labels)
    engine = _engine(front, bundle, shape, count)
    if 4 * count * engine.width > most_bytes:
        warnings.warn(
            f"what does not learn is computed anew in each epoch: its answers to {variations} variations would take "
            f"{4 * count * engine.width / 1e9:.1f} GB; fewer --variations or --blocks take less",
            stacklevel=2,
        )
        return stage
    with progress("activations of the frozen part", count) as advance:
        samples = _activations(engine, stage.samples, range(variations), seed, workers, team, advance)
        val = _activations(engine, stage.val, range(1), seed, workers, team, advance)
    return Stage(back, samples, val, engine.name)


def _engine(front: nn.Sequential, bundle: Bundle, shape: tuple[int, int, int], count: int) -> Engine:
    before = front[1]
    if isinstance(before, GraphModule):
        return bundle_engine(replace(bundle, architecture=to_graph(before)), count)
    return engine_of(front, shape, count)


def _activations(
    engine: Engine, inputs: Inputs, variations: range, seed: int, workers: int, team: Team, advance: Callable[[int], None]
) -> Activations:
    """What the front says of every variation; each process of a team asks it for its share, and all get everything."""
    own = range(team.rank, len(inputs.labels), team.size)
    held = np.zeros((len(variations), len(inputs.labels), engine.width), np.float32)
    for variation in variations:
        for index, answer in zip(own, engine.embed(_images(inputs, own, seed, variation, workers)), strict=True):
            held[variation, index] = answer
            advance(team.size)
        if team.size > 1:
            held[variation] = team.sums(torch.from_numpy(held[variation])).numpy()
    return Activations(inputs.labels, held)


def _images(inputs: Inputs, indices: Sequence[int], seed: int, variation: int, workers: int) -> Iterator[NDArray[np.uint8]]:
    order = [indices[start : start + READ] for start in range(0, len(indices), READ)]
    for images, _ in batches(inputs, order, seed, variation, workers):
        yield from images.numpy()


# ---- where a network comes apart -------------------------------------------------------------------------------------------------


def cut(network: nn.Module, image: Tensor) -> tuple[nn.Sequential, Network] | None:
    """(front, back): the front, uint8 [N, H, W, C] -> float32 [N, D], is as much as never changes; the back, float32 [N, D] ->
    what the network gives, is the rest, as a Network, made of the network's own modules and parameters under the same names.

    network: models.build's, some of its parameters fixed; image: uint8 [1, H, W, C], any. D are the numbers of the one tensor that
    goes from the front to the back, channels last.
    None where nothing is fixed at the beginning, or the network cannot be followed, or its front is not the same at each look.
    """
    assert isinstance(network, Network)
    parts = _parts(network.backbone)
    if parts is None or next(parts[0].parameters(), None) is None:
        return None
    before, after = parts
    front = nn.Sequential(network.normalise, before, Flat()).eval()
    with torch.no_grad():
        shape = before(network.normalise(image)).shape
    back = Network(Shaped(tuple(shape[1:])), after, None)
    back.head = network.head
    return (front, back.eval()) if _steady(front, image) and _shared(back, network) else None


class Flat(nn.Module):
    """[N, C, H, W] -> [N, H * W * C]: in memory that is how these networks leave it; any other [N, ...] -> [N, D]."""

    def forward(self, value: Tensor) -> Tensor:
        """See the class."""
        return (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).flatten(1)


class Shaped(nn.Module):
    """The inverse of Flat. shape: of one value, (C, H, W) or any other."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, flat: Tensor) -> Tensor:
        """A view."""
        if len(self.shape) != 3:
            return flat.reshape(-1, *self.shape)
        channels, height, width = self.shape
        return flat.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Step:
    """One thing that a network does: the value that it gives, those that it takes, and whether any of its numbers learn."""

    gives: Hashable
    takes: tuple[Hashable, ...]
    learns: bool


def _last_cut(steps: Sequence[_Step]) -> tuple[int, Hashable] | None:
    """(how many steps come before, the one value that those after take from them): as late as nothing before it learns."""
    found = None
    for place in range(1, len(steps)):
        if steps[place - 1].learns:
            break
        made = {step.gives for step in steps[:place]}
        crossing = made & {value for step in steps[place:] for value in step.takes}
        if len(crossing) == 1:
            found = place, crossing.pop()
    return found


def _parts(backbone: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    if not any(parameter.requires_grad for parameter in backbone.parameters()):
        return backbone, nn.Identity()
    return _graph_parts(backbone) if isinstance(backbone, GraphModule) else _traced_parts(backbone)


def _graph_parts(module: GraphModule) -> tuple[nn.Module, nn.Module] | None:
    """A float Graph in two; both are flat where they meet."""
    graph = module.graph

    def learns(node: Node) -> bool:
        return any(module.constant(name).requires_grad for name in node.inputs if graph.tensors[name].data is not None)

    steps = [_Step(name, (), False) for name in graph.inputs]
    steps += [_Step(node.name, node.inputs, learns(node)) for node in graph.nodes]
    found = _last_cut([*steps, _Step(None, graph.outputs, False)])
    if found is None or found[1] in graph.inputs:
        return None
    place, name = found[0] - len(graph.inputs), str(found[1])
    before = GraphModule(ending_in(to_graph(module), name)).requires_grad_(False)
    flat = GraphTensor(free_name(f"{name}:flat", graph.tensors), (1, math.prod(graph.tensors[name].shape)), "float32")
    nodes = (Node("reshape", (flat.name,), (name,), Reshape()), *graph.nodes[place:])
    rest = tidy(replace(graph, tensors={**graph.tensors, flat.name: flat}, nodes=nodes, inputs=(flat.name,)))
    after = GraphModule(check(rest, "what learns of the graph"), module.momentum)
    keys = {id(value): key for key, value in (*after.constants.named_parameters(), *after.constants.named_buffers())}
    for constant in rest.tensors.values():
        if constant.data is not None:
            setattr(after.constants, keys[id(after.constant(constant.name))], module.constant(constant.name))
    return before, after


class _Tracer(fx.Tracer):
    """Looks only into modules that learn in part: what happens in the others may depend on anything."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """See the class."""
        return len({parameter.requires_grad for parameter in m.parameters()}) < 2


def _traced_parts(backbone: nn.Module) -> tuple[nn.Module, nn.Module] | None:
    """timm's network in two, as its forward runs."""
    try:
        graphs = [_Tracer().trace(backbone.train(mode)) for mode in (True, False)]
    except Exception:  # forward is anyone's code, and sees no numbers here but fx's stand-ins
        return None
    finally:
        backbone.eval()
    if str(graphs[0]) != str(graphs[1]):  # it does something else while it learns
        return None
    nodes = list(graphs[0].nodes)
    found = _last_cut([_Step(node, tuple(node.all_input_nodes), _learns(backbone, node)) for node in nodes])
    if found is None:
        return None
    place, crossing = found
    assert isinstance(crossing, fx.Node)
    front, back = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[:place]:
        copies[node] = front.node_copy(node, copies.__getitem__)
    front.output(copies[crossing])
    copies = {crossing: back.placeholder("value")}
    for node in nodes[place:]:
        copies[node] = back.node_copy(node, copies.__getitem__)
    return fx.GraphModule(backbone, front), fx.GraphModule(backbone, back)


def _learns(backbone: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return any(parameter.requires_grad for parameter in backbone.get_submodule(str(node.target)).parameters())
    return node.op == "get_attr" and operator.attrgetter(str(node.target))(backbone).requires_grad


def _steady(front: nn.Module, image: Tensor) -> bool:
    """Whether the front says in training what it says in evaluation, draws no random numbers, and keeps its own."""
    noise = torch.randint(0, 256, image.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    trained = copy.deepcopy(front)
    train_mode(trained, freeze_norm=False)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        state = torch.get_rng_state()
        same = torch.equal(trained(noise), front(noise)) and torch.equal(torch.get_rng_state(), state)
    return same and all(torch.equal(a, b) for a, b in zip(trained.buffers(), front.buffers(), strict=True))


def _shared(back: nn.Module, network: nn.Module) -> bool:
    """Whether the back's numbers are the network's, under the same names."""
    own = network.state_dict()
    return all(name in own and own[name].data_ptr() == value.data_ptr() for name, value in back.state_dict().items())
