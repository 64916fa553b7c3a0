"""The report as text: what it says, that it is whole HTML, that nothing breaks out of it, that it asks nobody for anything."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urljoin, urlparse
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from nestling.bundle import Step
from nestling.errors import NestlingError
from nestling.pages import words
from nestling.pages.page import Example, Page, render
from nestling.pages.pictures import Point, front, shorten
from tests import ROOT
from tests.pages.example_pages import BUNDLE, FP32, INT8, LONG, ODD, PTE8, evaluation, nasty, single, twenty, usual
from tests.pages.reading import Reader

PAGES = (usual, nasty, single, twenty)


@pytest.fixture(scope="module", params=PAGES, ids=lambda make: make.__name__)
def page(request: pytest.FixtureRequest) -> tuple[Page, str]:
    made = request.param()
    return made, render(made)


# ---- whole, and shut ---------------------------------------------------------------------------------------------------------


def test_it_is_whole_html(page: tuple[Page, str]) -> None:
    reader = Reader(page[1])
    assert page[1].startswith("<!DOCTYPE html>")
    (html,) = reader.all("html")
    assert html[1]["lang"] == "en"
    assert len(reader.all("title")) >= 1 and len(reader.all("h1")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in [meta[1] for meta in reader.all("meta")]
    ids = [attributes["id"] for _, attributes, _ in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [attributes["aria-labelledby"] or "" for _, attributes, _ in reader.elements if "aria-labelledby" in attributes]
    links = [str(attributes["href"]) for _, attributes, _ in reader.elements if "href" in attributes]
    assert links and {name for names in named for name in names.split()} | {link.removeprefix("#") for link in links} <= set(ids)


def test_it_can_be_heard(page: tuple[Page, str]) -> None:
    reader = Reader(page[1])
    assert all(attributes.get("alt") for _, attributes, _ in reader.all("img"))
    assert all(attributes.get("scope") in ("col", "row") for _, attributes, _ in reader.all("th"))
    assert len(reader.all("table")) == len(reader.all("caption"))
    levels = [int(tag[1]) for tag, _, _ in reader.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and all(after <= before + 1 for before, after in pairwise(levels))
    for picture in reader.all("svg"):
        assert picture[1]["role"] == "img" and picture[1]["aria-labelledby"]


def test_every_picture_is_whole_xml_with_a_title_and_a_description(page: tuple[Page, str]) -> None:
    found = re.findall(r"<svg.*?</svg>", page[1], re.DOTALL)
    assert found
    for svg in found:
        root = ElementTree.fromstring(svg)
        assert root[0].tag == "title" and root[0].text and root[1].tag == "desc" and root[1].text
        assert root.get("viewBox") and root.get("width") is None


def test_nothing_is_fetched_or_run(page: tuple[Page, str]) -> None:
    reader = Reader(page[1])
    (policy,) = [meta[1]["content"] or "" for meta in reader.all("meta") if meta[1].get("http-equiv") == "Content-Security-Policy"]
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"} <= {part.strip() for part in policy.split(";")}
    assert not reader.all("script", "link", "iframe", "object", "embed", "form", "base", "audio", "video")
    for tag, attributes, _ in reader.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
                assert str(value).startswith(("#", "data:image/")), (tag, name, value)
            assert not re.search(r"url\((?!#)", str(value)), (tag, name, value)
    styles = "".join(style[2] for style in reader.all("style"))
    assert "url(" not in styles and "@import" not in styles


def test_names_stay_text() -> None:
    """What a label or a file is called is on the page, letter for letter, and is not read as HTML, mathematics or a template.

    What would steer the page's text, or cannot be written, is shown escaped.
    """
    reader = Reader(render(nasty()))
    shown = " ".join("".join(text) for _, _, text in reader.elements[:1])
    for name in (*ODD[:5], r"\u202eright to left\u202c", r"\x00\x08\x1b\x7f\n\udcff"):
        assert name in shown
    assert LONG in shown and "alert" not in "".join(style[2] for style in reader.all("style"))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\ud800-\udfff]", shown)


def test_a_sentence_keeps_the_isolates_that_it_was_given_and_no_others() -> None:
    assert words.isolated("\u2069x\u05d0") == "\u2068\\u2069x\u05d0\u2069" and words.isolated("a\u2068") == "a\\u2068"
    page = render(replace(usual(), rows=(replace(INT8, file="\u05d0\u2067.pte"),)))
    assert "\u2068\u05d0\\u2067.pte\u2069" in page and "\u2067" not in page
    assert words.unisolated("\u2068\u05d0\u2069 is") == "\u05d0 is"


def test_the_same_page_is_the_same_bytes_in_another_process_and_under_other_settings(tmp_path: Path) -> None:
    script = "import sys; from tests.pages import example_pages as e; from nestling.pages.page import render; "
    script += "sys.stdout.buffer.write(render(e.usual()).encode())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, env=environment, cwd=ROOT)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "other", "savefig.bbox": "tight"}):
        assert render(usual()).encode() == again.stdout


# ---- what it says ------------------------------------------------------------------------------------------------------------


def test_it_begins_with_what_to_ship_and_what_to_type() -> None:
    reader = Reader(render(usual()))
    first = reader.texts("h1", "p", "code", "h2")
    assert first[1].startswith("Ship elpv-int8.tflite: 3.4 times smaller than float and 1.9 times as quick, and its answers do not")
    assert first[2] == "nestling predict out/elpv-int8.tflite PHOTO.jpg"
    assert reader.texts("h2")[:4] == ["Every file", "What it answers", "Accuracy against size and time", "Layer by layer"]


def test_of_floats_alone_int8_is_the_next_command() -> None:
    page = Page("t", (BUNDLE, FP32), paths={FP32.file: Path("my out") / FP32.file}, bundle=Path("elpv.nest"))
    assert Reader(render(page)).texts("code") == [
        "nestling predict 'my out/elpv-fp32.tflite' PHOTO.jpg",
        "nestling export elpv.nest --to tflite --precision int8 -o 'my out'",
    ]


def test_a_network_that_is_no_better_than_one_answer_is_not_to_be_shipped() -> None:
    poor = replace(usual(), evaluation=evaluation(("defective", "good"), np.array([[10, 230], [12, 273]])))
    reader = Reader(render(poor))
    assert reader.texts("p")[0].startswith(
        "Ship none yet: top-1 on the test part, 53.9%, is not better than always answering 'good'"
    )
    assert reader.texts("li")[0].startswith("Of these files it would be elpv-int8.tflite: 3.4 times smaller")
    assert reader.texts("code") == ["nestling fit MORE_PHOTOS -o more.nest"]


def test_what_was_passed_over_names_the_runtime_and_the_file() -> None:
    rows = (FP32, replace(INT8, noise_ratio=3.217, runtime="ONNX Runtime"), replace(PTE8, forced=True))
    reader = Reader(render(Page("t", rows)))
    over = [text for text in reader.texts("li") if text.startswith("Passed over:")]
    assert len(over) == 2
    assert "elpv-int8.pte" in over[0] and "gate" in over[0]
    assert "ONNX Runtime" in over[1] and "elpv-int8.tflite 3.22 times" in over[1]
    networks = reader.texts("th")
    assert sum("failed its gate, kept" in text for text in networks) == sum("noisy runtime" in text for text in networks) == 1


def test_files_are_linked_from_where_the_page_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letter for letter, whatever they are called; a folder of C as a folder."""
    monkeypatch.chdir(tmp_path)
    names = ("a b#c?.tflite", "x%41.onnx", "javascript:alert(1).pte", "c-host")
    for folder in (Path("pages"), Path("out") / "c-host"):
        folder.mkdir(parents=True)
    rows = tuple(replace(INT8, file=name) for name in names)
    page = Page("t", rows, paths={name: Path("out") / name for name in names})
    reader = Reader(render(page, Path("pages") / "report.html"))
    found = [
        (str(attributes["href"]), text) for _, attributes, text in reader.all("a") if not str(attributes["href"]).startswith("#")
    ]
    base = (tmp_path / "pages" / "report.html").as_uri()
    for name in names:
        link = next(link for link, text in found if text == name)
        (_, _, path, _, query, fragment) = urlparse(urljoin(base, link))
        assert unquote(path).rstrip("/") == str(tmp_path / "out" / name) and not query and not fragment
    assert found[-1][0].endswith("c-host/") and not [link for link, _ in found if not link.startswith("./")]
    assert 'href="./' not in render(page)


def test_the_file_of_a_photograph_stands_below_it() -> None:
    captions = [text for text in Reader(render(usual())).texts("figcaption") if "answered" in text]
    assert captions[0] == "goodanswered defective, 98.3% suregood/cell0006.png" and len(captions) == 3


def test_the_table_of_networks() -> None:
    reader = Reader(render(usual()))
    cells = [(attributes.get("data-label"), text.strip()) for _, attributes, text in reader.all("td") if "data-label" in attributes]
    assert cells[-8:] == [
        ("size, MB", "3.96"), ("top-1 [95%]", "85.0% [81.6, 87.8]"), ("agrees with float", "97.9%"), ("median, ms", "3.66"),
        ("95th pct, ms", "4.64"), ("peak memory, MB", "32.15"), ("noise ratio", "0.21"), ("largest logit difference", "0.31"),
    ]  # fmt: skip
    assert cells[6] == ("noise ratio", "–not measured")
    headings = [text for _, attributes, text in reader.all("th") if attributes.get("role") == "columnheader"]
    assert headings == ["network", *(label for label, _ in cells[:8])]
    networks = [text.split() for _, attributes, text in reader.all("th") if attributes.get("role") == "rowheader"]
    assert ["".join(words[:2]) for words in networks] == [
        "●elpv.nest", "■elpv-fp32.pte", "■elpv-int8.pte", "▲elpv-fp32.tflite", "▲elpv-fp16.tflite", "▲elpv-int8.tflite"
    ]  # fmt: skip
    colours = [attributes["style"] for _, attributes, text in reader.all("span") if attributes.get("class") == "sign"][:6]
    assert colours == [f"color: var(--{precision})" for precision in ("fp32", "fp32", "int8", "fp32", "fp16", "int8")]


def test_a_row_of_many_milliseconds_and_few_bytes() -> None:
    text = render(Page("t", (replace(FP32, ms_median=99.99), replace(INT8, ms_median=1234.5, bytes=42_000))))
    cells = {text.strip() for _, _, text in Reader(text).all("td")}
    assert {"99.99", "1234", "0.042"} <= cells or {"99.99", "1235", "0.042"} <= cells


def test_layers_costs_answers_and_lineage_are_told() -> None:
    reader = Reader(render(usual()))
    rows = reader.texts("tr")
    assert "mean mean 1 × 1280 0 0.01 –not measured" in rows
    assert sum(row.startswith("blocks.") for row in rows) == 3 * 49  # two files' layers, and the costs
    assert "defective 208 31" in rows and "good 48 238" in rows
    assert "defective 81.2% 87.0% 239" in rows and "good 88.5% 83.2% 286" in rows  # 208 / 256, 208 / 239; 238 / 269, 238 / 286
    assert [attributes["style"] for _, attributes, text in reader.all("td") if text == "31"] == ["--share: 0.130"]  # 31 / 239
    assert reader.texts("h3")[-4:] == ["Right", "Wrong", "Learned", "Quantised"]
    assert "good, answered defective with 98.3%" in [attributes["alt"] for _, attributes, _ in reader.all("img")]
    assert "Reached: validation top-1 85.7%, test top-1 86.3%." in reader.texts("p")
    assert any("“elpv”" in text and "tf_efficientnet_lite0" in text for text in reader.texts("p"))
    assert "/home/someone/photographs/elpv" in reader.texts("dd") and "0.0316" in reader.texts("dd")
    assert any("elpv-int8.pte has no table" in text for text in reader.texts("li"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, ["8-bit integers,"]),
        ({"bits_weights": 4, "bits_activations": 8}, ["4 bits for weights, 8 for activations"]),
        ({"layer_bits": [["a", 4]]}, ["each layer's weights of the bits that it needs"]),
        (
            {"bits_activations": 7, "qat": "pact", "kept": "qat", "training": {"epochs": 15}},
            ["7 for", "by pact, for 15"],
        ),
        ({"qat": "lsq", "kept": "post-training", "training": {"epochs": 15}}, ["(lsq) gave nothing better, and was left"]),
    ],
)
def test_the_lineage_tells_how_it_was_quantised(settings: dict[str, object], told: list[str]) -> None:
    page = replace(usual(), lineage=(Step("quantize", settings, "", {}),))
    (story,) = (text for text in Reader(render(page)).texts("p") if "was given" in text)
    assert all(words in story for words in told)


def test_what_is_empty_is_not_there() -> None:
    reader = Reader(render(single()))
    assert reader.texts("h2") == ["Every file", "Accuracy against size"]
    assert len(reader.all("svg")) == 1 and not reader.all("details", "img", "ol")
    assert "median, ms" not in " ".join(reader.texts("th"))


def test_many_classes_are_a_picture_and_a_table_of_the_worst() -> None:
    confusion = np.diag(np.full(21, 10))
    confusion[3, 7], confusion[0, 20] = 4, 6
    reader = Reader(render(replace(single(), evaluation=evaluation(tuple(f"c{i}" for i in range(21)), confusion))))
    rows = reader.texts("tr")
    first = rows.index("class answered photo\xadgraphs of the class")
    assert rows[first + 1 : first + 3] == ["c0 c20 6 37.5%", "c3 c7 4 28.6%"]  # 6 / 16, 4 / 14
    assert len(rows) == (1 + 1) + (1 + 2) + (1 + 21)
    assert "1 c0 100.0% 62.5% 16" in rows and "8 c7 71.4% 100.0% 10" in rows
    said = next(text for _, _, text in reader.all("desc") if "diagonal" in text)
    assert "210 of 220 photographs of 21 classes" in said and "6 of c0 answered c20; 4 of c3 answered c7." in said
    assert any("21 classes" in text for text in reader.texts("figcaption"))


def test_the_pictures_say_their_figures_in_words() -> None:
    said = [text for _, _, text in Reader(render(usual())).all("desc")]
    assert "elpv-int8.tflite (int8 tflite): 3.96 MB, top-1 85.0% [81.6, 87.8]" in said[0]
    assert said[0].endswith("On the Pareto front: elpv-int8.pte, elpv-fp16.tflite, elpv-fp32.tflite.")
    assert said[1].endswith("On the Pareto front: elpv-int8.tflite, elpv-fp32.tflite.")
    assert "MACs" in said[2] and "dB" in said[4]


@pytest.mark.parametrize(
    ("points", "best"),
    [
        (((1, 0.5), (2, 0.6), (3, 0.55), (4, 0.7)), "abd"),
        (((1, 0.9), (2, 0.6), (3, 0.55)), "a"),
        (((2, 0.6), (1, 0.6)), "b"),
        (((1, 0.6), (1, 0.7)), "b"),
    ],
)
def test_the_front(points: tuple[tuple[float, float], ...], best: str) -> None:
    made = [Point(name, name, x, y, y, y, "", "o") for name, (x, y) in zip("abcd", points, strict=False)]
    assert "".join(point.name for point in front(made)) == best
    assert front([replace(point, hollow=True) for point in made]) == ()


@pytest.mark.parametrize(
    ("text", "most", "short"), [("abcdefgh", 8, "abcdefgh"), ("abcdefghi", 6, "abc…hi"), ("照片照片照片", 6, "照…片")]
)
def test_shortened_names(text: str, most: int, short: str) -> None:
    assert shorten(text, most) == short


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Page("t", ()), "at least one network"),
        (lambda: Page("t", (FP32,), examples=(Example(b"<svg onload=alert(1)>", "a", "b", 0.5),)), "neither JPEG nor PNG"),
    ],
)
def test_what_cannot_be_shown_is_an_error(made: Callable[[], Page], said: str) -> None:
    with pytest.raises(NestlingError, match=said):
        render(made())


def test_what_stands_beside_a_share() -> None:
    """The share of the largest class; of a class with fewer than five photographs no recall, of one never answered no precision."""
    shown = replace(usual(), evaluation=evaluation(("good", "bad", "ugly"), np.array([[30, 2, 0], [3, 6, 0], [1, 2, 0]])))
    text = render(shown)
    assert re.search(r"always answering <bdi>good</bdi> gives 72\.7% of the test photographs", text)
    cells = re.findall(r"<bdi>ugly</bdi></th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>", text)
    assert ("–", "–", "3") in cells
