"""What --json printed, held against docs/json.schema.json."""

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from tests import ROOT

SCHEMA = json.loads((ROOT / "docs" / "json.schema.json").read_text(encoding="utf-8"))


def require_described(words: list[str], text: str) -> None:
    """The output of a command line is what the schema says of its command."""
    printed = json.loads(text)
    name = named(words, printed)
    problems = [f"{list(error.absolute_path)}: {error.message[:300]}" for error in _validator(name).iter_errors(printed)]
    assert not problems, f"--json of {name} is not what docs/json.schema.json says: {problems[:3]}"


def named(words: list[str], printed: Any) -> str:
    """The schema's name for it: a command, or one of its two kinds."""
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    kinds = {"prune": ("sparsity", "prune --method"), "report": ("bundles", "report --compare")}
    key, other = kinds.get(command, ("", ""))
    return other if key and key in printed else command


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator({"$ref": f"#/$defs/{name.replace(' ', '%20')}", "$defs": SCHEMA["$defs"]})
