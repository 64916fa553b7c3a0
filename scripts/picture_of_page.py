"""docs/report.png: the beginning of a report's page, as a browser shows it.

python -m scripts.picture_of_page demo-out/report.html [-o docs/report.png] [--height 1700]
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from nestling.files import write_atomically
from tests.pages.headless import NAMES, browser, executable

WIDTH = 1280  # pixels


def main() -> None:
    """Open the page, and keep the upper part of what is seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/report.png"))
    parser.add_argument("--height", type=int, default=1700, help="pixels that are kept")
    given = parser.parse_args()
    if executable() is None:
        raise SystemExit(f"needs a browser, {' or '.join(NAMES)}:  apt-get install chromium")
    with TemporaryDirectory() as folder, browser(Path(folder) / "profile") as tab:
        tab.show(given.page.resolve(), WIDTH)
        seen = Image.open(io.BytesIO(tab.screenshot(Path(folder) / "page.png"))).convert("RGB")
    kept = io.BytesIO()
    seen.crop((0, 0, WIDTH, min(given.height, seen.height))).save(kept, "PNG", optimize=True)
    write_atomically(given.output, kept.getvalue())
    print(f"{given.output}: {len(kept.getvalue()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
