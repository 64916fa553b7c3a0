"""The tests of nestling, a folder a room; what several rooms use is in helpers/."""

from pathlib import Path

ROOT = Path(__file__).parents[1]  # of the repository; programs of the tests are run from here, as `python -m tests.ROOM.PROGRAM`
SHARED = ROOT.parent / "shared" / "data"
