"""An error that is not nestling's own ends as one line with what to report; --debug shows the traceback."""

import errno
import re
import subprocess
import sys
import warnings
from pathlib import Path
from tempfile import gettempdir

import pytest
from platformdirs import user_cache_path

from nestling.cli import main as command_line
from nestling.errors import NestlingError
from tests.helpers.commands import Nestling


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands here name is there: paths are looked at before anything else."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "a.nest", "x.jpg"):
        Path(name).write_bytes(b"")


class Rude(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def deep(_: object) -> None:
    deep(_)


ERRORS = [
    (TypeError("found\n  a \x1b[31mred\u202e thing"), "error: nestling met something that it did not expect: TypeError: found a"),
    (KeyError("weights"), "did not expect: KeyError: 'weights' (predict.py:"),
    (Rude(), "did not expect: "),
    (RuntimeError("x" * 5000), "x..."),
    (AssertionError(), "did not expect: AssertionError ("),
    (GeneratorExit(), "did not expect: GeneratorExit"),
    (MemoryError(), "error: there is not enough memory (MemoryError)."),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "error: there is not enough memory ("),
    (RuntimeError("std::bad_alloc"), "error: there is not enough memory ("),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "error: there is not enough memory ("),
    (ImportError("no libx"), "error: a package cannot be loaded (ImportError: no libx)."),
    (ModuleNotFoundError("No module named 'torch._C'", name="torch._C"), "error: this needs torch, which is not installed."),
    (OSError(errno.ENOSPC, "No space left on device"), f"error: a file in {gettempdir()} or beside what is written: No space left"),
    (OSError(errno.EROFS, "Read-only file system", "a\x1bb"), "error: a\\x1bb: Read-only file system"),
    (PermissionError(errno.EACCES, "Permission denied", b"\xff.nest"), "error: \\udcff.nest: Permission denied"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), "error: a file: Broken pipe"),  # not stdout's
]  # fmt: skip


@pytest.mark.parametrize(("error", "said"), ERRORS, ids=[f"{i}-{type(error).__name__}" for i, (error, _) in enumerate(ERRORS)])
def test_any_error_is_a_line(nestling: Nestling, monkeypatch: pytest.MonkeyPatch, error: BaseException, said: str) -> None:
    def raising(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("nestling.measure.answers.predict", raising)
    done = nestling("predict", "a.nest", "x.jpg", status=1)
    assert said in done.stderr and not done.stdout
    lines = done.stderr.rstrip("\n").split("\n")
    assert len(lines) <= 2 and len(lines[0]) < 600
    if "did not expect" in said:
        assert len(lines) == 1 and lines[0].endswith(
            "Please report it, with what --debug shows:  nestling --debug predict a.nest x.jpg"
        )
        assert re.search(r"\(\w+\.py:\d+\)", lines[0])


def test_recursion(nestling: Nestling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestling.measure.answers.predict", lambda *_, **__: deep(_))
    assert "did not expect: RecursionError" in nestling("predict", "a.nest", "x.jpg", status=1).stderr


@pytest.mark.parametrize("words", [("--debug", "predict", "a", "b"), ("predict", "a", "b", "--debug")])
def test_debug_shows_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    def raising(*_: object, **__: object) -> None:
        raise TypeError("a \x1b[31mred thing")

    monkeypatch.setattr("nestling.measure.answers.predict", raising)
    with pytest.raises(SystemExit) as left:
        command_line.main([*words])
    said = capsys.readouterr().err
    assert left.value.code == 1 and "Traceback" in said and "in raising\n" in said and "\x1b" not in said
    assert said.rstrip().endswith("nestling --debug predict a b")


def test_debug_after_two_dashes_is_a_file(nestling: Nestling) -> None:
    assert "Traceback" not in nestling("predict", "a.nest", "--", "--debug", status=1).stderr


def test_ctrl_c(nestling: Nestling, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nestling.measure.answers.predict", raising)
    assert nestling("predict", "a.nest", "x.jpg", status=130).stderr.startswith("interrupted; ")


def test_warnings_are_shown_escaped(nestling: Nestling, monkeypatch: pytest.MonkeyPatch) -> None:
    def warning(*_: object, **__: object) -> None:
        warnings.warn("of \x1b[31m[red]x\n", stacklevel=1)
        raise NestlingError("enough")

    monkeypatch.setattr("nestling.measure.answers.predict", warning)
    assert "warning: of \\x1b[31m[red]x\\n\n" in nestling("predict", "a.nest", "x.jpg", status=1).stderr


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        ("KeyboardInterrupt()", 130, "interrupted"),
        ("MemoryError()", 1, "not enough memory"),
        ("ImportError('x')", 1, "cannot be loaded"),
    ],
)
def test_an_import_that_fails(tmp_path: Path, error: str, status: int, said: str) -> None:
    """Before the command line is there: typer itself cannot be imported."""
    (tmp_path / "typer.py").write_text(f"raise {error}\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from nestling.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "fit"], capture_output=True, text=True, check=False)
    assert done.returncode == status and said in done.stderr and "Traceback" not in done.stderr


def test_an_error_of_several_lines_is_several_lines(nestling: Nestling, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the first are set in, so that no file's name can begin one; what steers a terminal is escaped all the same."""

    def raising(*_: object, **__: object) -> None:
        raise NestlingError("not put in place:\n  a\x1b[31m.pte: wrong\nerror: b", "one\ntwo")

    monkeypatch.setattr("nestling.measure.answers.predict", raising)
    done = nestling("predict", "a.nest", "x.jpg", status=1)
    assert done.stderr.splitlines() == ["error: not put in place:", "  a\\x1b[31m.pte: wrong", "  error: b", "  one", "  two"]


def test_where_there_is_no_home_it_says_how_to_name_one(nestling: Nestling, monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(user_cache_path("nestling").parent))

    monkeypatch.setattr("nestling.measure.answers.predict", raising)
    assert "NESTLING_CACHE=" in nestling("predict", "a.nest", "x.jpg", status=1).stderr
