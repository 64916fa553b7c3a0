"""nestling: small vision networks on small machines.

The public verbs, each a function of the name of its command. They are imported when they are first asked for: a printer of
.tflite must not bring torch along.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "fit": "nestling.training.fit",
    "update": "nestling.training.update",  # `fit --update` on the command line
    "import_model": "nestling.artifacts.import_model",  # `import` on the command line
    "finetune": "nestling.training.finetune",
    "distill": "nestling.training.distill",
    "prune": "nestling.compress.prune",
    "search": "nestling.compress.search",
    "quantize": "nestling.quantization.quantize",
    "qat": "nestling.training.qat",  # `quantize --qat` on the command line
    "trace": "nestling.measure.trace",
    "export": "nestling.artifacts.export",
    "evaluate": "nestling.measure.answers",  # `eval` on the command line; the name is Python's own
    "agree": "nestling.measure.answers",
    "predict": "nestling.measure.answers",
    "bench": "nestling.measure.bench",
    "report": "nestling.pages.gather",
    "compare": "nestling.pages.compare.compare",  # `report` on the command line, with bundles
    "prepare": "nestling.data.prepare",  # `data prepare` on the command line
    "pack": "nestling.device.package",
    "push": "nestling.device.push",
    "learn": "nestling.device.learn",
    "demo": "nestling.demonstration",
}
__all__ = ["__version__", *_VERBS]


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"nestling has no {name!r}; it has {', '.join(_VERBS)}")
    return getattr(import_module(_VERBS[name]), name)
