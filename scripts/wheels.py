"""Asks the package registry whether the core, in the tested versions, has a wheel everywhere. Prints a table in Markdown.

    python scripts/wheels.py > table.md        (minutes; what comes are descriptions, no wheels; exit status 1 where one lacks)

pip is asked as someone on that system would ask it. A row for each direct dependency, one for all that these need. What only one
system needs (colorama, on Windows) is not known here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
GLIBC = range(17, 29)  # 2.28: Debian 10, Ubuntu 18.10, and what came later
SYSTEMS = {
    "x86-64 Linux": [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux2014_x86_64"],
    "arm64 Linux": [*(f"manylinux_2_{minor}_aarch64" for minor in GLIBC), "manylinux2014_aarch64"],
    "arm64 macOS 14": [f"macosx_{major}_0_{kind}" for major in range(11, 15) for kind in ("arm64", "universal2")],
    "x86-64 Windows": ["win_amd64"],
}


def pip(requirements: Collection[str], options: Sequence[str]) -> list[str] | None:
    """What pip would install, as name==version; None where it finds no wheel of one of them."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        asked = ["--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:", "--target", folder, "--report", str(report)]
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *asked, *options, *requirements]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
        if done.returncode == 0:
            found = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
            return [f"{one['name']}=={one['version']}" for one in found]
    if "No matching distribution" in done.stderr:
        return None
    raise SystemExit(f"wheels: pip could not ask:\n{done.stderr.strip()}")


def lacking(pinned: Sequence[str], options: Sequence[str]) -> list[str]:
    """Those that have no wheel, found by halves."""
    if pip(pinned, options) is not None:
        return []
    if len(pinned) == 1:
        return list(pinned)
    half = len(pinned) // 2
    return lacking(pinned[:half], options) + lacking(pinned[half:], options)


def named(wanted: Sequence[str], pinned: Sequence[str]) -> list[str]:
    """Of what is pinned that which pyproject.toml names, in its order."""
    by_name = {one.partition("==")[0].lower().replace("_", "-"): one for one in pinned}
    return [by_name[re.split(r"[<>=!~ ]", requirement)[0]] for requirement in wanted]


def main() -> int:
    """Prints the table; 1 where a wheel lacks."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    pinned = pip(wanted, ["--constraint", str(ROOT / "constraints.txt")])
    if pinned is None:
        raise SystemExit("wheels: the core has no wheels for this system, so what it needs is not known.")
    direct = named(wanted, pinned)
    others = sorted(set(pinned) - set(direct))
    missing: dict[str, dict[str, list[str]]] = {}
    for system, tags in SYSTEMS.items():
        platforms = [word for tag in tags for word in ("--platform", tag)]
        for version in PYTHONS:
            options = ["--no-deps", "--implementation", "cp", "--python-version", version, *platforms]
            for one in lacking(pinned, options):
                missing.setdefault(one, {}).setdefault(system, []).append(version)

    def cell(asked: Sequence[str], system: str) -> str:
        no = sorted({f"{one.partition('==')[0]} {version}" for one in asked for version in missing.get(one, {}).get(system, [])})
        return "no: " + ", ".join(no) if no else "yes"

    rows = [(one.replace("==", " "), [one]) for one in direct] + [(f"the {len(others)} others that these need", others)]
    print(f"| wheels for Python {', '.join(PYTHONS)} | {' | '.join(SYSTEMS)} |\n|---|{':-:|' * len(SYSTEMS)}")
    for name, asked in rows:
        print(f"| {name} | {' | '.join(cell(asked, system) for system in SYSTEMS)} |")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
