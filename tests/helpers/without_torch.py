"""A Python in which what the extras bring is not installed: neither found, nor imported, nor listed.

    python -c "from tests.helpers.without_torch import block; block(); ..."

or, for a process and all that it starts, a folder of environment()'s in PYTHONPATH. Such a process says when it ends, into a file
of its own in that folder, which of these modules it held.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from typing import Any

from tests import ROOT

NAMES = (
    "torch",
    "timm",
    "torchvision",
    "executorch",
    "torchao",
    "openvino",
    "huggingface_hub",
    "torch_pruning",
    "modelopt",
    "torchprofile",
)
ANY = DistributionFinder.Context()
SITE = """
from tests.helpers.without_torch import block, tell
tell({folder!r})
if {blocked!r}:
    block()
"""


class Without(PathFinder):
    """Python's own finder, to which NAMES are not there."""

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """As PathFinder."""
        return None if fullname.partition(".")[0] in NAMES else super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, context: DistributionFinder.Context = ANY) -> Iterable[Distribution]:  # type: ignore[override]  # as importlib calls it
        """As PathFinder."""
        if (context.name or "").lower().replace("-", "_") in NAMES:
            return ()
        return super().find_distributions(context)


def block() -> None:
    """In this process, from now on."""
    assert not held(), held()
    sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]


def held() -> list[str]:
    """Which of these modules this process has imported."""
    return sorted({name.partition(".")[0] for name in sys.modules} & set(NAMES))


def tell(folder: str) -> None:
    """Write held() into a file of the folder when this process ends."""
    atexit.register(lambda: Path(folder, f"{os.getpid()}.held").write_text(json.dumps({"argv": sys.argv, "held": held()})))


def environment(folder: Path, blocked: bool = True) -> dict[str, str]:
    """What to add to a process's environment; folder: an empty one of its own. blocked: else it only says what it held."""
    folder.mkdir(parents=True)
    (folder / "sitecustomize.py").write_text(SITE.format(folder=str(folder), blocked=blocked))
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(ROOT)))}


def told(folder: Path) -> list[dict[str, Any]]:
    """What the processes of an environment() said when they ended, those that were killed apart."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.held"))]
