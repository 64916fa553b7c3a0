"""About twenty seconds of the fuzzer of the C readers; five minutes of it are a part of `make fuzz`."""

import re
import subprocess
import sys

from tests import ROOT
from tests.device.runner_program import compiler


def test_damaged_files_are_refused_or_read_in_bounds() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_c_readers", "--cases", "3000", "--compiler", compiler()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    cases, read, ran, _ = map(int, re.findall(r"\d+", done.stdout))
    assert cases == 3000
    assert 800 < read < 2700  # behind the first check, and not only whole ones
    assert ran > 50
