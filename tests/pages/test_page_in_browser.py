"""The report in a real browser: at a telephone's and a screen's width, in the dark, on paper, and as a screen reader gets it."""

import io
import re
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nestling.pages.page import render
from tests.pages.example_pages import crowded, nasty, single, twenty, usual
from tests.pages.headless import Tab, browser, executable
from tests.pages.reading import STICKS_OUT, TEXTS_OF_PICTURES

PAGES = {make.__name__: make for make in (usual, nasty, single, twenty)}
WIDTHS = (390, 1280)
Show = Callable[..., Tab]

# [what, its colour, the colours behind it from the front to the back] of every text that can be seen.
COLOURS = """(() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.checkVisibility() || e.closest("title, desc, .heard")) continue;
    const style = getComputedStyle(e), behind = [];
    for (let p = e; p; p = p.parentElement) behind.push(getComputedStyle(p).backgroundColor);
    found.push([text.slice(0, 30), e.closest("svg") ? style.fill : style.color, behind]);
  }
  return found;
})()"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    if executable() is None:
        pytest.skip("needs a browser: apt-get install chromium (scripts/test_tools.sh does so where it may)")
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def show(tab: Tab, tmp_path_factory: pytest.TempPathFactory) -> Show:
    """show(name, width, edit, dark=..., media=...): the page of that name, edited, once it stands in the browser."""
    folder = tmp_path_factory.mktemp("pages")
    texts = {name: render(make()) for name, make in PAGES.items()}

    def showing(name: str, width: int, edit: Callable[[str], str] = str, **how: Any) -> Tab:
        file = folder / f"{name}.html"
        text = edit(texts[name])
        assert edit is str or text != texts[name]
        file.write_text(text, encoding="utf-8")
        tab.show(file, width, **how)
        return tab

    return showing


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_sticks_out(show: Show, name: str, width: int) -> None:
    tab = show(name, width)
    assert tab.evaluate(STICKS_OUT % width) == []
    assert tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)") is None
    assert tab.evaluate(STICKS_OUT % width) == []


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("<main>", '<main><div style="width: 900px">wide</div>'),
        lambda text: text.replace("<main>", '<main><div style="position: relative; left: 300px; width: 200px">moved</div>'),
        lambda text: text.replace("<main>", f'<main><p style="overflow-wrap: normal">{"word" * 30}</p>'),
        lambda text: text.replace("<bdi>elpv.nest", '<bdi style="white-space: nowrap">elpv.nest' + 20 * " and so on"),
        lambda text: text.replace('name="viewport"', 'name="nothing"'),
        lambda text: text.replace(">fp16 tflite<", f">{'fp16 tflite ' * 9}<"),
    ],
    ids=["wide", "moved", "word", "cell", "viewport", "picture"],
)
def test_the_judge_of_what_sticks_out_sees_it(show: Show, edit: Callable[[str], str]) -> None:
    assert show("usual", 390, edit).evaluate(STICKS_OUT % 390) != []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_screenshot(show: Show, width: int, dark: bool, tmp_path: Path) -> None:
    """As wide as the window, of the scheme's brightness, with a good many colours: pictures and photographs are drawn."""
    image = Image.open(io.BytesIO(show("usual", width, dark=dark).screenshot(tmp_path / "page.png"))).convert("RGB")
    assert image.width == width and image.height > 2 * width
    corner = image.getpixel((2, 2))
    assert isinstance(corner, tuple) and (max(corner) < 60 if dark else min(corner) > 230)
    assert len(image.getcolors(2**24) or []) > 500


@pytest.mark.parametrize("name", PAGES)
def test_the_browser_asks_nobody_and_refuses_nothing(show: Show, name: str) -> None:
    tab = show(name, 1280)
    tab.evaluate("document.fonts.ready.then(() => 0)")
    asked = [event["params"]["request"]["url"] for event in tab.events if event.get("method") == "Network.requestWillBeSent"]
    assert asked and not [url[:80] for url in asked[1:] if not url.startswith("data:image/")] and asked[0].startswith("file:")
    assert [event["params"] for event in tab.events if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown")] == []
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["usual", "nasty", "twenty"])
def test_every_text_stands_out_from_what_is_behind_it(show: Show, name: str, dark: bool) -> None:
    found = show(name, 1280, dark=dark).evaluate(COLOURS)
    assert len(found) > 100
    weak = {(text, round(ratio, 2)) for text, colour, behind in found if (ratio := contrast(colour, behind)) < 4.5}
    assert not weak


def contrast(colour: str, behind: list[str]) -> float:
    """Contrast ratio of a text. Source: WCAG 2.1, definitions of relative luminance and contrast ratio."""
    ground: tuple[float, ...] = (255.0, 255.0, 255.0)
    for layer in reversed(behind):
        ground = _over(layer, ground)
    brighter, darker = sorted((_luminance(_over(colour, ground)), _luminance(ground)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _over(colour: str, ground: tuple[float, ...]) -> tuple[float, ...]:
    red, green, blue, *alpha = (float(number) for number in re.findall(r"[\d.]+", colour))
    share = alpha[0] if alpha else 1.0
    return tuple(share * own + (1 - share) * under for own, under in zip((red, green, blue), ground, strict=True))


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_as_wcag_has_it() -> None:
    assert contrast("rgb(0, 0, 0)", ["rgba(0, 0, 0, 0)"]) == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", ["rgb(255, 255, 255)"]) == pytest.approx(4.48, abs=0.005)  # WebAIM's #777 on white


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_texts_of_pictures_are_readable_and_do_not_overlap(show: Show, name: str, width: int) -> None:
    for texts in show(name, width).evaluate(TEXTS_OF_PICTURES):
        assert all(size >= 9 for _, size, *_ in texts)
        for (a, _, *one), (b, _, *other) in combinations(texts, 2):
            across = min(one[2], other[2]) - max(one[0], other[0])
            down = min(one[3], other[3]) - max(one[1], other[1])
            assert across <= 1 or down <= 4, f"{a!r} lies on {b!r}"  # boxes hold the line's height, letters are less high


# Of every picture: the boxes of its labels, of its signs, and of its other texts.
PLACES = """[...document.querySelectorAll("svg.plot")].map(svg => {
  const boxes = all => [...all].map(e => { const b = e.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; });
  return [svg.querySelectorAll(".label text"), svg.querySelectorAll(".sign use"),
    [...svg.querySelectorAll("text")].filter(e => !e.closest(".label"))].map(boxes); })"""


@pytest.mark.parametrize(("seed", "count", "spread"), [(11, 8, 0.003), (11, 10, 0.02), (3, 20, 0.003), (0, 10, 0.0)])
def test_labels_lie_on_no_label_and_no_sign(tab: Tab, tmp_path: Path, seed: int, count: int, spread: float) -> None:
    """Also where networks lie on one another: the labels then find room elsewhere."""
    page = tmp_path / "crowded.html"
    page.write_text(render(crowded(seed, count, spread)), encoding="utf-8")
    tab.show(page, 1280)
    for labels, signs, texts in tab.evaluate(PLACES):
        assert len(labels) == len(signs) <= count  # of equal size and name only one
        for label in labels:
            assert not [other for other in (*labels, *texts) if other is not label and on(label, other, 1, 4)]
            assert not [sign for sign in signs if on(label, sign, 2, 3)]
        assert not [(a, b) for a, b in combinations(texts, 2) if on(a, b, -3, 0)]  # numbers of an axis have a space between them


def on(a: list[float], b: list[float], across: float, down: float) -> bool:
    """Whether two boxes share more than so many pixels; a box of text holds the line's height, letters are less high."""
    return min(a[2], b[2]) - max(a[0], b[0]) > across and min(a[3], b[3]) - max(a[1], b[1]) > down


@pytest.mark.parametrize("width", WIDTHS)
def test_a_screen_reader_gets_tables_pictures_and_headings(show: Show, width: int) -> None:
    """At a telephone's width, too, where networks are cards."""
    tab = show("usual", width)
    nodes = [node for node in tab.ask("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]

    def named(role: str) -> list[str]:
        return [node.get("name", {}).get("value", "") for node in nodes if node["role"]["value"] == role]

    assert len(named("table")) == 3  # networks, confusions, classes; those of the layers are folded away
    assert sum("elpv-" in name or "elpv.nest" in name for name in named("rowheader")) == 6
    headings = named("columnheader")
    assert "median, ms" in headings and "noise ratio" in headings
    pictures = [node for node in nodes if node["role"]["value"] in ("image", "img") and node.get("description", {}).get("value")]
    drawn = [node["name"]["value"] for node in nodes if node["role"]["value"] in ("image", "img")]
    assert "Top-1 against size, MB" in " ".join(drawn) and "3.96 MB" in " ".join(drawn) + str(pictures)
    assert "good, answered defective with 98.3%" in drawn
    assert {"Every file", "Layer by layer", "How it came to be"} <= set(named("heading"))
    cells = " ".join(named("cell") + named("gridcell"))
    assert "85.0% [81.6, 87.8]" in cells and "top-1 [95%]" not in cells  # the card's own label is not said twice


def test_on_paper_everything_is_open_and_light(show: Show) -> None:
    tab = show("usual", 690, dark=True)
    folded = "[...document.querySelectorAll('details table, details dl')].map(e => e.checkVisibility())"
    assert tab.evaluate(folded) and not any(tab.evaluate(folded))
    tab = show("usual", 690, dark=True, media="print")
    assert all(tab.evaluate(folded))
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert all(contrast(colour, behind) >= 4.5 for _, colour, behind in tab.evaluate(COLOURS))
    assert not tab.evaluate("document.querySelector('nav').checkVisibility()")


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_nothing_is_cut(show: Show, name: str) -> None:
    """A4 is 182 mm wide between the page's margins: 690 pixels."""
    tab = show(name, 690, media="print")
    assert tab.evaluate("[...document.querySelectorAll('.scroll')].every(e => getComputedStyle(e).overflowX === 'visible')")
    assert tab.evaluate(STICKS_OUT % 690) == []


def test_what_scrolls_can_be_reached_with_the_keyboard_and_shows_where_one_is(show: Show) -> None:
    tab = show("twenty", 390)
    scrolling = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth)"
    assert tab.evaluate(f"{scrolling}.length") == 1
    assert tab.evaluate(f"{scrolling}.every(e => e.tabIndex === 0 && e.getAttribute('aria-label'))")
    for _ in range(20):
        for kind in ("keyDown", "keyUp"):
            tab.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        if tab.evaluate("document.activeElement.classList.contains('scroll')"):
            break
    assert tab.evaluate("document.activeElement.classList.contains('scroll')")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    first = "document.querySelector('.matrix tbody th').getBoundingClientRect().left"
    before = tab.evaluate(first)
    tab.evaluate("document.querySelector('.scroll').scrollLeft = 400")
    assert tab.evaluate(first) <= before and tab.evaluate(first) >= 0  # the class's name stays beside its numbers
