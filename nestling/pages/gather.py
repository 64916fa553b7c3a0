"""report: a folder of exported files as one page: every file asked, timed and looked into, beside the networks it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nestling import bundle as bundles
from nestling.apart.runner import load
from nestling.artifacts import manifest
from nestling.artifacts.manifest import Artifact
from nestling.bundle import Bundle
from nestling.data.choose import for_evaluation, part, scan_for, training_data
from nestling.data.folders import Dataset, Item, labels_of
from nestling.data.images import read_images
from nestling.errors import NestlingError, UnusableFile
from nestling.files import write_atomically
from nestling.formats import named, runtimes
from nestling.formats.c.trusted import require_trusted
from nestling.formats.format import INTEGERS
from nestling.formats.nest.floats import float_runner
from nestling.formats.runner import Runner
from nestling.measure.answers import answers
from nestling.measure.bench import Timing, bench
from nestling.measure.counted import counted, machine_of
from nestling.measure.layers import LayerRow, LayerTable, layer_tables
from nestling.models.float_graph import has_graph
from nestling.pages.advice import ONE_FLOAT
from nestling.pages.page import BUNDLE, Example, Page, Row, advise_rows, render
from nestling.pages.words import fewer
from nestling.preprocess.pictures import File, Reading, read_image
from nestling.processor import processor, versions
from nestling.progress import Progress, silent
from nestling.quantization.explain import LayerCost, explain
from nestling.quantization.quantize import float_network
from nestling.scores.agree import agreement
from nestling.scores.chance import changed
from nestling.scores.evaluate import judge, softmax

EXPLAINED = 16  # images; the answer is which layers matter, not how much to a decimal
EXAMPLES = 6  # of each kind
THUMBNAIL = 160  # pixels
MOST_SECONDS = 20.0  # that a network answers for; a slower one is judged on fewer photographs, and says on how many


@dataclass(frozen=True, eq=False)
class _Network:
    """A file in one runtime. artifact: None for a bundle."""

    path: Path
    runtime: str
    artifact: Artifact | None


def report(
    out: Path, page: Path, data: Path | None = None, progress: Progress = silent, rounds: int = 5, trust: bool = False
) -> Page:
    """Write the page of an export's folder, and return what is on it.

    data: the photographs that the networks learned from; None for those that their lineage names. trust: folders of C, whoever
    wrote them.
    Raises UnusableFile without a manifest or its bundles, UnusableData without photographs, NotTrusted.
    """
    made = gather(out, data, progress, rounds, trust)
    write_atomically(page, render(made, page).encode())
    return made


def gather(out: Path, data: Path | None = None, progress: Progress = silent, rounds: int = 5, trust: bool = False) -> Page:
    """Ask, time and explain everything that the manifest lists. rounds: of the timing, 15 images each. trust: see report."""
    listed = manifest.read(out)
    require_trusted([out / a.file for a in listed], trust)
    # a backbone alone gives no answers; C for other machines answers as C for this one does, and its time here says nothing
    artifacts = tuple(a for a in listed if named(a.format).embedding != "alone" and not machine_of(out / a.file))
    if not artifacts:
        raise UnusableFile(f"{out} holds no exported network.", f"nestling export my.nest -o {out}")
    sources = tuple(dict.fromkeys(out / artifact.bundle for artifact in artifacts))
    for source in sources:
        if not source.is_file():
            raise UnusableFile(f"{source}, from which files in {out} were printed, is not there any more.", "export again")
    # the float network first, which all are compared with
    sources = tuple(sorted(sources, key=lambda source: bundles.load(source).graph is not None))
    bundle = bundles.load(sources[0])
    dataset = scan_for(bundle.labels, training_data(bundle, data).root)
    chosen = for_evaluation(dataset, bundle.split)

    files = [sources[0], *(out / artifact.file for artifact in artifacts)]
    known = {artifact.file: artifact for artifact in artifacts}
    networks = [_Network(file, runtime, known.get(file.name)) for file in files for runtime in runtimes(file)]
    runners = [load(network.path, 1, network.runtime, trust) for network in networks]
    twin, against, told = _held_against(bundle)
    # in the order of their fingerprints, as good as by lot: where a slow one answers the first ones only, these stand for all
    drawn = sorted(chosen.items, key=lambda item: item.fingerprint)
    items, logits, _ = answers([*runners, *twin], drawn, progress, MOST_SECONDS)
    del runners, twin  # they would wait beside the timing, and keep their memory
    timings = bench(files, (1,), progress, data, rounds, trust=trust)
    floats = (logits[len(networks) :] or logits)[0]
    rows = tuple(
        _row(network, timing, own, floats, items, bundle) for network, timing, own in zip(networks, timings, logits, strict=False)
    )
    at = _shown(rows)
    seen = items[: rows[at].images]
    own = logits[at][: len(seen)]
    integers = bundles.load(next((out / a.bundle for a in artifacts if a.precision == INTEGERS), sources[0]))
    costs, notes = _costs(integers, dataset, progress)
    boards, why = _boards([out / a.file for a in listed if machine_of(out / a.file)], data, progress, trust)
    return Page(
        title=f"{sources[0].stem}: {' or '.join(bundle.labels[:6])}{' ...' if len(bundle.labels) > 6 else ''}",
        rows=rows,
        layers=(*layer_tables(files[1:], 1, progress), *boards),
        costs=costs,
        evaluation=judge(own, labels_of(seen), [item.path for item in seen], bundle.labels),
        evaluated=rows[at].file,
        examples=_examples(seen, own, bundle.labels, bundle.preprocess.reading, dataset.root),
        lineage=integers.lineage,
        labels=bundle.labels,
        machine=processor(),
        versions=versions(),
        data=f"{dataset.root.name}: {chosen.said}",
        notes=(*told, *notes, *why, *fewer(rows)),
        against=against,
        paths={path.name: path for path in (*files, *(out / a.file for a in listed))},
        bundle=sources[0],
    )


def _shown(rows: Sequence[Row]) -> int:
    """Whose answers the page shows: the advised file's, else, of those that saw all photographs, an int8 one's or the first's."""
    chosen = advise_rows(rows).chosen
    most = max(row.images for row in rows)
    whole = [i for i, row in enumerate(rows) if row.images == most]
    advised = [i for i, row in enumerate(rows) if chosen is not None and (row.file, row.runtime) == (chosen.file, chosen.runtime)]
    return next(iter([*advised, *(i for i in whole if rows[i].precision == INTEGERS and rows[i].format != BUNDLE), *whole]))


def _held_against(bundle: Bundle) -> tuple[list[Runner], str, list[str]]:
    """(what the answers are held against where it is not the first of the files, what it is called, what is to be told of it)."""
    if bundle.graph is None:
        return [], ONE_FLOAT, []
    if not has_graph(bundle):
        return [], "the integer network", ["There is no float network at hand: answers are held against the integers."]
    note = "There is no float file here: answers are held against the float network in the bundle, under the head of the integers."
    return [float_runner(bundle, 1)], ONE_FLOAT, [note]


def _row(
    network: _Network,
    timing: Timing,
    own: NDArray[np.float32],
    floats: NDArray[np.float32],
    items: Sequence[Item],
    bundle: Bundle,
) -> Row:
    both = min(len(own), len(floats))  # a slow one answered the first photographs only
    own, floats, answered = own[:both], floats[:both], items[:both]
    truth = labels_of(answered)
    evaluation = judge(own, truth, [item.path for item in answered], bundle.labels)
    found = agreement(floats, own)
    beside = changed(floats.argmax(1) == truth, own.argmax(1) == truth)
    artifact = network.artifact
    return Row(
        file=network.path.name,
        format=artifact.format.partition("-")[0] if artifact else "nest",
        precision=artifact.precision if artifact else "float" if bundle.graph is None else INTEGERS,
        runtime=network.runtime,
        threads=timing.threads,
        bytes=timing.bytes,
        top1=evaluation.top1,
        interval=evaluation.interval,
        images=evaluation.images,
        agreement=found.agreement,
        noise_ratio=timing.noise_ratio,
        max_logit_difference=found.max_logit_difference,
        ms_median=timing.ms_median,
        ms_p95=timing.ms_p95,
        peak_memory_bytes=timing.peak_memory_bytes,
        forced=bool(artifact and artifact.failed),
        lost=beside.lost,
        won=beside.won,
    )


def _boards(folders: Sequence[Path], data: Path | None, progress: Progress, trust: bool) -> tuple[list[LayerTable], list[str]]:
    """(the layers of C for other machines, run in QEMU; why some could not be run)."""
    tables, notes = [], []
    for folder in folders:
        try:
            (one,) = counted([folder], data, progress, trust, cycles=True)
        except NestlingError as error:
            notes.append(f"{folder.name} was not run: {error.message}")
            continue
        layers = tuple(
            LayerRow(layer.name, layer.kind, (1, *layer.shape), layer.macs, None, layer.instructions, layer.cycles_estimate)
            for layer in one.layers
        )
        sizes = f"arena {one.arena_bytes or 0:,} bytes, flash {one.flash_bytes or 0:,}, stack {one.stack_bytes or 0:,}"
        cycles = f"about {one.cycles_estimate:,} cycles in all" if one.cycles_estimate is not None else ""
        parts = (f"{one.instructions or 0:,} instructions in all", one.note, cycles, one.cycles_note, sizes)
        total = "; ".join(part for part in parts if part)
        tables.append(LayerTable(one.file, one.title, layers, total))
    return tables, notes


def _costs(bundle: Bundle, dataset: Dataset, progress: Progress) -> tuple[tuple[LayerCost, ...], list[str]]:
    """(what quantisation does to each layer, or nothing; why nothing)."""
    if bundle.graph is None or bundle.head is None:
        return (), ["No layer was explained: there is no quantised network with a float twin."]
    try:
        graph = float_network(bundle, dataset, progress)
    except NestlingError as error:
        return (), [f"No layer was explained: {error.message}"]
    found = list(read_images(part(dataset, bundle, "val", EXPLAINED), bundle.preprocess))
    images, labels = [image for _, image in found], [item.label for item, _ in found]
    return explain(graph, bundle.graph, bundle.head, images, labels, progress), []


def _examples(
    items: Sequence[Item], logits: NDArray[np.float32], labels: tuple[str, ...], reading: Reading, root: Path
) -> tuple[Example, ...]:
    """The most confident mistakes; and right answers from the surest to the least sure, evenly."""
    sure = softmax(logits).max(axis=1)
    answered = logits.argmax(axis=1)
    right = labels_of(items) == answered
    order = np.argsort(-sure, kind="stable")
    good, bad = order[right[order]], order[~right[order]][:EXAMPLES]
    spread = good[np.linspace(0, len(good) - 1, min(EXAMPLES, len(good))).astype(int)] if len(good) else good
    return tuple(
        Example(
            _thumbnail(items[i].file, reading),
            labels[items[i].label],
            labels[answered[i]],
            float(sure[i]),
            _within(items[i].path, root),
        )
        for i in (*spread, *bad)
    )


def _within(path: Path, root: Path) -> str:
    """Where a photograph lies in its set."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def _thumbnail(file: File, reading: Reading) -> bytes:
    image = Image.fromarray(read_image(file, reading=reading))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
