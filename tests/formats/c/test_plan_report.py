"""What is shown of a plan. Judges: sums worked out by hand, an XML parser."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from nestling.errors import NestlingError
from nestling.formats.c.plan.plan import Plan, Step, plan
from nestling.formats.c.plan.report import draw, fits, parse_size, picture

STEPS = (Step("stem", ("in",), "a", scratch=1000), Step("deep & wide", ("a",), "b", over="a"), Step("head", ("b",), "out"))


def planned() -> Plan:
    return plan(STEPS, {"in": 3000, "a": 9000, "b": 9000, "out": 100}, ("in",), ("out",))


def test_the_drawing_has_eighty_columns_and_every_tensor_that_can_be_seen() -> None:
    """Of 13,000 bytes at three steps 13,000, 9,000 and 9,100 are taken: under a fifth of the cells is free."""
    text = draw(planned())
    assert max(map(len, text.splitlines())) <= 80
    for part in ("arena 13,000 bytes", "lower bound 13,000", "9,000 bytes at", "scratch of stem  1,000 bytes", "steps 0 to 1"):
        assert part in text
    cells = [line.split("|")[1] for line in text.splitlines() if "K |" in line]
    assert len({len(row) for row in cells}) == 1
    free = sum(row.count(".") for row in cells) / (len(cells) * len(cells[0]))
    assert abs(free - (4000 + 3900) / (3 * 13000)) < 0.05


def test_the_drawing_of_many_steps_still_has_eighty_columns() -> None:
    names = [f"a.very.long.name.of.a.layer.{'deep.' * 20}{i}" for i in range(200)]
    steps = tuple(Step(new, (old,), new) for old, new in zip(["in", *names], [*names, "out"], strict=True))
    text = draw(plan(steps, dict.fromkeys(["in", *names, "out"], 512), ("in",), ("out",)))
    assert max(map(len, text.splitlines())) <= 80


def test_the_picture_is_svg_with_a_rectangle_and_a_name_a_tensor() -> None:
    root = ElementTree.fromstring(picture(planned()))
    texts = ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"in", "a", "b"} <= set(texts) and any("arena 13,000 bytes" in text for text in texts)
    assert picture(planned()) == picture(planned())


def test_a_verdict_names_what_is_in_the_way() -> None:
    found = planned()
    good = fits(found, constants=5000, code=1000, ram=13000 + 2048, flash=6000)
    assert good.fits and good.in_the_way == () and good.words.count("fits, 0 to spare") == 2
    tight = fits(found, constants=5000, code=1001, ram=9100 + 2048, flash=6000)
    assert not tight.fits and tight.in_the_way == (("stem", 13000),)
    assert "stem (13,000)" in tight.words and "3,900 too many" in tight.words and "1 too many" in tight.words
    by_the_stack = fits(found, constants=0, code=0, ram=13000 + 2047, flash=1)
    assert (by_the_stack.fits, by_the_stack.in_the_way) == (False, (("stem", 13000),))
    assert not fits(found, constants=5000, code=1001, ram=2**20, flash=6000).fits


@pytest.mark.parametrize(("text", "size"), [("100", 100), ("256K", 262144), ("1M", 1048576), ("1.5 MB", 1572864), ("8kib", 8192)])
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1K", "1G", "1e3", "12 K K", "nan"])
def test_what_is_no_size_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(NestlingError, match="256K"):
        parse_size(text)


def test_names_of_layers_stay_on_their_line_and_are_shown_escaped() -> None:
    name = "a\x1b[2J\nRAM: fits"
    found = plan((Step(name, ("in",), name), Step("head", (name,), "out")), {"in": 300, name: 900, "out": 100}, ("in",), ("out",))
    ElementTree.fromstring(picture(found))
    for text in (draw(found), picture(found), fits(found, 1, 1, 100, 100).words):
        assert "\x1b" not in text and "\nRAM: fits" not in text and r"\x1b[2J\nRAM: fits" in text


def test_what_nobody_named_is_no_limit() -> None:
    said = fits(planned(), constants=5000, code=1000, ram=9100, flash=2**40).words.split("\n")
    assert "does not fit" in said[0] and said[1] == "flash: constants 5,000 + code 1,000 = 6,000 bytes."
