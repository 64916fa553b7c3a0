"""compare: bundles side by side, all on the same photographs, all their files timed in turns in one run.

comparable.py      which photographs
weighed.py         MACs, parameters, bytes
files.py           the files: printed, asked, timed; the C on its machine
found.py            what was found; words.py and page.py show it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.data.folders import Dataset, Item, labels_of
from nestling.embedding.cache import embed
from nestling.embedding.engine import Engine, exact_engine
from nestling.embedding.of_bundle import bundle_engine
from nestling.embedding.refit import training_views
from nestling.errors import NestlingError, UnusableData, WrongOption
from nestling.formats import FORMATS
from nestling.formats.c import machines
from nestling.formats.format import INTEGERS
from nestling.formats.nest.floats import float_runner
from nestling.formats.nest.integers import integer_runner
from nestling.formats.runner import Runner
from nestling.measure.answers import answers
from nestling.measure.counted import HOST
from nestling.measure.weighed import weighed
from nestling.pages.compare.comparable import judges, learned_here
from nestling.pages.compare.files import Made, asked, begun, on_board, timed, with_files, with_integers
from nestling.pages.compare.found import Board, Compared, Comparison, File, Score
from nestling.processor import processor, versions
from nestling.progress import Advance, Progress, silent
from nestling.scores.chance import Right, changed
from nestling.scores.evaluate import wilson

DEFAULTS = tuple((form.name, precision) for form in FORMATS.values() for precision in form.shown)


@dataclass(frozen=True)
class CompareConfig:
    """wanted: (format, precision) of the files. quantise: bundles that have no integers. rounds: of the timing, 15 images.

    machine: that C is made for and run on in QEMU, None for none. keep: a folder for the files, where a later comparison of the
    same bundles finds them; None for one that is removed again.
    """

    wanted: tuple[tuple[str, str], ...] = DEFAULTS
    quantise: bool = True
    machine: str | None = None
    rounds: int = 5
    keep: Path | None = None


def compare(
    paths: Sequence[Path], data: Path | None = None, config: CompareConfig | None = None, progress: Progress = silent
) -> Comparison:
    """Measure every bundle on the same test photographs and time all their files in one run. The first is the baseline.

    data: a folder of photographs; None for the one that they learned from. A bundle without integers is quantised with the
    defaults of `quantize`, if its training photographs are at hand. What cannot be measured is noted, with the reason.
    Raises NestlingError for bundles that know different classes, UnusableData for photographs that one of them has learned from
    (see comparable.judges), UnusableFile for a file that is no bundle.
    """
    config = config or CompareConfig()
    if not paths:
        raise NestlingError(
            "a comparison needs at least one bundle; there is none.", "nestling report a.nest b.nest -o compare.html"
        )
    if config.machine is not None and machines.machine(config.machine).name == HOST:
        raise WrongOption(f"--machine {HOST} is this computer, on which all files are timed.", "name another:  --machine cortex-m4")
    loaded = dict(zip(_names(paths), (bundles.load(path) for path in paths), strict=True))
    chosen = judges(loaded, data)
    with _place(config.keep) as place:
        bars = {name: _named(progress, name if len(loaded) > 1 else "") for name in loaded}
        made = []
        right: list[dict[str, Right]] = []
        used: tuple[Item, ...] = ()
        for path, (name, bundle) in zip(paths, loaded.items(), strict=True):
            own = begun(name, path, bundle, place, data if learned_here(bundle, chosen.dataset) else None)
            own = with_integers(own, config.quantise, bars[name])
            made.append(with_files(own, config.wanted, config.machine, bars[name]))
            used, answered = _answered(made[-1], chosen.dataset, chosen.items, bars[name])
            right.append(answered)
        best, best_right = _best(made, right)
        files = [asked(one, used, best_right, bars[one.name]) for one in made]
        made, rows = timed([one for one, _ in files], [own for _, own in files], config.rounds, progress)
        boards = [on_board(one, bars[one.name]) for one in made]
        found = [
            _compared(one, own, answered, right[0], board) for (one, board), own, answered in zip(boards, rows, right, strict=True)
        ]
    unread = len(chosen.items) - len(used)
    lost = (f"{unread} of the {len(chosen.items)} photographs could not be read; no network was judged on them.",) if unread else ()
    said = f"{chosen.dataset.root.name}: {chosen.said}"
    return Comparison(
        tuple(found), len(used), said, chosen.dataset.labels, (*chosen.warnings, *lost), processor(), versions(), best
    )  # fmt: skip


# ---- small things ---------------------------------------------------------------------------------------------------------------


def _names(paths: Sequence[Path]) -> list[str]:
    """What each is called: as its file, with its folder where that tells two apart. Raises NestlingError for one given twice."""
    whole = [path.resolve() for path in paths]
    if twice := next((path for path in paths if whole.count(path.resolve()) > 1), None):
        raise NestlingError(f"{twice} is given twice.", "name each bundle once")
    stems = [path.stem for path in paths]
    return [stem if stems.count(stem) == 1 else str(path.with_suffix("")) for stem, path in zip(stems, paths, strict=True)]


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with TemporaryDirectory() as place:
        yield Path(place)


def _named(progress: Progress, name: str) -> Progress:
    """Bars that say which bundle is at work."""

    def bar(what: str, total: int) -> AbstractContextManager[Advance]:
        return progress(f"{name}: {what}" if name else what, total)

    return bar


# ---- answers --------------------------------------------------------------------------------------------------------------------


def _answered(made: Made, dataset: Dataset, items: Sequence[Item], progress: Progress) -> tuple[tuple[Item, ...], dict[str, Right]]:
    """(the photographs that can be read; which of them "float" and "int8", where there are these, answer rightly)."""
    used: tuple[Item, ...] = ()
    found: dict[str, Right] = {}
    bundle = made.bundle
    if bundle.architecture is not None:
        count = len(dataset.items) * len(training_views(bundle))  # as fit counted, so that the cache knows the same engine's
        used, found["float"] = _right(bundle, lambda: bundle_engine(bundle, count), float_runner, items, progress)
    if made.integers is not None:
        integers = bundles.load(made.integers)
        graph = integers.graph
        assert graph is not None
        engine = lambda: exact_engine(graph, len(items))  # noqa: E731  # made only where there is a head
        used, found[INTEGERS] = _right(integers, engine, lambda b: integer_runner(b, quick=True), items, progress)
    return used, found


def _right(
    bundle: Bundle, engine: Callable[[], Engine], runner: Callable[[Bundle], Runner], items: Sequence[Item], progress: Progress
) -> tuple[tuple[Item, ...], Right]:
    """Embeddings, which the cache may know, under the head; a network that keeps its own end is asked."""
    if bundle.head is None:
        used, (logits,), _ = answers([runner(bundle)], items, progress)
    else:
        features = embed(items, bundle.preprocess, engine(), progress=progress)
        used = features.items
        if not used:
            raise UnusableData("none of the images can be read.")
        logits = bundle.head.logits(features.x[0])
    return used, logits.argmax(1) == labels_of(used)


def _best(made: Sequence[Made], right: Sequence[Mapping[str, Right]]) -> tuple[tuple[str, str], Right]:
    """((its bundle, float or int8), which photographs it answers rightly), of the network that is right most often."""
    every = [(one.name, kind, own) for one, kinds in zip(made, right, strict=True) for kind, own in kinds.items()]
    name, kind, own = max(every, key=lambda network: int(network[2].sum()))
    return (name, kind), own


# ---- figures --------------------------------------------------------------------------------------------------------------------


def _compared(
    made: Made, files: tuple[File, ...], right: dict[str, Right], first: dict[str, Right], board: Board | None
) -> Compared:
    integers = bundles.load(made.integers) if made.integers is not None else None
    weights, notes = weighed(made.bundle, integers.graph if integers else None)
    scores = {kind: _score(own, first.get(kind) if right is not first else None) for kind, own in right.items()}
    both = "float" in right and INTEGERS in right
    if both and made.integers == made.path:
        notes = (*notes, "its head was learned on int8 embeddings, and its float network is judged with that head.")
    return Compared(
        made.name,
        str(made.path),
        weights,
        scores.get("float"),
        scores.get(INTEGERS),
        quantised_here=integers is not None and made.integers != made.path,
        difference=scores[INTEGERS].top1 - scores["float"].top1 if both else None,
        difference_p=changed(right["float"], right[INTEGERS]).p if both else None,
        files=files,
        board=board,
        lineage=made.bundle.lineage,
        notes=(*made.notes, *notes),
    )


def _score(right: Right, first: Right | None) -> Score:
    return Score(
        float(right.mean()),
        wilson(int(right.sum()), len(right)),
        len(right),
        changed(first, right).p if first is not None else None,
    )
