"""pack: from a quantised bundle to a folder with all that a device needs, and nothing more.

linux     net_runner, head.nst, split.csv, three scripts; features.pte and head_train.pte for `nestling learn`, or without
          ExecuTorch features.nest
android   the same without the last two
mcu       C: the network, the learner, head.nst as an array, a program that learns, a Makefile
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from nestling import bundle as bundles
from nestling import extras
from nestling.artifacts.gates import judge
from nestling.artifacts.yardstick import expected, made_up
from nestling.bundle import PARTS, Bundle, int8_graph
from nestling.data.choose import part, training_data
from nestling.data.folders import Source, labels_of
from nestling.device import head_file, manifest
from nestling.device.build import HEAD_FILES, TARGETS, Target, built, built_with_executorch, runtime_file
from nestling.device.device_features import INTEGERS as INTEGERS_FILE
from nestling.device.head_file import HeadFile, Training
from nestling.device.head_format import RATES
from nestling.device.manifest import RUNNER, SCRIPTS, Manifest, PackedFile
from nestling.device.replay import room, stored
from nestling.device.whose import signed
from nestling.embedding.cache import embed
from nestling.embedding.engine import graph_engine
from nestling.embedding.refit import fit_settings
from nestling.errors import GateFailed, NestlingError, UnusableData, UnusableFile, WrongOption
from nestling.files import digest_of, not_made, replace_folder
from nestling.formats import FORMATS
from nestling.formats.c import machines
from nestling.formats.c.format import of_machine
from nestling.formats.executorch.format import FEATURES
from nestling.formats.format import INTEGERS, ExportConfig, Job, Printed
from nestling.graph.file import digest
from nestling.graph.head import Head
from nestling.preprocess.image import to_plain
from nestling.printable import shown
from nestling.progress import Progress, silent
from nestling.scores import doubts
from nestling.temporary import restored
from nestling.trust import MAC
from nestling.words import HeadOptimizer, Momentum, RunBy, System

MOST_PHOTOGRAPHS = 500  # that centre and scale of the head's inputs are taken from
NEW_CLASSES: Mapping[System, int] = {"linux": 8, "android": 8, "mcu": 0}  # that there is room for, unless it is said
REPLAY: Mapping[System, int] = {"linux": 64, "android": 64, "mcu": 0}  # KB of embeddings that are kept, unless it is said
RUNTIME = "litert"  # that makes the embeddings here
HEAD, SPLIT, HEAD_TRAIN = "head.nst", "split.csv", "head_train.pte"
NOT_IN_FIRMWARE = ("Makefile", "README.md", "main_bench.c", "about.json")
FLOAT = 4  # bytes
THIS_COMPUTER = {"x86_64": "x86-64", "AMD64": "x86-64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class PackConfig:
    """system: what the package is for. machine: None for the system's usual one (linux: this computer's).

    runner: what runs the network there, its printed C or ExecuTorch. max_classes: rows that the head has room for; None for 8 more
    than there are classes, on a microcontroller for none more. untrained: a head of zeros instead of the bundle's. momentum: how
    SGD's velocity is held; bf16 halves its memory. replay: KB of training photographs' embeddings that the head brings along, so
    that a new class does not make it forget the others; None for 64, none with `untrained` or on a microcontroller. force: keep
    what does not pass its gates.
    """

    system: System = "linux"
    machine: str | None = None
    runner: RunBy = "c"
    max_classes: int | None = None
    momentum: Momentum = "float32"
    optimizer: HeadOptimizer = "sgd"
    untrained: bool = False
    replay: int | None = None
    force: bool = False


def pack(
    path: Path, out: Path, config: PackConfig | None = None, data: Source | None = None, progress: Progress = silent
) -> Manifest:
    """Make the package `out` from the bundle at `path`, whole or not at all.

    data: the folder that the bundle learned from, whose training photographs the head's inputs are centred by; None for the one
    that its lineage names; where that is not there, made-up images stand in.
    Raises NestlingError: the bundle is not quantised, has no head, a compiler is missing; GateFailed: what was printed does not
    answer as the bundle does; UnusableData: `data` is not what it learned from, or `out` holds what pack did not make.
    """
    config = config or PackConfig()
    bundle = bundles.load(path)
    head = _require_packable(bundle, path)
    target = target_of(config)
    _require_replaceable(out)
    if config.runner == "c":
        FORMATS[of_machine(target.c_machine)].require(Job(bundle, ExportConfig()))
    embeddings, labels, centred_on = _embeddings(bundle, data, progress)
    made = _head(bundle, head, embeddings, labels, config)
    printed, failed = _printed(bundle, target, config, data, progress)
    if failed and not config.force:
        raise GateFailed(f"nothing was packed: {'; '.join(failed)}.", "pack it all the same with --force")
    content, batch = head_file.to_bytes(made), made.training.batch
    arenas = [some.arena for some in printed.values() if some.arena is not None]  # ExecuTorch does not tell its own
    ram = ({"arena": arenas[0]} if arenas else {}) | {
        "head": len(content),
        "embeddings": batch * made.inputs,
        "work": batch * made.max_classes * FLOAT,
    }
    values = {"name": path.stem, "target": target, "config": config, "head": made, "ram": ram, "centred_on": centred_on}
    files: dict[str, bytes] = {}
    with progress("building", 1) as advance:
        if config.system == "mcu":
            files |= _firmware(_folder(printed, target), content, target, values)
            compiler = ""
        else:
            if config.runner == "executorch":
                programs, compiler = built_with_executorch(target)
            else:
                programs, compiler = built(_folder(printed, target), target)
            files |= programs | {HEAD: content, SPLIT: _split_csv(bundle)}
            files |= {name: _rendered(name, values) for name in SCRIPTS}
        advance(1)
    if config.system == "linux":
        files |= _for_python(bundle, printed, made)
    files["README.md"] = _rendered("README.md", values)
    whole = Manifest(
        system=config.system,
        machine=target.machine,
        runner=config.runner,
        labels=bundle.labels,
        preprocess=to_plain(bundle.preprocess),
        graph=made.graph,
        max_classes=made.max_classes,
        ram=ram,
        centred_on=centred_on,
        versions=_versions(config.system, compiler),
        files={name: PackedFile(len(files[name]), sha256(files[name]).hexdigest()) for name in sorted(files)},
        failed=failed,
    )
    replace_folder(out, signed(files | {manifest.NAME: manifest.to_bytes(whole)}).items(), (RUNNER, *SCRIPTS))
    return whole


def target_of(config: PackConfig) -> Target:
    """What is built. Raises NestlingError for a machine that there is none of, or a runner that is not for the system."""
    if config.runner == "executorch" and config.system != "linux":
        raise WrongOption(f"--runner executorch is for linux, not for {config.system}.", "leave out --runner")
    usual = {"linux": THIS_COMPUTER.get(platform.machine(), "x86-64"), "android": "arm64", "mcu": "cortex-m4"}
    machine = config.machine or usual[config.system]
    if (config.system, machine) not in TARGETS:
        there_are = ", ".join(name for system, name in TARGETS if system == config.system)
        raise WrongOption(f"nothing is packed for {config.system} on {machine!r}.", f"--machine is one of: {there_are}")
    return TARGETS[config.system, machine]


def _for_python(bundle: Bundle, printed: Mapping[str, Printed], head: HeadFile) -> dict[str, bytes]:
    """What `nestling learn` runs: ExecuTorch's programs, or where they cannot be made the integers themselves."""
    if FEATURES not in printed:
        warnings.warn(
            f"packed without {FEATURES} and {HEAD_TRAIN}, which take ExecuTorch ({extras.hint('executorch')}): `nestling learn` "
            f"runs {INTEGERS_FILE} and the C learner instead; net_runner is as ever",
            stacklevel=3,
        )
        bare = replace(bundle, architecture=None, arrays={}, split=None, lineage=(), yardstick=None)
        return {INTEGERS_FILE: bundles.to_bytes(bare)}

    from nestling.formats.executorch.training_program import print_training_program

    features = printed[FEATURES].content
    assert isinstance(features, bytes)
    return {FEATURES: features, HEAD_TRAIN: print_training_program(head.inputs, head.max_classes)}


def _require_packable(bundle: Bundle, path: Path) -> Head:
    if bundle.head is None:
        raise NestlingError(
            f"{path} keeps its own end: there is no head of nestling's that could go on learning.",
            f"teach it classes of your own:  nestling fit PHOTOS --backbone {path} -o my.nest",
        )
    if bundle.graph is None:
        quantised = path.with_name(f"{path.stem}8.nest")
        raise NestlingError(
            f"{path} is not quantised; a package holds integers.", f"first:  nestling quantize {path} -o {quantised}"
        )
    return bundle.head


def _require_replaceable(out: Path) -> None:
    """An older package may be replaced; a trained head, or what somebody else put there, may not."""
    if restored(out).is_symlink() or (out.exists() and not out.is_dir()):
        raise UnusableData(f"{out} is no folder.", "name another one:  -o pkg")
    if not out.exists() or not any(out.iterdir()):
        return
    try:
        files = manifest.read(out).files
    except UnusableFile:
        raise UnusableData(f"{out} holds other files than a package.", "name another folder:  -o pkg") from None
    beside = [name for name in (manifest.NAME, MAC) if (out / name).is_file()]
    made = {name: file.sha256 for name, file in files.items()} | {name: digest_of(out / name) for name in beside}
    foreign = not_made(out, made)
    if foreign is not None:
        raise UnusableData(
            f"{out} holds {foreign}, which `pack` did not make or which has changed since.",
            "move it away, or name another folder:  -o pkg",
        )


# ---- the head ------------------------------------------------------------------------------------------------------------------


def _embeddings(bundle: Bundle, data: Source | None, progress: Progress) -> tuple[NDArray[np.int8], NDArray[np.int64], str]:
    """int8 [N, D] of up to 500 training photographs and their labels, or of made-up images without; which these are, in words."""
    engine = graph_engine(int8_graph(bundle))
    try:
        items = part(training_data(bundle, data), bundle, "train", MOST_PHOTOGRAPHS)
    except UnusableData:
        if data is not None:
            raise
        items = ()
    features = embed(items, bundle.preprocess, engine, progress=progress)
    x = features.x[0] if features.items else np.empty((0, engine.width), np.float32)
    said = f"{len(x)} training photographs"
    if not len(x):
        images = made_up(bundle.preprocess)
        x, said = engine(images), f"{len(images)} made-up images, since no training photographs are at hand"
    scale, zero = _quant(bundle)
    steps: NDArray[np.int8] = np.clip(np.rint(x / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    return steps, labels_of(features.items), said


def _head(bundle: Bundle, head: Head, embeddings: NDArray[np.int8], labels: NDArray[np.int64], config: PackConfig) -> HeadFile:
    """labels: of the first embeddings, those that may be kept for replay."""
    scale, zero = _quant(bundle)
    settings = fit_settings(bundle)
    usual = Training()
    training = replace(
        usual,
        optimizer=config.optimizer,
        rate=RATES[config.optimizer],
        moment_type="bfloat16" if config.momentum == "bf16" and config.optimizer == "sgd" else "float32",
        decay=float(settings.get("weight_decay", usual.decay)),
        seed=bundle.split.seed if bundle.split else 0,
        balanced=bool(settings.get("balanced", False)),
    )
    rows = config.max_classes if config.max_classes is not None else len(bundle.labels) + NEW_CLASSES[config.system]
    if rows < len(bundle.labels):
        raise NestlingError(f"--max-classes {rows} is less than the {len(bundle.labels)} classes that there are.")
    made = head_file.made(
        bundle.labels,
        rows,
        embeddings,
        None if config.untrained else head,
        embedding_scale=scale,
        embedding_zero=zero,
        preprocess=bundle.preprocess,
        graph=digest(int8_graph(bundle)),
        training=training,
    )
    usual_replay = 0 if config.untrained else REPLAY[config.system]
    capacity = room(usual_replay if config.replay is None else config.replay, made.inputs)
    return stored(made, embeddings[: len(labels)], labels, RUNTIME, capacity)


def _quant(bundle: Bundle) -> tuple[float, int]:
    graph = int8_graph(bundle)
    quant = graph.tensors[graph.outputs[0]].quant
    assert quant is not None
    return float(quant.scale[0]), int(quant.zero_point[0])


def _split_csv(bundle: Bundle) -> bytes:
    split = bundle.split
    lines = sorted(f"{print_},{part}" for part in PARTS for print_ in (getattr(split, part) if split else ()))
    return "\n".join(["fingerprint,part", *lines, ""]).encode()


# ---- the network ---------------------------------------------------------------------------------------------------------------


def _printed(
    bundle: Bundle, target: Target, config: PackConfig, data: Source | None, progress: Progress
) -> tuple[dict[str, Printed], tuple[str, ...]]:
    """The network in C where that is what runs, and for Linux features.pte, by format; and why one did not pass its gates."""
    job = Job(bundle, ExportConfig())
    judged_on = expected(bundle, True, data, progress)
    printed: dict[str, Printed] = {}
    failed: list[str] = []
    in_c = [of_machine(target.c_machine)] if config.runner == "c" else []
    for name in (*in_c, *([FEATURES] if target.system == "linux" and extras.has("executorch") else [])):
        form = FORMATS[name]
        with progress(f"printing {name}", 1) as advance:
            printed[name] = form.printers[INTEGERS](job)
            advance(1)
        with progress(f"judging {name}", 1) as advance:
            judgement = judge(printed[name], name, form, INTEGERS, bundle, job.inside(form, INTEGERS), judged_on)
            why = doubts.of_random_weights(bundle) if judgement.rounded else ""
            failed += [f"{name}: {problem}" for problem in (*judgement.problems, *([why] if why else []))]
            advance(1)
    return printed, tuple(failed)


def _folder(printed: Mapping[str, Printed], target: Target) -> Mapping[str, bytes]:
    """The network's C, content by name."""
    content = printed[of_machine(target.c_machine)].content
    assert not isinstance(content, bytes)
    return content


def _firmware(network: Mapping[str, bytes], head: bytes, target: Target, values: Mapping[str, Any]) -> dict[str, bytes]:
    """The folder of a program that learns: the network's C, the learner's, the machine's, the head as an array."""
    machine = machines.machine(target.c_machine)
    files = {name: text for name, text in network.items() if name not in NOT_IN_FIRMWARE}
    files |= {name: runtime_file(name) for name in (*HEAD_FILES, "main_learn.c")}
    board = [f"{Path(name).stem}.o" for name in machines.files(machine) if name.endswith(".c") and name in files]
    objects = sorted({f"{Path(name).stem}.o" for name in files if name.endswith(".c")} - set(board))
    rows = [", ".join(map(str, head[at : at + 16])) for at in range(0, len(head), 16)]
    more = dict(values) | {"machine": machine, "board": board, "objects": objects, "rows": rows, "bytes": len(head)}
    return files | {name: _rendered(name, more) for name in ("head_nst.h", "Makefile")}


def _versions(system: System, compiler: str) -> dict[str, str]:
    own = {"nestling": version("nestling")} | ({"compiler": compiler} if compiler else {})
    return own | ({"executorch": version("executorch")} if system == "linux" and extras.has("executorch") else {})


def _rendered(name: str, values: Mapping[str, Any]) -> bytes:
    templates = Environment(
        loader=PackageLoader("nestling.device"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True,
        finalize=lambda value: shown(value) if isinstance(value, str) else value,
    )  # fmt: skip
    return templates.get_template(f"{name}.j2").render(values).encode()
