"""docs/json.schema.json knows every command that prints JSON (the fixture `nestling` holds each output against it)."""

import json

import pytest
from typer.main import get_command

from nestling.cli.main import app
from scripts.json_docs import page
from tests import ROOT
from tests.helpers.json_schema import SCHEMA, require_described


def test_every_command_is_described() -> None:
    def commands(group: object, above: str = "") -> set[str]:
        found: set[str] = set()
        for name, command in getattr(group, "commands", {}).items():
            found |= commands(command, f"{above}{name} ")
            found |= {f"{above}{name}"} if any("--json" in option.opts for option in command.params) else set()
        return found

    other_kinds = {"prune --method", "report --compare", "evaluation"}
    assert commands(get_command(app)) == SCHEMA["$defs"].keys() - other_kinds


def test_the_page_is_written_from_the_schema() -> None:
    """python scripts/json_docs.py"""
    assert (ROOT / "docs" / "json.md").read_text(encoding="utf-8") == page(SCHEMA)


def test_what_is_not_described_is_found() -> None:
    right = {"top1": 0.5, "interval": [0.4, 0.6], "agreement": 1.0, "images": 3, "noise_ratio": None}
    right |= {"max_logit_difference": 0.0, "rms_logit_difference": 0.0, "max_relative_difference": 0.0}
    with pytest.raises(AssertionError, match="'interval', 'top1' were unexpected"):
        require_described(["agree", "a", "b"], json.dumps(right))
    del right["top1"], right["interval"], right["images"]
    with pytest.raises(AssertionError, match="'images' is a required property"):
        require_described(["agree", "a", "b"], json.dumps(right))
