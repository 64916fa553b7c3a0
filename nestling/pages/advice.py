"""What to ship, in words: the file that is small and quick among those whose answers stay the float network's, as far as measured.

A file is passed over where it failed its gate, where its runtime adds more noise on this processor than quantisation did, and where
it loses more right answers than chance would. Of the others that one is advised whose bytes times milliseconds are the least. C is
for machines without an operating system: a choice of its own, which is not weighed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nestling.pages.words import FLOAT, isolated, megabytes, milliseconds, points, probability, share, threads
from nestling.scores.chance import Changed

C = "c"  # the format that is not weighed
ONE_FLOAT = "the float network"


@dataclass(frozen=True)
class Candidate:
    """A file in one runtime, as it was measured. name: in a sentence; file, whose name goes into links, is of one folder.

    ms: of one image, None where it was not timed. changed: its answers beside the network's that all are held against, None where
    that was not asked. failed: its gate, and was kept.
    """

    name: str
    file: str
    precision: str
    format: str
    runtime: str
    threads: int
    bytes: int
    ms: float | None
    top1: float
    noise_ratio: float | None = None
    changed: Changed | None = None
    failed: bool = False


@dataclass(frozen=True)
class Advice:
    """chosen: what to ship, None for nothing. sentence: that, and why. beside: what it rests on, what else may be shipped, what was

    not weighed. passed_over: which may not, and why.
    """

    chosen: Candidate | None
    sentence: str
    beside: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()


def advise(
    candidates: Sequence[Candidate],
    floats: Sequence[Candidate],
    against: str = ONE_FLOAT,
    doubts: Sequence[str] = (),
) -> Advice:
    """candidates: every printed file. floats: files and bundles of float networks that sizes and times are held against.

    against: the network that `changed` is about. doubts: why the network itself is not worth shipping (scores/doubts.py).
    """
    weighed = [one for one in candidates if one.format != C]
    may = [one for one in weighed if not (one.failed or noisy(one) or worse(one))]
    passed_over = _passed_over(candidates, against)
    not_weighed = _not_weighed(candidates)
    if not may:
        only_c = bool(candidates) and not weighed
        what = "There is no file to choose from but C" if only_c else "None of these files may be shipped; below stands why"
        return Advice(None, f"{what}.", not_weighed, passed_over)
    best = min(may, key=_price(may))
    reasons = _reasons(best, weighed, floats, against)
    beside = (*_answers(best, against), *_held_against(best, floats), *_others(best, may), *not_weighed)
    if doubts:
        told = f"Of these files it would be {best.name}{reasons}."
        return Advice(None, f"Ship none yet: {'; '.join(doubts)}.", (told, *beside), passed_over)
    return Advice(best, f"Ship {best.name}{reasons}.", beside, passed_over)


def lines(advice: Advice) -> tuple[str, ...]:
    """All of it, a sentence a line."""
    return (advice.sentence, *advice.beside, *(f"Passed over: {why}" for why in advice.passed_over))


def called(files: Sequence[tuple[str, str]]) -> list[str]:
    """files: (name of the file, runtime). Each as a sentence has it: with its runtime where the file is there more than once."""
    several = Counter(file for file, _ in files)
    return [f"{isolated(file)} in {isolated(runtime)}" if several[file] > 1 else isolated(file) for file, runtime in files]


# ---- who may be shipped -------------------------------------------------------------------------------------------------------


def noisy(one: Candidate) -> bool:
    """Whether the runtime's own arithmetic adds more noise on this processor than quantisation did."""
    return one.noise_ratio is not None and one.noise_ratio > 1


def worse(one: Candidate) -> bool:
    """Whether it loses more right answers than chance would."""
    return one.changed is not None and one.changed.lost > one.changed.won and not one.changed.likely


def _price(may: Sequence[Candidate]) -> Callable[[Candidate], tuple[float, str]]:
    """What is to be small: bytes times milliseconds; bytes alone where not all were timed. Of equals the first name."""
    timed = all(one.ms is not None for one in may)
    return lambda one: (one.bytes * (one.ms or 0.0) if timed else one.bytes, one.name)


def _passed_over(candidates: Sequence[Candidate], against: str) -> tuple[str, ...]:
    """A sentence for all that failed their gates, one for every noisy runtime, one for all that lose."""
    failed = list(dict.fromkeys(one.name for one in candidates if one.failed))
    kept = "failed its gate and was kept" if len(failed) == 1 else "failed their gates and were kept"
    noise: dict[str, list[str]] = {}
    for one in candidates:
        if noisy(one):
            noise.setdefault(one.runtime, []).append(f"{isolated(one.file)} {one.noise_ratio:.2f} times")
    losing = [
        f"{one.name} {points(-_lost(one))} points ({probability(one.changed.p)})"
        for one in candidates
        if worse(one) and one.changed
    ]
    return (
        *([f"{', '.join(failed)} {kept} all the same."] if failed else ()),
        *(
            f"on this processor {isolated(runtime)} adds more noise than quantisation did ({', '.join(files)} as much): its "
            "answers are not those of the integers that the network was judged by."
            for runtime, files in noise.items()
        ),
        *([f"beside {against} they lose more right answers than chance would: {', '.join(losing)}."] if losing else ()),
    )  # fmt: skip


def _lost(one: Candidate) -> float:
    """Top-1 that it lost."""
    assert one.changed is not None
    return (one.changed.lost - one.changed.won) / max(one.changed.images, 1)


# ---- why this one -------------------------------------------------------------------------------------------------------------


def _reasons(best: Candidate, weighed: Sequence[Candidate], floats: Sequence[Candidate], against: str) -> str:
    """What follows its name: ": 3.4 times smaller than float and 2.1 times as quick, and its answers ..."."""
    whole = _like(best, floats)
    cost = [_cost(best, whole)] if whole is not None else []
    if best.precision in FLOAT:
        smaller = [one for one in weighed if one.bytes < best.bytes and one.precision not in FLOAT]
        left = all(one.failed or noisy(one) or worse(one) for one in smaller)
        cost = ["no smaller file here may be shipped" if left else "no file here is smaller for its time"] if smaller else []
    said = [*cost, *_same(best, against)]
    return f": {', and '.join(said)}" if said else ""


def _same(one: Candidate, against: str) -> list[str]:
    found = one.changed
    if found is None:
        return []
    if found.lost == found.won == 0:
        return [f"it is right on the same photographs as {against}"]
    if found.likely:
        return [f"its answers do not differ from those of {against} by more than chance (McNemar {probability(found.p)})"]
    return [f"it is right more often than {against}, by more than chance (McNemar {probability(found.p)})"]


def _answers(one: Candidate, against: str) -> list[str]:
    """What that rests on, and what it leaves open."""
    found = one.changed
    if found is None or one.precision in FLOAT:
        return []
    pair = f"{one.precision} and float" if against == ONE_FLOAT else f"{one.name} and {against}"
    told = (
        f"{pair} {'do not differ' if found.likely else 'differ'} here: {share(one.top1)} and {share(one.top1 + _lost(one))} of "
        f"{found.images} photographs; {found.lost} right answers became wrong and {found.won} wrong ones right"
    )
    open_ = found.loss[1]
    return [f"{told}. A loss of up to {100 * open_:.1f} points is not ruled out by so many." if open_ >= 0.0005 else f"{told}."]


def _held_against(best: Candidate, floats: Sequence[Candidate]) -> list[str]:
    whole = _like(best, floats)
    if whole is None or best.precision in FLOAT:
        return []
    return [f"Size and time: {_named(best)} against {_named(whole)}."]


def _like(one: Candidate, floats: Sequence[Candidate]) -> Candidate | None:
    """The float file that is most like it: by threads, format and runtime, timed, of those the quickest; None of none."""

    def unlike(whole: Candidate) -> tuple[float, ...]:
        untimed = one.ms is None or whole.ms is None
        differences = (
            whole.failed,
            one.threads != whole.threads,
            one.format != whole.format,
            one.runtime != whole.runtime,
            untimed,
        )
        return (*map(float, differences), whole.ms or 0.0)

    return min((whole for whole in floats if whole.name != one.name), key=unlike, default=None)


def _cost(small: Candidate, whole: Candidate) -> str:
    """3.4 times smaller than float and 1.9 times as quick. Ratios that round to 1.0 are no difference."""
    size, smaller = _ratio(
        whole.bytes / max(small.bytes, 1), "{} times smaller than float", "about as large as float", "{} times as large as float"
    )
    if small.ms is None or whole.ms is None:
        return size
    quick, quicker = _ratio(whole.ms / max(small.ms, 1e-9), "{} times as quick", "about as quick", "takes {} times as long")
    return f"{size} {'but' if smaller * quicker < 0 else 'and'} {quick}"


def _ratio(ratio: float, better: str, same: str, worse: str) -> tuple[str, int]:
    """(the words, 1 for better, 0, -1)."""
    times = max(ratio, 1 / ratio)
    said = f"{times:.1f}" if times < 9.95 else f"{times:.0f}"
    return (same, 0) if said == "1.0" else (better.format(said), 1) if ratio > 1 else (worse.format(said), -1)


def _named(one: Candidate) -> str:
    runs = "" if one.name.endswith(one.runtime) else f" in {isolated(one.runtime)}"
    return f"{one.name}{runs} on {threads(one.threads)}, {_measured(one)}"


def _measured(one: Candidate) -> str:
    return f"{megabytes(one.bytes)} MB" + (f" and {milliseconds(one.ms)} ms" if one.ms is not None else "")


# ---- what else there is -------------------------------------------------------------------------------------------------------


def _others(best: Candidate, may: Sequence[Candidate]) -> list[str]:
    """What is smaller or quicker than the best, and the best of every other runtime."""
    price = _price(may)
    runtimes = dict.fromkeys(one.runtime for one in may if one.runtime != best.runtime)
    elsewhere = [min((one for one in may if one.runtime == runtime), key=price) for runtime in runtimes]
    smallest = min(may, key=lambda one: (one.bytes, price(one)))
    quickest = min((one for one in may if one.ms is not None), key=lambda one: (one.ms, price(one)), default=best)
    said = []
    if smallest.bytes < best.bytes and smallest not in elsewhere:
        said.append(f"Smaller: {smallest.name}, {_measured(smallest)}.")
    if quickest.ms is not None and best.ms is not None and quickest.ms < best.ms and quickest not in elsewhere:
        said.append(f"Quicker: {quickest.name}, {_measured(quickest)}.")
    listed = "; in ".join(f"{isolated(one.runtime)} {isolated(one.file)}, {_measured(one)}" for one in elsewhere)
    return [*said, *([f"Elsewhere: in {listed}."] if listed else [])]


def _not_weighed(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    names = list(dict.fromkeys(one.name for one in candidates if one.format == C))
    listed = f": {', '.join(names)}" if names else ""
    return (f"Not weighed: C for machines without an operating system, which is a choice of its own{listed}.",)
