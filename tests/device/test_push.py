"""push through a real sshd, its connection cut midway; through a stand-in for adb, since no phone is here."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from nestling.device import head_file, manifest
from nestling.device.manifest import Manifest, PackedFile
from nestling.device.places import Adb, Ssh
from nestling.device.push import PushConfig, place_of, push, quoted
from nestling.device.whose import signed
from nestling.errors import NestlingError, NotTrusted, UnusableData, UnusableFile
from nestling.graph.head import Head
from nestling.preprocess.image import ImagePreprocess, to_plain
from tests.device import ssh_server
from tests.device.ssh_server import Proxy, Server

PREPROCESS = ImagePreprocess((16, 16), 3, 1.0, "bicubic", (0.5,) * 3, (0.5,) * 3)
SCRIPTS = {  # what a device would run; each says what it was given
    "eval_untrained.sh": 'echo "untrained on $1 in $(pwd)"; echo "to stderr" >&2\n',
    "train.sh": 'here=$(dirname "$0"); cp "$here/learned" "$here/trained.nst"; echo "train" "$@"\n',
    "eval.sh": 'test -f "$(dirname "$0")/trained.nst" && echo "accuracy on validation data = 0.9271"\n',
}


def head(graph: str = "ab" * 32) -> bytes:
    rng = np.random.default_rng(0)
    float_head = Head(rng.normal(size=(2, 24)).astype(np.float32), np.zeros(2, np.float32))
    steps = rng.integers(-90, 90, (30, 24)).astype(np.int8)
    made = head_file.made(
        ("a", "b"), 3, steps, float_head, embedding_scale=0.1, embedding_zero=3, preprocess=PREPROCESS, graph=graph
    )
    return head_file.to_bytes(made)


def packed(folder: Path, files: dict[str, bytes], system: str = "linux") -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        if name.endswith(".sh") or name == "net_runner":
            (folder / name).chmod(0o755)
    listed = {name: PackedFile(len(content), sha256(content).hexdigest()) for name, content in files.items()}
    plain = to_plain(PREPROCESS)
    whole = Manifest(system, "x86-64", "c", ("a", "b"), plain, "ab" * 32, 3, {}, "30 photographs", {}, listed)  # type: ignore[arg-type]  # of the kind that this test knows
    for name, content in signed({"manifest.json": manifest.to_bytes(whole)}).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """3 MB that cannot be compressed, scripts, and what training them is to leave behind."""
    noise = np.random.default_rng(1).bytes(3_000_000)
    scripts = {name: f"#!/bin/sh\n{text}".encode() for name, text in SCRIPTS.items()}
    return packed(tmp_path / "the pkg", {"net_runner": noise, "head.nst": head(), "learned": head()} | scripts)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    problem = ssh_server.missing()
    if problem:
        pytest.skip(problem)
    with ssh_server.server(tmp_path_factory.mktemp("ssh")) as running:
        yield running


def ssh_to(server: Server, folder: Path, port: int | None = None) -> Ssh:
    return Ssh("127.0.0.1", server.user, port or server.port, str(folder))


def config(server: Server, **settings: float) -> PushConfig:
    return PushConfig(server.identity, server.options(), pause=0.05, **settings)  # type: ignore[arg-type]  # of the kind that this test knows


def same(package: Path, there: Path) -> None:
    """The files of the manifest and nothing else, with content and the right to be run."""
    names = {*json.loads((package / "manifest.json").read_text())["files"], "manifest.json"}
    assert {path.name for path in there.iterdir()} == names
    for name in names:
        assert (there / name).read_bytes() == (package / name).read_bytes()
        assert (there / name).stat().st_mode & stat.S_IXUSR == (package / name).stat().st_mode & stat.S_IXUSR


# ---- ssh -------------------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_sent(server: Server, package: Path, tmp_path: Path) -> None:
    there = tmp_path / "a device" / "it's here"
    (package / "trained.nst").write_bytes(b"of an earlier run")
    first = push(package, ssh_to(server, there), config(server)).sent
    same(package, there)
    assert first.files == 7 and first.bytes is not None and first.bytes > 3_000_000 and first.dropped == 0
    os.utime(package / "net_runner", (0, 0))  # packed again, the same
    (there / "train.sh").chmod(0o644)
    again = push(package, ssh_to(server, there), config(server)).sent
    same(package, there)
    assert again.files == 0 and again.bytes is not None and again.bytes < 3_000
    changed = bytearray((package / "net_runner").read_bytes())
    changed[1_000_000] ^= 1
    packed(package, {name: (package / name).read_bytes() for name in manifest.read(package).files} | {"net_runner": bytes(changed)})
    third = push(package, ssh_to(server, there), config(server)).sent
    same(package, there)
    assert third.files == 2 and third.bytes is not None and third.bytes < 60_000


def test_a_cut_connection_goes_on_from_where_it_was(server: Server, package: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    said: list[str] = []
    with Proxy(server.port, cuts=1, after=2_000_000).running() as proxy:
        sent = push(package, ssh_to(server, there, proxy.port), config(server), say=said.append).sent
    same(package, there)
    assert sent.dropped == 1 and len(said) == 1 and "connection lost" in said[0]
    largest = sorted(proxy.sent)[-2:]
    assert min(largest) > 1_000_000 and sum(largest) < 3_600_000, "what had arrived was not sent again"
    assert sent.bytes is not None and sent.bytes < 1_600_000


def test_it_gives_up_after_so_many_cuts_and_nothing_half_is_in_place(server: Server, package: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    push(packed(tmp_path / "old", {"net_runner": b"old"}), ssh_to(server, there), config(server))
    with (
        Proxy(server.port, cuts=99, after=400_000).running() as proxy,
        pytest.raises(NestlingError, match="lost 3 times"),
    ):
        push(package, ssh_to(server, there, proxy.port), config(server, retries=2))
    visible = {path.name: path.read_bytes() for path in there.iterdir() if not path.name.startswith(".")}
    old = tmp_path / "old"
    assert visible == {name: (old / name).read_bytes() for name in ("net_runner", "manifest.json")}
    push(package, ssh_to(server, there), config(server))
    same(package, there)


def test_its_scripts_are_run_there_and_the_head_comes_back(server: Server, package: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    heard: list[str] = []
    done = push(package, ssh_to(server, there), config(server), run="/photos of mine; rm -rf x", hear=heard.append)
    assert [ran.script for ran in done.ran] == ["eval_untrained.sh", "train.sh", "eval.sh"]
    assert heard[-1] == "accuracy on validation data = 0.9271"
    assert f"untrained on /photos of mine; rm -rf x in {there}" in heard and "to stderr" in heard
    kept = {path.name: path.read_text() for path in (package / "output").iterdir()}
    assert set(kept) == {"eval_untrained.txt", "train.txt", "eval.txt"}
    assert "".join(kept[f"{ran.script.removesuffix('.sh')}.txt"] for ran in done.ran) == "".join(f"{line}\n" for line in heard)
    assert done.trained == package / "trained.nst" and done.trained.read_bytes() == head()
    assert not list(package.glob(".fetched*"))


WAITS = """#!/bin/sh
here=${0%/*}
echo "train" "$@"
if [ "$2" != --resume ]; then
  while [ ! -e "$here/cut" ]; do sleep 0.05; done
  exit 1
fi
cp "$here/learned" "$here/trained.nst"
"""


def test_training_is_resumed_after_a_cut(server: Server, package: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    said: list[str] = []
    heard: list[str] = []
    files = {name: (package / name).read_bytes() for name in manifest.read(package).files}
    packed(package, files | {"train.sh": WAITS.encode()})
    with Proxy(server.port, cuts=0, after=0).running() as proxy:

        def hear(line: str) -> None:
            heard.append(line)
            if line == "train /data":
                proxy.cut()
                (there / "cut").touch()  # so that the first script ends, too

        done = push(package, ssh_to(server, there, proxy.port), config(server), run="/data", hear=hear, say=said.append)
    assert [line for line in heard if line.startswith("train")] == ["train /data", "train /data --resume"] and len(said) == 1
    assert done.trained is not None and done.trained.read_bytes() == head()


def test_a_script_that_fails_is_an_error_with_its_last_line(server: Server, package: Path, tmp_path: Path) -> None:
    files = {name: (package / name).read_bytes() for name in manifest.read(package).files}
    packed(package, files | {"train.sh": b"#!/bin/sh\necho 'net_runner: no photographs in /data'\nexit 1\n"})
    with pytest.raises(NestlingError, match=r"train.sh failed.*no photographs in /data"):
        push(package, ssh_to(server, tmp_path / "there"), config(server), run="/data")
    assert "no photographs" in (package / "output" / "train.txt").read_text()
    assert not (package / "trained.nst").exists()


@pytest.mark.parametrize("came", [head()[:-9], head("cd" * 32), b"", None])
def test_what_is_no_head_does_not_replace_the_one_here(server: Server, package: Path, tmp_path: Path, came: bytes | None) -> None:
    (package / "trained.nst").write_bytes(head())
    files = {name: (package / name).read_bytes() for name in manifest.read(package).files}
    packed(package, files | ({"learned": came} if came is not None else {"eval.sh": b'#!/bin/sh\nrm "${0%/*}/trained.nst"\n'}))
    with pytest.raises(NestlingError):
        push(package, ssh_to(server, tmp_path / "there"), config(server), run="/data")
    assert (package / "trained.nst").read_bytes() == head() and not list(package.glob(".fetched*"))


def test_an_unknown_host_is_not_trusted(server: Server, package: Path, tmp_path: Path) -> None:
    (tmp_path / "nobody").write_text("")
    options = (f"UserKnownHostsFile={tmp_path / 'nobody'}", "GlobalKnownHostsFile=/dev/null")
    with pytest.raises(NestlingError, match="not known yet"):
        push(package, ssh_to(server, tmp_path / "there"), PushConfig(server.identity, options, pause=60))
    assert not (tmp_path / "there").exists()


def test_a_key_that_is_not_let_in_is_said_at_once(server: Server, package: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    with pytest.raises(NestlingError, match="does not let us in") as found:
        push(package, ssh_to(server, tmp_path / "there"), PushConfig(tmp_path / "other", server.options(), pause=60))
    assert "--identity" in found.value.hint


# ---- what is refused before anything is sent ------------------------------------------------------------------------------


def test_a_damaged_package_is_not_sent(package: Path) -> None:
    (package / "net_runner").write_bytes(b"half of it")
    with pytest.raises(UnusableFile, match="net_runner is not the file that was packed"):
        push(package, Adb("", "/nowhere"))
    with pytest.raises(UnusableFile, match="no package"):
        push(package.parent, Adb("", "/nowhere"))


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "output/x", "..", "-e"])
def test_a_manifest_that_names_files_elsewhere_is_refused(package: Path, name: str) -> None:
    plain = json.loads((package / "manifest.json").read_text())
    plain["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    (package / "manifest.json").write_text(json.dumps(plain))
    with pytest.raises(UnusableFile, match="not the name of a file"):
        push(package, Adb("", "/nowhere"))


def test_firmware_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(UnusableData, match="microcontroller"):
        push(packed(tmp_path / "mcu", {"main_learn.c": b""}, "mcu"), Adb("", "/nowhere"))


def test_places() -> None:
    assert place_of("ssh://me@board.local:2222/home/me/pkg") == Ssh("board.local", "me", 2222, "/home/me/pkg")
    assert place_of("ssh://board/~/a%20b") == Ssh("board", None, None, "a b")
    assert place_of("ssh://me@[fe80::1]/x").address == "me@[fe80::1]"  # type: ignore[union-attr]  # of the kind that this test knows
    assert place_of("adb") == Adb("", "/data/local/tmp/nestling") and place_of("adb:XY1", "/sdcard/x") == Adb("XY1", "/sdcard/x")


@pytest.mark.parametrize(
    "text",
    ["board:/x", "ssh://", "ssh://board", "ssh://board/", "ssh://-oProxyCommand=touch%20x/y", "ssh://-x@board/y", "ssh://a:b@c/d",
     "ssh://a b/c", "ssh://board:port/x", "ssh://board:99999/x", "ftp://board/x", "adb:", "adb:-s", "ssh://board/a\nb", "ssh://board/~/"],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(NestlingError):
        place_of(text)


def test_paths_as_a_shell_takes_them() -> None:
    assert quoted("~/my photos") == "~/'my photos'" and quoted("-rf") == "./-rf" and quoted("a'b") == """'a'"'"'b'"""


# ---- adb: a stand-in that records its calls -------------------------------------------------------------------------------

STAND_IN = """#!/bin/sh
{ printf '%s\\037' "$@"; echo; } >> "$ADB_CALLS"
[ "$1" = -s ] && shift 2
case "$1" in
push) shift; [ "$1" = --sync ] && shift
  if [ -e "$ADB_CALLS.offline" ]; then rm "$ADB_CALLS.offline"; echo "adb: error: device offline"; exit 1; fi
  for last; do :; done
  while [ $# -gt 1 ]; do cp "$1" "$last"; shift; done ;;
pull) cp "$2" "$3" ;;
shell) shift; sh -c "$*" ;;
esac
"""


def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "adb").write_text(STAND_IN)
    (tmp_path / "bin" / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("ADB_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def calls(recorded: Path) -> list[list[str]]:
    return [line.split("\x1f")[:-1] for line in recorded.read_text().splitlines()]


def test_adb_pushes_runs_and_pulls(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded, there = adb(tmp_path, monkeypatch), tmp_path / "on the phone"
    heard: list[str] = []
    done = push(package, Adb("XY1", str(there)), run="/sdcard/photos", hear=heard.append)
    (there / "trained.nst").unlink()
    same(package, there)
    assert done.trained is not None and done.trained.read_bytes() == head() and done.sent.files is None
    made = calls(recorded)
    assert all(call[:2] == ["-s", "XY1"] for call in made)
    files = [*sorted(manifest.read(package).files), "manifest.json"]  # of a copy, which nobody else can change
    assert [Path(file).name for file in made[1][4:-1]] == files and str(package) not in made[1][4]
    quoted_there = f"'{there}'"
    assert [call[2:] for call in made] == [
        ["shell", f"mkdir -p {quoted_there}"],
        ["push", "--sync", *made[1][4:-1], f"{there}/"],
        ["shell", f"chmod 755 '{there}/net_runner' '{there}/eval_untrained.sh' '{there}/train.sh' '{there}/eval.sh'"],
        *(["shell", f"cd {quoted_there} && ./{name}.sh /sdcard/photos"] for name in ("eval_untrained", "train", "eval")),
        ["pull", f"{there}/trained.nst", made[-1][-1]],
    ]
    assert heard[-1] == "accuracy on validation data = 0.9271" and "train /sdcard/photos" in heard


@pytest.mark.parametrize("change", ["a script", "the manifest alone", "no mac", "another user's"])
def test_scripts_of_somebody_else_are_not_run(change: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the manifest has its right hash."""
    recorded, there = adb(tmp_path, monkeypatch), tmp_path / "on the phone"
    if change == "a script":
        scripts = {name: (package / name).read_bytes() for name in manifest.read(package).files}
        mac = (package / "nestling.mac").read_bytes()
        packed(package, scripts | {"train.sh": b"#!/bin/sh\ntouch ran; cp learned trained.nst\n"})
        (package / "nestling.mac").write_bytes(mac)
    elif change == "the manifest alone":
        text = (package / "manifest.json").read_text()
        (package / "manifest.json").write_text(text.replace("30 photographs", "31 photographs"))
    elif change == "no mac":
        (package / "nestling.mac").unlink()
    else:
        monkeypatch.setenv("NESTLING_CONFIG", str(tmp_path / "another"))
    with pytest.raises(NotTrusted, match="does whatever their author wrote") as found:
        push(package, Adb("", str(there)), run="/sdcard/photos")
    assert "--trust" in found.value.hint and not recorded.exists()
    push(package, Adb("", str(there)))  # nothing is run
    done = push(package, Adb("", str(there)), PushConfig(trust=True), run="/sdcard/photos")
    assert done.trained is not None and (there / "ran").exists() == (change == "a script")


def test_adb_goes_on_when_the_phone_was_away(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = adb(tmp_path, monkeypatch)
    said: list[str] = []
    Path(f"{recorded}.offline").touch()
    done = push(package, Adb("", str(tmp_path / "phone")), PushConfig(pause=0.01), say=said.append)
    assert done.sent.dropped == 1 and "device offline" in said[0]
    assert [call[0] for call in calls(recorded)] == ["shell", "push", "push", "shell"]
    same(package, tmp_path / "phone")


def test_without_adb_it_is_said_what_to_install(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NestlingError, match="adb is missing") as found:
        push(package, Adb("", "/x"))
    assert "apt-get install adb" in found.value.hint
