"""Packages: what is in them, that they do on an emulator what the bundle says, and that an older one is not lost."""

from __future__ import annotations

import json
import platform
import re
import resource
import shutil
import stat
import subprocess
import zlib
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from nestling import bundle as bundles
from nestling import trust
from nestling.artifacts.import_model import import_model
from nestling.bundle import Bundle
from nestling.cli import pack as command
from nestling.data.choose import part, training_data
from nestling.data.images import images_of
from nestling.data.prepare import PrepareConfig, prepare
from nestling.device import build, manifest, package
from nestling.device.head_file import HeadFile, from_bytes, newest, to_bytes
from nestling.device.package import PackConfig, pack
from nestling.device.places import Ssh
from nestling.device.push import PushConfig, push
from nestling.errors import GateFailed, NestlingError, UnusableData, WrongOption
from nestling.files import replace_folder
from nestling.formats import FORMATS
from nestling.formats.c import machines, virtual
from nestling.formats.executorch import run as executorch_run
from nestling.formats.format import Job, Printed
from nestling.progress import silent
from nestling.quantization.quantize import quantize, reference_embeddings
from nestling.training.fit import FitConfig, fit
from tests.device import ssh_server
from tests.device.ssh_server import Proxy

CLASSES = {"apple": (190, 60, 50), "lime": (110, 140, 60), "plum": (110, 70, 120)}
RUNNABLE = {"net_runner", "eval_untrained.sh", "train.sh", "eval.sh"}
ARM64 = PackConfig("android", "arm64")
MCU = PackConfig("mcu", "cortex-m4")
ARM64_FILES = RUNNABLE | {"head.nst", "split.csv", "README.md"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything of these tests; embeddings are kept here, too."""
    found = tmp_path_factory.mktemp("device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NESTLING_CACHE", str(found / "cache"))
        yield found


@pytest.fixture(scope="module")
def data(place: Path) -> Path:
    """What a device has: BMP files that `data prepare` made of photographs; three fruits that are easily taken for one another."""
    rng = np.random.default_rng(0)
    for name, colour in CLASSES.items():
        (place / "photos" / name).mkdir(parents=True)
        for i in range(30):
            pixels = rng.normal(np.array(colour) + rng.normal(0, 45, 3), 20, (70, 90, 3))
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(place / "photos" / name / f"{i:02}.jpg")
    return prepare(place / "photos", place / "bmp", config=PrepareConfig("bmp", size=72)).folder


@pytest.fixture(scope="module")
def bundle(place: Path, data: Path) -> Path:
    fitted = fit(data, config=FitConfig(backbone="mobilenetv2_050", weights="none", size=64)).bundle
    bundles.save(fitted, place / "fruit.nest")
    bundles.save(quantize(fitted), place / "fruit8.nest")
    return place / "fruit8.nest"


def needs(*tools: str, install: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: apt-get install {install}")


@pytest.fixture(scope="module")
def arm64(place: Path, bundle: Path) -> Path:
    needs("make", "aarch64-linux-gnu-gcc", "cc", install="make gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
    pack(bundle, place / "arm64", ARM64)
    return place / "arm64"


@pytest.fixture(scope="module")
def linux(place: Path, bundle: Path) -> Path:
    """Of this computer; with what `nestling learn` needs."""
    needs("make", "cc", install="make gcc libc6-dev")
    if platform.machine() != "x86_64":
        pytest.skip("needs a computer of x86-64")
    # force: of an untrained backbone quantisation makes so little noise that XNNPACK's rounding may be more
    pack(bundle, place / "linux", PackConfig("linux", "x86-64", force=True))
    return place / "linux"


@pytest.fixture(scope="module")
def firmware(place: Path, bundle: Path) -> Path:
    needs("cc", install="gcc libc6-dev")
    pack(bundle, place / "cortex-m4", MCU)
    return place / "cortex-m4"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- what is in it -----------------------------------------------------------------------------------------------------------


def listed_rightly(folder: Path, expected: set[str]) -> None:
    files = contents(folder)
    plain = json.loads(files.pop("manifest.json"))
    assert trust.known("package", {"manifest.json": (folder / "manifest.json").read_bytes()}, files.pop("nestling.mac"))
    assert set(files) == expected == set(plain["files"])
    for name, content in files.items():
        assert plain["files"][name] == {"bytes": len(content), "sha256": sha256(content).hexdigest()}
        runnable = bool((folder / name).stat().st_mode & stat.S_IXUSR)
        assert runnable == (name in RUNNABLE), name
    assert plain["labels"] == sorted(CLASSES) and plain["preprocess"]["size"] == [64, 64]
    assert "nestling" in plain["versions"] and plain["centred_on"] == "54 training photographs"


def test_android_holds_what_it_needs_and_nothing_more(arm64: Path) -> None:
    listed_rightly(arm64, ARM64_FILES)
    program = (arm64 / "net_runner").read_bytes()
    assert program[:4] == b"\x7fELF" and program[18:20] == (183).to_bytes(2, "little")  # e_machine: AArch64
    said = subprocess.run(["aarch64-linux-gnu-readelf", "-lS", arm64 / "net_runner"], capture_output=True, text=True).stdout
    assert "INTERP" not in said and ".symtab" not in said, "static and stripped"


@pytest.mark.slow
def test_linux_has_what_learn_needs_as_well(linux: Path) -> None:
    listed_rightly(linux, ARM64_FILES | {"features.pte", "head_train.pte"})


def test_the_split_is_fits(arm64: Path, bundle: Path, data: Path) -> None:
    lines = (arm64 / "split.csv").read_text().splitlines()
    known = bundles.load(bundle).split
    assert known is not None and lines[0] == "fingerprint,part" and lines[1:] == sorted(lines[1:])
    parts = dict(line.split(",") for line in lines[1:])
    assert parts == known.part_of() and len(parts) == 90
    assert {sha256(path.read_bytes()).hexdigest()[:16] for path in data.rglob("*.bmp")} == set(parts)


def test_the_head_is_the_bundles(arm64: Path, bundle: Path) -> None:
    """Its float head and decay; a CRC-32 at the end; room for eight more classes."""
    content, loaded = (arm64 / "head.nst").read_bytes(), bundles.load(bundle)
    assert content[:8] == b"NSTHEAD\n" and zlib.crc32(content[:-4]).to_bytes(4, "little") == content[-4:]
    head = from_bytes(content, "head.nst")
    assert head.labels == loaded.labels and head.max_classes == 11 and head.training.seed == 0
    assert head.training.decay == pytest.approx(loaded.lineage[0].settings["weight_decay"])
    assert head.progress.steps == 0 and head.weights[:3].any(axis=1).all() and not head.weights[3:].any()


def test_options_of_the_head(bundle: Path) -> None:
    loaded = bundles.load(bundle)
    steps = np.random.default_rng(0).integers(-9, 9, (4, 1280)).astype(np.int8)

    def head(**settings: object) -> HeadFile:
        assert loaded.head is not None
        return package._head(loaded, loaded.head, steps, np.array([0, 1, 2, 2]), PackConfig(**settings))  # type: ignore[arg-type]  # of the kind that this test knows

    plain = head(untrained=True, max_classes=4, momentum="bf16")
    assert plain.max_classes == 4 and not plain.weights.any() and plain.training.moment_type == "bfloat16"
    assert head(system="mcu").max_classes == 3 and head().max_classes == 11
    adam = head(optimizer="adam", momentum="bf16")
    assert adam.training.optimizer == "adam" and adam.square is not None
    bytes_of = {name: len(to_bytes(head(momentum=name, max_classes=10, replay=0))) for name in ("float32", "bf16")}
    assert bytes_of["float32"] - bytes_of["bf16"] == 10 * 1280 * 2
    kept = head().replay
    assert kept.capacity == 64 * 1024 // 1284 and sorted(kept.labels) == [0, 1, 2, 2]
    assert {row.tobytes() for row in kept.embeddings} == {row.tobytes() for row in steps}
    assert head().runtimes == ("litert",)
    assert head(replay=3).replay.capacity == len(head(replay=3).replay.labels) == 2
    for none in (head(replay=0), head(system="mcu"), head(untrained=True)):
        assert none.replay.capacity == 0 and len(none.replay.labels) == 0
    with pytest.raises(NestlingError, match="less than the 3 classes"):
        head(max_classes=2)


# ---- on the device -----------------------------------------------------------------------------------------------------------


def on(folder: Path, emulator: str | None) -> Path:
    """The package as a device has it. emulator: what stands between the scripts and a program of another processor."""
    there = folder.with_name(f"{folder.name} on the device")
    shutil.rmtree(there, ignore_errors=True)
    shutil.copytree(folder, there)
    if emulator:
        (there / "net_runner").rename(there / "program")
        (there / "net_runner").write_text(f'#!/bin/sh\nexec {emulator} "$(dirname "$0")/program" "$@"\n')
        (there / "net_runner").chmod(0o755)
    return there


def ran(there: Path, script: str, *words: object) -> str:
    done = subprocess.run([there / script, *map(str, words)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def accuracies(said: str) -> list[float]:
    """[of val, of test]: the last of each that was printed."""
    words = ("test", "validation")
    return [float(re.findall(rf"accuracy on {word} data = ([\d.]+)", said)[-1]) for word in words]


def expected_accuracies(loaded: Bundle) -> list[float]:
    """Of the bundle's own float head on the reference's embeddings."""
    assert loaded.graph is not None and loaded.head is not None
    found = []
    for which in ("val", "test"):
        items = part(training_data(loaded, None), loaded, which)
        x = reference_embeddings(loaded.graph, images_of(items, loaded.preprocess))
        answers = (x @ loaded.head.weight.T + loaded.head.bias).argmax(1)
        found.append(float(np.mean(answers == [item.label for item in items])))
    return found


@pytest.mark.slow
def test_arm64_runs_from_eval_untrained_to_eval(arm64: Path, bundle: Path, data: Path, request: pytest.FixtureRequest) -> None:
    needs("qemu-aarch64", install="qemu-user")
    there = on(arm64, "qemu-aarch64")
    untrained = ran(there, "eval_untrained.sh", data)
    expected = expected_accuracies(bundles.load(bundle))
    assert accuracies(untrained) == pytest.approx(expected, abs=6e-5) and max(expected) < 1 and not (there / "trained.nst").exists()
    trained = ran(there, "train.sh", data, "-c", 45, "-a", 2, "--rate", 0.2)
    assert re.findall(r"^(\d+): Loss is [\d.]+ \[min=[\d.]+\]$", trained, re.M) == [str(n) for n in range(1, 46)]
    assert ran(there, "eval.sh", data).splitlines()[-1] == trained.splitlines()[-1]
    head, _, notes = newest(there / "trained.nst")
    assert head.progress.steps == 45 and notes == () and (there / "head.nst").read_bytes() == (arm64 / "head.nst").read_bytes()
    assert (head.weights[3:] == 0).all()
    if platform.machine() == "x86_64":  # the same words and the same bytes from this computer's own processor
        here = on(request.getfixturevalue("linux"), None)
        assert ran(here, "eval_untrained.sh", data) == untrained
        assert ran(here, "train.sh", data, "-c", 45, "-a", 2, "--rate", 0.2) == trained
        assert (here / "trained.nst").read_bytes() == (there / "trained.nst").read_bytes()


@pytest.mark.slow
def test_executorch_in_cpp_learns_with_the_same_head(linux: Path, place: Path, bundle: Path, data: Path) -> None:
    """A program of C++ runs features.pte and learns with the C head: its answers are ExecuTorch's from Python, its file the C's."""
    needs("c++", "make", install="g++ make")
    package_ = place / "executorch"
    pack(bundle, package_, PackConfig("linux", "x86-64", "executorch", force=True))
    listed_rightly(package_, ARM64_FILES | {"features.pte", "head_train.pte", *build.LIBRARIES})
    there, loaded = on(package_, None), bundles.load(bundle)
    assert loaded.head is not None
    backbone, found = executorch_run.load(package_ / "features.pte", threads=1), []
    for which in ("val", "test"):
        items = part(training_data(loaded, None), loaded, which)
        x = backbone.features(np.stack(images_of(items, loaded.preprocess)))
        answers = (x @ loaded.head.weight.T + loaded.head.bias).argmax(1)
        found.append(float(np.mean(answers == [item.label for item in items])))
    assert accuracies(ran(there, "eval_untrained.sh", data)) == pytest.approx(found, abs=6e-5) and max(found) < 1
    ran(there, "train.sh", data, "-c", 45, "-a", 2, "--rate", 0.2)
    head, _, notes = newest(there / "trained.nst")
    assert head.progress.steps == 45 and notes == () and head.weights[:3].any(axis=1).all()
    in_c = subprocess.run(
        [linux / "net_runner", "-f", there / "trained.nst", "-d", data, "-c", "0"], capture_output=True, text=True, check=True
    )
    assert len(accuracies(in_c.stdout)) == 2
    (there / "features.pte").write_bytes((there / "features.pte").read_bytes()[:1000])
    done = subprocess.run([there / "eval.sh", data], capture_output=True, text=True)
    assert done.returncode == 1 and "features.pte is not there, or no whole ExecuTorch program" in done.stderr


@pytest.mark.slow
def test_pushed_over_ssh_cut_once_run_there_and_brought_back(linux: Path, data: Path, tmp_path: Path) -> None:
    problem = ssh_server.missing()
    if problem:
        pytest.skip(problem)
    own = tmp_path / "pkg"
    heard: list[str] = []
    said: list[str] = []
    shutil.copytree(linux, own)
    (tmp_path / "ssh").mkdir()
    with ssh_server.server(tmp_path / "ssh") as server, Proxy(server.port, cuts=1, after=900_000).running() as proxy:
        config = PushConfig(server.identity, server.options(), pause=0.05)
        place_there = Ssh("127.0.0.1", server.user, proxy.port, str(tmp_path / "there"))
        done = push(own, place_there, config, run=str(data), hear=heard.append, say=said.append)
    assert done.sent.dropped == 1 and len(said) == 1
    outputs = [ran.output.read_text() for ran in done.ran]
    assert done.trained == own / "trained.nst" and newest(done.trained)[0].progress.steps > 0
    assert (own / "trained.nst").read_bytes() == (tmp_path / "there" / "trained.nst").read_bytes()
    assert len(outputs) == 3 and accuracies(outputs[0]) and outputs[1].splitlines()[-1] == outputs[2].splitlines()[-1] == heard[-1]


def test_firmware_builds_without_a_warning_and_learns_in_qemu(firmware: Path) -> None:
    machine = machines.machine("cortex-m4")
    problem = virtual.toolchain_missing(machine)
    if problem:
        pytest.skip(problem)
    needs("make", install="make")
    names = set(contents(firmware))
    assert {"Makefile", *build.HEAD_FILES, "nestling_model.h", "head_nst.h", "main_learn.c", "memory.ld"} <= names
    assert not names & {"net_runner", "features.pte", "head.nst", "main_bench.c", "bench_image.h", "train.sh"}
    there = on(firmware, None)
    built = subprocess.run(["make", "-C", there], capture_output=True, text=True)
    assert built.returncode == 0 and "warning" not in built.stderr, built.stderr
    lines = virtual.launch(machine, there / "learn")
    losses = [line["loss_in_millionths"] for line in lines if "step" in line]
    assert len(losses) == 20 and losses[-1] < losses[0]
    assert lines[-1] == {"slot": lines[-1]["slot"], "steps": 20, "saves": 4}
    # the RAM that was told is the program's: its memory holds the arena and three heads (two stand for flash), and little more
    sections = subprocess.run([f"{machine.prefix}size", "-A", there / "learn"], capture_output=True, text=True).stdout
    bss = int(re.search(r"^\.bss\s+(\d+)", sections, re.M)[1])
    ram = manifest.read(firmware).ram
    assert 0 <= bss - ram["arena"] - 3 * ram["head"] < 8 * 1280 + 4096


# ---- an older package, and what stands in the way -----------------------------------------------------------------------------


def test_where_it_cannot_be_written_the_old_package_stays(
    firmware: Path, bundle: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(firmware)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    real = replace_folder

    def in_a_small_place(*words: Any) -> None:
        """No file may be longer than a megabyte from here on, which the weights are."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            real(*words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(package, "replace_folder", in_a_small_place)
    with pytest.raises(OSError, match="File too large"):
        pack(bundle, firmware, replace(MCU, untrained=True))
    assert contents(firmware) == before and manifest.require_whole(firmware) and not list(place.glob(".*"))


def test_packing_again_replaces_a_package_but_not_what_was_learned(firmware: Path, bundle: Path, tmp_path: Path) -> None:
    own = tmp_path / "pkg"
    shutil.copytree(firmware, own)
    before = contents(own)
    pack(bundle, own, MCU)
    assert contents(own) == before
    (own / "trained.nst").write_bytes(b"learned for a week")
    with pytest.raises(UnusableData, match=r"holds trained.nst, which `pack` did not make"):
        pack(bundle, own, MCU)
    (own / "trained.nst").unlink()
    (own / "main_learn.c").write_bytes(b"a firmware of one's own")
    with pytest.raises(UnusableData, match=r"holds main_learn.c"):
        pack(bundle, own, MCU)
    shutil.rmtree(own)
    own.mkdir()
    (own / "thesis.txt").write_text("mine")
    with pytest.raises(UnusableData, match="other files than a package"):
        pack(bundle, own, MCU)
    assert contents(own) == {"thesis.txt": b"mine"}


def test_what_cannot_be_packed_says_what_to_type(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(NestlingError, match="not quantised") as found:
        pack(bundle.with_name("fruit.nest"), tmp_path / "pkg")
    assert "nestling quantize" in found.value.hint and "fruit8.nest" in found.value.hint
    with pytest.raises(NestlingError, match="nothing is packed for mcu on 'arm64'") as found:
        pack(bundle, tmp_path / "pkg", PackConfig("mcu", "arm64"))
    assert "cortex-m4" in found.value.hint and "host" not in found.value.hint
    assert not (tmp_path / "pkg").exists()


def test_a_network_with_its_own_end_is_refused(shared_data, tmp_path: Path) -> None:
    bundles.save(import_model(shared_data("vww_96_int8.tflite")), tmp_path / "vww.nest")
    with pytest.raises(NestlingError, match="no head of nestling's"):
        pack(tmp_path / "vww.nest", tmp_path / "pkg")


def test_a_missing_compiler_is_named_before_anything_is_put_in_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NestlingError, match="arm64 cannot be built here") as found:
        build.built({}, build.TARGETS["android", "arm64"])
    assert "make" in found.value.hint and "gcc" in found.value.hint


def test_without_photographs_made_up_images_are_said(bundle: Path, data: Path, tmp_path: Path) -> None:
    loaded = bundles.load(bundle)
    settings = dict(loaded.lineage[0].settings) | {"folder": str(tmp_path / "gone")}
    lost = replace(loaded, lineage=(replace(loaded.lineage[0], settings=settings), *loaded.lineage[1:]))
    steps, labels, said = package._embeddings(lost, None, silent)
    assert "made-up" in said and len(labels) == 0 and steps.dtype == np.int8 and steps.shape[0] == 32
    steps, labels, said = package._embeddings(lost, data, silent)
    assert said == "54 training photographs" and steps.shape[0] == len(labels) == 54 and set(labels) == {0, 1, 2}
    with pytest.raises(UnusableData):
        package._embeddings(lost, tmp_path / "nowhere", silent)


def test_what_does_not_pass_its_gates_is_not_packed(
    bundle: Path, firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The C of the same network with one weight less, the smallest thing that could be wrong."""
    form = FORMATS["c-cortex-m4"]
    real = form.printers["int8"]

    def spoiled(job: Job) -> Printed:
        printed = real(job)
        files = dict(printed.content)  # type: ignore[arg-type]  # of the kind that this test knows
        text = files["nestling_weights.c"].decode()
        at = text.index("{", len(text) // 2) + 1
        end = text.index(",", at)
        files["nestling_weights.c"] = f"{text[:at]} {-1 if int(text[at:end]) == 1 else 1}{text[end:]}".encode()
        return replace(printed, content=files)

    monkeypatch.setitem(FORMATS, form.name, replace(form, printers={"int8": spoiled}))
    with pytest.raises(GateFailed, match="nothing was packed: c-cortex-m4"):
        pack(bundle, tmp_path / "pkg", MCU)
    assert not (tmp_path / "pkg").exists()


def test_the_command_shows_a_table_or_json(firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PackConfig] = []

    def packed(bundle: Path, out: Path, config: PackConfig, *_: object) -> manifest.Manifest:
        asked.append(config)
        return manifest.read(firmware)

    monkeypatch.setattr(package, "pack", packed)
    app = typer.Typer()
    app.command()(command.command)
    bundle = tmp_path / "my8.nest"
    bundle.touch()
    words = [
        str(bundle),
        "--for",
        "mcu",
        "--machine",
        "cortex-m4",
        "--momentum",
        "bf16",
        "--max-classes",
        "5",
        "--untrained",
        "--replay",
        "7",
    ]
    shown = CliRunner().invoke(app, words)
    assert shown.exit_code == 0 and "main_learn.c" in shown.stdout and "the network (arena)" in shown.stdout, shown.output
    assert asked == [PackConfig("mcu", "cortex-m4", "c", 5, "bf16", "sgd", True, 7)]
    plain = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert plain["ram_bytes"]["arena"] > 64 * 64 * 3 and plain["machine"] == "cortex-m4" and "main_learn.c" in plain["files"]
    for wrong in (["--momentum", "fp64"], ["--for", "windows"], ["--runner", "tf"]):
        assert isinstance(CliRunner().invoke(app, [str(bundle), *wrong]).exception, WrongOption)
    assert CliRunner().invoke(app, [str(bundle), "--max-classes", "0"]).exit_code == 2
