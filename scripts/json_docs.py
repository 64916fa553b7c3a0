"""Writes docs/json.md from docs/json.schema.json: python scripts/json_docs.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[1] / "docs"
BEGINNING = """# What `--json` prints

One JSON value on stdout and nothing else there: progress, warnings and errors go to stderr. A key has the same meaning in every
command; what has a unit ends in it (`arena_bytes`, `ms_median`; `bytes` alone is a file's size), shares are from 0 to 1, `seconds`
are of each phase by name, `null` stands for what could not be told or is no number. A top-1 has its 95% `interval` beside it.

[json.schema.json](json.schema.json) is the same as a JSON Schema (draft 2020-12), by which all output of the tests is judged; this
page is written from it by `scripts/json_docs.py`.

**Exit status.** 0: done. 1: the work failed, also where a file is missing or damaged, a gate is not passed, `trace` found a
difference, `plan` found that it does not fit, or `predict` had to pass over a file. 2: the command line is wrong, whatever lies on
the disk: an unknown option, a value that it cannot have. 130: interrupted. 141: whoever read stdout has gone.
"""


def page(schema: dict[str, Any]) -> str:
    """docs/json.md."""
    sections = [section(name, of) for name, of in sorted(schema["$defs"].items())]
    return "\n".join([BEGINNING, *sections])


def section(name: str, of: dict[str, Any]) -> str:
    """A command: its keys, what they are."""
    kind = of["items"] if of["type"] == "array" else of
    about = "" if name.startswith("evaluation") else of["description"].removeprefix("nestling ").removeprefix(name).strip(" ,")
    told = [f"{about[0].upper()}{about[1:]}.", ""] if about else []
    return "\n".join([f"## {name}", "", *told, "| key | is | |", "|---|---|---|", *rows(kind, ""), ""])


def rows(kind: dict[str, Any], above: str) -> list[str]:
    """A line a key, and of objects within a line each of theirs."""
    lines = []
    for key, of in kind["properties"].items():
        optional = "" if key in kind.get("required", kind["properties"]) else " (not always)"
        lines.append(f"| `{above}{key}`{optional} | {shape(of)} | {of.get('description', '')} |")
        for inner in inside(of):
            lines += rows(inner, f"{above}{key}{'[]' if 'items' in of else ''}.")
    return lines


def inside(of: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects with keys of their own that a value holds."""
    some = [of, of.get("items", {})]
    some += some[1].get("anyOf", [])
    values = of.get("additionalProperties")
    some += [values] if isinstance(values, dict) else []
    return [one for one in some if isinstance(one, dict) and "properties" in one]


def shape(of: dict[str, Any]) -> str:
    """A type in words."""
    if "$ref" in of:
        return f"{of['$ref'].split('/')[-1]}, as below"
    if "anyOf" in of:
        return "object, of either kind"
    types = of["type"] if isinstance(of["type"], list) else [of["type"]]
    words = [f"list of {shape(of['items'])}" if kind == "array" and "items" in of else kind for kind in types]
    if isinstance(of.get("additionalProperties"), dict):
        words[0] = f"object of {shape(of['additionalProperties'])}"
    return " or ".join(words)


if __name__ == "__main__":
    text = page(json.loads((DOCS / "json.schema.json").read_text(encoding="utf-8")))
    (DOCS / "json.md").write_text(text, encoding="utf-8")
