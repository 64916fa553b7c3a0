"""What the report says in words: what each step of the lineage did, and numbers as a person reads them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from nestling.bundle import Step
from nestling.printable import json_text, shown

if TYPE_CHECKING:
    from nestling.pages.page import Row

FLOAT = ("float", "fp32")  # precisions that others are compared with


# ---- numbers -----------------------------------------------------------------------------------------------------------------


def share(value: float) -> str:
    """0.8571 -> 85.7%."""
    return f"{100 * value:.1f}%"


def interval(ends: tuple[float, float]) -> str:
    """(0.8252, 0.884) -> [82.5, 88.4]."""
    return f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"


def megabytes(count: int) -> str:
    """In 10^6 bytes: 13.46, 0.042."""
    return f"{count / 1e6:.2f}" if count >= 1e5 else f"{count / 1e6:.3f}"


def milliseconds(value: float) -> str:
    """7.92, 312."""
    return f"{value:.2f}" if value < 99.995 else f"{value:.0f}"


def millions(count: float) -> str:
    """12.3 M; 1,210 M; 0.05 M; 0."""
    value = count / 1e6
    return "0" if not value else f"{value:,.0f} M" if value >= 100 else f"{value:.1f} M" if value >= 1 else f"{value:.2f} M"


def points(difference: float) -> str:
    """-0.012 -> −1.2; 0 -> 0.0."""
    text = f"{100 * difference:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def probability(p: float) -> str:
    """p = 0.21, p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.0995 else f"p = {p:.2f}"


def threads(count: int) -> str:
    """1 thread, 2 threads."""
    return "1 thread" if count == 1 else f"{count} threads"


def fewer(rows: Sequence[Row]) -> list[str]:
    """Of each network that was judged on fewer photographs than others: on how many."""
    most = max(row.images for row in rows)
    slow = [row for row in rows if row.images < most]
    return [f"{row.file} is slow here: it was judged on {row.images} of the {most} photographs, drawn by lot." for row in slow]


# ---- names ------------------------------------------------------------------------------------------------------------------

ISOLATES = "\u2068\u2069"


def isolated(name: str) -> str:
    """A name that is written from right to left, kept from turning the words around it. What it holds of isolates is shown()."""
    turns = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return shown(name).join(ISOLATES) if turns else shown(name)


def unisolated(sentence: str) -> str:
    """The sentence for a terminal, most of which know no isolates."""
    return sentence.translate(dict.fromkeys(map(ord, ISOLATES)))


# ---- the lineage -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chapter:
    """A step as told: title, sentences, (measure, value) of what it reached, (name, value) of its settings, the data."""

    title: str
    text: str
    reached: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    data: str


def chapter(step: Step) -> Chapter:
    """Any step can be told; those in STORIES in sentences of their own. What a damaged one lacks is left out."""
    title, story = STORIES.get(step.name, (step.name.replace("_", " ").capitalize(), lambda _settings: ""))
    reached = tuple((_measure(name), _value(name, value)) for name, value in step.metrics.items())
    return Chapter(title, story(step.settings), reached, tuple((n, _plain(v)) for n, v in step.settings.items()), step.data)


def _fit(settings: Mapping[str, Any]) -> str:
    folder = f" in “{PurePath(str(settings['folder'])).name}”" if settings.get("folder") else ""
    backbone = f" with the backbone {settings['backbone']}" if settings.get("backbone") else ""
    weights = f" (weights: {settings['weights']})" if settings.get("weights") else ""
    return f"A head was taught the photographs{folder}{backbone}{weights}."


def _update(settings: Mapping[str, Any]) -> str:
    folder = f" in “{PurePath(str(settings['folder'])).name}”" if settings.get("folder") else ""
    return f"Its head was taught again, with photographs that came later{folder}; earlier ones kept their part."


def _quantize(settings: Mapping[str, Any]) -> str:
    weights, activations = settings.get("bits_weights", 8), settings.get("bits_activations", 8)
    bits = (
        "8-bit integers" if weights == activations == 8 else f"integers, {weights} bits for weights, {activations} for activations"
    )
    if settings.get("layer_bits"):
        bits = f"integers, each layer's weights of the bits that it needs, {activations} for activations"
    images = f", with ranges from {settings['calibration']} training images" if settings.get("calibration") else ""
    ways = {"equalized": "channels were equalised", "bias_corrected": "biases were corrected"}
    done = [words for name, words in ways.items() if settings.get(name) is True]
    told = f"The network was given {bits}{images}, and its head was learned again."
    told += f" On the way {' and '.join(done)}." if done else ""
    if not settings.get("qat"):
        return told
    if settings.get("kept") == "post-training":
        return f"{told} Training with rounded values ({settings['qat']}) gave nothing better, and was left."
    length = _epochs(settings.get("training", {}))
    return f"{told} Before that it learned on with its values rounded as they are now, by {settings['qat']}{length}."


def _import(settings: Mapping[str, Any]) -> str:
    assumed = settings.get("assumed")
    notes = [str(note).rstrip(".") for note in assumed] if isinstance(assumed, list | tuple) else []
    return f"Read from {settings.get('file', 'a file')}." + (f" Assumed: {'; '.join(notes)}." if notes else "")


def _finetune(settings: Mapping[str, Any]) -> str:
    what = f"its last {settings['blocks']} blocks" if settings.get("blocks") else "all its layers"
    return f"The network learned on, {what} with the head{_epochs(settings)}."


def _prune(settings: Mapping[str, Any]) -> str:
    macs, sparsity = settings.get("macs"), settings.get("sparsity")
    by = f", judged by {settings['importance']}" if settings.get("importance") else ""
    if settings.get("method", "structured") == "structured" and isinstance(macs, int | float):
        return f"Channels were removed until at most {share(macs)} of the multiply-accumulates were left{by}."
    return f"{share(sparsity)} of the weights became zero{by}." if isinstance(sparsity, int | float) else ""


def _distill(settings: Mapping[str, Any]) -> str:
    teacher = f" “{PurePath(str(settings['teacher'])).name}”" if settings.get("teacher") else ""
    return f"The network learned from the answers of a teacher{teacher}{_epochs(settings)}."


def _epochs(settings: Mapping[str, Any]) -> str:
    return f", for {settings['epochs']} epochs at most" if settings.get("epochs") else ""


STORIES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "fit": ("Learned", _fit),
    "update": ("Learned again", _update),
    "quantize": ("Quantised", _quantize),
    "import": ("Imported", _import),
    "finetune": ("Fine-tuned", _finetune),
    "distill": ("Distilled", _distill),
    "prune": ("Pruned", _prune),
    "search": ("Searched", lambda _settings: "A narrower network was searched for in this one."),
}


def _measure(name: str) -> str:
    words = {"val": "validation", "top1": "top-1"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def _value(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return _plain(value)
    if "macs" in name or "parameters" in name:
        return millions(value)
    return share(value) if "top1" in name else f"{value:.4g}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value, default=str)
