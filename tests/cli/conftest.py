"""A small network, fitted once, and its programs, exported once, for all tests of the command line."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import FILES, SMALL, Done, Nestling, here, in_process
from tests.helpers.json_schema import require_described

Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def nestling(cache: Path) -> Nestling:
    """Runs the command line and expects an exit status: in this process, which saves seconds, or in one of its own."""

    def run(*arguments: object, status: int = 0, process: bool = False, **environment: str) -> Done:
        words = [str(word) for word in arguments]
        settings = {"NESTLING_CACHE": str(cache), "COLUMNS": "200"} | environment
        done = in_process(words, settings) if process else here(words, settings)
        assert "Traceback" not in done.stderr, done.stderr
        assert done.status == status, done.stderr + done.stdout
        if "--json" in words and done.stdout.strip():
            require_described(words, done.stdout)
        return done

    return run


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """once(name, fill): a folder of that name, filled by whichever of this session's processes wants it first."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent

    def found(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = place / name, place / f"{name}.done"
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir(exist_ok=True)
                fill(folder)
                done.touch()
        return folder

    return found


@pytest.fixture(scope="session")
def photos(once: Once) -> Path:
    """Three classes of 20 pictures that differ in colour, with noise."""

    def fill(root: Path) -> None:
        rng = np.random.default_rng(0)
        for name, colour in (("apple", (200, 40, 40)), ("lime ü", (60, 190, 60)), ("plum", (90, 40, 160))):
            (root / name).mkdir(parents=True)
            for i in range(20):
                pixels = np.clip(rng.normal(colour, 25, (70, 90, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / name / f"{i:02}.jpg", quality=92)

    return once("photos of fruit", fill)


@pytest.fixture(scope="session")
def bundle(nestling: Nestling, photos: Path, once: Once) -> Path:
    return once("bundles", lambda folder: nestling("fit", photos, "-o", folder / "fruit.nest", *SMALL)) / "fruit.nest"


@pytest.fixture(scope="session")
def integers(nestling: Nestling, bundle: Path, once: Once) -> Path:
    return once("integers", lambda folder: nestling("quantize", bundle, "-o", folder / "fruit8.nest")) / "fruit8.nest"


@pytest.fixture(scope="session")
def everything(nestling: Nestling, bundle: Path, once: Once) -> Path:
    """The folder with FILES, the quantised bundle and manifest.json. It is only read, but for pictures of layers."""

    def fill(out: Path) -> None:
        precisions = "fp32,fp16,dynamic,int8"
        done = nestling("export", bundle, "--to", "pte,tflite,onnx", "--precision", precisions, "--features", "-o", out)
        assert "noise ratio" in done.stdout and all(file in done.stdout for file in FILES)

    return once("every format", fill)
