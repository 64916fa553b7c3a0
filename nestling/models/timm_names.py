"""Whether timm may have a network of a name, told from its sources: importing timm takes seconds, and a slip of the finger none."""

from __future__ import annotations

import difflib
import re
from importlib.util import find_spec
from pathlib import Path

from nestling.errors import NestlingError

HINT = "names that work well:  nestling backbones"


def require_somewhere(name: str) -> None:
    """Raises NestlingError, with the closest names, for one that stands nowhere in timm's sources, or in torchvision's.

    A name that does stand there may still be none: that is told when the network is made. Without timm nothing is asked.
    """
    spec = find_spec("timm")
    if spec is None or spec.origin is None or re.search(r"[:/]", name):  # of a hub
        return
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(spec.origin).with_name("models").glob("*.py")))
    base = name.partition(".")[0]
    if base and re.search(rf"\b{re.escape(base)}\b", text):
        return
    close = difflib.get_close_matches(base, re.findall(r"(?m)^def (\w+)\(pretrained", text), n=3)
    meant = f"did you mean {' or '.join(close)}?  " if close else ""
    raise NestlingError(f"timm has no network called {name!r}.", f"{meant}{HINT}")
