"""The ways to a device: the commands that ssh and adb take."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = list[str]


@dataclass(frozen=True)
class Ssh:
    """folder: absolute, or from the home folder."""

    host: str
    user: str | None
    port: int | None
    folder: str

    @property
    def address(self) -> str:
        """As ssh and rsync take it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user}@{host}" if self.user else host


@dataclass(frozen=True)
class Adb:
    """serial: "" where one device only is there."""

    serial: str
    folder: str


@dataclass(frozen=True)
class Way:
    """How things are done on a device.

    send: (package, names of files, those that may be run) -> commands, each with what it reads. shell: a command line of the
    device's -> command. fetch: (name in the folder there, file here) -> command. enter: the device's words for going into the
    folder. dropped: of (status, all that was said), whether the connection was lost. final: words that say that trying again is
    of no use, what is wrong then, and what to do. tools: programs needed here; install: their Debian packages.
    """

    send: Callable[[Path, Sequence[str], Sequence[str]], list[tuple[Command, str]]]
    shell: Callable[[str], Command]
    fetch: Callable[[str, Path], Command]
    enter: str
    dropped: Callable[[int, str], bool]
    final: tuple[tuple[str, str, str], ...]
    tools: tuple[str, ...]
    install: str


# ---- ssh -----------------------------------------------------------------------------------------------------------------------

# what a person may set otherwise by --ssh-option: of two settings ssh takes the first
SSH_OPTIONS = ("ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=3")
SECONDS = 60  # without a byte after which rsync gives a connection up
LOST = (10, 12, 30, 35, 255)  # rsync: socket, stream, two timeouts; ssh: anything of its own
SSH_FINAL = (
    ("Permission denied (", "the device does not let us in", "name the key:  --identity FILE"),
    (
        "IDENTIFICATION HAS CHANGED",
        "the device is not the one that was known by this name",
        "if it is a new one:  ssh-keygen -R HOST",
    ),
    (
        "Host key verification failed",
        "the device is not known yet",
        "connect to it once by hand, with ssh, and look at its fingerprint",
    ),
    ("Could not resolve hostname", "there is no such host", "look at its name, or write its address"),
    ("Could not open a connection to your authentication agent", "no key", "name the key:  --identity FILE"),
    ("Bad configuration option", "ssh does not know this option", "see:  man ssh_config"),
    ("rsync: command not found", "the device has no rsync", "on the device:  sudo apt-get install rsync"),
    ("rsync: not found", "the device has no rsync", "on the device:  sudo apt-get install rsync"),
    ("No space left on device", "the device is full", "make room there"),
    ("mkdir: ", "the folder cannot be made there", "name one that may be written"),
)


def ssh_way(place: Ssh, identity: Path | None, options: Sequence[str]) -> Way:
    """By ssh and rsync. Host keys are checked as the user's own ssh does."""
    ssh = ["ssh", *(word for option in options for word in ("-o", option))]
    ssh += [word for option in SSH_OPTIONS for word in ("-o", option)]
    if not sys.stdin.isatty():
        ssh += ["-o", "BatchMode=yes"]  # nobody is there to be asked for a password
    if place.port is not None:
        ssh += ["-p", str(place.port)]
    if identity is not None:
        ssh += ["-i", str(identity), "-o", "IdentitiesOnly=yes"]
    rsync = ["rsync", "--protect-args", f"--timeout={SECONDS}", "-e", _remote_shell(ssh)]
    there = f"{place.address}:{place.folder.rstrip('/')}"
    folder = shlex.quote(place.folder if place.folder.startswith("/") else f"./{place.folder}")

    def shell(line: str) -> Command:
        return [*ssh, "--", _bare(place), line]

    def send(package: Path, names: Sequence[str], executable: Sequence[str]) -> list[tuple[Command, str]]:
        # compared by content; what arrived of a file before a cut is kept aside and gone on from; all put in place at the end
        words = ["--checksum", "--perms", "--partial-dir=.partial", "--delay-updates", "--stats", "--no-h", "--files-from=-"]
        return [
            (shell(f"mkdir -p {folder}"), ""),
            ([*rsync, *words, f"{package}/", f"{there}/"], "".join(f"{name}\n" for name in names)),
        ]

    return Way(
        send=send,
        shell=shell,
        fetch=lambda name, to: [*rsync, "--partial", f"{there}/{name}", str(to)],
        enter=f"cd {folder}",
        dropped=lambda status, said: status in LOST,
        final=SSH_FINAL,
        tools=("ssh", "rsync"),
        install="openssh-client rsync",
    )


def _bare(place: Ssh) -> str:
    """user@host as ssh itself takes it: IPv6 without brackets."""
    return f"{place.user}@{place.host}" if place.user else place.host


def _remote_shell(words: Sequence[str]) -> str:
    """As rsync's -e reads it: words in quotes, a quote in one doubled."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in words)


# ---- adb -----------------------------------------------------------------------------------------------------------------------

ADB_LOST = ("device offline", "error: closed", "protocol fault", "Connection reset", "connection reset", "still authorizing")
ADB_FINAL = (
    ("more than one device", "there are several devices", "name one, as `adb devices` lists it:  adb:SERIAL"),
    ("no devices/emulators found", "there is no device", "connect it and allow USB debugging; see:  adb devices"),
    ("unauthorized", "the device does not let us in", "allow USB debugging on its screen"),
    ("' not found", "there is no such device", "see:  adb devices"),
    ("No space left on device", "the device is full", "make room there"),
)


def adb_way(place: Adb) -> Way:
    """By Android's adb."""
    adb = ["adb", *(["-s", place.serial] if place.serial else [])]
    folder = place.folder.rstrip("/")

    def shell(line: str) -> Command:
        return [*adb, "shell", line]

    def send(package: Path, names: Sequence[str], executable: Sequence[str]) -> list[tuple[Command, str]]:
        runnable = " ".join(shlex.quote(f"{folder}/{name}") for name in executable)
        return [
            (shell(f"mkdir -p {shlex.quote(folder)}"), ""),
            ([*adb, "push", "--sync", *(str(package / name) for name in names), f"{folder}/"], ""),
            (shell(f"chmod 755 {runnable}"), ""),  # some versions of adb do not bring modes along
        ]

    return Way(
        send=send,
        shell=shell,
        fetch=lambda name, to: [*adb, "pull", f"{folder}/{name}", str(to)],
        enter=f"cd {shlex.quote(folder)}",
        dropped=lambda status, said: any(words in said for words in ADB_LOST),
        final=ADB_FINAL,
        tools=("adb",),
        install="adb",
    )
