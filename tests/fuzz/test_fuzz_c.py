"""About twenty seconds of the fuzzer of the C readers; five minutes of it are a part of `make fuzz`."""

import re
import subprocess
import sys
from pathlib import Path

from device.runner_program import compiler


def test_damaged_files_are_refused_or_read_in_bounds() -> None:
    script = Path(__file__).parent / "fuzz_c_readers.py"
    command = [sys.executable, script, "--cases", "3000", "--compiler", compiler()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    cases, read, ran, _ = map(int, re.findall(r"\d+", done.stdout))
    assert cases == 3000
    assert 800 < read < 2700  # behind the first check, and not only whole ones
    assert ran > 50
