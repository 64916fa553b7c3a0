"""The format .nest, a bundle: what every other is printed from, and compared with."""

from __future__ import annotations

from nestling import bundle as bundles
from nestling.formats.format import File, Format, Runtime
from nestling.formats.runner import Runner


def _load(file: File) -> Runner:
    bundle = bundles.load(file.place)
    if bundle.graph is not None:
        from nestling.formats.nest.integers import integer_runner

        return integer_runner(bundle, quick=True)
    from nestling.formats.nest.floats import float_runner

    return float_runner(bundle, file.threads)


FORMAT = Format(name="nest", what="bundle", suffix=".nest", mark=("o", "●"), runtimes={"nestling": Runtime(_load)})
FORMATS = (FORMAT,)
