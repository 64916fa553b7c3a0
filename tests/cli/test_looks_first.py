"""A mistake is answered before anything heavy is imported; what is wrong with a path, a word or a disk is said at once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nestling.cli import main as command_line
from nestling.cli import show
from tests.helpers.commands import Nestling

TELLS = """
import sys
from nestling.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print(ended.code, *sorted({"numpy", "torch", "PIL", "scipy"} & sys.modules.keys()))
"""

MISTAKES = [
    (("fitt",), 2, "Did you mean 'fit'?"),
    (("fit",), 2, "Missing argument"),
    (("fit", "nowhere"), 1, "nowhere does not exist"),
    (("fit", ".", "-o", "nowhere.txt/a.nest"), 1, "nowhere.txt/a.nest cannot be written: Not a directory"),
    (("fit", ".", "--seed", "x"), 2, "--seed"),
    (("quantize", "gone.nest", "-o", "x.nest"), 1, "gone.nest does not exist"),
    (("finetune", "gone.nest"), 1, "gone.nest does not exist"),
    (("finetune", "here.nest", "--augment", "wild"), 2, "--augment is one of none, light, strong; found 'wild'"),
    (("finetune", "here.nest", "nowhere"), 1, "nowhere does not exist"),
    (("distill", "here.nest", "--optimiser", "adam"), 2, "--optimiser is one of adamw, sgd; found 'adam'"),
    (("prune", "here.nest", "--importance", "l2"), 2, "--importance is one of l1, taylor, norm; found 'l2'"),
    (("quantize", "here.nest", "-o", "x.nest", "--qat", "dorefa"), 2, "--qat is one of lsq, pact, minmax; found 'dorefa'"),
    (("export", "here.nest", "-o", "here.nest"), 1, "here.nest cannot be written: Not a directory"),
    (("eval", "here.nest", "nowhere"), 1, "nowhere does not exist"),
    (("pack", "here.nest", "--for", "windows"), 2, "--for is one of linux, android, mcu; found 'windows'"),
    (("push", "nopkg", "adb"), 1, "nopkg does not exist"),
    (("bench", "here.nest", "--threads", "0"), 2, "--threads is numbers from 1, separated by commas; found '0'"),
    (("demo", "-o", "here.nest"), 1, "here.nest cannot be written: Not a directory"),
    (("backbones", "nosuchnet"), 1, "timm has no network called 'nosuchnet'"),
]


@pytest.mark.parametrize(("words", "status", "said"), MISTAKES, ids=[" ".join(words) for words, *_ in MISTAKES])
def test_nothing_heavy_is_imported_for_a_mistake(tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    for name in ("here.nest", "nowhere.txt"):
        (tmp_path / name).write_bytes(b"PK")
    done = subprocess.run([sys.executable, "-c", TELLS, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.split() == [str(status)]
    assert ("see:  nestling" in done.stderr) == (status == 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("finetune", "{}", "--rate", "-1"), "--rate is 0 or more"),
        (("prune", "{}", "--macs", "150%"), "--macs is the share that stays, above 0% and below 100%; found 150%"),
        (("distill", "{}", "--teacher", "resnet18", "--temperature", "0"), "--temperature is above 0"),
        (("quantize", "{}", "-o", "x.nest", "--qat", "lsq", "--fold-after", "99"), "--fold-after is 0 to --epochs"),
        (("distill", "{}", "--teacher", "gone.nest"), "gone.nest does not exist"),
        (("distill", "{}", "--teacher", "mobilenetv2_101"), "did you mean mobilenetv2_"),
        (("fit", ".", "--backbone", "mobilenetv2_101"), "did you mean mobilenetv2_"),
    ],
)
def test_settings_that_cannot_be_are_told_without_torch(bundle: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-c", TELLS, *(word.format(bundle) for word in words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert said in done.stderr and "torch" not in done.stdout


def test_alone_it_is_help_that_fits_a_terminal(nestling: Nestling) -> None:
    """Status 0; each command with a whole line, and none forgotten."""
    done = nestling()
    assert not done.stderr and done.stdout.startswith("Usage: nestling")
    assert max(map(len, done.stdout.splitlines())) <= 80 and "..." not in done.stdout.split("Teach:")[1]
    listed = {line.split()[0] for line in done.stdout.split("Teach:")[1].splitlines() if line.startswith("  ")}
    assert {command.name for command in command_line.app.registered_commands} | {"data"} <= listed
    assert nestling("data").stdout.startswith("Usage: nestling data")


def test_it_tells_its_version(nestling: Nestling) -> None:
    from nestling import __version__

    assert nestling("--version").stdout == f"nestling {__version__}\n"


@pytest.mark.parametrize(
    ("line", "found"), [("nestling qu", "quantize"), ("nestling pack --for ", "android"), ("nestling prune --meth", "--method")]
)
def test_a_shell_completes(line: str, found: str) -> None:
    words = line.split(" ")
    told = {"_NESTLING_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([sys.executable, "-m", "nestling"], env=os.environ | told, capture_output=True, text=True, check=False)
    assert found in done.stdout.split()


def test_words_are_taken_in_any_case(nestling: Nestling, integers: Path, tmp_path: Path) -> None:
    nestling("export", integers, "--to", "TFLite", "--precision", "INT8", "-o", tmp_path)
    assert (tmp_path / "fruit8-int8.tflite").is_file()


def test_a_disk_without_room_is_told_first(
    nestling: Nestling, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 100, 100)  # what disk_usage gives
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = nestling("quantize", bundle, "-o", tmp_path / "x.nest", status=1).stderr
    assert said.splitlines()[0] == f"error: {tmp_path / 'x.nest'} cannot be written: No space left on device."


def test_a_cache_that_cannot_be_written_is_a_warning(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = ("fit", photos, "--backbone", "mobilenetv2_050", "--weights", "none", "--size", "33")
    done = nestling(*words, "-o", tmp_path / "x.nest", NESTLING_CACHE=str(tmp_path / "file" / "cache"))
    assert f"warning: {tmp_path / 'file' / 'cache'} cannot be written (Not a directory)" in done.stderr
    assert "NESTLING_CACHE" in done.stderr and (tmp_path / "x.nest").is_file()


def test_predict_takes_folders_and_goes_on(nestling: Nestling, bundle: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("not an image")
    (tmp_path / "deep").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.jpg"))[:3]):
        shutil.copy(path, tmp_path / "deep" / f"{number}.jpg")
    whole = nestling("predict", bundle, tmp_path, "--top", 1)
    assert [line.split("/")[-1].split()[0] for line in whole.stdout.splitlines() if ".jpg" in line] == ["0.jpg", "1.jpg", "2.jpg"]
    assert "next" not in whole.stdout
    (tmp_path / "broken.jpg").write_bytes(b"no")
    words = ("predict", bundle, tmp_path / "broken.jpg", tmp_path / "gone.jpg", tmp_path / "deep")
    some = nestling(*words, status=1)
    assert "2.jpg" in some.stdout and f"{tmp_path / 'broken.jpg'} cannot be used: not an image" in some.stderr
    assert f"{tmp_path / 'gone.jpg'} cannot be used" in some.stderr
    (tmp_path / "empty").mkdir()
    assert "there is no image in" in nestling("predict", bundle, tmp_path / "empty", status=1).stderr


def test_on_a_pipe_it_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(show, "monotonic", lambda: now)
    with show.bars("asking", 100) as advance:
        for _ in range(100):
            now += 0.25
            advance(1)
    assert capsys.readouterr().err.splitlines() == ["asking (100)", *(f"asking: {done} of 100" for done in (20, 40, 60, 80))]


def test_virtual_machines_are_named_where_there_are_some(nestling: Nestling, integers: Path, tmp_path: Path) -> None:
    nestling("export", integers, "--to", "tflite", "--precision", "int8", "-o", tmp_path)
    assert "virtual" not in nestling("bench", tmp_path).stderr


def test_advice_makes_sense(nestling: Nestling, bundle: Path, photos: Path, tmp_path: Path) -> None:
    """A file gets no folders; a class folder is called one; photographs are no place for files; a picture is no bundle."""
    (tmp_path / "README.md").write_text("hello")
    said = nestling("fit", tmp_path / "README.md", "-o", tmp_path / "x.nest", status=1).stderr
    assert "README.md/" not in said and "photos/good" in said
    said = nestling("fit", photos / "apple", "-o", tmp_path / "x.nest", status=1).stderr
    assert f"if its classes are apple and the folders beside it:  nestling fit {photos}; else" in said
    before = sorted(photos.rglob("*"))
    said = nestling("export", bundle, "-o", photos, status=1).stderr
    assert f"{photos} holds photographs" in said and "name another with -o" in said and sorted(photos.rglob("*")) == before
    said = nestling("quantize", next(photos.rglob("*.jpg")), "-o", tmp_path / "x.nest", status=1).stderr
    assert "is not a bundle." in said and "nestling fit PHOTOS" in said
