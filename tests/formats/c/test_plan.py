"""The arena plan. Judges: byte sets that live at each step, a search through all orders, sums worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nestling.formats.c.plan.choices import smallest
from nestling.formats.c.plan.plan import Plan, Step, plan
from nestling.formats.tflite.read import read_tflite
from nestling.graph.ir import DepthwiseConv2d, Graph, Node
from nestling.graph.passes import prepare


@dataclass(frozen=True)
class Case:
    """What plan() takes."""

    steps: tuple[Step, ...]
    sizes: Mapping[str, int]
    inputs: tuple[str, ...] = ("in",)
    outputs: tuple[str, ...] = ("out",)
    aliases: Mapping[str, tuple[str, int]] | None = None
    alignment: int = 1

    def planned(self) -> Plan:
        return plan(self.steps, self.sizes, self.inputs, self.outputs, self.aliases, self.alignment)


# ---- the judge: which bytes live when -------------------------------------------------------------------------------------------

Byte = tuple[str, int]  # (tensor that is no view, byte)


def bytes_of(case: Case, name: str) -> dict[Byte, int]:
    """Every byte of a tensor -> how far it is from the tensor's start."""
    root, inside = name, 0
    while root in (case.aliases or {}):
        root, further = case.aliases[root]
        inside += further
    return {(root, inside + i): i for i in range(case.sizes[name])}


def live(case: Case) -> list[set[Byte]]:
    """Bytes that something reads later: before the first step, then after each step."""
    now = {byte for name in case.outputs for byte in bytes_of(case, name)}
    found = [now]
    for step in reversed(case.steps):
        now = (now - bytes_of(case, step.writes).keys()) | {byte for name in step.reads for byte in bytes_of(case, name)}
        found.append(now)
    found[-1] = now | {byte for name in case.inputs for byte in bytes_of(case, name)}  # the caller has written it, read or not
    return found[::-1]


def taken(step: Step) -> tuple[str, ...]:
    return (step.over,) if isinstance(step.over, str) else step.over or ()


def judge(case: Case, found: Plan) -> None:
    """No byte of the arena holds two living things at once, unless the step allows it."""
    where: dict[Byte, int] = {}
    for name in case.sizes:
        for byte, distance in bytes_of(case, name).items():
            where.setdefault(byte, found.offsets[name] + distance)
            assert where[byte] == found.offsets[name] + distance, "a view does not lie where its tensor does"
    assert all(0 <= place < found.arena for place in where.values())
    views = case.aliases or {}
    assert all(found.offsets[name] % case.alignment == 0 for name in case.sizes if name not in views)
    between = live(case)
    for now, step in enumerate(case.steps):
        before, after, out = between[now], between[now + 1], bytes_of(case, step.writes).keys()
        start = found.scratch.get(step.name, 0)
        scratch = set(range(start, start + step.scratch))
        assert start % case.alignment == 0 and start + step.scratch <= found.arena
        for together in (before, after | out):
            places = [where[byte] for byte in together]
            assert len(set(places)) == len(places) and not scratch & set(places), f"{step.name}: two things on one byte"
        read = {byte for name in step.reads for byte in bytes_of(case, name)}
        written = {where[byte] for byte in out}
        for byte in (before - out) & (read | after):
            if where[byte] in written:
                holders = [name for name in step.reads if byte in bytes_of(case, name)]
                allowed = set(holders) <= set(taken(step)) and byte not in after
                before_it = [found.offsets[name] - found.offsets[step.writes] for name in holders]
                assert allowed and all(lead == rounded(step.lead, case) for lead in before_it), f"{step.name}: {byte}"


def certainly_needed(case: Case) -> int:
    """Bytes that any plan needs, whatever is in place."""
    between = live(case)
    return max(max(len(between[i]), len(between[i + 1])) + step.scratch for i, step in enumerate(case.steps))


def rounded(size: int, case: Case) -> int:
    return -(-size // case.alignment) * case.alignment


# ---- random networks ------------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn, views: bool = True, in_place: bool = True, most: int = 9) -> Case:
    """Steps that read what there is; views and concats where wanted; sizes and alignments of every kind."""
    size = st.integers(1, 24)
    sizes, aliases, steps = {"in": draw(size)}, {}, []
    ready = ["in"]

    def step(name: str) -> None:
        reads = tuple(draw(st.lists(st.sampled_from(ready[-5:]), min_size=1, max_size=2, unique=True)))
        over = tuple(draw(st.lists(st.sampled_from(reads), unique=True))) if in_place else ()
        scratch, lead = draw(st.sampled_from((0, 0, 5))), draw(st.sampled_from((0, 0, 3, 12))) if over else 0
        steps.append(Step(f"step {name}", reads, name, scratch, over[0] if len(over) == 1 else over or None, 0, lead))

    for i in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(("step", "step", "view", "concat"))) if views else "step"
        if kind == "view":
            of = draw(st.sampled_from(ready))
            offset = draw(st.integers(0, sizes[of] - 1))
            aliases[f"v{i}"] = of, offset
            sizes[f"v{i}"] = draw(st.integers(1, sizes[of] - offset))
            ready.append(f"v{i}")
        elif kind == "concat":
            parts = [draw(size) for _ in range(draw(st.integers(2, 3)))]
            sizes[f"c{i}"] = sum(parts)
            for j, part in enumerate(parts):
                sizes[f"c{i}.{j}"] = part
                aliases[f"c{i}.{j}"] = f"c{i}", sum(parts[:j])
                step(f"c{i}.{j}")
            ready.append(f"c{i}")
        else:
            sizes[f"t{i}"] = draw(size)
            step(f"t{i}")
            ready.append(f"t{i}")
    sizes["out"] = draw(size)
    step("out")
    outputs = tuple({"out": 0, draw(st.sampled_from(ready)): 0})
    used = {"in", "out", *outputs, *(name for s in steps for name in (*s.reads, s.writes))} | aliases.keys()
    used |= {of for of, _ in aliases.values()}
    sizes = {name: size for name, size in sizes.items() if name in used}
    return Case(tuple(steps), sizes, ("in",), outputs, aliases, draw(st.sampled_from((1, 4, 16))))


@settings(max_examples=300, deadline=None)
@given(cases())
def test_no_two_living_things_share_a_byte(case: Case) -> None:
    found = case.planned()
    judge(case, found)
    assert found.arena >= found.lower_bound >= certainly_needed(case)
    again = case.planned()
    assert (found.offsets, found.scratch) == (again.offsets, again.scratch)


def test_an_add_takes_over_the_operand_that_leaves_no_hole() -> None:
    """Over its first choice the plan would be 60 bytes; at its fullest step 48 live beside 4 of scratch."""
    chain = [("expand0", "in", "e0", 32), ("dw0", "e0", "d0", 16), ("project0", "d0", "p0", 12), ("expand1", "p0", "e1", 36)]
    chain += [("dw1", "e1", "d1", 36), ("project1", "d1", "p1", 12)]
    rest = [("expand2", "a1", "e2", 48), ("dw2", "e2", "d2", 24), ("project2", "d2", "p2", 4)]
    sizes = {"in": 8, "a1": 12} | {to: size for _, _, to, size in (*chain, *rest)}
    before, after = ([Step(name, (of,), to, 4, of) for name, of, to, _ in some] for some in (chain, rest))
    steps = [*before, Step("add", ("p0", "p1"), "a1", 0, ("p1", "p0")), *after]
    first = plan(steps, sizes, ("in",), ("p2",), alignment=4)
    found = smallest(steps, lambda some: plan(some, sizes, ("in",), ("p2",), alignment=4))
    judge(Case(tuple(steps), sizes, outputs=("p2",), alignment=4), found)
    assert (first.arena, found.arena) == (60, 52)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_the_smallest_of_several_plans_is_one(case: Case) -> None:
    first = case.planned()
    found = smallest(case.steps, lambda some: replace(case, steps=tuple(some)).planned())
    judge(case, found)
    assert found.arena <= first.arena


def test_an_output_over_its_input_begins_before_it() -> None:
    """Two rows of four bytes earlier, which is all that it takes more than the input."""
    steps = (Step("conv", ("in",), "out", 0, "in", 0, 8), Step("end", ("out",), "e"))
    case = Case(steps, {"in": 40, "out": 40, "e": 4}, outputs=("e",))
    found = case.planned()
    judge(case, found)
    assert found.arena == 48 and found.offsets["in"] - found.offsets["out"] == 8


@settings(max_examples=200, deadline=None)
@given(cases(views=False, in_place=False))
def test_the_bound_is_what_lives_at_the_fullest_step(case: Case) -> None:
    between, alive = live(case), []
    for now, step in enumerate(case.steps):
        names = {root for root, _ in between[now] | between[now + 1] | bytes_of(case, step.writes).keys()}
        alive.append(sum(rounded(case.sizes[name], case) for name in names) + rounded(step.scratch, case))
    found = case.planned()
    assert found.alive == tuple(alive)
    assert (found.lower_bound, found.peak_step) == (max(alive), case.steps[alive.index(max(alive))].name)


@settings(max_examples=100, deadline=None)
@given(cases(views=False, in_place=False, most=3))
def test_small_networks_get_the_smallest_arena_that_there_is(case: Case) -> None:
    """All orders, each tensor at the lowest free offset: one of them is optimal."""
    between = live(case)
    lives: dict[str, list[int]] = {}
    for now, step in enumerate(case.steps):
        for root, _ in between[now] | between[now + 1] | bytes_of(case, step.writes).keys():
            lives.setdefault(root, []).append(now)
        if step.scratch:
            lives[f"scratch {now}"] = [now]
    size = {name: case.sizes.get(name, 5) for name in lives}
    assume(len(lives) <= 6)
    best = math.inf
    for order in permutations(lives):
        tops: dict[str, int] = {}
        for name in order:
            below = [(tops[o] - rounded(size[o], case), tops[o]) for o in tops if set(lives[o]) & set(lives[name])]
            place = 0
            for start, end in sorted(below):
                if start - place >= rounded(size[name], case):
                    break
                place = max(place, end)
            tops[name] = place + rounded(size[name], case)
        best = min(best, max(tops.values()))
    assert case.planned().arena == best


# ---- networks worked out by hand ------------------------------------------------------------------------------------------------


def test_an_output_takes_over_an_input_that_nothing_reads_later() -> None:
    steps = (
        Step("conv", ("in",), "a"),
        Step("dw", ("a",), "b", over="a"),
        Step("add", ("a", "b"), "c", over=("a", "b")),
        Step("conv 2", ("c",), "out"),
    )
    sizes = {"in": 100, "a": 80, "b": 80, "c": 80, "out": 40}
    found = Case(steps, sizes, alignment=4).planned()
    assert found.in_place == {"c": "a"}, "a is still read by the add, so b has bytes of its own"
    assert found.offsets["c"] == found.offsets["a"] != found.offsets["b"]
    assert (found.arena, found.peak_step) == (180, "conv")


def test_an_output_may_be_larger_than_what_it_takes_over() -> None:
    steps = (Step("expand", ("in",), "wide", over="in"), Step("narrow", ("wide",), "out", over="wide"))
    found = Case(steps, {"in": 16, "wide": 96, "out": 16}).planned()
    assert (found.arena, dict(found.offsets)) == (96, {"in": 0, "wide": 0, "out": 0})


def test_an_input_is_not_taken_over_while_it_is_read_under_another_name() -> None:
    steps = (Step("mul", ("in", "part"), "out", over="in"),)
    found = Case(steps, {"in": 16, "part": 8, "out": 16}, aliases={"part": ("in", 8)}).planned()
    assert (found.arena, dict(found.in_place)) == (32, {})


def test_parts_of_a_concat_live_in_it_from_when_they_are_written() -> None:
    """While the second branch works on its 40 bytes, only 10 of the concat's 50 live: 60, not 100."""
    steps = (
        Step("one", ("in",), "both.0"),
        Step("two", ("in",), "t"),
        Step("three", ("t",), "u"),
        Step("four", ("u",), "both.1"),
        Step("last", ("both",), "out"),
    )
    sizes = {"in": 10, "both": 50, "both.0": 10, "both.1": 40, "t": 40, "u": 10, "out": 5}
    aliases = {"both.0": ("both", 0), "both.1": ("both", 10)}
    found = Case(steps, sizes, aliases=aliases).planned()
    assert found.arena == 60 and found.offsets["both.1"] == found.offsets["both"] + 10


def test_a_dead_image_makes_room() -> None:
    found = Case((Step("first", ("in",), "a"), Step("second", ("a",), "out")), {"in": 60, "a": 10, "out": 60}).planned()
    assert found.arena == 70


def test_an_arrangement_that_simple_orders_miss() -> None:
    """At the third step 15 + 9 + 8 + 12 = 44 bytes live, and 44 are enough: a, in, c, b from the bottom up, then out over in, c."""
    steps = (Step("0", ("in",), "a"), Step("1", ("in",), "b"), Step("2", ("b", "in"), "c"), Step("3", ("a", "b"), "out"))
    found = Case(steps, {"in": 9, "a": 15, "b": 8, "c": 12, "out": 19}).planned()
    assert (found.arena, found.peak_step) == (44, "2")


@pytest.mark.parametrize(
    "broken",
    [
        Case((Step("s", ("nothing",), "out"),), {"in": 4, "nothing": 4, "out": 4}),
        Case((Step("s", ("unknown",), "out"),), {"in": 4, "out": 4}),
        Case((Step("s", ("in",), "out"), Step("s", ("in",), "out")), {"in": 4, "out": 4}),
        Case((Step("s", ("in",), "out"),), {"in": 4, "out": 4, "v": 4}, aliases={"v": ("in", 2)}),
        Case((Step("s", ("in",), "out"),), {"in": 4, "out": 4, "v": 4, "w": 4}, aliases={"v": ("w", 0), "w": ("v", 0)}),
        Case((Step("s", ("in",), "out", over="out"),), {"in": 4, "out": 4}),
        Case((), {"in": 4}, outputs=("in",)),
    ],
    ids=["unwritten", "unknown", "twice", "outside", "circle", "over what is not read", "no steps"],
)
def test_what_makes_no_sense_is_refused(broken: Case) -> None:
    with pytest.raises(ValueError):
        broken.planned()


# ---- real networks --------------------------------------------------------------------------------------------------------------


def case_of(graph: Graph, alignment: int = 4) -> Case:
    """As a generator of C would have it: table and pad go into the convolution that reads them, reshape is a view, and what works
    value by value, or row by row with rows of scratch, is in place.
    """
    folded: dict[str, str] = {}
    steps, aliases = [], {}
    sizes = {name: math.prod(tensor.shape) for name, tensor in graph.tensors.items() if tensor.data is None}
    for node in graph.nodes:
        reads = tuple(dict.fromkeys(folded.get(name, name) for name in node.inputs if name in sizes))
        if node.op in ("table", "pad") and [reader.op for reader in graph.readers(node.name)] == ["conv2d"]:
            folded[node.name] = reads[0]
        elif node.op == "reshape":
            aliases[node.name] = reads[0], 0
        else:
            steps.append(Step(node.name, reads, node.name, *_kernel(node, reads, graph, sizes)))
    return Case(tuple(steps), {n: s for n, s in sizes.items() if n not in folded}, graph.inputs, graph.outputs, aliases, alignment)


def _kernel(node: Node, reads: tuple[str, ...], graph: Graph, sizes: Mapping[str, int]) -> tuple[int, tuple[str, ...]]:
    """Scratch, and what the output may lie over."""
    if isinstance(node.attrs, DepthwiseConv2d) and node.attrs.stride == (1, 1):
        _, rows, width, channels = graph.tensors[reads[0]].shape
        return min(graph.tensors[node.inputs[1]].shape[1], rows) * width * channels, reads
    if node.op in ("add", "mul", "hard_swish", "logistic", "quantize"):
        return 0, tuple(name for name in reads if sizes[name] == sizes[node.name])
    return 0, ()


@pytest.mark.parametrize(("file", "least"), [("vww_96_int8", 48 * 48 * (8 + 16)), ("resnet8_cifar10_int8", 3 * 32 * 32 * 16)])
def test_public_networks_need_what_their_fullest_layer_does(shared_data: Callable[[str], Path], file: str, least: int) -> None:
    """vww: a 1x1 convolution from 8 to 16 channels at 48 x 48; resnet8: a residual block's three maps of 32 x 32 x 16."""
    path = shared_data(f"{file}.tflite")
    assert case_of(read_tflite(path.read_bytes(), str(path))[0]).planned().arena == least


def small_timm(name: str, side: int) -> Graph:
    """timm's network with random weights; mobilenetv1_025 is its mobilenetv1_100 with a quarter of the channels."""
    import timm
    from timm.models.efficientnet import _gen_mobilenet_v1

    from nestling.models.capture.capture import capture
    from nestling.models.plain import plain

    quarter = name == "mobilenetv1_025"
    made = _gen_mobilenet_v1("mobilenetv1_100", 0.25, num_classes=0) if quarter else timm.create_model(name, num_classes=0)
    return prepare(capture(plain(made.eval()), (side, side, 3), np.tile(np.arange(256, dtype=np.float32), (3, 1))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("tf_efficientnet_lite0", 224),
        ("mobilenetv1_025", 96),
        ("mobilenetv2_050", 96),
        ("mobilenetv3_small_050", 96),
        ("mobilenetv4_conv_small", 96),
    ],
)
def test_real_networks_are_within_five_percent_of_the_bound(name: str, side: int) -> None:
    graph = small_timm(name, side)
    for alignment in (4, 16):
        found = case_of(graph, alignment).planned()
        assert found.lower_bound <= found.arena <= 1.05 * found.lower_bound
