"""The demo's photographs: solar cells of the ELPV set, from the package that carries them."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from nestling.errors import NestlingError
from nestling.files import folder_beside
from nestling.temporary import sweep

CELLS = 2624
DEFECTIVE_FROM = 0.5  # the experts' probability of a defect: 0, 1/3, 2/3 or 1

ABOUT = """ELPV: 2,624 photographs (300 x 300, grey) of solar cells, taken by electroluminescence, from 44 modules.
Made by C. Buerhop-Lutz, S. Deitsch, A. Maier, F. Gallwitz, S. Berger, B. Doll, J. Hauch, C. Camus and C. J. Brabec: "A Benchmark
for Visual Identification of Defective Solar Cells in Electroluminescence Imagery", 35th European PV Solar Energy Conference, 2018;
S. Deitsch et al.: "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar Energy
185, 2019. Licence: CC BY-NC-SA 4.0 (https://creativecommons.org/licenses/by-nc-sa/4.0/): not for commercial use.
"""


def elpv(cache: Path) -> Path:
    """A folder with the set, one folder a class (defective, good), below `cache`; written once, whole or not at all.

    The files are the package's own PNGs, beside a README with authors and licence (ABOUT, to be shown where the set is used).
    Raises NestlingError where the package elpv-dataset is missing or incomplete, or the folder cannot be written.
    """
    sweep(cache)  # also where it is whole
    folder = cache / "elpv"
    if _whole(folder):
        return folder
    source = _package_data()
    try:
        with folder_beside(folder) as new:
            _write(source, new)
    except OSError as error:
        if _whole(folder):  # another process was quicker
            return folder
        raise NestlingError(f"the demo's photographs cannot be written to {folder} ({error.strerror or error}).") from error
    return folder


def _package_data() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise NestlingError(
            "the demo's photographs are missing: the package elpv-dataset is not installed.", "pip install 'nestling[demo]'"
        )
    return Path(spec.origin).parent / "data"


def _write(source: Path, folder: Path) -> None:
    """labels.csv: a line a cell, `images/cell0001.png  1.0  mono`."""
    rows = [line.split() for line in (source / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(rows) != CELLS:
        raise NestlingError(
            f"{source} lists {len(rows)} photographs; expected {CELLS}.", "pip install --force-reinstall elpv-dataset"
        )
    for name in ("defective", "good"):
        (folder / name).mkdir()
    for image, probability, _ in rows:
        shutil.copyfile(
            source / image, folder / ("defective" if float(probability) >= DEFECTIVE_FROM else "good") / Path(image).name
        )
    (folder / "README.txt").write_text(ABOUT, encoding="utf-8")


def _whole(folder: Path) -> bool:
    return sum(1 for _ in folder.glob("*/*.png")) == CELLS
