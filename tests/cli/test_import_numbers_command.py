"""Networks of no photographs on the command line: read, printed, judged and timed with made-up numbers; photographs are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from nestling import bundle as bundles
from nestling.artifacts.import_model import import_model
from nestling.formats import load
from nestling.preprocess.image import Numbers
from tests.helpers.commands import Nestling
from tests.helpers.of_numbers import kept, network

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("integer", "wanted"),
    [(True, ("tflite", "onnx", "c")), (False, ("tflite", "onnx"))],
)
def test_it_is_printed_judged_and_timed(nestling: Nestling, integer: bool, wanted: tuple[str, ...], tmp_path: Path) -> None:
    """With made-up numbers, the same each time; and a printed file is read again as what it was."""
    kept(tmp_path / "n.tflite", network((1, 12, 10), integer))
    out, precision = tmp_path / "out", "int8" if integer else "fp32"
    said = nestling("import", tmp_path / "n.tflite", "-o", tmp_path / "n.nest").stdout
    assert f"{'uint8' if integer else 'float32'} numbers [12, 10" in said and "predict" not in said
    done = nestling("export", tmp_path / "n.nest", "--to", ",".join(wanted), "--precision", precision, "-o", out)
    assert "made-up sets of numbers, since it takes no photographs" in done.stdout + done.stderr and "PHOTO" not in done.stdout
    (found,) = json.loads(nestling("bench", out / f"n-{precision}.tflite", "--layers", "--json").stdout)["artifacts"]
    assert found["ms_median"] > 0 and {"h", "head"} & {layer["name"] for layer in found["layers"]}
    given = _given(tmp_path / "n.nest")
    one, other = (load(out / f"n-{precision}.{form}")(given) for form in ("tflite", "onnx"))
    assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    again = import_model(out / f"n-{precision}.tflite")
    assert (
        again.preprocess == bundles.load(tmp_path / "n.nest").preprocess
        and again.labels == bundles.load(tmp_path / "n.nest").labels
    )


def _given(path: Path) -> np.ndarray:
    taken = bundles.load(path).preprocess
    assert isinstance(taken, Numbers)
    shape = (2, *taken.shape)
    return RNG.normal(0, 1, shape).astype(np.float32) if taken.dtype == "float32" else RNG.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("command", ["predict", "eval", "fit", "quantize", "trace", "export"])
def test_photographs_are_refused_in_plain_words(nestling: Nestling, photos: Path, command: str, tmp_path: Path) -> None:
    bundles.save(import_model(kept(tmp_path / "n.tflite", network((1, 40), False))), tmp_path / "n.nest")
    n, photo, out = tmp_path / "n.nest", photos / "plum" / "00.jpg", ("-o", tmp_path / "out.nest")
    arguments = {
        "predict": (n, photo),
        "eval": (n, photos),
        "fit": (photos, "--backbone", n, *out),
        "quantize": (n, "--data", photos, *out),
        "trace": (n, photo, "-o", tmp_path / "t"),
        "export": (n, "--to", "tflite", "--precision", "fp32", "--data", photos, "-o", tmp_path / "o"),
    }[command]
    said = nestling(command, *arguments, status=1).stderr
    assert "takes numbers, float32 [40], not photographs" in said and "made-up numbers" in said


def test_a_pte_of_float_numbers_is_refused_by_name(nestling: Nestling, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    bundles.save(import_model(kept(tmp_path / "n.tflite", network((1, 40), False))), tmp_path / "n.nest")
    said = nestling("export", tmp_path / "n.nest", "--to", "pte", "--precision", "fp32", "-o", tmp_path / "o", status=1).stderr
    assert "a .pte takes bytes" in said and ".tflite and .onnx work" in said
