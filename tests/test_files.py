"""Killed before every single operation, what is written is the old or the new, whole; the next to write there sweeps the rest."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from nestling import files
from nestling.artifacts import manifest
from nestling.data.folders import scan
from nestling.device import manifest as packages
from nestling.errors import NestlingError
from nestling.files import folder_beside, not_made, replace_folder, write_atomically
from nestling.formats import load
from nestling.temporary import restored, scratch, sweep, temporary
from tests.helpers.killing import child

OLD, NEW = {"a": b"old", "sub/b": b"older"}, {"a": b"new", "c": b"newer"}


def put(folder: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def replaced(folder: Path) -> None:
    with folder_beside(folder) as new:
        put(new, NEW)


@pytest.fixture(params=["exchange", "two renames"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With and without a file system where two folders can change places."""
    if request.param != "exchange":
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    return str(request.param)


# ---- kills -----------------------------------------------------------------------------------------------------------------------


def test_a_folder_is_killed_at_every_operation(tmp_path: Path, renaming: str) -> None:
    """Whole in place or, without an exchange, brought back by whoever comes: a reader, or the next writer."""
    folder, missing = tmp_path / "pkg", 0
    put(folder, OLD)
    operations = child(lambda: replaced(folder))
    assert operations and content(folder) == NEW and names(tmp_path) == ["pkg"]
    for kill in range(1, operations + 1):
        shutil.rmtree(folder)
        put(folder, OLD)
        assert child(lambda: replaced(folder), kill) is None
        missing += not folder.exists()
        left = shutil.copytree(tmp_path, tmp_path.with_name(f"{renaming}-{kill}"))  # for a reader
        assert content(restored(left / "pkg")) in (OLD, NEW), kill
        replaced(folder)
        assert content(folder) == NEW and names(tmp_path) == ["pkg"], kill
    assert bool(missing) == (renaming == "two renames"), "the exchange is not what it is taken for"


def test_recovery_is_killed_at_every_operation_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the two renames first, then whoever comes next, then a third who ends."""
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    begun, folder = tmp_path / "begun", tmp_path / "work" / "pkg"
    put(begun / "pkg", OLD)
    for kill in range(1, 100):
        child(lambda: replaced(begun / "pkg"), kill)
        if not (begun / "pkg").exists():
            break
    for again in range(1, 100):
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(begun, folder.parent)
        finished = child(lambda: replaced(folder), again)
        assert content(restored(folder)) in (OLD, NEW), again
        sweep(folder.parent)
        assert names(folder.parent) == ["pkg"] and content(folder) in (OLD, NEW), again
        if finished is not None:
            return
    raise AssertionError("it never ended")


def test_a_file_is_killed_at_every_operation(tmp_path: Path) -> None:
    path = tmp_path / "new" / ("n" * 250 + ".nest")  # as long as a name may be
    operations = child(lambda: write_atomically(path, b"new"))
    assert operations
    for kill in range(1, operations + 1):
        shutil.rmtree(path.parent)
        assert child(lambda: write_atomically(path, b"new"), kill) is None
        assert not path.exists() or path.read_bytes() == b"new"
        write_atomically(path, b"newer")
        assert names(path.parent) == [path.name] and path.read_bytes() == b"newer", kill


def test_a_commands_temporary_files_are_swept_by_the_next(tmp_path: Path) -> None:
    """Also those of libraries and children, which know TMPDIR alone. The command is killed while its child goes on."""
    program = """
import subprocess, sys, tempfile, time
from nestling.temporary import scratch
with scratch():
    tempfile.mkdtemp(); tempfile.mkstemp()
    child = subprocess.Popen([sys.executable, "-c", "import tempfile, time; tempfile.mkdtemp(); print('ready', flush=True); time.sleep(60)"])
    time.sleep(60)
"""  # noqa: E501  # a program's text
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment, start_new_session=True
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        assert len(names(tmp_path)) == 1
        process.kill()
        process.wait()
        subprocess.run([sys.executable, "-m", "nestling", "--help"], env=environment, check=True, stdout=subprocess.DEVNULL)
        assert names(tmp_path) == []
        os.killpg(process.pid, signal.SIGKILL)


def test_without_a_place_for_temporary_files_commands_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with scratch():
        assert os.environ["TMPDIR"] == str(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


# ---- what is not swept -----------------------------------------------------------------------------------------------------------


def test_who_is_alive_keeps_its_files_and_so_does_who_is_not_nestling(tmp_path: Path) -> None:
    alike = [
        ".nestling-settings01",
        ".nestling-0123456789ab",
        ".nestling-0123456789AB",
        ".my.nest.0123abcd.part",
        "nestling-0123456789ab",
    ]
    for name in alike:
        put(tmp_path / name, {"own": b""})
    (tmp_path / ".nestling-00000000000a").write_bytes(b"a file")
    (tmp_path / ".nestling-00000000000b").symlink_to(tmp_path / alike[0])
    before = content(tmp_path)
    with temporary(tmp_path) as mine:
        (mine / "x").write_bytes(b"")
        child(lambda: sweep(tmp_path))
        sweep(tmp_path)
        assert names(mine) == ["lock", "x"]
    write_atomically(tmp_path / "my.nest", b"")
    assert content(tmp_path) == before | {"my.nest": b""} and (tmp_path / ".nestling-00000000000b").is_symlink()


def test_many_write_and_sweep_at_once(tmp_path: Path) -> None:
    """No sweep takes what another thread or process has only begun."""

    def work() -> None:
        for number in range(60):
            write_atomically(tmp_path / "x", b"%d" % number)
            replace_folder(tmp_path / str(threading.get_native_id()), [("a", b"")])

    failed: list[BaseException] = []

    def kept() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    threads = [threading.Thread(target=kept) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert os.waitpid(process, 0)[1] == 0 and not failed and len(names(tmp_path)) == 5


def test_litter_in_a_folder_is_nobodys_and_does_not_stop_its_replacement(tmp_path: Path) -> None:
    child(lambda: write_atomically(tmp_path / "trained.nst", b"x"), 4)
    assert len(names(tmp_path)) == 1
    assert not_made(tmp_path, {}) is None and names(tmp_path) == []


# ---- readers ---------------------------------------------------------------------------------------------------------------------


def artifact_list(folder: Path) -> object:
    return manifest.read(folder.parent)


@pytest.mark.parametrize("read", [packages.read, load, scan, artifact_list])
def test_readers_put_back_what_a_killed_one_had_taken_away(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever they then say of it, which is no package, network or photographs."""
    monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    folder = tmp_path / "my-c-host"
    put(folder, OLD)
    listed = manifest.Artifact(folder.name, "c-host", "int8", 1, "0" * 64, 1.0, 0.0, 0.0, 0.0, 0.0, 1, 1.0, "my.nest")
    (tmp_path / manifest.NAME).write_text(json.dumps({"artifacts": [asdict(listed)]}))
    kill = 1
    while folder.exists():
        child(lambda: replaced(folder), kill)
        kill += 1
    with suppress(NestlingError):
        read(folder)
    assert content(folder) == OLD and names(tmp_path) == [manifest.NAME, folder.name]


# ---- disks -----------------------------------------------------------------------------------------------------------------------


@contextmanager
def small_place(size: int) -> Iterator[None]:
    """No file may be longer."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_where_there_is_no_room_the_old_stays_and_the_file_is_named(tmp_path: Path) -> None:
    path, folder = tmp_path / "my.nest", tmp_path / "pkg"
    write_atomically(path, b"old")
    replace_folder(folder, OLD_FLAT)
    with small_place(1000):
        with pytest.raises(OSError) as told:
            write_atomically(path, bytes(5000))
        assert told.value.filename == str(path)
        with pytest.raises(OSError) as told:
            replace_folder(folder, [("small", b""), ("net_runner", bytes(5000))])
        assert told.value.filename == str(folder / "net_runner")
    assert path.read_bytes() == b"old" and content(folder) == dict(OLD_FLAT) and names(tmp_path) == ["my.nest", "pkg"]


OLD_FLAT = (("a", b"old"), ("b", b"older"))


@pytest.mark.parametrize("step", ["mkdir", "open", "replace"])
def test_where_a_step_is_refused_the_file_is_named(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a folder without permission refuses it; the superuser, who may run this, is refused nothing."""
    path = tmp_path / "my.nest"
    write_atomically(path, b"old")

    def refused(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, refused)
        with pytest.raises(PermissionError) as told:
            write_atomically(path, b"new")
    assert told.value.filename == str(path) and path.read_bytes() == b"old" and names(tmp_path) == ["my.nest"]


@pytest.mark.parametrize("step", ["mkdir", "rename"])
def test_where_a_folder_cannot_be_replaced_it_is_named(tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pkg"
    put(folder, OLD)
    real = getattr(Path, step)

    def refused(self: Path, *words: object, **named: object) -> object:
        if step == "mkdir" or (folder in words and self.parent.name == ".new"):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real(self, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(files, "_exchanged", lambda one, other: False)
        patch.setattr(Path, step, refused)
        with pytest.raises(PermissionError) as told:
            replaced(folder)
    assert told.value.filename == str(folder) and content(folder) == OLD and names(tmp_path) == ["pkg"]


def test_an_error_that_is_not_of_the_folder_passes_as_it_is(tmp_path: Path) -> None:
    def failing(error: OSError) -> None:
        with folder_beside(tmp_path / "pkg"):
            raise error

    for error in (BrokenPipeError(errno.EPIPE, "Broken pipe"), FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "photo.jpg"))):
        with pytest.raises(OSError) as told:
            failing(error)
        assert told.value is error
    assert names(tmp_path) == []


def test_all_is_flushed_before_and_the_folder_after_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace, exchanged = os.fsync, Path.replace, files._exchanged

    def flushed(opened: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{opened}").readlink()).rpartition("/.new")[2])
        fsync(opened)

    def renamed(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    def swapped(one: Path, other: Path) -> bool:
        done.append("rename")
        return exchanged(one, other)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(files, "_exchanged", swapped)
    write_atomically(tmp_path / "made" / "my.nest", b"")
    assert done == [str(tmp_path), "", "rename", str(tmp_path / "made")]
    put(tmp_path / "pkg", OLD)
    done.clear()
    replaced(tmp_path / "pkg")
    assert sorted(done[:-2]) == ["/pkg", "/pkg/a", "/pkg/c"] and done[-2:] == ["rename", str(tmp_path)]


def test_files_have_the_modes_that_the_user_wants(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        write_atomically(tmp_path / "x", b"")
        replace_folder(tmp_path / "pkg", [("run", b""), ("read", b"")], ["run"])
    finally:
        os.umask(mask)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("x", "pkg", "pkg/run", "pkg/read")]
    assert modes == [0o640, 0o750, 0o750, 0o640]
