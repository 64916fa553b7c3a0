"""A headless Chromium, spoken to through its DevTools pipe: JSON messages, each ended by a zero byte, on descriptors 3 and 4."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def executable() -> str | None:
    """The browser's path; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@dataclass
class Tab:
    """One page of the browser. events: every message that was no answer, oldest first."""

    to: BinaryIO
    back: BinaryIO
    session: str = ""
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def ask(self, method: str, **parameters: Any) -> Any:
        """Send a command of the DevTools protocol and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while (answer := self._read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        got = bytearray()
        while (one := self.back.read(1)) != b"\0":
            assert one, "the browser has ended"
            got += one
        answer: dict[str, Any] = json.loads(got)
        return answer

    def show(self, html: Path, width: int, dark: bool = False, media: str = "screen") -> None:
        """Open the page as a telephone of that width (or a screen, from 800 pixels on) would, and wait until it has loaded."""
        self.events.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=width < 800)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.ask("Page.navigate", url=html.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> bytes:
        """The whole page as a PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        content = base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"])
        path.write_bytes(content)
        return content


@contextmanager
def browser(profile: Path) -> Iterator[Tab]:
    """One tab of a browser of its own, whose profile is that folder."""
    path = executable()
    assert path is not None
    theirs, to = os.pipe()
    back, answers = os.pipe()

    def wire() -> None:
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (theirs, answers)]  # 3 or 4 may be one of the pipes' own ends
        for fd, wanted in zip(high, (3, 4), strict=True):
            os.dup2(fd, wanted)

    process = subprocess.Popen(
        [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        close_fds=False, preexec_fn=wire, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    os.close(answers)
    try:
        with os.fdopen(to, "wb") as sending, os.fdopen(back, "rb") as receiving:
            tab = Tab(sending, receiving)
            target = next(info for info in tab.ask("Target.getTargets")["targetInfos"] if info["type"] == "page")
            tab.session = tab.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Log", "Runtime"):
                tab.ask(f"{domain}.enable")
            yield tab
            tab.session = ""
            tab.ask("Browser.close")
            process.wait(20)  # killed, it would leave processes that still write into the profile
    finally:
        process.kill()
        process.wait()
