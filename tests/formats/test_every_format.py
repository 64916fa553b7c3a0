"""Every format in the table: printed, judged, put on disk, found by its suffix, and answering as its bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nestling import bundle as bundles
from nestling import formats
from nestling.artifacts.gates import judge
from nestling.artifacts.yardstick import expected
from nestling.formats.format import INTEGERS, ExportConfig, Job
from nestling.preprocess.image import load as load_image
from tests.helpers.golden_files import ARCHIVES, unpacked

HERE = [pair for pair in formats.printed() if formats.FORMATS[pair[0]].machine in ("", "host")]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(ARCHIVES[-1], tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize(("name", "precision"), HERE)
def test_what_is_printed_is_found_again_and_answers_as_its_bundle(name: str, precision: str, golden: Path, tmp_path: Path) -> None:
    form, integers = formats.FORMATS[name], precision == INTEGERS
    if form.machine and shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    bundle = bundles.load(golden / ("integers.nest" if integers else "fitted.nest"))
    job = Job(bundle, ExportConfig())
    printed = form.printers[precision](job)
    wanted = expected(bundle, integers, golden / "photos")
    judged = judge(printed, "x", form, precision, bundle, job.inside(form, precision) if integers else None, wanted)
    assert judged.problems == ()

    path = tmp_path / form.file("x", precision)
    if isinstance(printed.content, bytes):
        path.write_bytes(printed.content)
    else:
        path.mkdir()
        for file, content in printed.content.items():
            (path / file).write_bytes(content)
    assert formats.of(path).runtimes == form.runtimes
    runner = formats.load(path, trust=True)
    assert runner.labels == bundle.labels and runner.preprocess == bundle.preprocess
    images = np.stack([load_image(bundle.preprocess, photo) for photo in sorted((golden / "photos").rglob("*.bmp"))[::6]])
    assert bundle.head is not None
    answers = bundle.head.logits(runner.features(images)) if form.embedding == "alone" else runner(images)
    there = formats.load(golden / ("integers.nest" if integers else "fitted.nest"))(images)
    allowed = 0.08 if integers else 0.03  # of the largest: a runtime's roundings, and 8-bit weights of the dynamic range
    np.testing.assert_allclose(answers, there, atol=allowed * np.abs(there).max())
