"""What the program says that an extra brings is what pyproject.toml has in it."""

from __future__ import annotations

import re
import tomllib

import pytest

from nestling import extras
from nestling.errors import NestlingError
from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOT_ASKED_FOR = {"all", "dev", "executorch-runner"}  # by no part of the program by that name
CALLED = {"modelopt": "nvidia-modelopt"}  # where a package's name is not that of its module
BY_OTHERS = {"huggingface_hub"}  # comes with timm


def brought(extra: str) -> set[str]:
    """Distributions, with those of the extras that it holds."""
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        held = re.fullmatch(r"nestling\[(.*)\]", line)
        found |= set().union(*map(brought, held[1].split(","))) if held else {re.split(r"[<>=\[ ]", line)[0]}
    return found


@pytest.mark.parametrize("extra", sorted(PROJECT["optional-dependencies"].keys() - NOT_ASKED_FOR))
def test_an_extra_brings_what_is_asked_for(extra: str) -> None:
    wanted = {CALLED.get(name, name.replace("_", "-")) for name in extras.PACKAGES[extra] if name not in BY_OTHERS}
    assert wanted <= brought(extra)


def test_every_extra_can_be_asked_for() -> None:
    assert set(extras.PACKAGES) == PROJECT["optional-dependencies"].keys() - NOT_ASKED_FOR
    assert brought("all") == set().union(*map(brought, extras.PACKAGES))


def test_the_core_is_small_and_has_nothing_of_the_extras() -> None:
    core = {re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["dependencies"]}
    assert len(core) <= 15
    assert not core & {CALLED.get(name, name.replace("_", "-")) for names in extras.PACKAGES.values() for name in names}


def test_one_that_is_not_there_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extras.has("")
    monkeypatch.setitem(extras.PACKAGES, "search", ("no_such_module_at_all",))
    with pytest.raises(NestlingError, match="FastNAS needs no_such_module_at_all") as caught:
        extras.require("search", "FastNAS")
    assert caught.value.hint == "pip install 'nestling[search]'"


def test_make_demo_installs_no_tools_of_ours() -> None:
    """Of what the set-up is told to install for the demo nothing is for tests, for torch or for a search."""
    setup = (ROOT / "scripts" / "setup.sh").read_text(encoding="utf-8")
    (wanted,) = re.findall(r"demo\) extras=(\S+)", setup)
    assert re.search(r"(?m)^demo: \.venv/core$", (ROOT / "Makefile").read_text(encoding="utf-8"))
    demo = set().union(*map(brought, wanted.split(",")), {re.split(r"[<>=\[ ]", line)[0] for line in PROJECT["dependencies"]})
    assert "elpv-dataset" in demo and demo.isdisjoint(brought("dev") | brought("search") | brought("executorch"))
