"""Values in a few words: what a Python prompt or a notebook shows of a bundle, which holds millions of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from html import escape
from typing import Any

LONGEST = 60  # letters of one value
LISTED = 6  # items that are told one by one


def short(value: Any) -> str:
    """A value on less than a line: arrays by dtype and shape, long lists by their length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Mapping):
        return _listed("{", "}", [f"{key}: {short(one)}" for key, one in list(value.items())[: LISTED + 1]], len(value))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _listed("(", ")", [short(one) for one in value[: LISTED + 1]], len(value))
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def in_short(self: Any) -> str:
    """The __repr__ of a dataclass whose fields may be large."""
    told = (f"{name}={short(getattr(self, name))}" for name in _told(self))
    return f"{type(self).__name__}({', '.join(told)})"


def as_table(self: Any) -> str:
    """The _repr_html_ of one: a row a field. Whatever a file says is text in it."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{_cell(getattr(self, name))}</td></tr>" for name in _told(self))
    return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"


def _cell(value: Any) -> str:
    html = getattr(value, "_repr_html_", None)
    return html() if is_dataclass(value) and html is not None else escape(short(value))


def _told(self: Any) -> list[str]:
    """Names of the fields that say something."""
    named = [field.name for field in fields(self) if field.repr]
    return [name for name in named if hasattr(getattr(self, name), "dtype") or getattr(self, name) not in (None, ())]


def _listed(opening: str, closing: str, items: list[str], count: int) -> str:
    whole = f"{opening}{', '.join(items)}{closing}"
    return whole if count <= LISTED and len(whole) <= LONGEST else f"{opening}{count:,} item{'' if count == 1 else 's'}{closing}"
