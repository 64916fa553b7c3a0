"""Folders of C, compiled here, against the reference executor: every layer's bytes, and what a Runner promises."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nestling.errors import NestlingError, UnusableFile
from nestling.formats.c import host
from nestling.formats.c.host import CRunner
from nestling.graph import ir, reference
from nestling.graph.ends import with_int8_head
from nestling.graph.head import Head
from nestling.graph.integers import Range
from nestling.graph.ir import Graph
from tests.helpers.networks import Net, about_of, concats, headed, imported, noise, printed, quant, small
from tests.helpers.quantization_cases import Everything, Inverted, calibrated, captured, pictures, seeded, small_timm

Shared = Callable[[str], Path]
SHARED = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "mobilenet_v2_1_0_224_quant.tflite")
TIMM = (("mobilenetv1_100", 64), ("mobilenetv2_050", 96), ("mobilenetv3_small_050", 96), ("mobilenetv4_conv_small", 96))
GUARD = 256


def assert_every_layer_is_the_reference(graph: Graph, runner: CRunner, images: np.ndarray) -> None:
    nodes = {node.name for node in graph.nodes}
    for image in images:
        answers = runner.activations(image)
        expected = dict(reference.activations(graph, image[None]))
        assert set(answers) <= nodes and graph.outputs[0] in answers
        for name, answer in answers.items():
            if answer.dtype == np.int8:
                assert answer.tobytes() == expected[name].tobytes(), name
            else:
                assert_allclose(answer.reshape(-1), expected[name].reshape(-1), rtol=0, atol=1e-5 * np.abs(expected[name]).max())


# ---- whole networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHARED)
def test_imported_networks_give_the_reference_bytes_at_every_layer(name: str, shared_data: Shared, tmp_path: Path) -> None:
    graph = imported(shared_data(name))
    assert_every_layer_is_the_reference(graph, host.load(printed(graph, tmp_path / "c")), noise(graph, 2))


@pytest.mark.parametrize("module", [Everything, Inverted])
def test_captured_networks_give_the_reference_bytes_at_every_layer(module: type, tmp_path: Path) -> None:
    graph = headed(calibrated(captured(seeded(module)), pictures(4))[0])
    runner = host.load(printed(graph, tmp_path / "c"))
    assert_every_layer_is_the_reference(graph, runner, np.stack(pictures(3, seed=9)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "side"), TIMM)
def test_backbones_give_the_reference_bytes_at_every_layer(name: str, side: int, tmp_path: Path) -> None:
    graph = headed(calibrated(captured(small_timm(name), side), pictures(4, side))[0])
    runner = host.load(printed(graph, tmp_path / "c"))
    assert_every_layer_is_the_reference(graph, runner, np.stack(pictures(2, side, seed=9)))


def test_concats_and_pads_and_reshapes_of_every_kind(tmp_path: Path) -> None:
    graph = concats()
    folder = printed(graph, tmp_path / "c")
    assert_every_layer_is_the_reference(graph, host.load(folder), noise(graph, 3))
    assert (folder / "nestling_model.c").read_text().count("nst_concat(") == 1


def test_gates_and_sums_of_several_readers(tmp_path: Path) -> None:
    """What is read again later may not be overwritten: a residual, its gate, and both of their inputs afterwards."""
    net = Net()
    net.conv("a", "x", 8, 3, padding=(1, 1, 1, 1), clamp="relu")
    net.conv("b", "a", 8, to=quant(0.05, 7))
    net.node("add", ir.Add("relu6"), "s", "a", "b", to=quant(0.06, -100))
    net.node("mean", ir.Mean((1, 2), True), "squeezed", "s")
    net.node("logistic", ir.Logistic(), "gate", "squeezed", to=quant(1 / 256, -128))
    net.node("mul", ir.Mul(), "gated", "s", "gate")
    net.node("add", ir.Add(), "again", "gated", "b", to=quant(0.04, 3))
    net.node("hard_swish", ir.HardSwish(), "h", "again", to=quant(0.04, -9))
    net.node("average_pool", ir.AveragePool((3, 3), (2, 2), (1, 1, 1, 1)), "pool", "h", to=quant(0.04, -9))
    net.node("add", ir.Add(), "twice", "pool", "pool")
    net.node("mean", ir.Mean(), "e", "twice")
    graph = headed(net.graph("e"))
    assert_every_layer_is_the_reference(graph, host.load(printed(graph, tmp_path / "c")), noise(graph, 4))


def test_an_integer_head_and_a_head_of_a_layer_kind(tmp_path: Path) -> None:
    net = Net()
    net.conv("a", "x", 6, 3, stride=(2, 2))
    net.node("mean", ir.Mean(), "e", "a")
    head = Head(np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32), np.ones(4, np.float32))
    graph = with_int8_head(net.graph("e"), head, Range(-3.0, 3.0))
    runner = host.load(printed(graph, tmp_path / "c"))
    images = noise(graph, 3)
    assert_every_layer_is_the_reference(graph, runner, images)
    steps = reference.run(net.graph("e"), images)["e"].astype(np.float32)
    assert_array_equal(runner.features(images), (steps + 3) * np.float32(0.02))


# ---- as a Runner ---------------------------------------------------------------------------------------------------------------


def test_a_runner_says_what_it_is_and_answers_many_images(tmp_path: Path) -> None:
    graph = small()
    about = about_of(graph, ("Ä", 'a "b"', "c\\n", "d??/", "%s", "", "日本"))
    runner = host.load(printed(graph, tmp_path / "c", about=about))
    assert (runner.labels, runner.preprocess, runner.about) == (about.labels, about.preprocess, replace(about, machine="host"))
    images = noise(graph, 5)
    expected = reference.run(graph, images, keep=("e",))
    assert_allclose(runner(images), expected[graph.outputs[0]], rtol=0, atol=1e-5 * np.abs(expected[graph.outputs[0]]).max())
    real = (expected["e"].astype(np.float32) + 3) * np.float32(0.02)
    assert_array_equal(runner.features(images), real)
    assert_array_equal(runner.embeddings(images), expected["e"])
    turned = images[:, ::-1]  # no longer in one piece
    assert_array_equal(runner.embeddings(turned), reference.run(graph, turned, keep=("e",))["e"])
    names = (ctypes.c_char_p * 7).in_dll(runner.library, "nestling_labels")
    assert tuple(name.decode() for name in names) == about.labels


def test_a_folder_for_another_machine_runs_here_too(tmp_path: Path) -> None:
    graph = small()
    images = noise(graph, 2)
    here, board = (host.load(printed(graph, tmp_path / name, name)) for name in ("host", "cortex-m4"))
    assert_array_equal(here(images), board(images))


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    runner = host.load(printed(small(), tmp_path / "c"))
    wrong: tuple[NDArray[Any], ...] = (np.zeros((1, 12, 13, 3), np.uint8), np.zeros((1, 12, 12, 3), np.float32))
    for images in wrong:
        with pytest.raises(NestlingError, match=r"takes uint8 images of shape \(12, 12, 3\)"):
            runner(images)


def test_folders_that_are_none_are_named(tmp_path: Path) -> None:
    graph = small()
    with pytest.raises(UnusableFile, match=r"absent holds no about\.json"):
        host.load(tmp_path / "absent")
    folder = printed(graph, tmp_path / "c")
    (folder / "about.json").write_text("{}")
    with pytest.raises(UnusableFile, match=r"about\.json says of itself"):
        host.load(folder)
    printed(graph, folder, about=about_of(graph, ("one",) * 7))
    (folder / "about.json").write_text((folder / "about.json").read_text().replace('"one", ', "", 1))
    with pytest.raises(UnusableFile, match="gives 7 scores and names 6 classes"):
        host.load(folder)
    printed(graph, folder)
    model = folder / "nestling_model.c"
    model.write_text(model.read_text().replace("nst_mean(", "nst_meen("))
    with pytest.raises(UnusableFile, match=r"c does not compile here: .*nst_meen"):
        host.load(folder)
    model.unlink()
    (folder / "nestling_model.h").unlink()
    with pytest.raises(UnusableFile, match=r"holds no nestling_model\.h"):
        host.load(folder)


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = printed(small(), tmp_path / "c")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NestlingError, match="apt-get install gcc"):
        host.load(folder)


# ---- memory --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["elsewhere", "in the arena"])
def test_nothing_is_touched_but_the_arena(place: str, shared_data: Shared, tmp_path: Path) -> None:
    """Bytes around the arena keep their value, and so does an image that lies elsewhere; the answer is the same in both places."""
    graph = imported(shared_data("resnet8_cifar10_int8.tflite"))
    runner = host.load(printed(graph, tmp_path / "c"))
    library, sizes = runner.library, runner.sizes
    library.nestling_input.restype = ctypes.c_void_p
    whole = np.full(sizes.arena + 2 * GUARD, 0xA5, np.uint8)
    start = GUARD + -(whole.ctypes.data + GUARD) % 16
    image, logits = noise(graph, 1)[0], np.zeros(10, np.float32)
    arena, source = whole.ctypes.data + start, image.copy()
    pointer = source.ctypes.data
    if place == "in the arena":
        pointer = library.nestling_input(ctypes.c_void_p(arena))
        inside = pointer - whole.ctypes.data
        assert start <= inside and inside + image.size <= start + sizes.arena
        whole[inside : inside + image.size] = image.reshape(-1)
    library.nestling_predict(ctypes.c_void_p(arena), ctypes.c_void_p(pointer), ctypes.c_void_p(logits.ctypes.data))
    assert (whole[:start] == 0xA5).all() and (whole[start + sizes.arena :] == 0xA5).all()
    assert_array_equal(source, image)
    assert_array_equal(logits, reference.run(graph, image[None])[graph.outputs[0]].reshape(-1))


@pytest.mark.parametrize("name", ["vww", "everything", "concats"])
def test_no_undefined_behaviour_and_no_byte_out_of_bounds(name: str, shared_data: Shared, tmp_path: Path) -> None:
    """200 images through a program under the address and undefined-behaviour sanitizers, its arena on the heap, just as large."""
    graph = {
        "vww": lambda: imported(shared_data("vww_96_int8.tflite")),
        "everything": lambda: headed(calibrated(captured(seeded(Everything)), pictures(4))[0]),
        "concats": concats,
    }[name]()
    folder = printed(graph, tmp_path / "c")
    sources = host.sources(folder)
    program = tmp_path / "program"
    flags = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", str(folder))
    subprocess.run(["cc", *flags, *sources, Path(__file__).with_name("run_images.c"), "-o", program], check=True)
    images = noise(graph, 200)
    ended = subprocess.run([program], input=images.tobytes(), capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr.decode()[:2000]
    expected = host.load(folder)(images)
    assert_array_equal(np.frombuffer(ended.stdout, np.float32).reshape(expected.shape), expected)
