"""What the files of a bundle are judged on: images, and what the networks that they were printed from answer to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nestling.bundle import Bundle
from nestling.data.choose import part, training_data
from nestling.data.folders import Dataset, Item, Source, labels_of, scan
from nestling.data.images import images_of, read_images
from nestling.errors import UnusableData
from nestling.formats.nest.floats import float_runner
from nestling.formats.nest.integers import integer_runner
from nestling.formats.tflite.floats import whole
from nestling.graph.ends import with_head, with_own_end
from nestling.graph.float_twin import float_twin
from nestling.graph.ir import Graph
from nestling.models.float_graph import float_graph
from nestling.preprocess.image import Numbers, Preprocess, noise, of_photographs, shape_of
from nestling.progress import Progress, silent
from nestling.quantization.quantize import YARDSTICK

Image = NDArray[np.uint8]
Logits = NDArray[np.float32]

MADE_UP = 32  # images where no photographs are at hand


@dataclass(frozen=True, eq=False)
class Expected:
    """What files are held against.

    images: uint8 [N, H, W, C]. answers: logits [N, classes] that a file is to give: the int8 reference's, or of a float file the
    float network's. floats: the float network's; None where answers are these. truth: the images' classes, int64 [N]; None where
    they have none. said: what the images are, in words.
    """

    images: Image
    answers: Logits
    floats: Logits | None
    truth: NDArray[np.int64] | None
    said: str

    def first(self, count: int) -> Expected:
        """The same of the first images only."""
        floats = None if self.floats is None else self.floats[:count]
        truth = None if self.truth is None else self.truth[:count]
        return Expected(self.images[:count], self.answers[:count], floats, truth, self.said)


def expected(bundle: Bundle, integers: bool, data: Source | None = None, progress: Progress = silent) -> Expected:
    """integers: for files that are printed from the bundle's int8 Graph.

    data: the folder that the bundle learned from; None for the one that its lineage names; for an imported network any folder with
    folders of images. Where there are no photographs, made-up images stand in.
    Raises UnusableData where `data` is given and is not what the bundle learned from.
    """
    images, truth, prints = _photographs(bundle, data)
    said = f"{len(images)} validation photographs" if truth is not None else f"{len(images)} images"
    if not len(images):
        images, truth = made_up(bundle.preprocess), None
        numbers = isinstance(bundle.preprocess, Numbers)
        said = "sets of numbers, since it takes no photographs" if numbers else "images, since no photographs are at hand"
        said = f"{len(images)} made-up {said}"
    stored = bundle.yardstick
    if integers and stored is not None and prints == stored.fingerprints:
        return Expected(images, stored.logits, stored.float_logits, truth, said)
    return _asked(bundle, integers, images, truth, said, progress)


def expected_on(bundle: Bundle, integers: bool, items: Sequence[Item], progress: Progress = silent) -> Expected:
    """As expected, on photographs of one's own choice; all of them must be readable."""
    images = np.stack(images_of(items, bundle.preprocess))
    truth = labels_of(items)
    return _asked(bundle, integers, images, truth, f"{len(images)} photographs", progress)


def _asked(
    bundle: Bundle, integers: bool, images: Image, truth: NDArray[np.int64] | None, said: str, progress: Progress
) -> Expected:
    floats = _float_answers(bundle, images, progress)
    if not integers:
        return Expected(images, floats, None, truth, said)
    runner = integer_runner(bundle, quick=True)
    answers = np.concatenate(list(_one_by_one(runner, images, "asking the reference", progress)))
    return Expected(images, answers, floats, truth, said)


def made_up(preprocess: Preprocess, count: int = MADE_UP, seed: int = 0) -> Image:
    """Images of soft random blots, uint8 [count, H, W, C]: nearer to photographs than noise is, which few layers answer to.

    Where numbers are taken: as many bytes, which are as soft; of real numbers normal ones, float32 [count, ...].
    """
    if isinstance(preprocess, Numbers) and preprocess.dtype == "float32":
        return cast(Image, noise(preprocess, count, seed))  # which such a network takes in an image's place
    rng = np.random.default_rng(seed)
    height, width, channels = shape_of(preprocess)
    rows, columns = np.linspace(0, 7, height), np.linspace(0, 7, width)
    images = np.empty((count, height, width, channels), np.uint8)
    for image in images:
        grid = rng.uniform(-60, 315, (8, 8, channels))
        across = _between(grid, columns, axis=1)
        image[:] = np.clip(_between(across, rows, axis=0) + rng.normal(0, 8, image.shape), 0, 255)
    return images


def _between(grid: NDArray[np.float64], places: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Linear interpolation along an axis of `grid`, at fractional places."""
    low = np.minimum(places.astype(int), grid.shape[axis] - 2)
    share = (places - low).reshape([-1 if i == axis else 1 for i in range(grid.ndim)])
    between: NDArray[np.float64] = np.take(grid, low, axis) * (1 - share) + np.take(grid, low + 1, axis) * share
    return between


def _photographs(bundle: Bundle, data: Source | None) -> tuple[Image, NDArray[np.int64] | None, tuple[str, ...]]:
    """(the yardstick's images or as many of val, their classes, their fingerprints); of an imported network any images at hand."""
    nothing = np.empty((0, *shape_of(bundle.preprocess)), np.uint8)
    if isinstance(bundle.preprocess, Numbers) and data is None:
        return nothing, None, ()
    of_photographs(bundle.preprocess)
    if bundle.split is None and data is not None:
        items = sorted(scan(data, parts=False).items, key=lambda item: item.fingerprint)[:YARDSTICK]
        return np.stack(images_of(items, bundle.preprocess)), None, ()
    dataset = _dataset(bundle, data)
    if dataset is None:
        return nothing, None, ()
    read = list(read_images(part(dataset, bundle, "val", YARDSTICK), bundle.preprocess))
    images = np.stack([image for _, image in read]) if read else nothing
    truth = np.array([item.label for item, _ in read], np.int64)
    return images, truth, tuple(item.fingerprint for item, _ in read)


def _dataset(bundle: Bundle, data: Source | None) -> Dataset | None:
    try:
        return training_data(bundle, data)
    except UnusableData:
        if data is not None:
            raise
        return None


def _one_by_one(ask: Callable[[Image], Logits], images: Image, what: str, progress: Progress) -> Iterator[Logits]:
    with progress(what, len(images)) as advance:
        for image in images:
            yield ask(image[None])
            advance(1)


def _float_answers(bundle: Bundle, images: Image, progress: Progress) -> Logits:
    """Of the float network; of an imported integer one: of what it stands for (float_twin)."""
    if bundle.head is not None and bundle.architecture is not None:
        runner = float_runner(bundle)
        return np.concatenate(list(_one_by_one(runner, images, "asking the float network", progress)))
    graph: Graph = float_twin(bundle.graph) if bundle.architecture is None and bundle.graph is not None else float_graph(bundle)
    answer = whole(with_own_end(graph) if bundle.head is None else with_head(graph, bundle.head))
    return np.concatenate(list(_one_by_one(answer, images, "asking the float network", progress)))
