"""The comparison of bundles against counts made elsewhere: torch's modules, eval, the file system, zlib, definitions by force."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from nestling import bundle as bundles
from nestling.artifacts import manifest
from nestling.bundle import Bundle, Split, Step
from nestling.data.folders import scan
from nestling.errors import NestlingError, UnusableData
from nestling.graph.integers import QuantizeConfig
from nestling.measure.answers import evaluate, predict
from nestling.measure.weighed import Weights
from nestling.models.backbones import build_backbone
from nestling.models.float_graph import float_graph
from nestling.pages.compare.comparable import judges
from nestling.pages.compare.compare import CompareConfig, compare
from nestling.pages.compare.found import Board, Compared, Comparison, File, Score, to_plain
from nestling.pages.compare.page import picture, render
from nestling.pages.compare.words import advice, following, headings, lines, markdown, warnings
from nestling.pages.pictures import Point, front
from nestling.pages.words import points, probability
from nestling.quantization.quantize import quantize
from nestling.scores.evaluate import wilson
from nestling.training.fit import FitConfig, fit
from tests.pages.example_pages import LONG, ODD
from tests.pages.headless import Tab, browser, executable
from tests.pages.reading import STICKS_OUT, TEXTS_OF_PICTURES, Reader

NETWORK, SIZE = "mobilenetv2_050", 32
QUICK = CompareConfig(wanted=(("tflite", "int8"),), rounds=1)
CURVES = {"loss": (1.4, 0.9, 0.7), "val_loss": (1.2, 1.0, 1.1), "val_top1": (0.5, 0.75, 0.7)}


# ---- small networks, compared once ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for name, colour in (("apple", (150, 110, 110)), ("lime", (110, 140, 110)), ("plum", (120, 110, 140))):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(colour, 60, (40, 44, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.png")
    return root


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def first(photos: Path) -> Bundle:
    return fit(photos, config=FitConfig(NETWORK, "none", SIZE)).bundle


@pytest.fixture(scope="module")
def paths(first: Bundle, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A bundle by timm's name, and one of a Graph, four fifths of its weights zero, that brings its integers."""
    root = tmp_path_factory.mktemp("bundles")
    bundles.save(first, root / "base.nest")
    graph = float_graph(first)
    rng = np.random.default_rng(1)
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if node.op in ("conv2d", "depthwise_conv2d", "fully_connected"):
            weight = tensors[node.inputs[1]]
            assert weight.data is not None
            tensors[weight.name] = replace(
                weight, data=np.where(rng.random(weight.data.shape) < 0.8, 0, np.multiply(2.2, weight.data)).astype(np.float32)
            )
    step = Step("finetune", {"epochs": 3}, "", {"val_top1": 0.75}, CURVES)
    sparse = replace(first, architecture=replace(graph, tensors=tensors), arrays={}, lineage=(*first.lineage, step))
    plain = QuantizeConfig(calibration=12, equalize="off", bias_correction="off")
    bundles.save(quantize(sparse, photos, plain), root / "sparse.nest")
    return root / "base.nest", root / "sparse.nest"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def found(paths: tuple[Path, Path], kept: Path) -> Comparison:
    return compare(paths, None, replace(QUICK, keep=kept))


def test_top1_is_what_eval_finds(found: Comparison, paths: tuple[Path, Path], kept: Path, photos: Path) -> None:
    base, sparse = found.bundles
    (quantised,) = kept.glob("base-*/base-int8.nest")
    assert base.floats and base.integers and sparse.integers
    for score, path in ((base.floats, paths[0]), (base.integers, quantised), (sparse.integers, paths[1])):
        judged = evaluate(path, photos).evaluation
        assert (score.top1, score.interval, score.images) == (judged.top1, judged.interval, judged.images)
    assert found.images == len(bundles.load(paths[0]).split.test)
    for one in found.bundles:
        (place,) = kept.glob(f"{one.name}-*")
        assert len(one.files) == 1
        for file in one.files:
            assert file.top1 == evaluate(place / file.file, photos).evaluation.top1


def test_a_bundle_without_integers_needs_no_folder_to_keep_them(paths: tuple[Path, Path]) -> None:
    (base,) = compare(paths[:1], None, QUICK).bundles
    assert base.integers is not None and base.quantised_here


def test_p_is_scipys_binomial_of_the_photographs_that_changed(
    found: Comparison, paths: tuple[Path, Path], kept: Path, photos: Path
) -> None:
    (quantised,) = kept.glob("base-*/base-int8.nest")
    split = bundles.load(paths[0]).split
    assert split is not None
    test = [item.path for item in scan(photos).items if item.fingerprint in split.test]
    right = [
        [one.label == path.parent.name for one, path in zip(predict(file, test).found, test, strict=True)]
        for file in (quantised, paths[1])
    ]
    lost, changed = sum(a > b for a, b in zip(*right, strict=True)), sum(a != b for a, b in zip(*right, strict=True))
    expected = binomtest(lost, changed).pvalue if changed else 1.0
    score = found.bundles[1].integers
    assert score and score.p == pytest.approx(expected)
    assert found.bundles[0].floats and found.bundles[0].floats.p is None and found.bundles[0].integers.p is None


def test_macs_and_parameters_counted_by_torchs_modules(found: Comparison, first: Bundle) -> None:
    backbone = build_backbone(first.architecture, first.arrays)  # type: ignore[arg-type]  # it is timm's
    products: list[int] = []

    def count(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        assert isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
        each = module.weight[0].numel()  # multiplications for one number that comes out
        products.append(output.numel() * each)

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        width = backbone(torch.zeros(1, 3, SIZE, SIZE)).shape[1]
    norms = sum(m.num_features for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    learned = sum(p.numel() for p in backbone.parameters()) + 3 * width + 3
    weights = found.bundles[0].weights
    assert weights.macs == sum(products) == found.bundles[1].weights.macs
    assert weights.parameters == learned
    assert weights.float_bytes == 4 * (learned - norms)  # of a norm's scale and shift only the shift is left, as a bias


def test_compressed_weights_and_zeros(found: Comparison, paths: tuple[Path, Path], kept: Path) -> None:
    (quantised,) = kept.glob("base-*/base-int8.nest")
    for one, file in zip(found.bundles, (quantised, paths[1]), strict=True):
        graph = bundles.load(file).graph
        assert graph is not None
        stored = [
            graph.tensors[node.inputs[1]].data
            for node in graph.nodes
            if node.op in ("conv2d", "depthwise_conv2d", "fully_connected")
        ]
        whole = b"".join(weight.tobytes() for weight in stored)
        assert one.weights.int8_bytes == len(whole)
        assert one.weights.compressed_bytes == len(zlib.compress(whole, 9))
        assert one.weights.int8_zeros == pytest.approx(whole.count(0) / len(whole))
    base, sparse = (one.weights for one in found.bundles)
    assert base.zeros == 0 and sparse.zeros == pytest.approx(0.8, abs=0.01)
    assert sparse.compressed_bytes and base.compressed_bytes and sparse.compressed_bytes < 0.5 * base.compressed_bytes


def test_bytes_are_the_file_systems_and_all_are_timed(found: Comparison, kept: Path) -> None:
    for one in found.bundles:
        (place,) = kept.glob(f"{one.name}-*")
        assert {file.file for file in one.files} == {f"{one.name}-int8.tflite"}
        for file in one.files:
            assert file.bytes == (place / file.file).stat().st_size
            assert file.ms_median is not None and 0 < file.ms_median <= file.ms_p95


def test_what_was_quantised_here_is_told_and_differences_are_differences(found: Comparison) -> None:
    assert [one.quantised_here for one in found.bundles] == [True, False]
    for one in found.bundles:
        assert one.floats and one.integers and one.difference == one.integers.top1 - one.floats.top1
    assert any("learned on int8 embeddings" in note for note in found.bundles[1].notes)
    assert not found.warnings and found.bundles[0].notes == ()


def test_kept_files_are_found_again(
    found: Comparison, paths: tuple[Path, Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is quantised or printed, save a file that was damaged since."""
    printed: list[str] = []
    exported = __import__("nestling.pages.compare.files", fromlist=["exported"]).exported

    def spy(path: Path, out: Path, wanted: list[tuple[str, str]], *rest: object) -> object:
        printed.extend(f"{precision}.{form}" for form, precision in wanted)
        return exported(path, out, wanted, *rest)

    monkeypatch.setattr("nestling.pages.compare.files.exported", spy)
    monkeypatch.setattr("nestling.pages.compare.files.quantized_first", lambda *_: pytest.fail("quantised again"))
    monkeypatch.setattr("nestling.pages.compare.files.bench", lambda *_, **__: (_ for _ in ()).throw(NestlingError("no clock")))
    (damaged,) = kept.glob("base-*/base-int8.tflite")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1])
    again = compare(paths[:1], None, replace(QUICK, keep=kept))
    assert printed == ["int8.tflite"] and damaged.read_bytes() == content
    (one,) = again.bundles
    assert one.floats == found.bundles[0].floats and one.weights == found.bundles[0].weights
    assert [file.ms_median for file in one.files] == [None] and one.notes == ("nothing was timed: no clock",)
    assert "ms" not in " ".join(line.what for line in lines(again)) and len(Reader(render(again)).all("svg")) == 1


def test_a_file_that_failed_its_gate_is_shown(
    paths: tuple[Path, Path], kept: Path, found: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place,) = kept.glob("base-*")
    listed = manifest.read(place)
    text = (place / manifest.NAME).read_text()
    try:
        manifest.note(place, [replace(a, failed=("its answers differ",)) for a in listed if a.precision == "int8"])
        monkeypatch.setattr("nestling.pages.compare.files.bench", lambda *_, **__: (_ for _ in ()).throw(NestlingError("no clock")))
        again = compare(paths[:1], None, replace(QUICK, keep=kept))
    finally:
        (place / manifest.NAME).write_text(text)
    assert [file.failed for file in again.bundles[0].files] == [("its answers differ",)]
    reader = Reader(render(again))
    assert any("base-int8.tflite failed its gate: its answers differ" in text for text in reader.texts("li"))
    assert sum("failed its gate, kept" in text for text in reader.texts("th")) == 1


# ---- which photographs ----------------------------------------------------------------------------------------------------------


def test_bundles_that_know_different_classes_are_refused(first: Bundle) -> None:
    other = replace(first, labels=("apple", "lime", "pear"))
    with pytest.raises(NestlingError, match=r"a and b know different classes.*'plum'.*'pear'"):
        judges({"a": first, "b": other})


def test_test_photographs_that_another_learned_from_are_refused(first: Bundle, photos: Path, tmp_path: Path) -> None:
    split = first.split
    assert split is not None
    moved = split.test[:2]
    other = replace(first, split=replace(split, test=split.test[2:], train=(*split.train, *moved)))
    with pytest.raises(UnusableData, match="b has learned from 2 of the photographs that a keeps for its test"):
        judges({"a": first, "b": other}, photos)
    with pytest.raises(UnusableData, match="b has learned from 2 of the photographs that a keeps for its test"):
        judges({"b": other, "a": first}, photos)
    rng = np.random.default_rng(3)
    for name in first.labels:
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    chosen = judges({"a": first, "b": other}, tmp_path)
    assert len(chosen.items) == 6 and any("b has learned from photographs that a keeps" in text for text in chosen.warnings)


def test_only_photographs_that_none_has_learned_from_are_asked(first: Bundle, photos: Path) -> None:
    split = first.split
    assert split is not None
    shorter = replace(first, split=replace(split, val=split.val[1:]))
    unseen = {item.fingerprint for item in scan(photos).items} - {*split.train, *split.val}
    for every in ({"a": first, "b": shorter}, {"a": shorter, "b": first}, {"a": first}):
        assert {item.fingerprint for item in judges(every, photos).items} == unseen == set(split.test)
    unknown = judges({"a": first, "b": replace(first, split=None)}, photos)
    assert {item.fingerprint for item in unknown.items} == unseen and "learned from" in unknown.warnings[0]
    everything = replace(first, split=Split(0, train=tuple(item.fingerprint for item in scan(photos).items)))
    with pytest.raises(UnusableData, match="only photographs that the bundles have learned from"):
        judges({"a": everything}, photos)


def test_no_folder_and_no_bundle_and_one_twice(first: Bundle, paths: tuple[Path, Path], photos: Path) -> None:
    with pytest.raises(UnusableData, match="--data"):
        judges({"a": replace(first, lineage=())})
    with pytest.raises(NestlingError, match="given twice"):
        compare([paths[0], paths[0].parent / ".." / paths[0].parent.name / paths[0].name], photos)
    with pytest.raises(NestlingError, match="at least one bundle"):
        compare([])
    with pytest.raises(NestlingError, match="host is this computer"):
        compare(paths, None, CompareConfig(machine="host"))


# ---- figures --------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=12))
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int, bool]]) -> None:
    made = [Point(str(i), "", x, y / 6, 0, 1, "", "o", hollow) for i, (x, y, hollow) in enumerate(values)]
    whole = [point for point in made if not point.hollow]
    unbeaten = {(p.x, p.y) for p in whole if not any(q.x <= p.x and q.y >= p.y and (q.x < p.x or q.y > p.y) for q in whole)}
    best = front(made)
    assert {(p.x, p.y) for p in best} == unbeaten and len(best) == len(unbeaten)
    assert [p.x for p in best] == sorted(p.x for p in best)


@pytest.mark.parametrize(
    ("say", "value", "text"),
    [(points, -0.0123, "−1.2"), (points, 0.05, "+5.0"), (points, -0.0001, "0.0"), (probability, 0.0004, "p < 0.001"),
     (probability, 0.031, "p = 0.031"), (probability, 0.5, "p = 0.50")],
)  # fmt: skip
def test_numbers(say: object, value: float, text: str) -> None:
    assert say(value) == text  # type: ignore[operator]


# ---- the page -------------------------------------------------------------------------------------------------------------------


def made_up(count: int, names: tuple[str, ...] = ()) -> Comparison:
    """Bundles that get smaller, quicker and worse."""
    every = []
    for i in range(count):
        right = 840 - 9 * i
        files = tuple(
            File(
                f"network{i}-{precision}.{form}", form, precision, {"tflite": "LiteRT", "pte": "ExecuTorch"}[form],
                int((13.4e6 if precision == "fp32" else 3.9e6) * 0.75**i), (right - 4 * j) / 1000, wilson(right - 4 * j, 1000),
                0.98, 0.4, (2.8 if precision == "fp32" else 1.6 + 0.4 * (form == "pte")) * 0.8**i, 3.0,
                ("too noisy",) if (i, j) == (1, 2) else (), 9 * i + 4 * j + 14, 14,
            )
            for j, (form, precision) in enumerate((("tflite", "fp32"), ("tflite", "int8"), ("pte", "int8")))
        )  # fmt: skip
        score = Score(right / 1000, wilson(right, 1000), 1000, 0.2 / i if i else None)
        every.append(
            Compared(
                names[i] if names else f"network {i}", f"n{i}.nest",
                Weights(int(125e6 * 0.7**i), int(3.4e6 * 0.75**i), 13_400_000, 0.0, 3_300_000, 2_900_000, 0.03),
                score, replace(score, top1=score.top1 - 0.004), True, -0.004, 0.3, files,
                Board("cortex-m4", "Arm Cortex-M4", 110_000, 3_400_000, 2_000, 400_000_000 // (i + 1)),
                (Step("fit", {"folder": "/x"}), Step("finetune", {"epochs": 3}, "", {"macs": 62e6}, CURVES)),
                ("no onnx: it holds what it should not.",) if i == 1 else (),
            )
        )  # fmt: skip
    return Comparison(
        tuple(every),
        1000,
        "photos: the test part, 1000 photographs",
        ("a", "b"),
        (),
        "a computer",
        {"nestling": "1"},
        (every[0].name, "float"),
    )


COMPARISONS = {
    "one": lambda: made_up(1),
    "three": lambda: made_up(3),
    "seven": lambda: made_up(7),
    "nasty": lambda: made_up(4, (ODD[0], LONG, ODD[4], ODD[7])),
}


@cache
def rendered(name: str) -> str:
    return render(COMPARISONS[name]())


def test_the_advice_is_the_small_and_quick_one_that_keeps_the_bests_answers() -> None:
    """Of the third bundle's files all lose too much; of the second's the int8 .pte failed its gate."""
    found = advice(made_up(3))
    assert found.sentence == (
        "Ship network 1’s int8 .tflite: 4.6 times smaller than float and 2.2 times as quick, and its answers do not differ from "
        "those of the best here (network 0 in float) by more than chance (McNemar p = 0.060)."
    )
    assert following(made_up(3), found) == ("nestling export n1.nest --to tflite --precision int8 -o out/",)
    (losing,) = found.passed_over
    assert "network 2’s fp32 .tflite −1.8 points (p = 0.011)" in losing  # 32 of 46 by a fair coin
    assert "network 2’s int8 .tflite −2.2 points (p = 0.003)" in losing and "network 1" not in losing
    assert any("network1-int8.pte failed its gate: too noisy." in said for said in warnings(made_up(3)))
    reader = Reader(rendered("three"))
    assert reader.texts("p")[0] == found.sentence and reader.texts("h2")[0] == "Every bundle"


def test_nothing_is_advised_of_bundles_without_files() -> None:
    (one,) = made_up(1).bundles
    none = replace(made_up(1), bundles=(replace(one, files=()),))
    assert advice(none).chosen is None and following(none, advice(none)) == () and "could be made" in render(none)


def test_bundles_are_linked_from_where_the_page_lies(tmp_path: Path) -> None:
    comparison = made_up(2)
    moved = replace(comparison, bundles=tuple(replace(one, path=str(tmp_path / one.path)) for one in comparison.bundles))
    reader = Reader(render(moved, tmp_path / "pages" / "c.html"))
    assert [attributes["href"] for _, attributes, text in reader.all("a") if text == "network 1"] == ["./../n1.nest"]


def test_beside_the_advice_stands_who_is_best_smallest_and_quickest() -> None:
    assert advice(made_up(3)).beside[0] == (
        "Of 3 bundles network 0 gives 84.0% of 1000 photographs their class [81.6, 86.1], the most; the smallest file is "
        "network 2’s int8 .tflite, 2.19 MB at 81.8%; the quickest network 2’s int8 .tflite, 1.02 ms at 81.8%."
    )
    assert warnings(made_up(3)) == ("network 1: network1-int8.pte failed its gate: too noisy.",)
    changes = [text for text in Reader(rendered("three")).texts("li") if "of the MACs" in text]
    assert changes[1] == (
        "network 2: 49.0% of the MACs; 56.2% of the parameters; 100.0% of the compressed weights; 64.0% of the time "
        "(int8 .tflite); 33.3% of the instructions; −1.8 points in float, which chance alone may bring about (p = 0.10); "
        "−1.8 points in int8, which chance alone may bring about (p = 0.10)."
    )


def test_one_table_on_the_page_and_in_markdown() -> None:
    comparison = made_up(3)
    rows = {line.what: line.cells for line in lines(comparison)}
    assert headings(comparison) == ("1 network 0", "2 network 1", "3 network 2")
    assert rows["float, top-1 [95%]"][0] == "84.0% [81.6, 86.1]" and rows["float, against 1"] == (
        "baseline",
        "−0.9 (p = 0.20)",
        "−1.8 (p = 0.10)",
    )
    assert rows["int8 − float"][2] == "−0.4 (p = 0.30)"
    assert rows["MACs"] == ("125.00 M", "87.50 M", "61.25 M") and rows["int8 .pte, MB"][1] == "2.92, failed its gate"
    assert rows["int8 .tflite, ms"] == ("1.60", "1.28", "1.02") and rows["C: instructions"][1] == "200.00 M"
    reader = Reader(rendered("three"))
    shown = reader.texts("tr")
    table = [line for line in markdown(comparison).splitlines() if line.startswith("| ")]
    assert table[0] == "|  | 1 network 0 | 2 network 1 | 3 network 2 |" and len(table) == len(rows) + 2
    for what, cells in rows.items():
        assert f"{what} {' '.join(cell or '–not measured' for cell in cells)}" in shown
        assert f"| {what} | {' | '.join(cell or '–' for cell in cells)} |" in table
    assert "- network 1: no onnx: it holds what it should not." in markdown(comparison)
    assert r"a \| b" in markdown(made_up(1, ("a | b",)))


def test_json_holds_every_figure() -> None:
    plain = json.loads(json.dumps(to_plain(made_up(2))))
    assert plain[1]["lineage"] == ["fit", "finetune"] and plain[1]["weights"]["macs"] == 87_500_000
    assert plain[1]["files"][1]["ms_median"] == pytest.approx(1.28) and plain[1]["board"]["instructions"] == 200_000_000
    assert plain[0]["floats"]["p"] is None and plain[1]["floats"]["p"] == 0.2


@pytest.mark.parametrize("name", COMPARISONS)
def test_the_page_is_whole_and_asks_nobody(name: str) -> None:
    text = rendered(name)
    assert name != "three" or text == render(made_up(3))
    reader = Reader(text)
    ids = [attributes["id"] for _, attributes, _ in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and not reader.all("script", "link", "iframe", "img")
    links = [str(attributes["href"]) for _, attributes, _ in reader.elements if "href" in attributes]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 2 + 2 * len(COMPARISONS[name]().bundles)  # against time and size; loss and top-1 of every training
    for svg in svgs:
        assert ElementTree.fromstring(svg)[1].text
    for one in COMPARISONS[name]().bundles if name != "nasty" else ():
        assert one.name in "".join(reader.elements[0][2])


def test_curves_say_their_figures_and_nonsense_is_left_out() -> None:
    comparison = made_up(1)
    said = [text for _, _, text in Reader(rendered("one")).all("desc")]
    assert (
        "3 epochs: training loss from 1.4 to 0.7, lowest 0.7, highest 1.4; validation loss from 1.2 to 1.1, lowest 1, highest 1.2."
        in said
    )
    assert "3 epochs: validation top-1 from 50% to 70%, lowest 50%, highest 75%." in said
    (one,) = comparison.bundles
    damaged: tuple[Any, ...] = ({"loss": "abc"}, {"val_top1": [0.5, None]}, {"loss": []}, ["loss"])  # bundles may say this
    for nonsense in damaged:
        step = replace(one.lineage[1], curves=nonsense)
        assert len(Reader(render(replace(comparison, bundles=(replace(one, lineage=(step,)),)))).all("svg")) == 2


@pytest.mark.parametrize("name", ["one", "nasty"])
def test_the_picture_is_whole_xml_with_both_panels(name: str) -> None:
    root = ElementTree.fromstring(picture(COMPARISONS[name]()))
    space = "{http://www.w3.org/2000/svg}"
    inner = root.findall(f"{space}g/{space}svg")
    assert len(inner) == 2 and all(float(svg.get("width", "0")) > 400 for svg in inner)
    texts = ["".join(text.itertext()) for text in root.iter(f"{space}text")]
    assert "Top-1 against median of an image, ms" in texts and "Top-1 against size of the file, MB" in texts


def test_without_files_there_is_a_table_and_no_picture() -> None:
    (one,) = made_up(1).bundles
    bare = replace(made_up(1), bundles=(replace(one, files=(), board=None, lineage=()),))
    assert not Reader(render(bare)).all("svg") and "MACs" in markdown(bare)
    with pytest.raises(NestlingError, match="nothing to draw"):
        picture(bare)
    with pytest.raises(NestlingError, match="at least one bundle"):
        render(replace(bare, bundles=()))


# ---- in a browser ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if executable() is None:
        pytest.skip("needs a browser: apt-get install chromium (scripts/test_tools.sh does so where it may)")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("name", COMPARISONS)
def test_in_a_browser_nothing_sticks_out_and_no_texts_overlap(tab: Tab, name: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(rendered(name), encoding="utf-8")
    for width, media in ((390, "screen"), (1280, "screen"), (690, "print")):
        tab.show(file, width, media=media)
        tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert tab.evaluate(STICKS_OUT % width) == []
        for texts in tab.evaluate(TEXTS_OF_PICTURES) if media == "screen" else ():
            assert all(size >= 9 for _, size, *_ in texts)
            for i, (a, _, *box) in enumerate(texts):
                for b, _, *other in texts[:i]:
                    across, down = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
                    assert across <= 1 or down <= 4, f"{a!r} lies on {b!r} at {width}"
    errors = [event for event in tab.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert not errors
