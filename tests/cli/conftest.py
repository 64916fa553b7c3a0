"""A small network, fitted once, and its programs, exported once, for all tests of the command line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import SMALL, Done, Nestling, here, in_process


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
        return done

    return run


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 pictures that differ in colour, with noise."""
    root = tmp_path_factory.mktemp("data") / "photos of fruit"
    rng = np.random.default_rng(0)
    for name, colour in (("apple", (200, 40, 40)), ("lime ü", (60, 190, 60)), ("plum", (90, 40, 160))):
        (root / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(colour, 25, (70, 90, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i:02}.jpg", quality=92)
    return root


@pytest.fixture(scope="session")
def bundle(nestling: Nestling, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "fruit.nest"
    nestling("fit", photos, "-o", path, *SMALL)
    return path


@pytest.fixture(scope="session")
def exported(nestling: Nestling, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with fruit-fp32.pte, fruit-int8.pte and manifest.json."""
    out = tmp_path_factory.mktemp("exported")
    nestling("export", bundle, "--to", "pte", "--precision", "fp32,int8", "-o", out)
    return out
