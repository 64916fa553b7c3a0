"""A float Graph computed by LiteRT, which is the quickest here: as a whole, with every value, or node by node with a word in each.

Values keep the Graph's layout. Nodes that no .tflite can hold (a pool whose padding is neither SAME nor VALID) are done in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.errors import UnsupportedOp
from nestling.formats.tflite.printing import print_graph
from nestling.formats.tflite.run import Kernels, open_interpreter
from nestling.graph import reference
from nestling.graph.ir import Graph, Node
from nestling.processor import cores

Value = NDArray[Any]  # of an activation: float32, or the image as the graph takes it
Hook = Callable[[str, Value], Value]
"""(a tensor's name, its value in the Graph's layout) -> the value to go on with."""

Step = Callable[[tuple[Value, ...]], Value]
"""A node's activations [N, ...], in the order in which it reads them, each once -> its value [N, ...]."""

WHAT = "the graph"
MOST_THREADS = 4  # of a node by itself, which has little to do
IN_NUMPY = ("reshape", "table")  # they compute nothing


def _as_it_is(name: str, value: Value) -> Value:
    return value


def whole(graph: Graph, threads: int = 1, kernels: Kernels = "default") -> Callable[[Value], Value]:
    """One image, [1, H, W, C], as the graph takes it -> its one output. Not for two threads at once.

    An int8 graph will do as well; what no .tflite can hold then is an UnsupportedOp.
    """
    try:
        model = print_graph(graph)
    except UnsupportedOp:
        if graph.tensors[graph.outputs[0]].quant is not None:
            raise
        steps = stepwise(graph)
        return lambda image: steps(image)
    interpreter = open_interpreter(model, WHAT, kernels, threads)
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def answer(image: Value) -> Value:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        value: Value = interpreter.get_tensor(target)  # a copy
        return value

    return answer


def every_value(graph: Graph) -> Callable[[Value], dict[str, Value]]:
    """One image -> each activation by name, the image included, in running order. Not for two threads at once."""
    shown = tuple(node.name for node in graph.nodes if node.op != "reshape")
    try:
        model = print_graph(replace(graph, outputs=shown))
    except UnsupportedOp:
        return lambda image: dict(reference.activations(graph, image))
    interpreter = open_interpreter(model, WHAT)
    source = interpreter.get_input_details()[0]["index"]
    targets = [detail["index"] for detail in interpreter.get_output_details()]
    moved = {node.name: node.inputs[0] for node in graph.nodes if node.op == "reshape"}

    def answer(image: Value) -> dict[str, Value]:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        found = {graph.inputs[0]: image} | {name: interpreter.get_tensor(i) for name, i in zip(shown, targets, strict=True)}
        for name, of in moved.items():
            found[name] = found[of].reshape(graph.tensors[name].shape)
        return {name: found[name] for name in (graph.inputs[0], *(node.name for node in graph.nodes))}

    return answer


@dataclass(frozen=True, eq=False)
class Stepwise:
    """A float Graph, ready to run node by node. steps: of each node, by its name."""

    graph: Graph
    steps: Mapping[str, Step]

    def __call__(self, *inputs: Value, hook: Hook = _as_it_is) -> Value:
        """The graph's inputs, [N, ...] each -> its one output. hook: is given every activation, inputs included."""
        given = zip(self.graph.inputs, inputs, strict=True)
        return self.go_on({name: hook(name, value) for name, value in given}, hook=hook)

    def go_on(
        self,
        values: Mapping[str, Value],
        first: int = 0,
        hook: Hook = _as_it_is,
        instead: Mapping[str, Step] | None = None,
    ) -> Value:
        """The output, from node `first` on. values: what was computed before it. instead: other steps for some nodes."""
        held, steps = dict(values), {**self.steps, **(instead or {})}
        last = {name: index for index, node in enumerate(self.graph.nodes) for name in node.inputs}
        for index, node in enumerate(self.graph.nodes[first:], first):
            read = reads(node, self.graph)
            held[node.name] = hook(node.name, steps[node.name](tuple(held[name] for name in read)))
            for name in read:
                if last[name] == index and name not in self.graph.outputs:
                    del held[name]
        return held[self.graph.outputs[0]]


def stepwise(graph: Graph) -> Stepwise:
    """Of a checked float graph with one output."""
    return Stepwise(graph, {node.name: step(graph, node) for node in graph.nodes})


def step(graph: Graph, node: Node) -> Step:
    """One node, by an interpreter of its own; images go through one by one, so that each is answered as it would be alone."""
    read = reads(node, graph)
    tensors = {name: graph.tensors[name] for name in (*node.inputs, node.name)}
    try:
        model = None if node.op in IN_NUMPY else print_graph(Graph(tensors, (node,), read, (node.name,)))
    except UnsupportedOp:
        model = None
    if model is None:
        return lambda arrays: _in_numpy(graph, node, dict(zip(read, arrays, strict=True)))
    interpreter = open_interpreter(model, WHAT, threads=min(cores(), MOST_THREADS))
    sources = [detail["index"] for detail in interpreter.get_input_details()]
    target, shape = interpreter.get_output_details()[0]["index"], graph.tensors[node.name].shape

    def answer(arrays: tuple[Value, ...]) -> Value:
        out = np.empty((len(arrays[0]), *shape[1:]), np.float32)
        for i, row in enumerate(out):
            for source, array in zip(sources, arrays, strict=True):
                interpreter.set_tensor(source, array[i : i + 1])
            interpreter.invoke()
            row[:] = interpreter.get_tensor(target)[0]
        return out

    return answer


def reads(node: Node, graph: Graph) -> tuple[str, ...]:
    """The activations that a node reads, each once."""
    return tuple(dict.fromkeys(name for name in node.inputs if graph.tensors[name].data is None))


def _in_numpy(graph: Graph, node: Node, values: Mapping[str, Value]) -> Value:
    held = (values[name] if (data := graph.tensors[name].data) is None else data for name in node.inputs)
    return reference.step(graph, node, tuple(held))
