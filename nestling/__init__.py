"""nestling: small vision networks on small machines.

    import nestling

    my = nestling.fit("photos")                       # a folder of photographs for each class
    my8 = nestling.quantize(my)
    nestling.export(my8, "out", to="tflite", precision="int8")
    nestling.predict("out/network-int8.tflite", "photo.jpg")

The verbs are those of the command line, in verbs.py; each imports what it needs when it is called.
"""

__version__ = "0.1.0"

from nestling.errors import NestlingError
from nestling.verbs import (
    agree,
    bench,
    compare,
    demo,
    distill,
    evaluate,
    export,
    finetune,
    fit,
    import_model,
    learn,
    load,
    pack,
    predict,
    prepare,
    prune,
    push,
    qat,
    quantize,
    report,
    save,
    search,
    sparsify,
    trace,
    update,
)

__all__ = [
    "NestlingError",
    "__version__",
    "agree",
    "bench",
    "compare",
    "demo",
    "distill",
    "evaluate",
    "export",
    "finetune",
    "fit",
    "import_model",
    "learn",
    "load",
    "pack",
    "predict",
    "prepare",
    "prune",
    "push",
    "qat",
    "quantize",
    "report",
    "save",
    "search",
    "sparsify",
    "trace",
    "update",
]


def __dir__() -> list[str]:
    return __all__
