"""What an artifact says of itself, as one JSON text inside it: labels, preprocessing, and which photographs it learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from nestling.bundle import MOST_LABELS, Bundle, fingerprints_in
from nestling.errors import UnusableFile
from nestling.graph.file import digest
from nestling.outside import Record, brief, parsed
from nestling.preprocess.image import Preprocess
from nestling.preprocess.image import from_plain as preprocess_from_plain
from nestling.preprocess.image import to_plain as preprocess_to_plain
from nestling.printable import json_text

Gives = Literal["logits", "embedding"]


@dataclass(frozen=True)
class About:
    """seed, data: the split's seed and the data set's fingerprint, from which `eval` finds the test part; None, "" if unknown.

    test: that part's fingerprints where the seed does not tell it, for photographs came later (training/update.py); else ().
    gives: what the artifact's first output is; one that gives the embedding is a backbone without its head.
    graph: digest (graph.file) of the int8 Graph that makes the embedding; "" where it is not one.
    machine: that a folder of C is for; "" of files, and of folders of before it was said.
    """

    labels: tuple[str, ...]
    preprocess: Preprocess
    seed: int | None = None
    data: str = ""
    gives: Gives = "logits"
    graph: str = ""
    test: tuple[str, ...] = ()
    machine: str = ""


def about(bundle: Bundle, gives: Gives = "logits", integers: bool = False) -> About:
    """What is to be written into an artifact of this bundle; gives: see About. integers: it is printed from the int8 Graph."""
    seed = bundle.split.seed if bundle.split else None
    data = next((step.data for step in reversed(bundle.lineage) if step.data), "")
    graph = digest(bundle.graph) if integers and bundle.graph is not None else ""
    return About(bundle.labels, bundle.preprocess, seed, data, gives, graph, later_test(bundle))


def later_test(bundle: Bundle) -> tuple[str, ...]:
    """About's test."""
    later = bundle.split is not None and any(step.name == "update" for step in bundle.lineage)
    return bundle.split.test if later and bundle.split is not None else ()


def to_json(what: About) -> str:
    """One line of JSON, the same for the same values."""
    sometimes = {"test": list(what.test), "machine": what.machine}
    plain = {
        "nestling": 1,
        "labels": list(what.labels),
        "preprocess": preprocess_to_plain(what.preprocess),
        "seed": what.seed,
        "data": what.data,
        "gives": what.gives,
        "graph": what.graph,
    } | {key: value for key, value in sometimes.items() if value}
    return json_text(plain, sort_keys=True)


def require_labels(what: About, scores: int, name: str) -> None:
    """That a file which gives logits names as many classes. Raises UnusableFile, naming it."""
    if what.gives == "logits" and scores != len(what.labels):
        raise UnusableFile(f"{name} gives {scores} scores and names {len(what.labels)} classes.", "export it again")


def from_json(text: str | bytes, name: str) -> About:
    """The inverse of to_json. Raises UnusableFile, naming the artifact."""
    content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    record = Record(parsed(content, f"what {name} says of itself"), f"{name} says of itself")
    gives = record.optional("gives", record.text, "logits")  # artifacts of before there was a choice do not say
    if gives not in get_args(Gives):
        record.refuse(f"it gives {brief(gives)}; expected {' or '.join(get_args(Gives))}")
    try:
        preprocess = preprocess_from_plain(record.get("preprocess", dict))
    except UnusableFile as error:
        raise UnusableFile(f"{name}: {error.message}", error.hint) from error
    return About(
        record.names("labels", MOST_LABELS),
        preprocess,
        record.optional("seed", record.seed),
        record.optional("data", record.text, ""),
        gives,
        record.optional("graph", record.text, ""),
        record.optional("test", lambda name: fingerprints_in(record, name), ()),
        record.optional("machine", record.text, ""),
    )
