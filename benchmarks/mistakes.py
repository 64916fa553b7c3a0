"""What a mistake costs: every command with five that a newcomer makes, how soon each is answered, with which status and words.

    python benchmarks/mistakes.py [--rounds 5] [--all]

Makes a small network and photographs of noise first. Each mistake runs in a process of its own, as it is typed, --rounds times; the
median of the seconds is told, and whatever takes more than one. Prints a table, and fails where a traceback is shown.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from PIL import Image

MOST = 1.0  # seconds

# what stands for what: see made()
MISTAKES = """
fit gone
fit photos --sise 64
fit photos --views up
fit photos/good -o x.nest
fit photos -o gone.txt/x.nest
finetune gone.nest photos
finetune my.nest gone
finetune my.nest photos --augment wild
finetune my.nest photos --epochs 0
finetune photos my.nest
distill my.nest photos
distill my.nest photos --teacher gone.nest
distill my.nest photos --teacher my.nest --alpha 2
distill my.nest photos --teacher my.nest --temperature 0
distill gone.nest photos --teacher my.nest
import gone.tflite -o x.nest
import my.nest -o x.nest
import photos -o x.nest
import out/my8-int8.tflite
import out/my8-int8.tflite -o x.nest --size huge
backbones --jason
backbones --json nosuchnet
backbones nosuchnet
backbones my.nest
backbones tf_efficientnet_lite
data prepare gone -o x
data prepare photos
data prepare photos -o photos/good/00.png
data prepare photos -o x --format gif
data prepare photos -o x --list gone.txt
quantize my.nest
quantize gone.nest -o x.nest
quantize my.nest -o x.nest --data gone
quantize my.nest -o x.nest --bits-weights 9
quantize my.nest -o x.nest --qat dorefa
prune gone.nest
prune my.nest photos --macs 150%
prune my.nest photos --macs half
prune my.nest photos --sparsity 80%
prune my.nest photos --method 2:4
search gone.nest
search my.nest --macs 2
search my.nest --macs x
search my.nest gone
search my.nest --round eight
export my.nest --to tflight
export my.nest --precision int4
export my.nest -o photos
export gone.nest
export my.nest -o my.nest
eval my.nest
eval my.nest gone
eval gone.tflite photos
eval photos my.nest
eval my.nest my.nest
agree my.nest my8.nest
agree my.nest gone.nest photos
agree my.nest my8.nest gone
agree my.nest photos photos
agree my.nest my8.nest photos --trsut
trace my8.nest photos/good/00.png
trace gone.nest photos/good/00.png -o t
trace my8.nest gone.jpg -o t
trace my8.nest photos/good/00.png --against gone.tflite
trace my8.nest photos -o t
plan gone.nest
plan my.nest
plan my8.nest --machine z80
plan my8.nest --ram lots
plan my8.nest -o photos/good/00.png
pack my.nest
pack gone.nest
pack my8.nest --for windows
pack my8.nest --for mcu --machine z80
pack my8.nest -o photos/good/00.png
push gone adb
push photos adb
push photos raspberrypi
push photos
push photos ftp://host/x
learn gone photos
learn photos photos
learn my8.nest photos
learn photos
learn photos photos --optimizer adamw
predict my.nest
predict my.nest gone.jpg
predict gone.tflite photos
predict photos my.nest
predict my.nest photos --top 0
bench
bench gone.tflite
bench photos
bench my.nest --threads two
bench my.nest --threads 0
report gone
report photos
report my.nest photos
report out -o photos/good/00.png
report my.nest --to tflight
demo --outt x
demo x
demo -o my.nest
demo -o gone.txt/x
demo --output
"""


def made(nestling: list[str]) -> None:
    """photos, my.nest, my8.nest, out/ and gone.txt, in the current folder."""
    rng = np.random.default_rng(0)
    for name, grey in (("good", 60), ("bad", 190)):
        Path("photos", name).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(rng.normal(grey, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number:02}.png")
    for line in ("fit photos --size 64 -o my.nest", "quantize my.nest -o my8.nest", "export my8.nest --to tflite -o out"):
        subprocess.run([*nestling, *line.split()], check=True, capture_output=True)
    Path("gone.txt").touch()


def asked(command: list[str], rounds: int) -> tuple[float, int, list[str]]:
    """(median of the seconds, status, lines of stderr)."""
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        seconds.append(perf_counter() - start)
    return median(seconds), done.returncode, done.stderr.rstrip().split("\n")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--all", action="store_true", help="every line that was said, not the first alone")
    options = parser.parse_args()
    nestling = [sys.executable, "-m", "nestling"]
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    slow: list[str] = []
    wrong: list[str] = []
    with TemporaryDirectory(prefix="nestling-") as folder:
        os.chdir(folder)
        os.environ["NESTLING_CACHE"] = f"{folder}/cache"
        made(nestling)
        print("| mistake | seconds | status | answer |\n|---|---:|---:|---|")
        for text in MISTAKES.strip().split("\n"):
            seconds, status, said = asked([*nestling, *text.split()], options.rounds)
            errors = [line for line in said if line.startswith("error:")]
            print(f"| `{text}` | {seconds:.2f} | {status} | {'<br>'.join(said if options.all else errors)} |", flush=True)
            slow += [text] if seconds > MOST else []
            wrong += [text] if status not in (1, 2) or "Traceback" in "".join(said) or not errors else []
        os.chdir("/")
    print(f"\nmore than {MOST:g} s: {', '.join(slow) or 'none'}")
    print(f"not answered as an error: {', '.join(wrong) or 'none'}")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
