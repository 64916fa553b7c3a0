"""Twenty seconds of the fuzzer; five minutes of it are `make fuzz`."""

import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.fuzz.fuzz_readers import Cases


def test_damaged_files_give_errors_only() -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz_readers", "--seconds", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fuzzer_reaches_behind_the_first_check(tmp_path: Path) -> None:
    """Some damage does not matter, and a case is the same each time."""
    first, second = Cases(0, tmp_path, shared=False), Cases(0, tmp_path, shared=False)
    said = [first.run(number) for number in range(200)]
    assert said == [second.run(number) for number in range(200)]
    assert 20 < said.count("read") < 180
