"""Text out of files is printable, whatever it holds, in every encoding; JSON is JSON everywhere."""

import json
import math
import unicodedata

import pytest

from nestling.printable import json_text, shown

ENCODINGS = ("utf-8", "utf-16-le", "ascii", "latin-1", "cp1252", "cp437", "koi8-r", "shift_jis", "gb18030", "cp037")
EVERY = "".join(map(chr, range(0x30000))) + "\U000e0001\U000e007f\U0010ffff"
STEER = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's own word for controls, halves of characters, ends of lines and paragraphs
TURN = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


def harmful(letter: str) -> bool:
    unseen = letter in "\u200b\u200c\u200d\u200e\u200f\u061c\u2060\ufeff\xad"
    return unicodedata.category(letter) in STEER or unicodedata.bidirectional(letter) in TURN or unseen


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_nothing_that_steers_a_terminal_passes_and_all_can_be_written(encoding: str) -> None:
    text = shown(EVERY, encoding)
    assert text.encode(encoding) and not any(map(harmful, text))


def test_what_can_be_seen_stays_as_it_is() -> None:
    kept = "Größe 3×−½ “a” čeština 照片 صورة 🦆 a\u0301 \xa0\u3000 [red]x[/red] :smile: \\x1b"
    assert shown(kept) == kept


def test_how_it_is_shown() -> None:
    assert shown("\x1b[2J\x9b\x7f\x00 \u202e\u2028 \udc80 \U000e0041") == r"\x1b[2J\x9b\x7f\x00 \u202e\u2028 \udc80 \U000e0041"
    assert shown("a\nb\r\tc") == r"a\nb\r\tc" and shown("a\nb", keep="\n") == "a\nb"
    assert shown("–3 ×’é照", "ascii") == r"-3 x'\xe9\u7167" and shown("é照", "latin-1") == r"é\u7167"


@pytest.mark.parametrize("ascii_only", [False, True])
def test_json_gives_every_text_back_and_nothing_steers(ascii_only: bool) -> None:
    text = json_text({"text": EVERY, EVERY[:300]: [EVERY]}, ascii_only)
    back = json.loads(text)
    assert back["text"].encode("utf-16", "surrogatepass") == EVERY.encode("utf-16", "surrogatepass") and back[EVERY[:300]]
    assert not any(map(harmful, text)) and text.encode("ascii" if ascii_only else "utf-8")


def test_json_has_no_numbers_that_are_none() -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    value = {"a": math.nan, "b": [1.5, -math.inf, {"c": (math.inf, 2)}], "d": True, "e": 10**20}
    assert json.loads(json_text(value), parse_constant=refuse) == {
        "a": None, "b": [1.5, None, {"c": [None, 2]}], "d": True, "e": 10**20,
    }  # fmt: skip


def test_layouts_of_json_stay() -> None:
    assert json_text({"a": ["\x1b"]}, indent=1) == '{\n "a": [\n  "\\u001b"\n ]\n}'
    assert json_text({"ü": 1}, True) == '{"\\u00fc": 1}'
