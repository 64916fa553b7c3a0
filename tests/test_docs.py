"""What README.md and docs/*.md tell the reader to type is typed here, with small photographs and a small network.

Blocks that cannot be run here say so (see doc_blocks.py); their commands and options must exist.
"""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own habit
import typer
from PIL import Image
from torch import nn

from nestling.bundle import Bundle, save
from nestling.cli import options
from nestling.cli.main import app
from nestling.models.capture.capture import capture
from nestling.preprocess.image import ImagePreprocess
from tests import ROOT
from tests.doc_blocks import NESTLING, PAGES, SCRIPT, Block, blocks, inline, is_command, words
from tests.helpers.commands import here
from tests.helpers.quantization_cases import seeded
from tests.helpers.torch_networks import randomised

BLOCKS = [block for page in PAGES for block in blocks(page)]
RUN = [block for block in BLOCKS if block.kind in ("commands", "python") and any(map(block.runs, block.commands))]
SIDE = 16
PREPROCESS = ImagePreprocess((SIDE, SIDE), 3, 1.0, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
COLOURS = {"good": (170, 90, 90), "bad": (90, 160, 90)}
ROOMS = (
    "kitchen",
    "bedroom",
    "bathroom",
    "corridor",
    "staircase",
    "attic",
    "garage/indoor",
    "office",
    "dining_room",
    "living_room",
)
NAMED = ("--backbone", "mobilenetv3_small_050", "--weights", "none")  # a timm network, where a block asks for a size

Type = Callable[..., None]


# ---- what the pages take for granted --------------------------------------------------------------------------------------------


class Small(nn.Module):
    """Three layers with norms, wide enough to be pruned."""

    def __init__(self) -> None:
        super().__init__()

        def layer(inside: int, out: int, size: int, stride: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inside, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))

        self.stem, self.wide, self.last = layer(3, 16, 3, 2), layer(16, 32, 3, 2), layer(32, 64, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.last(F.relu6(self.wide(F.relu6(self.stem(x)))))).mean((2, 3))


def picture(path: Path, colour: Sequence[int], rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(rng.normal(colour, 60, (40, 48, 3)), 0, 255).astype(np.uint8)).save(path)


def places(root: Path, rng: np.random.Generator) -> None:
    """Of Places365 a little: five images of each of ten classes, and one of a class that nobody asks for."""
    classes = [*ROOMS, "airfield"]
    files = [f"Places365_val_{i:08}.jpg" for i in range(1, 52)]
    for i, name in enumerate(files):
        picture(root / "val_256" / name, rng.integers(60, 200, 3).tolist(), rng)
        with (root / "places365_val.txt").open("a") as listed:
            listed.write(f"{name} {i // 5}\n")
    (root / "categories_places365.txt").write_text("".join(f"/{name[0]}/{name} {i}\n" for i, name in enumerate(classes)))
    subprocess.run(["tar", "cf", "val_256.tar", "val_256"], cwd=root, check=True)
    shutil.rmtree(root / "val_256")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def nestling(cache: Path) -> Type:
    """Runs a command, which has to succeed; the test is skipped where a compiler is missing, saying which."""

    def run(*typed: object) -> None:
        done = here([str(word) for word in typed], {"NESTLING_CACHE": str(cache), "COLUMNS": "200"})
        if done.status == 1 and (lacks := re.search(r"(?m)^.*apt-get install.*$", done.stderr)):
            pytest.skip(lacks[0].strip())
        assert done.status == 0 and "Traceback" not in done.stderr, f"{typed}\n{done.stderr}{done.stdout}"

    return run


@pytest.fixture(scope="module")
def prepared(nestling: Type, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photographs, networks and files that the pages speak of."""
    root = tmp_path_factory.mktemp("docs") / "prepared"
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for i in range(20):
            picture(root / "photos" / name / f"{i:02}.jpg", colour, rng)
    picture(root / "photo.jpg", COLOURS["good"], rng)
    places(root, rng)
    save(Bundle(capture(randomised(seeded(Small)), (SIDE, SIDE, 3)), {}, None, (), PREPROCESS), root / "small.nest")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        nestling("data", "prepare", "photos", "--format", "bmp", "-o", "parts")
        nestling("fit", "photos", "--backbone", "small.nest", "-o", "parts.nest")
        nestling("finetune", "parts.nest", "photos", "--epochs", 1, "-o", "fine.nest")
        nestling("quantize", "parts.nest", "-o", "parts8.nest")
        nestling("export", "parts.nest", "--to", "tflite", "--precision", "fp32,int8", "-o", "imports", "--int8-head")
        nestling("export", "parts8.nest", "--to", "tflite", "--precision", "int8", "-o", "out")
        nestling("export", "parts.nest", "--to", "tflite", "--precision", "int8", "-o", "out")
    Path(root / "imports" / "parts-fp32.tflite").rename(root / "network.tflite")
    Path(root / "imports" / "parts-int8.tflite").rename(root / "network8.tflite")
    shutil.rmtree(root / "imports")
    for name in ("my", "base", "student"):
        shutil.copy(root / "parts.nest", root / f"{name}.nest")
    for name in ("half", "taught", "tuned", "pruned"):
        shutil.copy(root / "fine.nest", root / f"{name}.nest")
    shutil.copy(root / "parts8.nest", root / "my8.nest")
    return root


@pytest.fixture
def scratch(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, and the folder to be in."""
    here = Path(shutil.copytree(prepared, tmp_path / "docs"))
    monkeypatch.chdir(here)
    return here


# ---- running --------------------------------------------------------------------------------------------------------------------


def quick(name: str, rest: Sequence[str]) -> tuple[str, ...]:
    """What a command is told here beside what the page says, so that it takes seconds: a small network, one epoch, one file."""
    if name == "fit" and not {"--backbone", "--update"} & set(rest):
        return NAMED if "--size" in rest else ("--backbone", "small.nest")
    if (name in ("finetune", "distill") or "--qat" in rest) and "--epochs" not in rest:
        return ("--epochs", "1")
    if name == "report" and rest[0].endswith(".nest"):
        return ("--to", "tflite", "--precision", "int8")
    return ()


def made_by(typed: Sequence[str]) -> Path | None:
    return Path(typed[typed.index("-o") + 1]) if "-o" in typed else None


def clear(commands: Sequence[Sequence[str]]) -> None:
    """What a block is to write is not there before."""
    named: set[Path] = set()
    for typed in commands:
        target = made_by(typed)
        if target is not None and target not in named:
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        named |= {Path(word) for word in typed}


@pytest.mark.parametrize("block", [pytest.param(b, id=str(b), marks=[pytest.mark.slow] if b.slow else []) for b in RUN])
def test_a_block_does_what_it_says(
    block: Block, nestling: Type, scratch: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if block.kind == "python":
        monkeypatch.setenv("NESTLING_CACHE", str(cache))
        (scratch / "block.py").write_text(block.text)
        runpy.run_path("block.py")
        return
    commands = [words(command) for command in block.commands if block.runs(command)]
    clear(commands)
    for typed in commands:
        if typed[0] in NESTLING:
            nestling(*typed[1:], *quick(typed[1], typed[2:]))
        else:
            assert typed[0] == "tar", f"no test runs {typed[0]}: the block has to say what it needs"
            subprocess.run(typed, check=True)
        target = made_by(typed)
        assert target is None or target.exists(), f"nothing made {target}: {typed}"


# ---- looking --------------------------------------------------------------------------------------------------------------------


def looked_at(typed: Sequence[str]) -> None:
    """What a command names exists: a command of nestling's and its options, a script, a target, a program of a package."""
    program, rest = typed[0], list(typed[1:])
    if program in NESTLING:
        parsed(rest)
    elif program == "torchrun":
        parsed(rest[rest.index("nestling") + 1 :])
    elif program in SCRIPT:
        script = (ROOT / rest[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in script for word in rest if word.startswith("--")), f"{rest[0]} does not know all of {rest[1:]}"
    elif program == "make":
        targets = re.findall(r"(?m)^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"))
        assert set(rest) <= set(targets), f"make has {targets}, not all of {rest}"
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        assert rest in [["install", f"nestling[{name}]"] for name in extras], f"the extras are {list(extras)}; found {rest}"
    elif program.startswith("./"):
        assert (ROOT / "nestling" / "device" / "templates" / f"{program[2:]}.j2").is_file(), f"no package holds {program}"


def command_of(rest: Sequence[str]) -> tuple[Any, list[str]]:
    """(the command, what follows its name), also for `data prepare`."""
    command, left = typer.main.get_command(app), list(rest)
    while hasattr(command, "commands"):
        assert left and left[0] in command.commands, f"nestling has no command {' '.join(rest)}"
        command = command.commands[left.pop(0)]
    return command, left


def parsed(rest: Sequence[str]) -> None:
    """The command exists, takes these options, and lacks none that it must have. It is not called."""
    command, left = command_of(rest)
    command.make_context(rest[0], left)  # raises where it does not fit


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_says_what_is_to_become_of_it(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options, "require_there", lambda path, hint: None)  # the files that it speaks of are not here
    assert block.kind != "unclear", (
        f"{block} is no command that a test knows: {block.commands}\nA comment before it says why not (doc_blocks.py)."
    )
    if block.kind == "python":
        compile(block.text, str(block), "exec")
        return
    for command in block.commands if block.kind == "commands" else filter(is_command, block.commands):
        looked_at(words(command))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_exist(page: Path) -> None:
    for text in inline(page):
        command, left = command_of(words(text)[1:])
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
        unknown = [word for word in left if re.match(r"--?[a-z]", word) and word not in known]
        assert not unknown, f"{text}: {unknown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_fence_of_c_names_what_is_there(page: Path) -> None:
    sources = [path for path in (ROOT / "nestling").rglob("*") if path.suffix in (".c", ".h", ".j2", ".py")]
    there = "".join(path.read_text(encoding="utf-8") for path in sources)
    for block in blocks(page):
        names = set(re.findall(r"\b(?:nst|nestling)_\w+", block.text)) if block.language == "c" else set()
        assert not (unknown := [name for name in names if name not in there]), f"{block}: {unknown}"
