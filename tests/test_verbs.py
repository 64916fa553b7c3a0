"""nestling as a script or a notebook uses it."""

import inspect
import pkgutil
import subprocess
import sys
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nestling
from nestling import keywords, verbs
from nestling.errors import WrongOption
from tests import ROOT
from tests.helpers.colour_photos import colour_photos

VERBS = [name for name in nestling.__all__ if name not in ("NestlingError", "__version__")]
CONFIGS = {
    "Fit": ("training.fit", "FitConfig"),
    "Update": ("training.update", "UpdateConfig"),
    "Training": ("training.config", "TrainingConfig"),
    "Distill": ("training.config", "DistillConfig"),
    "Qat": ("training.config", "QatConfig"),
    "Prune": ("compress.config", "PruneConfig"),
    "Sparse": ("compress.config", "SparseConfig"),
    "Search": ("compress.config", "SearchConfig"),
    "Quantize": ("graph.integers", "QuantizeConfig"),
    "Export": ("formats.format", "ExportConfig"),
    "Compare": ("pages.compare.compare", "CompareConfig"),
    "Prepare": ("data.prepare", "PrepareConfig"),
    "Pack": ("device.package", "PackConfig"),
    "Push": ("device.push", "PushConfig"),
    "Learn": ("device.learn", "LearnConfig"),
}
SMALL: dict[str, Any] = {"backbone": "mobilenetv2_050", "weights": "none", "size": 32}

EVERY = """
import pkgutil, importlib, sys
import nestling
names = [name for name in nestling.__all__ if name not in ("NestlingError", "__version__")]
modules = sorted(module.name for module in pkgutil.walk_packages(nestling.__path__, "nestling."))
for module in reversed(modules) if int(sys.argv[1]) else modules:
    if "__main__" not in module:
        importlib.import_module(module)
for name in names:
    assert callable(getattr(nestling, name)) and type(getattr(nestling, name)).__name__ == "function", name
assert set(names) <= set(dir(nestling)) and "torch" in sys.modules
"""


@pytest.mark.parametrize("backwards", [0, 1])
def test_verbs_stay_functions_whatever_is_imported(backwards: int) -> None:
    done = subprocess.run([sys.executable, "-c", EVERY, str(backwards)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_verb_is_called_like_a_module() -> None:
    """A module's import would put it in the function's place."""
    assert not set(VERBS) & {module.name for module in pkgutil.iter_modules(nestling.__path__)}


def test_nestling_alone_imports_nothing_heavy() -> None:
    code = "import sys, nestling; print(*{'numpy', 'torch', 'PIL'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize("name", CONFIGS)
def test_keywords_are_the_fields_of_the_config(name: str) -> None:
    module, config = CONFIGS[name]
    said = {field.name: str(field.type) for field in fields(getattr(import_module(f"nestling.{module}"), config))}
    typed = {key: getattr(kind, "__forward_arg__", kind) for key, kind in getattr(keywords, name).__annotations__.items()}
    assert typed == said


def test_every_config_of_a_verb_has_its_keywords() -> None:
    given = {parameter for name in VERBS for parameter in inspect.signature(getattr(verbs, name)).parameters.values()}
    asked = {str(one.annotation).removeprefix("Unpack[keywords.").rstrip("]") for one in given if one.kind is one.VAR_KEYWORD}
    assert asked == CONFIGS.keys()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(colour_photos(tmp_path_factory.mktemp("photos"), 32, 32))


@pytest.fixture(scope="module")
def taught(photos: str) -> Any:
    return nestling.fit(photos, **SMALL)


def test_from_photographs_to_answers(taught: Any, photos: str, tmp_path: Path) -> None:
    """Strings for paths, what a verb gave for a network, keywords for options; twice in a row."""
    photo = next(Path(photos).rglob("*.png"), None) or next(Path(photos).rglob("*.jpg"))
    for turn in range(2):
        small = nestling.quantize(taught, photos, calibration=10, equalize="off")
        (made,) = nestling.export(small, str(tmp_path / f"out{turn}"), to="tflite", precision="int8", photographs=photos)
        assert made.file == "network-int8.tflite"
        path = str(tmp_path / f"out{turn}" / made.file)
        (from_file,) = nestling.predict(path, str(photo)).found
        (from_image,) = nestling.predict(path, Image.open(photo)).found
        pixels = np.asarray(Image.open(photo).convert("RGB"))
        (from_pixels,) = nestling.predict(path, pixels).found
        assert from_file.top == from_image.top == from_pixels.top
        assert [one.top for one in nestling.predict(path, [str(photo), pixels]).found] == [from_file.top] * 2
        assert nestling.agree(small, path, photos).images == nestling.evaluate(small, photos).evaluation.images == 9
        page = nestling.report(tmp_path / f"out{turn}", tmp_path / "report.html", photos)
        assert {row.file for row in page.rows} == {"network.nest", "network-int8.tflite"}
    nestling.save(taught, tmp_path / "my.nest")
    assert nestling.load(str(tmp_path / "my.nest")).labels == taught.bundle.labels
    assert len(nestling.predict(str(tmp_path / "my.nest"), photos, top=1)) == len(list(Path(photos).rglob("*.*")))


def test_options_are_keywords_or_a_config(taught: Any, photos: str) -> None:
    from nestling.graph.integers import QuantizeConfig

    by_config = nestling.quantize(taught, photos, QuantizeConfig(calibration=5, equalize="off"))
    by_both = nestling.quantize(taught, photos, QuantizeConfig(calibration=7), calibration=5, equalize="off")
    assert by_config.bundle.lineage[-1].settings == by_both.bundle.lineage[-1].settings
    with pytest.raises(TypeError, match="there is no option 'bitz'; QuantizeConfig has bits_weights"):
        nestling.quantize(taught, photos, bitz=4)  # type: ignore[call-arg]  # that is what is tried
    with pytest.raises(WrongOption, match="tfl is not printed in fp32, int8; formats are pte, "):
        nestling.export(taught, to="tfl")


def test_what_a_prompt_shows_is_short(taught: Any, photos: str) -> None:
    for shown in (taught, taught.bundle, taught.test, taught.bundle.split):
        assert len(repr(shown)) < 600
        assert shown._repr_html_().startswith("<table>")
    assert f"labels=({', '.join(sorted(path.name for path in Path(photos).iterdir()))})" in repr(taught.bundle)


def test_a_file_cannot_write_into_a_notebook(taught: Any) -> None:
    from dataclasses import replace

    named = replace(taught.bundle, labels=("<script>alert(1)</script>", "b", "c"))
    assert "<script>" not in named._repr_html_() and "&lt;script&gt;" in named._repr_html_()


USER = """
import nestling
import numpy as np
from pathlib import Path

my = nestling.fit("photos", backbone="mobilenetv2_050", size=(96, 128), views="mirror", classes=("a", "b"))
nestling.fit(np.zeros((4, 8, 8, 3), np.uint8), ["a", "b", "a", "b"], seed=3)
more = nestling.update(my, "photos", strict=True)
theirs = nestling.import_model("x.tflite", labels=["a"], mean=[0.5], std=[0.5], size=96)
fine = nestling.finetune(my, "photos", epochs=3, augment="strong", optimiser="sgd")
taught = nestling.distill(my, None, "teacher.nest", alpha=0.5)
small = nestling.quantize(fine, bits_weights=8, equalize="off", modes=("fp16",))
trained = nestling.qat(my, method="pact", fold_after=1)
half = nestling.prune(my, macs=0.5, importance="l1")
zeros = nestling.sparsify(my, method="block1x4", sparsity=0.8)
found = nestling.search(my, macs=0.6)
files = nestling.export(small, "out", to=["tflite", "onnx"], precision="int8", onnx_weights="int8", photographs=Path("photos"))
top1: float = nestling.evaluate("out/network-int8.tflite", "photos").evaluation.top1
same: float = nestling.agree(my, small, "photos").agreement
label: str = nestling.predict(small, "photo.jpg", top=2)[0].label
layers = nestling.trace(small, "photo.jpg")
ms: float = nestling.bench(["out/network-int8.tflite", small], threads=[1, 2])[0].ms_median
page = nestling.report("out", "report.html")
beside = nestling.compare(["a.nest", "b.nest"], machine="cortex-m4")
made = nestling.prepare("photos", "prepared", format="bmp", size=96)
package = nestling.pack(small, "pkg", system="mcu", machine="cortex-m4", momentum="bf16")
nestling.push("pkg", "ssh://pi@raspberrypi/home/pi/pkg", retries=2)
learned = nestling.learn("pkg", "photos", cycles=10, optimizer="adam")
rows = nestling.demo("demo-out")
nestling.save(small, "small.nest")
labels: tuple[str, ...] = nestling.load("small.nest").labels
"""


def test_mypy_checks_a_users_file(tmp_path: Path) -> None:
    """Every verb by keyword; and a word that it does not take, a keyword that there is not, are found."""
    assert {word.split("(")[0] for word in USER.split("nestling.")[1:]} == set(VERBS)
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(USER)
    wrong.write_text('import nestling\nnestling.fit("photos", sise=96)\nnestling.finetune("a.nest", augment="wild")\n')
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(ROOT / ".mypy_cache")]
    command += ["--follow-imports=silent", "--ignore-missing-imports"]
    done = subprocess.run([*command, str(right)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([*command, str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert [line.split(":")[1] for line in done.stdout.splitlines() if ": error:" in line] == ["2", "3"], done.stdout
