"""A real sshd on loopback with throw-away keys, and a proxy before it that cuts connections."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NEEDED = ("ssh", "ssh-keygen", "rsync")
INSTALL = "apt-get install openssh-server openssh-client rsync"


@dataclass(frozen=True)
class Server:
    """identity: the client's private key. known_hosts: the server's key under 127.0.0.1, whatever the port."""

    port: int
    identity: Path
    known_hosts: Path

    @property
    def user(self) -> str:
        return getpass.getuser()

    def options(self) -> tuple[str, ...]:
        return (f"UserKnownHostsFile={self.known_hosts}", "GlobalKnownHostsFile=/dev/null", "HostKeyAlias=throw-away")


def sshd() -> str | None:
    """Where the server's program is; it stands outside of most people's PATH."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def missing() -> str | None:
    """What to install, in words; None where all is there."""
    tools = [tool for tool in NEEDED if shutil.which(tool) is None] + ([] if sshd() else ["sshd"])
    return f"needs {', '.join(tools)}: {INSTALL}" if tools else None


@contextmanager
def server(place: Path) -> Iterator[Server]:
    """A running server that lets in whoever runs the tests, with the one key."""
    for name in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    (place / "authorized").write_text((place / "client.pub").read_text())
    (place / "known_hosts").write_text(f"throw-away {(place / 'host.pub').read_text()}")
    port = free_port()
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {place / 'host'}",
        f"AuthorizedKeysFile {place / 'authorized'}",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
    ]
    (place / "sshd_config").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # a server of root's goes there to have no rights
    program = sshd()
    assert program is not None
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", place / "sshd_config"], stderr=log)
    try:
        while not answers(port):
            assert process.poll() is None, (place / "log").read_text()
            time.sleep(0.02)
        yield Server(port, place / "client", place / "known_hosts")
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Proxy:
    """Hands connections on to a port, about 4 MB a second. cuts: how many it may yet cut, each after so many bytes upwards.

    Slowly, since what waits in sshd is lost with a connection, and a loopback can fill sshd faster than rsync empties it.
    """

    to: int
    cuts: int
    after: int
    port: int = 0
    connections: int = 0
    sent: list[int] = field(default_factory=list)  # bytes upwards, of each connection
    open: list[socket.socket] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            yield self

    def cut(self) -> None:
        """The newest connection, on both sides."""
        for side in self.open:
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                above = socket.create_connection(("127.0.0.1", self.to))
                self.sent.append(0)
                self.open = [client, above]
                number, self.connections = self.connections, self.connections + 1
                threading.Thread(target=self._upwards, args=(client, above, number), daemon=True).start()
                threading.Thread(target=self._downwards, args=(above, client), daemon=True).start()

    def _upwards(self, client: socket.socket, above: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while some := client.recv(4096):
                self.sent[number] += len(some)
                if self.cuts and self.sent[number] > self.after:
                    self.cuts -= 1
                    self.cut()
                    return
                above.sendall(some)
                time.sleep(0.001)
            above.shutdown(socket.SHUT_WR)

    def _downwards(self, above: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while some := above.recv(65536):
                client.sendall(some)
            client.shutdown(socket.SHUT_WR)
