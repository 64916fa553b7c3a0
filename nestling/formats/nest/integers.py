"""A bundle's int8 Graph as a Runner: the answers of the reference executor, which defines them. No torch.

LiteRT's reference kernels compute the same bytes about ten times as fast. A quick runner lets them answer all images but the first,
provided that on the first one they gave the reference's own bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.errors import NestlingError
from nestling.graph import reference
from nestling.graph.edit import tidy
from nestling.graph.ends import Ending, ending
from nestling.graph.ir import Array, Graph, Tensor
from nestling.preprocess.image import Preprocess

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class IntegerRunner:
    """Images one at a time, as a device has them. A network that keeps its own end answers with the scores before its softmax."""

    bundle: Bundle
    graph: Graph
    end: Ending
    answers: Callable[[str], Callable[[Image], Array]]  # of a tensor's name: from an image [1, H, W, C] to its values

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.bundle.labels

    @property
    def preprocess(self) -> Preprocess:
        """What makes the input from an image file."""
        return self.bundle.preprocess

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> logits float32 [N, classes]."""
        if self.bundle.head is None:
            return self._values(images, self.end.logits)
        return self.bundle.head.logits(self.features(images))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 [N, H, W, C] -> the real numbers of the embedding, float32 [N, D].

        Where the network keeps its own end these are what its last fully connected layer reads; NestlingError where it has none.
        """
        if self.bundle.head is not None:
            return self._values(images, self.graph.outputs[0])
        if self.end.layer is None:
            raise NestlingError("this network does not end in a fully connected layer, so it has no embedding.")
        return self._values(images, self.end.layer.inputs[0])

    def _values(self, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
        tensor = self.graph.tensors[name]
        answer = self.answers(name)
        rows = np.empty((len(images), int(np.prod(tensor.shape))), np.float32)
        for row, image in zip(rows, images, strict=True):
            row[:] = real_numbers(answer(image[None]), tensor).reshape(-1)
        return rows


def integer_runner(bundle: Bundle, quick: bool = False) -> IntegerRunner:
    """The bundle's int8 graph, ready to run. quick: see above. Raises NestlingError where it has none."""
    if bundle.graph is None:
        raise NestlingError("this bundle has no int8 graph yet.", "make it:  nestling quantize my.nest -o my8.nest")
    graph, made = bundle.graph, dict[str, Callable[[Image], Array]]()

    def answers(name: str) -> Callable[[Image], Array]:
        if name not in made:
            only = tidy(replace(graph, outputs=(name,)))
            made[name] = _Quick(only) if quick else lambda image: reference.run(only, image)[name]
        return made[name]

    return IntegerRunner(bundle, graph, ending(graph), answers)


class _Quick:
    """The answers of a graph with one output, by the reference until LiteRT's reference kernels have shown that they agree."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.asked = False
        self.kernels: Callable[[Image], Array] | None = None

    def __call__(self, image: Image) -> Array:
        """uint8 [1, H, W, C] -> the values of the output."""
        if self.kernels is not None:
            return self.kernels(image)
        answer = reference.run(self.graph, image)[self.graph.outputs[0]]
        if not self.asked:
            self.asked = True
            kernels = _kernels(self.graph)
            found = kernels(image) if kernels else None
            if found is not None and found.dtype == answer.dtype and found.tobytes() == answer.tobytes():
                self.kernels = kernels
        return answer


def _kernels(graph: Graph) -> Callable[[Image], Array] | None:
    """LiteRT's reference kernels on the printed graph; None where it cannot be printed or run."""
    from nestling.formats.tflite.printing import print_graph
    from nestling.formats.tflite.run import open_interpreter

    try:
        interpreter = open_interpreter(print_graph(graph), "the int8 graph", "reference")
    except NestlingError:
        return None
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def answer(image: Image) -> Array:
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        values: Array = interpreter.get_tensor(target)
        return (np.asarray(values, np.uint8) ^ np.uint8(128)).view(np.int8) if values.dtype == np.uint8 else values

    return answer


def real_numbers(values: Array, tensor: Tensor) -> NDArray[np.float32]:
    """What the values of an activation stand for, float32."""
    return values.astype(np.float32) if tensor.quant is None else tensor.quant.real(values)
