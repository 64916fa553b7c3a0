"""Networks that normalise their image themselves: what LiteRT answers to the raw photograph is what the bundle answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.bundle import Bundle
from nestling.errors import NestlingError, UnsupportedOp, UnusableFile
from nestling.formats.nest.floats import float_runner
from nestling.formats.nest.integers import integer_runner
from nestling.formats.tflite.printing import print_graph
from nestling.graph import reference
from nestling.graph.ir import Array, Graph, Quant
from tests.helpers.normalising import OPTIONS, SIDE, Piece, network
from tests.helpers.tflite_files import CODE, activation, constant, file, ints, judged, op, quant, standard_metadata

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def imported(data: bytes, **said: Any) -> Bundle:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.tflite"
        path.write_bytes(data)
        bundle = import_model(path, **said)
    return bundles.from_bytes(bundles.to_bytes(bundle), "x.nest")


def photographs(channels: int = 3) -> NDArray[np.uint8]:
    images = np.random.default_rng(1).integers(0, 256, (4, SIDE, SIDE, channels)).astype(np.uint8)
    images[0], images[1] = 0, 255
    return images


def assert_as_litert(bundle: Bundle, data: bytes, fed: Callable[[NDArray[np.uint8]], Array], channels: int = 3) -> Array:
    """The bundle given bytes answers as LiteRT given what the file takes. Returns the answers."""
    images = photographs(channels)
    expected = np.concatenate([judged(data, fed(image[None])) for image in images])
    runner = float_runner(bundle) if bundle.architecture is not None else integer_runner(bundle)
    assert_allclose(runner(images), expected, rtol=1e-5, atol=1e-5)
    return expected


def raw(image: Array) -> Array:
    return image.astype(np.float32)


def shares(image: Array) -> Array:
    return image.astype(np.float32) / np.float32(255)


# ---- every spelling ------------------------------------------------------------------------------------------------------------


def spelled(mean: tuple[float, ...], std: tuple[float, ...], spelling: str, axes: int, left: bool) -> list[Piece]:
    """(x - mean) / std in one of its spellings."""

    def piece(code: int, value: NDArray[np.float64], left: bool = False) -> Piece:
        numbers = tuple(value)
        return Piece(code, numbers[:1] if len(set(numbers)) == 1 and axes < 2 else numbers, axes, left)

    m, s = np.array(mean), np.array(std)
    match spelling:
        case "mul add":
            return [piece(CODE.MUL, 1 / s, left), piece(CODE.ADD, -m / s, left)]
        case "mul sub":
            return [piece(CODE.MUL, 1 / s, left), piece(CODE.SUB, m / s)]
        case "sub div":
            return [piece(CODE.SUB, m), piece(CODE.DIV, s)]
        case "sub mul":
            return [piece(CODE.SUB, m), piece(CODE.MUL, 1 / s, left)]
        case "add mul":
            return [piece(CODE.ADD, -m, left), piece(CODE.MUL, 1 / s, left)]
        case "div sub":
            return [piece(CODE.DIV, s), piece(CODE.SUB, m / s)]
        case "reversed":  # (mean - x) / -std
            return [piece(CODE.SUB, m, True), piece(CODE.DIV, -s)]
        case "dark":  # the negative: (mean - x) / std
            return [piece(CODE.SUB, m, True), piece(CODE.MUL, 1 / s, left)]
        case _:  # in three steps
            return [piece(CODE.DIV, s / 2), piece(CODE.MUL, s * 0 + 0.5, left), piece(CODE.SUB, m / s)]


SPELLINGS = ("mul add", "mul sub", "sub div", "sub mul", "add mul", "div sub", "reversed", "dark", "three")
BEFORE = {
    "nothing": [],
    "pad": [Piece(CODE.PAD)],
    "cast": [Piece(CODE.CAST)],
    "resize": [Piece(CODE.RESIZE_BILINEAR)],
    "cast, pad": [Piece(CODE.CAST), Piece(CODE.PAD)],
}


@st.composite
def normalisations(draw: st.DrawFn) -> tuple[list[Piece], bool, int]:
    """(pieces, whether they take 0..255 rather than 0..1, channels)."""
    channels = draw(st.sampled_from([1, 3]))
    usual = [((0.5,) * 3, (0.5,) * 3), IMAGENET, ((0.45,) * 3, (0.225,) * 3)]
    per_channel = st.tuples(*[st.floats(0.3, 0.65)] * 3), st.tuples(*[st.floats(0.15, 0.6)] * 3)
    mean, std = draw(st.one_of(st.sampled_from(usual), st.tuples(*per_channel)))
    takes_bytes = draw(st.booleans())
    factor = 255 if takes_bytes else 1
    mean, std = (tuple(factor * value for value in values[:channels]) for values in (mean, std))
    axes = draw(st.integers(0 if len(set(mean)) == len(set(std)) == 1 else 1, 4))
    pieces = spelled(mean, std, draw(st.sampled_from(SPELLINGS)), axes, draw(st.booleans()))
    pieces = [*draw(st.sampled_from(list(BEFORE.values()))), *pieces]
    if draw(st.booleans()):
        pieces.append(Piece(CODE.PAD))
    return pieces, takes_bytes, channels


@settings(max_examples=60, deadline=None)
@given(normalisations())
def test_a_normalisation_in_any_spelling_is_seen(case: tuple[list[Piece], bool, int]) -> None:
    pieces, takes_bytes, channels = case
    data = network(pieces, channels)
    bundle = imported(data)
    assert bundle.lineage[-1].settings["normalisation"].startswith("0..255" if takes_bytes else "0..1")
    answers = assert_as_litert(bundle, data, raw if takes_bytes else shares, channels)
    assert np.abs(answers - answers[0]).max() > 0.01  # black and white are not the same to it


# ---- what else stands in front -------------------------------------------------------------------------------------------------

HALVES = (Piece(CODE.DIV, (127.5,)), Piece(CODE.SUB, (1.0,)))  # to -1..1
OF_SHARES = (Piece(CODE.SUB, IMAGENET[0], 1), Piece(CODE.DIV, IMAGENET[1], 1))


def test_the_numbers_of_a_keras_rescaling_have_no_axes() -> None:
    data = network([Piece(CODE.MUL, (1 / 127.5,)), Piece(CODE.ADD, (-1.0,), left=True)], channels=1)
    bundle = imported(data)
    assert isinstance(bundle.architecture, Graph) and [node.op for node in bundle.architecture.nodes[:2]] == ["table", "conv2d"]
    assert bundle.lineage[-1].settings["normalisation"] == "0..255, of which its graph makes -1..1"
    assert_as_litert(bundle, data, raw, 1)


@pytest.mark.parametrize(
    ("start", "q", "pieces"),
    [
        ("uint8", None, [Piece(CODE.CAST), *HALVES]),
        ("uint8", None, [Piece(CODE.RESIZE_BILINEAR), Piece(CODE.CAST), Piece(CODE.PAD), *HALVES]),
        ("uint8", quant(1.0, 0), [Piece(CODE.DEQUANTIZE), *HALVES]),
        ("int8", quant(1.0, -128), [Piece(CODE.DEQUANTIZE), *HALVES]),
        ("int8", quant(1 / 255, -128), [Piece(CODE.DEQUANTIZE), Piece(CODE.SUB, (0.5,)), Piece(CODE.DIV, (0.5,))]),
        ("int8", quant(1 / 127.5, 0), [Piece(CODE.DEQUANTIZE)]),
    ],
)
def test_bytes_that_become_floats_make_a_float_network(start: str, q: Quant | None, pieces: list[Piece]) -> None:
    """It can be learned on: integers at a file's ends alone are no integer network."""
    fed = {"uint8": lambda image: image, "int8": lambda image: (image ^ np.uint8(128)).view(np.int8)}[start]
    data = network(pieces, start=start, q=q)
    bundle = imported(data)
    assert bundle.architecture is not None and bundle.graph is None and bundle.head is not None
    assert_as_litert(bundle, data, fed)


@pytest.mark.parametrize(
    ("scale", "pieces", "takes", "fed"),
    [
        ((1 / 255, -128), [], "0..1", shares),
        ((0.0079, 0), [], "-1..1", lambda image: image.astype(np.float32) / np.float32(127.5) - 1),
        ((1.0, -128), [], "0..255", raw),
        ((2 / 255, -1), HALVES, "0..255", raw),  # v / 127.5 - 1 falls on the middle between two steps
        ((1 / 255, -128), [Piece(CODE.MUL, (1 / 255,))], "0..255", raw),
        ((0.0187, -14), [Piece(CODE.SUB, IMAGENET[0], 1), Piece(CODE.DIV, IMAGENET[1], 1)], "0..1", shares),
    ],
)
def test_a_quantised_range_shows_what_it_was_made_for(
    scale: tuple[float, int], pieces: Sequence[Piece], takes: str, fed: Callable[[NDArray[np.uint8]], Array]
) -> None:
    data = network([*pieces, Piece(CODE.QUANTIZE, scale=scale), Piece(CODE.DEQUANTIZE)])
    bundle = imported(data)
    assert bundle.lineage[-1].settings["normalisation"].startswith(takes)
    assert_as_litert(bundle, data, fed)


@pytest.mark.parametrize(
    ("pieces", "takes"),
    [
        ([Piece(CODE.MUL, (1 / 255,))], "0..255"),
        ([Piece(CODE.DIV, (128.0,)), Piece(CODE.SUB, (1.0,))], "0..255"),
        ([Piece(CODE.SUB, (103.939, 116.779, 123.68), 1)], "0..255"),  # Caffe's
        ([Piece(CODE.SUB, (255.0,), left=True)], "0..255"),  # the negative
        ([Piece(CODE.MUL, (0.0154, 0.0171, 0.0166), 4), Piece(CODE.ADD, (-1.7, -2.2, -1.6), 3)], "0..255"),  # a BatchNorm of bytes
        ([Piece(CODE.MUL, (4.2, 4.4, 4.1), 4), Piece(CODE.ADD, (-1.9, -2.0, -1.7), 3)], "0..1"),  # and one of shares
        ([Piece(CODE.MUL, (2.0,)), Piece(CODE.SUB, (1.0,))], "0..1"),
        ([Piece(CODE.SUB, (1.0,), left=True)], "0..1"),
        ([Piece(CODE.MUL, (255.0,))], "0..1"),
        ([Piece(CODE.MUL, (255.0,)), Piece(CODE.SUB, (103.939, 116.779, 123.68), 1)], "0..1"),
        ([Piece(CODE.SUB, (0.5,))], "0..1"),
        ([Piece(CODE.ADD, (1.0,)), Piece(CODE.DIV, (2.0,))], "-1..1"),
        ([Piece(CODE.ADD, (1.0,)), Piece(CODE.MUL, (127.5,))], "-1..1"),
        (
            [Piece(CODE.ADD, (1.0,)), Piece(CODE.DIV, (2.0,)), Piece(CODE.SUB, IMAGENET[0], 1), Piece(CODE.DIV, IMAGENET[1], 1)],
            "-1..1",
        ),
        ([Piece(CODE.SUB, (0.1307,)), Piece(CODE.DIV, (0.3081,))], ""),  # dark shares (MNIST's), or -1..1 that are a little bright
        ([], ""),
        ([Piece(CODE.PAD)], ""),
        ([Piece(CODE.CAST)], ""),
        ([Piece(CODE.MUL, (1.0,))], ""),
        ([Piece(CODE.MUL, (2.0,))], ""),  # of 0..1 or of -1..1
        ([Piece(CODE.MUL, (1e-6,))], ""),
        ([Piece(CODE.MUL, (0.0,))], ""),
        ([Piece(CODE.ADD, (1000.0,))], ""),
        ([Piece(CODE.QUANTIZE, scale=(0.0187, -14)), Piece(CODE.DEQUANTIZE)], ""),  # ImageNet's: the range is known, not the three
    ],
)
def test_what_cannot_be_known_is_asked_for(pieces: list[Piece], takes: str) -> None:
    data = network(pieces)
    if takes:
        assert imported(data).lineage[-1].settings["normalisation"].startswith(f"{takes}, ")
    else:
        with pytest.raises(NestlingError, match=r"x\.tflite does not say which numbers it takes") as refusal:
            imported(data)
        assert "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225" in refusal.value.hint
    said = imported(data, mean=(0.0,), std=(1 / 255,))  # a person's word comes first, whatever the graph does
    assert said.lineage[-1].settings["normalisation"] == "as --mean and --std say"
    assert_as_litert(said, data, raw)


def test_a_mean_image_is_seen_as_well() -> None:
    """It is not the same everywhere, so it stays in the graph."""
    mean = np.random.default_rng(3).normal(120, 9, (1, SIDE, SIDE, 3)).astype(np.float32)
    data = network([Piece(CODE.SUB, tuple(mean.reshape(-1)), -1), Piece(CODE.DIV, (60.0,))])
    bundle = imported(data)
    assert bundle.lineage[-1].settings["normalisation"].startswith("0..255")
    assert_as_litert(bundle, data, raw)


def test_what_the_metadata_says_goes_in_front_of_what_the_graph_does() -> None:
    """Here (v - 127.5) / 127.5, and then x * 2 - 1."""
    pieces = [Piece(CODE.MUL, (2.0,)), Piece(CODE.SUB, (1.0,))]
    bundle = imported(with_metadata(network(pieces), standard_metadata([127.5], [127.5])))
    assert bundle.lineage[-1].settings["normalisation"] == "as its metadata says"
    assert_as_litert(bundle, network(pieces), lambda image: (image.astype(np.float32) - np.float32(127.5)) / np.float32(127.5))


def with_metadata(data: bytes, entry: bytes) -> bytes:
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    model.buffers.append(schema.BufferT(data=np.frombuffer(entry, np.uint8)))
    model.metadata = [schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1)]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_an_image_that_two_operators_read_has_one_table() -> None:
    """What is normalised for the one is raw for the other."""
    data = network([Piece(CODE.MUL, (1 / 255,)), Piece(CODE.ADD, (-0.5,))])
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    graph = model.subgraphs[0]
    graph.operators[1].inputs = [graph.operators[1].inputs[0], graph.inputs[0]]  # x / 255 + x
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    changed = bytes(builder.Output())
    bundle = imported(changed, mean=(0.0,), std=(1.0,))
    assert isinstance(bundle.architecture, Graph) and len([n for n in bundle.architecture.nodes if n.op == "table"]) <= 1
    assert_as_litert(bundle, changed, shares)


@pytest.mark.parametrize(
    ("pieces", "error", "said"),
    [
        ([Piece(CODE.DIV, (0.0,))], UnsupportedOp, "not zero"),
        ([Piece(CODE.CAST), Piece(CODE.DIV, (0.0,))], UnsupportedOp, "not zero"),
        ([Piece(CODE.MUL, (3e38,)), Piece(CODE.MUL, (3e38,))], UnusableFile, "finite"),
    ],
)
def test_constants_that_make_no_numbers_are_refused(pieces: list[Piece], error: type[NestlingError], said: str) -> None:
    with pytest.raises(error, match=said):
        imported(network(pieces))


# ---- integer networks ----------------------------------------------------------------------------------------------------------


def integer_network(second: int, shape: tuple[int, ...], left: bool, zero: int) -> bytes:
    """x int8, 0..255 -> MUL by 1 / 127.5 -> ADD -1, or SUB 1 -> conv -> MEAN -> scores, all in integers.

    zero: the zero point of the second constant, which a converter puts at an end of the range of a constant of one sign.
    """
    rng = np.random.default_rng(2)
    step = 1 / 255  # of the second constant, which is as far from its zero point as its sign says
    number = -1.0 if second == CODE.ADD else 1.0
    held = np.full(shape, np.clip(zero + round(number / step), -128, 127), np.int8)
    x, mul, add, conv = quant(0.99999, -128), quant(2 / 255, -128), quant(2 / 255, -1), quant(0.05, 2)
    w = constant("w", rng.integers(-127, 128, (5, 3, 3, 3)).astype(np.int8), quant(0.01))
    options = schema.Conv2DOptionsT(padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    tensors = [
        activation("x", (1, SIDE, SIDE, 3), x), constant("k", np.full(shape, 127, np.int8), quant(1 / 127.5 / 127)),
        activation("p", (1, SIDE, SIDE, 3), mul), constant("l", held, quant(step, zero)), activation("n", (1, SIDE, SIDE, 3), add),
        w, constant("b", np.zeros(5, np.int32), quant(0.01 * 2 / 255)), activation("c", (1, SIDE, SIDE, 5), conv),
        ints("axes", 1, 2), activation("y", (1, 5), quant(0.02, 3)),
    ]  # fmt: skip
    operators = [
        op(CODE.MUL, "k x" if left else "x k", "p", schema.MulOptionsT()),
        op(second, "l p" if left and second == CODE.ADD else "p l", "n", OPTIONS[second]()),
        op(CODE.CONV_2D, "n w b", "c", options, 3),
        op(CODE.MEAN, "c axes", "y", schema.ReducerOptionsT()),
    ]
    return file(tensors, operators)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1, 3), (1, 1, 1, 3)])
@pytest.mark.parametrize(("second", "zero"), [(CODE.ADD, 127), (CODE.ADD, 0), (CODE.SUB, -128), (CODE.SUB, 0)])
def test_an_integer_rescaling_gives_litert_s_bytes(shape: tuple[int, ...], second: int, zero: int) -> None:
    data = integer_network(second, shape, len(shape) % 2 == 0, zero)
    bundle = imported(data)
    assert bundle.graph is not None and bundle.lineage[-1].settings["normalisation"] == "the image's bytes as they are"
    for image in photographs():
        expected = judged(data, (image[None] ^ np.uint8(128)).view(np.int8))
        assert_array_equal(reference.run(bundle.graph, image[None])[bundle.graph.outputs[0]], expected)
        again = judged(print_graph(bundle.graph), image[None])  # and printed again it gives them
        assert_array_equal(again, expected)
