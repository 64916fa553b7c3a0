"""Text out of files, made such that it can be printed: a name or a label holds what it likes, and a terminal would obey it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

# Controls (C0, DEL, C1), what changes the direction of writing, what is not seen (zero-width, soft hyphens, tags), ends of lines
# and paragraphs, halves of characters, and two that XML does not allow. Spaces of all widths and unknown letters stay.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
PLAINER = str.maketrans({"−": "-", "–": "-", "’": "'", "“": '"', "”": '"', "×": "x", "…": "...", "·": "-"})  # of our own words


def shown(text: str, encoding: str = "utf-8", keep: str = "") -> str:
    """The text on one line, with what would steer a terminal or a page as \\x1b, \\u202e, \\udc80; so too what `encoding` lacks.

    keep: characters that stay all the same, as "\\n" of a text that is ours.
    """
    text = UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(PLAINER).encode(encoding, "backslashreplace").decode(encoding)


def _escaped(letter: str) -> str:
    code = ord(letter)
    if letter in "\n\r\t":
        return repr(letter)[1:-1]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_text(value: object, ascii_only: bool = False, **layout: Any) -> str:
    """JSON that every reader takes and every terminal bears: what shown() escapes is escaped, too, and what is not finite is null.

    layout: json.dumps's own: indent, separators, sort_keys, default.
    """
    text = json.dumps(finite(value), ensure_ascii=ascii_only, allow_nan=False, **layout)
    return UNPRINTABLE.sub(
        lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1].replace("\x7f", "\\u007f"), text
    )


def finite(value: Any) -> Any:
    """The same value of JSON with null in the place of NaN and the infinite."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, Real) and not isinstance(value, Integral):
        return float(value) if math.isfinite(value) else None
    return value
