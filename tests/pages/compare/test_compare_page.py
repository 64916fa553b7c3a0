"""The page, the table and the pictures of a comparison, of made-up ones."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.bundle import Step
from nestling.errors import NestlingError
from nestling.measure.weighed import Weights
from nestling.pages.compare.compare import CompareConfig
from nestling.pages.compare.found import Board, Compared, Comparison, File, Score, to_plain
from nestling.pages.compare.page import picture, render
from nestling.pages.compare.words import advice, following, headings, lines, markdown, warnings
from nestling.pages.pictures import Point, front
from nestling.pages.words import points, probability
from nestling.scores.evaluate import wilson
from tests.pages.example_pages import LONG, ODD
from tests.pages.headless import Tab, browser, executable
from tests.pages.reading import STICKS_OUT, TEXTS_OF_PICTURES, Reader

NETWORK, SIZE = "mobilenetv2_050", 32
QUICK = CompareConfig(wanted=(("tflite", "int8"),), rounds=1)
CURVES = {"loss": (1.4, 0.9, 0.7), "val_loss": (1.2, 1.0, 1.1), "val_top1": (0.5, 0.75, 0.7)}


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
