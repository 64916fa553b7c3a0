"""docs/terminal.svg: what a terminal shows of fit, export and predict on the demo's photographs, by the commands themselves.

    python scripts/record_terminal.py [-o docs/terminal.svg]

Each command runs in a pseudo-terminal of COLUMNS columns, in a folder of its own, where `photos` are the demo's photographs (the
extra `demo`). What it writes is read as a terminal would read it: bars that are drawn over and wiped leave nothing. The picture
asks nobody for a font.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

from nestling.data.demo_set import elpv
from nestling.embedding.cache import default_cache
from nestling.files import write_atomically

COLUMNS = 104
PROMPT = "\x1b[1;32m$\x1b[0m "
COMMANDS = (
    "nestling fit photos -o cells.nest",
    "nestling export cells.nest --to tflite,onnx --precision fp32,int8 -o out/",
    "nestling predict out/cells-int8.tflite photos/defective/cell0001.png",
)
# Rich's own, without its fonts from elsewhere.
PICTURE = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""  # noqa: E501  # one rule of CSS a line
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[^\[]|(\r)|(\n)|([^\x1b\r\n]+)")


def main() -> None:
    """Run the commands and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/terminal.svg"))
    output: Path = parser.parse_args().output
    with TemporaryDirectory() as folder:
        Path(folder, "photos").symlink_to(elpv(default_cache().parent))
        shown = "\n\n".join(f"{PROMPT}{command}\n{typed(command, Path(folder))}" for command in COMMANDS)
    write_atomically(output, picture(shown).encode())
    print(f"{output}: {output.stat().st_size / 1e3:.0f} kB, {shown.count(chr(10)) + 1} lines")


def typed(command: str, folder: Path) -> str:
    """What the terminal shows once the command, which has to succeed, has ended."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    path = os.pathsep.join((str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment | {"TERM": "xterm-256color", "PYTHONPATH": path},
    )
    os.close(theirs)
    written = bytearray()
    try:
        while some := os.read(ours, 65536):
            written += some
    except OSError:  # how a pseudo-terminal says that nobody writes any more
        pass
    os.close(ours)
    if process.wait() != 0:
        raise SystemExit(f"{command} ended with {process.returncode}:\n{written.decode(errors='replace')}")
    return read_as_a_terminal(written.decode())


def read_as_a_terminal(written: str) -> str:
    """The lines that stay, with their colours: of what moves the cursor, only what nestling's bars write is known."""
    lines: list[list[tuple[str, str]]] = [[]]  # of (colour, letter)
    row = column = 0
    colour = ""
    for token in TOKEN.finditer(written):
        number, kind, back, down, text = token.groups()
        if back:
            column = 0
        elif down:
            row, column = row + 1, 0
            lines += [[]] * (row + 1 - len(lines))
        elif text:
            line = [*lines[row], *[("", " ")] * (column - len(lines[row]))]
            lines[row] = [*line[:column], *((colour, letter) for letter in text), *line[column + len(text) :]]
            column += len(text)
        elif kind == "m":
            colour = "" if number in ("", "0") else f"{colour}\x1b[{number}m"
        elif kind == "K":
            lines[row] = [] if number == "2" else lines[row][:column]
        elif kind == "A":
            row = max(row - int(number or 1), 0)
        elif kind in ("h", "l") or kind is None:
            continue
        else:
            raise SystemExit(f"a bar wrote {token.group()!r}, which this script does not know")
    return "\n".join(
        "".join(f"{colour}{letter}\x1b[0m" if colour else letter for colour, letter in line) for line in lines
    ).rstrip()


def picture(shown: str) -> str:
    """The lines as an SVG in the shape of a terminal."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(shown), soft_wrap=True)
    return console.export_svg(title="nestling", code_format=PICTURE, unique_id="terminal")


if __name__ == "__main__":
    main()
