"""push: a package to a device over ssh or adb, its scripts run there, and what they learned brought back."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nestling.device import head_file, manifest
from nestling.device.head_format import MOST_BYTES
from nestling.device.manifest import RUNNER, SCRIPTS, Manifest
from nestling.device.places import Adb, Ssh, Way, adb_way, ssh_way
from nestling.device.whose import copied
from nestling.errors import NestlingError, UnusableData, UnusableFile, WrongOption
from nestling.files import read_at_most, write_atomically
from nestling.temporary import temporary

TRAINED, OUTPUT = "trained.nst", "output"
ADB_FOLDER = "/data/local/tmp/nestling"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # of a user or a host: nothing that ssh would take for an option
ADDRESS = re.compile(r"[0-9a-fA-F:.]+(%[A-Za-z0-9]+)?")  # IPv6
Hear = Callable[[str], None]
Place = Ssh | Adb


@dataclass(frozen=True)
class PushConfig:
    """identity: file with the private key, ssh_options: as ssh's -o takes them; both for ssh alone.

    trust: run the scripts of a package, whoever packed it.
    retries: how often a dropped connection is taken up again; pause: seconds before the first time, doubled each time up to 30.
    """

    identity: Path | None = None
    ssh_options: tuple[str, ...] = ()
    retries: int = 5
    pause: float = 2.0
    trust: bool = False


@dataclass(frozen=True)
class Sent:
    """files: that were not there yet or differed, bytes: that went to the device for them; None where adb does not tell.

    dropped: how often the connection was lost on the way.
    """

    files: int | None
    bytes: int | None
    dropped: int


@dataclass(frozen=True)
class Ran:
    """A script that was run on the device. output: the file that holds what it said."""

    script: str
    output: Path
    seconds: float


@dataclass(frozen=True)
class Pushed:
    """sent; ran: the scripts, in order; trained: the head that was brought back, None where nothing was run."""

    sent: Sent
    ran: tuple[Ran, ...] = ()
    trained: Path | None = None


def place_of(text: str, to: str | None = None) -> Place:
    """ssh://user@host:port/folder (/~/folder: from the home folder), or adb, adb:SERIAL. to: the folder on an adb device.

    Raises NestlingError, saying what is expected.
    """
    if text == "adb" or text.startswith("adb:"):
        serial = text.partition(":")[2]
        if text.endswith(":") or serial.startswith("-") or not serial.isprintable():
            raise WrongOption(f"{text!r} names no device.", "adb, or adb:SERIAL as `adb devices` lists it")
        return Adb(serial, to or ADB_FOLDER)
    expected = "it is to be  ssh://user@host:port/folder  or  adb  or  adb:SERIAL"
    try:
        if not text.isprintable():
            raise ValueError("it holds a character that cannot be printed")  # urlsplit would leave out line breaks
        parts = urlsplit(text)
        host, user, port, folder = parts.hostname or "", parts.username, parts.port, unquote(parts.path)
    except ValueError as error:
        raise WrongOption(f"{text!r} is no place to push to ({error}).", expected) from error
    sound = parts.scheme == "ssh" and not (parts.password or parts.query or parts.fragment) and folder.isprintable()
    known = NAME.fullmatch(host) or (":" in host and ADDRESS.fullmatch(host))
    if not sound or not known or (user is not None and not NAME.fullmatch(user)) or folder.strip("/") in ("", "~"):
        raise WrongOption(f"{text!r} is no place to push to.", expected)
    if to is not None:
        raise WrongOption("--to is for adb; of ssh the folder stands in the address.", expected)
    return Ssh(host, user, port, folder.removeprefix("/~/"))


def push(
    package: Path,
    place: Place,
    config: PushConfig | None = None,
    run: str | None = None,
    hear: Hear = lambda line: None,
    say: Hear = lambda line: None,
) -> Pushed:
    """Bring the package to the device; with `run`, run its three scripts there on that folder of the device's, one after the other.

    hear: gets each line of the scripts, which package/output keeps as well; say: gets what is to be told of the connection.
    run: a path on the device, absolute or from the package's folder there. The trained head is checked before it is put beside
    the packed one; an older one stays until then.
    Raises UnusableFile: the package is not whole, or what came back is no head for it; NotTrusted: its scripts are to be run, and
    this user's nestling did not pack it; NestlingError: a program is missing, the device refuses, the connection is lost too often,
    or a script fails, its last line being told.
    """
    config = config or PushConfig()
    whole = manifest.require_whole(package)
    if whole.system == "mcu":
        raise UnusableData(f"{package} is for a microcontroller: it holds C to be built into a firmware.", "see its README.md")
    with nullcontext(package) if run is None else copied(package, config.trust) as source:
        return _pushed(package, source, whole, place, config, run, hear, say)


def _pushed(
    package: Path, source: Path, whole: Manifest, place: Place, config: PushConfig, run: str | None, hear: Hear, say: Hear
) -> Pushed:
    """source: where the files are that are sent."""
    way = ssh_way(place, config.identity, config.ssh_options) if isinstance(place, Ssh) else adb_way(place)
    for tool in way.tools:
        if shutil.which(tool) is None:
            raise NestlingError(f"{tool} is missing here.", f"sudo apt-get install {way.install}")
    sent = _sent(source, whole, way, config, say)
    if run is None:
        return Pushed(sent)
    (package / OUTPUT).mkdir(exist_ok=True)
    ran = tuple(_ran(script, package, run, way, config, hear, say) for script in SCRIPTS)
    return Pushed(sent, ran, _brought_back(package, whole, way, config, say))


def _sent(package: Path, whole: Manifest, way: Way, config: PushConfig, say: Hear) -> Sent:
    names = (*sorted(whole.files), manifest.NAME)
    executable = [name for name in (RUNNER, *SCRIPTS) if name in whole.files]
    said, dropped = "", 0
    for command, typed in way.send(package.resolve(), names, executable):
        more, lost = _insisted(command, way, config, say, typed)
        said, dropped = said + more, dropped + lost
    files, count = (_number(said, pattern) for pattern in ("Number of regular files transferred", "Total bytes sent"))
    return Sent(files, count, dropped)


def _ran(script: str, package: Path, data: str, way: Way, config: PushConfig, hear: Hear, say: Hear) -> Ran:
    output = package / OUTPUT / f"{script.removesuffix('.sh')}.txt"
    started = time.monotonic()
    with output.open("w", encoding="utf-8") as file:

        def keep(line: str) -> None:
            file.write(f"{line}\n")
            file.flush()
            hear(line)

        command = way.shell(f"{way.enter} && ./{script} {quoted(data)}")
        again = way.shell(f"{way.enter} && ./{script} {quoted(data)} --resume") if script == "train.sh" else command
        _insisted(command, way, config, say, hear=keep, again=again, what=script)
    return Ran(script, output, time.monotonic() - started)


def _brought_back(package: Path, whole: Manifest, way: Way, config: PushConfig, say: Hear) -> Path:
    with temporary(package) as place:
        fetched = place / TRAINED
        _insisted(way.fetch(TRAINED, fetched), way, config, say)
        try:
            content = read_at_most(fetched, MOST_BYTES)
        except OSError as error:
            raise UnusableFile(f"the {TRAINED} of the device cannot be read ({error.strerror}).") from error
    head = head_file.from_bytes(content, f"the {TRAINED} of the device")
    if head.graph != whole.graph:
        raise UnusableFile(
            f"the {TRAINED} of the device is a head of another network.", "push the package into a folder of its own"
        )
    write_atomically(package / TRAINED, content)
    return package / TRAINED


def quoted(path: str) -> str:
    """A path as a shell on the device takes it; ~/ stays the home folder."""
    if path.startswith("~/"):
        return f"~/{shlex.quote(path[2:])}"
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


# ---- running -------------------------------------------------------------------------------------------------------------------


def _insisted(
    command: Sequence[str],
    way: Way,
    config: PushConfig,
    say: Hear,
    typed: str = "",
    hear: Hear = lambda line: None,
    again: Sequence[str] | None = None,
    what: str = "",
) -> tuple[str, int]:
    """Run a command until it ends, taking dropped connections up again; (all that it said the last time, connections lost).

    again: the command of later times.
    """
    for attempt in range(config.retries + 1):
        lines: list[str] = []
        with _running(command if attempt == 0 else again or command, typed) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line.rstrip("\r\n"))
                hear(lines[-1])
        status, said = process.returncode, "\n".join(lines)
        if status == 0:
            return said, attempt
        last = next((line for line in reversed(lines) if line.strip()), f"status {status}")
        for words, problem, hint in way.final:
            if words in said:
                raise NestlingError(f"{problem}: {last}", hint)
        if not way.dropped(status, said):
            raise NestlingError(f"{what or command[0]} failed on the way to or on the device: {last}")
        if attempt < config.retries:
            seconds = min(30.0, config.pause * 2**attempt)
            say(f"connection lost ({last}); going on in {seconds:g} s, time {attempt + 1} of {config.retries}")
            time.sleep(seconds)
    raise NestlingError(f"the connection was lost {config.retries + 1} times: {last}", "try later: what is there stays there")


@contextmanager
def _running(command: Sequence[str], typed: str) -> Iterator[subprocess.Popen[str]]:
    """The process; it is ended where the caller leaves early, and waited for."""
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    try:
        if typed and process.stdin is not None:
            try:
                process.stdin.write(typed)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it ended at once, and has said why
        yield process
    except BaseException:
        process.kill()
        raise
    finally:
        process.wait()


def _number(said: str, what: str) -> int | None:
    found = re.search(rf"^{what}: ([\d,.]+)", said, re.MULTILINE)
    return int(re.sub(r"\D", "", found[1])) if found else None
