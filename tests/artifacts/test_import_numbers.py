"""Networks of no photographs, of sound or of sensors: imported, computed, traced; judged by LiteRT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from numpy.testing import assert_allclose, assert_array_equal

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.errors import NestlingError, UnusableFile
from nestling.formats import load
from nestling.graph import reference
from nestling.measure import trace as tracing
from nestling.preprocess.image import Numbers, from_plain, to_plain
from tests.helpers.of_numbers import kept, network
from tests.helpers.tflite_files import CODE, activation, judged, op

RNG = np.random.default_rng(0)


SHAPES = pytest.mark.parametrize("shape", [(1, 40), (1, 12, 10), (1, 5, 4, 2), (1, 6, 30, 1)], ids=str)


@SHAPES
def test_an_integer_network_takes_its_int8_as_bytes(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = network(shape, True)
    bundle = import_model(kept(tmp_path / "n.tflite", data))
    taken = bundle.preprocess
    assert isinstance(taken, Numbers) and taken.dtype == "uint8" and np.prod(taken.shape) == np.prod(shape)
    assert bundle.graph is not None
    for _ in range(3):
        feed = RNG.integers(-128, 128, shape).astype(np.int8)
        given = (feed.view(np.uint8) ^ np.uint8(128)).reshape(1, *taken.shape)
        assert_array_equal(reference.run(bundle.graph, given)[bundle.graph.outputs[0]], judged(data, feed))
    assert bundles.from_bytes(bundles.to_bytes(bundle), "n").preprocess == taken


@SHAPES
def test_a_float_network_takes_them_as_they_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = network(shape, False)
    bundle = import_model(kept(tmp_path / "n.tflite", data))
    assert bundle.preprocess == Numbers(shape[1:], "float32")
    bundles.save(bundle, tmp_path / "n.nest")
    feed = RNG.normal(0, 1, (3, *shape[1:])).astype(np.float32)
    found = load(tmp_path / "n.nest")(feed)  # type: ignore[arg-type]  # a network of numbers takes floats
    assert_allclose(found, np.concatenate([judged(data, one[None]) for one in feed]), rtol=1e-4, atol=1e-5)


def test_what_has_an_images_shape_is_an_image_unless_it_is_said(tmp_path: Path) -> None:
    path = kept(tmp_path / "n.tflite", network((1, 12, 10, 1), False))
    with pytest.raises(NestlingError, match="which numbers it takes") as asked:
        import_model(path)
    assert "--numbers" in asked.value.hint
    assert import_model(path, numbers=True).preprocess == Numbers((12, 10, 1), "float32")
    with pytest.raises(NestlingError, match="takes no photographs; --mean and --std"):
        import_model(path, mean=(0.0,), std=(1.0,), numbers=True)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    from nestling.formats.tflite.flatbuffer import Listing, write

    tensors = [activation(name, (1, 4)) for name in ("a", "b", "y")]
    listing = Listing({t.name: t for t in tensors}, (op(CODE.ADD, "a b", "y", schema.AddOptionsT()),), ("a", "b"), ("y",))
    with pytest.raises(UnusableFile, match=r"two\.tflite takes float32 \[1, 4\], float32 \[1, 4\].*one input"):
        import_model(kept(tmp_path / "two.tflite", write(listing, {})))


@pytest.mark.parametrize("integer", [True, False])
def test_a_trace_with_made_up_numbers_is_the_files(integer: bool, tmp_path: Path) -> None:
    path = kept(tmp_path / "n.tflite", network((1, 12, 10), integer))
    layers = tracing.trace(import_model(path))
    compared = tracing.against(layers, path.read_bytes(), "n.tflite")
    assert len(compared.compared) >= 2 and not compared.differing
    assert [layer.values.tobytes() for layer in layers] == [layer.values.tobytes() for layer in tracing.trace(import_model(path))]


def test_a_photograph_is_asked_for_where_one_is_needed(tmp_path: Path) -> None:
    from tests.helpers.normalising import Piece
    from tests.helpers.normalising import network as of_images

    bundle = import_model(kept(tmp_path / "i.tflite", of_images([Piece(CODE.MUL, (1 / 127.5,)), Piece(CODE.SUB, (1.0,))])))
    with pytest.raises(NestlingError, match="takes a photograph"):
        tracing.trace(bundle)


@pytest.mark.parametrize(
    "change",
    [
        *({"shape": shape} for shape in ([], [0, 4], [4.0], "4", [2**26, 2], [True], [1] * 6)),
        {"dtype": "int8"},
        {"dtype": []},
        {"dtype": "uint8"},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(change: dict[str, object]) -> None:
    taken = Numbers((12, 10), "float32")
    assert from_plain(to_plain(taken)) == taken
    with pytest.raises(UnusableFile, match="numbers are"):
        from_plain({**to_plain(taken), **change})


def test_a_bundle_whose_network_takes_other_numbers(tmp_path: Path) -> None:
    bundle = import_model(kept(tmp_path / "n.tflite", network((1, 40), False)))
    for taken in (Numbers((41,), "float32"), Numbers((1, 40, 1), "uint8")):
        with pytest.raises(UnusableFile, match=f"not {taken.dtype} numbers"):
            bundles.from_bytes(bundles.to_bytes(replace(bundle, preprocess=taken)), "n")
