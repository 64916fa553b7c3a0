"""Whatever moment the power goes at, the next start finds a whole head, says which, and ends where a run without a stop ends."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nestling.device.build import HEAD_SOURCES
from nestling.device.head_file import HeadFile, Training, from_bytes, newest, save, to_bytes
from nestling.errors import NestlingError, UnusableFile
from tests import ROOT
from tests.device.c_head import FLAGS, HERE, RUNTIME, new_head
from tests.device.learn_forks import stepped

HEAD = new_head(60, 4, 6, Training(rate=0.3, seed=9, batch=5), replay=3)
KILLS = 200
STEPS, EVERY = 6000, 3  # more saves than there are moments to kill at
SUFFIXES = ("", ".previous", ".part")


def program(folder: Path, name: str, *flags: str) -> Path:
    built = folder / name
    sources = [HERE / f"{name}.c", *(RUNTIME / part for part in HEAD_SOURCES), RUNTIME / "nestling_file.c"]
    subprocess.run(["cc", *FLAGS, "-O2", *flags, f"-I{RUNTIME}", *map(str, sources), "-o", str(built)], check=True)
    return built


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """learn_file, which HALT_BEFORE_RENAME stops between writing and renaming."""
    return program(tmp_path_factory.mktemp("c"), "learn_file", "-DHALTING", "-Wl,--wrap=rename")


def beside(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in SUFFIXES]


def whole(file: Path) -> HeadFile | None:
    try:
        return from_bytes(file.read_bytes(), str(file))
    except (UnusableFile, OSError):
        return None


def weights_and_steps(head: HeadFile) -> bytes:
    """The whole head but for how often it was saved."""
    return to_bytes(replace(head, progress=replace(head.progress, saves=0)))


def damage(path: Path, chance: random.Random) -> Path | None:
    """Truncates or flips a bit of one of the files, where another whole one is left."""
    files = [file for file in beside(path) if file.exists()]
    chosen = chance.choice(files)
    if not any(whole(file) for file in files if file != chosen):
        return None
    content = bytearray(chosen.read_bytes())
    if chance.random() < 0.5 or not content:
        content = content[: chance.randint(0, max(0, len(content) - 1))]
    else:
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    chosen.unlink()  # else its hard link would be damaged with it
    chosen.write_bytes(bytes(content))
    return chosen


# ---- a file system -----------------------------------------------------------------------------------------------------------


def test_the_c_learner_is_killed_at_two_hundred_moments(learner: Path, tmp_path: Path) -> None:
    """Killed from outside, between write and rename, and with a file damaged while it lay there."""
    straight, path = tmp_path / "straight.nst", tmp_path / "head.nst"
    straight.write_bytes(to_bytes(HEAD))
    path.write_bytes(to_bytes(HEAD))
    subprocess.run([str(learner), str(straight), str(STEPS), "100"], check=True, capture_output=True)
    chance, kills, others, damaged = random.Random(1), 0, 0, 0
    while kills < KILLS:
        hurt = damage(path, chance) if chance.random() < 0.3 else None
        damaged += hurt is not None
        files = {file: head for file in beside(path) if (head := whole(file))}
        best = max(files, key=lambda file: files[file].progress.saves)
        halt = chance.random() < 0.4
        environment = os.environ | ({"HALT_BEFORE_RENAME": str(chance.randint(1, 4))} if halt else {})
        with subprocess.Popen(
            [str(learner), str(path), str(STEPS), str(EVERY)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            assert running.stdout is not None
            assert running.stderr is not None
            begun = running.stdout.readline()
            if not halt:
                time.sleep(chance.uniform(0, 0.02))
                running.kill()
            said = running.stderr.read().strip()
        assert int(begun) == files[best].progress.steps
        assert (f"taken: {best}, {int(begun)} steps" in said) == (best != path), said
        assert hurt is None or f"{hurt}: " in said, said
        others += best != path
        kills += running.returncode == -9
        assert running.returncode in (0, -9), said
        if running.returncode == 0:  # it reached the end before it was killed: once more from the beginning
            assert weights_and_steps(newest(path)[0]) == weights_and_steps(from_bytes(straight.read_bytes(), "x"))
            for file in beside(path):
                file.unlink(missing_ok=True)
            path.write_bytes(to_bytes(HEAD))
    subprocess.run([str(learner), str(path), str(STEPS), "100"], check=True, capture_output=True)
    assert weights_and_steps(newest(path)[0]) == weights_and_steps(from_bytes(straight.read_bytes(), "x"))
    assert others > 20  # so often not head.nst itself was the newest
    assert damaged > 20


def test_a_python_learner_is_killed_at_two_hundred_moments(tmp_path: Path) -> None:
    steps = 2000
    path = tmp_path / "head.nst"
    path.write_bytes(to_bytes(HEAD))
    straight = HEAD
    for _ in range(steps):
        straight = stepped(straight)
    command = [sys.executable, "-m", "tests.device.learn_forks", str(path), str(steps), str(EVERY), str(KILLS), "4"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    found = [int(line.split(" ")[0]) for line in ran.stdout.splitlines()]
    assert found == sorted(found)  # no start finds less than the one before
    assert ran.stdout.count("taken: ") > 20
    assert len(found) > KILLS / 2  # the others were killed before they could say so
    assert weights_and_steps(newest(path)[0]) == weights_and_steps(straight)


def test_c_and_python_take_turns(learner: Path, tmp_path: Path) -> None:
    """What one of them leaves the other takes up, and says the same of damaged files."""
    path, chance = tmp_path / "head.nst", random.Random(3)
    path.write_bytes(to_bytes(HEAD))
    for round_ in range(12):
        steps = 10 * (round_ + 1)
        if round_ % 2:
            subprocess.run([str(learner), str(path), str(steps), "5"], check=True, capture_output=True)
        else:
            head = newest(path)[0]
            while head.progress.steps < steps:
                head = save(stepped(head), path)
        assert newest(path)[0].progress.steps == steps
        if (hurt := damage(path, chance)) == path:
            _, taken, notes = newest(path)
            said = subprocess.run([str(learner), str(path), "0", "5"], capture_output=True, text=True, check=True).stderr
            assert str(hurt) in said
            assert str(hurt) in "".join(notes)
            assert f"taken: {taken}" in said
            assert f"taken: {taken}" in "".join(notes)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs leave to mount a tmpfs (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("room", [0, 1, 5])
def test_a_full_disk_loses_nothing(learner: Path, small_disk: Path, tmp_path: Path, room: int) -> None:
    """`room` pages are left: C and Python say that it is full, what was saved stays, and with room again they end as without."""
    big = to_bytes(new_head(600, 4, 6, HEAD.training))
    path, straight, filler = small_disk / "head.nst", tmp_path / "straight.nst", small_disk / "filler"
    for file in (path, straight):
        file.write_bytes(big)
        subprocess.run([str(learner), str(file), "20", "10"], check=True, capture_output=True)
    status = os.statvfs(small_disk)
    assert room * status.f_bsize < len(big)
    filler.write_bytes(bytes((status.f_bavail - room) * status.f_bsize))
    before = path.read_bytes()
    failed = subprocess.run([str(learner), str(path), "60", "5"], capture_output=True, text=True, check=False)
    assert failed.returncode == 1
    assert "No space left on device" in failed.stderr
    assert not beside(path)[2].exists()
    with pytest.raises(NestlingError, match="No space left on device"):
        save(newest(path)[0], path)
    assert path.read_bytes() == before
    assert not beside(path)[2].exists()
    filler.unlink()
    for file in (path, straight):
        subprocess.run([str(learner), str(file), "60", "5"], check=True, capture_output=True)
    assert weights_and_steps(newest(path)[0]) == weights_and_steps(newest(straight)[0])


def test_a_save_that_was_stopped_before_its_rename_is_finished_first(learner: Path, small_disk: Path) -> None:
    """The C's .part is the newest: with a full disk the next save fails, and the steps in it are still there."""
    path = small_disk / "head.nst"
    path.write_bytes(to_bytes(new_head(600, 4, 6, HEAD.training)))
    command = [str(learner), str(path), "60", "5"]
    stopped = subprocess.run(command, env=os.environ | {"HALT_BEFORE_RENAME": "3"}, capture_output=True, check=False)
    assert stopped.returncode == -9
    assert newest(path)[0].progress.steps == 15
    assert newest(path)[1] == beside(path)[2]
    status = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(status.f_bavail * status.f_bsize))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert newest(path)[0].progress.steps == 15


def test_a_damaged_head_does_not_replace_the_whole_one_before_it(learner: Path, tmp_path: Path) -> None:
    path = tmp_path / "head.nst"
    path.write_bytes(to_bytes(HEAD))
    subprocess.run([str(learner), str(path), "20", "10"], check=True, capture_output=True)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[:-1])
    subprocess.run([str(learner), str(path), "20", "10"], check=True, capture_output=True)
    previous = whole(beside(path)[1])
    assert previous is not None
    assert previous.progress.steps == 10
    assert newest(path)[0].progress.steps == 20


def test_a_place_that_cannot_be_written(learner: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(NestlingError, match="cannot be written"):
        save(HEAD, tmp_path / "file" / "head.nst")
    ran = subprocess.run(
        [str(learner), str(tmp_path / "nowhere" / "head.nst"), "1", "1"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "nowhere/head.nst is not there" in ran.stderr


# ---- flash -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_flash_always_holds_a_whole_head(seed: int, tmp_path: Path) -> None:
    """The power goes 300 times: what is found is the last save that was finished, and the end is that of a run without cuts."""
    cuts = program(tmp_path, "flash_cuts")
    ends, starts = [], []
    for count in (0, 300):
        path = tmp_path / f"{count}.nst"
        path.write_bytes(to_bytes(HEAD))
        ran = subprocess.run([str(cuts), str(path), "1500", "4", str(count), str(seed)], check=True, capture_output=True, text=True)
        ends.append(weights_and_steps(from_bytes(path.read_bytes(), "x")))
        starts = [tuple(map(int, line.split())) for line in ran.stdout.splitlines()]
    assert len(starts) > 200
    for found, finished, cut in starts:
        assert found in (finished, cut)
    assert sum(found == cut != 0 for found, _, cut in starts) < len(starts) / 10
    assert sum(cut != 0 for _, _, cut in starts) > 200
    assert ends[0] == ends[1]
