"""net_runner as a program: what it learns, prints and saves; stopped, killed and gone on with; on another processor."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nestling.data.folders import scan
from nestling.device.head_file import newest, save
from nestling.device.head_format import Replay
from nestling.graph import reference
from nestling.preprocess.image import ImagePreprocess, load
from tests.device.runner_oracle import Device, assert_close, assert_same_training, digest, known_of, learned_by_torch, share_right
from tests.device.runner_program import DEPTH, SANITIZED, built, network, new_head, photographs, run

LABELS = ("one", "three", "two")
NEVER = ("-a", "2")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Device:
    graph = network()
    place = tmp_path_factory.mktemp("device")
    return Device(built(place, graph), graph, photographs(place / "data", LABELS, 30, spread=150))


# ---- a whole run -------------------------------------------------------------------------------------------------------------


def test_what_it_prints_and_saves_is_what_python_computes(device: Device, tmp_path: Path) -> None:
    head = new_head(device.graph, LABELS, tmp_path / "head.nst")
    known = known_of(device, device.data, head)
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 50, *NEVER)
    trained, taken, notes = newest(tmp_path / "trained.nst")
    assert taken == tmp_path / "trained.nst" and not notes

    weights, losses = learned_by_torch(head, known["train"].q, known["train"].y, 50)
    assert_close(trained, weights)
    lines = ended.stdout.splitlines()
    printed = [re.fullmatch(r"(\d+): Loss is (\d+\.\d{6}) \[min=(\d+\.\d{6})\]", line) for line in lines]
    found = [(int(m[1]), float(m[2]), float(m[3])) for m in printed if m]
    assert [number for number, _, _ in found] == list(range(1, 51))
    assert_allclose([loss for _, loss, _ in found], losses, rtol=2e-3, atol=2e-5)
    assert [least for _, _, least in found] == np.minimum.accumulate([loss for _, loss, _ in found]).tolist()

    watched = [i for i, line in enumerate(lines) if line.startswith("accuracy on test data")]
    assert [lines[i - 1].partition(":")[0] for i in watched] == ["20", "40", "50"]
    best = 0.0
    for i, steps in zip(watched, (20, 40, 50), strict=True):
        again = run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", steps, "-o", tmp_path / "t", *NEVER)
        now = share_right(newest(tmp_path / "t")[0], known["val"])
        best = max(best, now)
        assert lines[i] == f"accuracy on test data = {now:.4f} max accuracy = {best:.4f}" and lines[i] in again.stdout
    assert lines[-1] == f"accuracy on validation data = {share_right(trained, known['test']):.4f}"
    assert len(lines) == 50 + 3 + 1
    assert share_right(trained, known["test"]) > 0.4

    progress = trained.progress
    assert (progress.steps, progress.began, progress.items) == (50, 0, len(known["train"].y))
    a_epoch = -(-len(known["train"].y) // head.training.batch)
    assert (progress.epoch, progress.position) == (50 // a_epoch, 50 % a_epoch * head.training.batch)
    assert progress.data == digest(known["train"].items)
    assert progress.best_accuracy == np.float32(best)


def test_without_cycles_the_accuracies_are_told_and_nothing_is_saved(device: Device, tmp_path: Path) -> None:
    head = new_head(device.graph, LABELS, tmp_path / "head.nst")  # of equal scores the first counts
    data = photographs(shutil.copytree(device.data, tmp_path / "data"), ("one",), 12, seed=4)
    known = known_of(device, data, head)
    weights = np.random.default_rng(0).normal(size=(6, DEPTH)).astype(np.float32) * _rows(3)
    trained = save(replace(head, weights=weights), tmp_path / "x")
    for name, of in (("head.nst", head), ("x", trained)):
        ended = run(device.runner, "-f", tmp_path / name, "-d", data, "-c", 0)
        now = share_right(of, known["val"])
        assert ended.stdout.splitlines() == [
            f"accuracy on test data = {now:.4f} max accuracy = {now:.4f}",
            f"accuracy on validation data = {share_right(of, known['test']):.4f}",
        ]
    assert not (tmp_path / "trained.nst").exists()


def _rows(used: int) -> NDArray[np.float32]:
    return (np.arange(6) < used).astype(np.float32)[:, None]


def test_it_ends_when_val_is_good_enough_and_goes_on_from_a_trained_head(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = ("-f", tmp_path / "head.nst", "-d", device.data, "-c", 100)
    whole = run(device.runner, *words, *NEVER).stdout
    seen = [float(share) for share in re.findall(r"test data = (\S+)", whole)]
    first = int(np.argmax(seen))  # of the five looks at val the one that is good enough
    assert len(seen) == 5 and first > 0
    ended = run(device.runner, *words, "-a", f"{seen[first] - 0.001:.4f}").stdout
    steps = 20 * (first + 1)
    assert ended.splitlines()[:-1] == whole.splitlines()[: steps + first + 1]
    trained = newest(tmp_path / "trained.nst")[0]
    assert trained.progress.steps == steps
    run(device.runner, "-f", tmp_path / "trained.nst", "-d", device.data, "-c", 5, *NEVER)
    more = newest(tmp_path / "trained.nst")[0]
    assert (more.progress.steps, more.progress.began) == (steps + 5, steps)
    known = known_of(device, device.data, trained)
    assert_close(more, learned_by_torch(trained, known["train"].q, known["train"].y, 5)[0])


@pytest.mark.parametrize(("words", "settings"), [
    (("--optimizer", "adam", "--rate", "0.02"), {"optimizer": "adam", "rate": 0.02}),
    (("--rate", "0.7", "-b", "5"), {"rate": 0.7, "batch": 5}),
    (("--optimizer", "adam"), {"optimizer": "adam", "rate": 0.005}),
])  # fmt: skip
def test_other_settings(device: Device, tmp_path: Path, words: Sequence[str], settings: dict[str, Any]) -> None:
    head = new_head(
        device.graph, LABELS, tmp_path / "head.nst", moment_type="float32" if "optimizer" not in settings else "bfloat16"
    )
    known = known_of(device, device.data, head)
    run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 40, *words, *NEVER)
    trained = newest(tmp_path / "trained.nst")[0]
    for name, value in settings.items():
        assert getattr(trained.training, name) == (np.float32(value) if isinstance(value, float) else value)
    told = replace(head, training=replace(head.training, **settings))
    assert_close(trained, learned_by_torch(told, known["train"].q, known["train"].y, 40)[0])


def test_verbose_shows_every_layer(device: Device, tmp_path: Path) -> None:
    """The ranges of the first photograph by path, against the reference's activations."""
    head = new_head(device.graph, LABELS, tmp_path / "head.nst")
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 1, "-v", *NEVER)
    found = {
        m[5]: tuple(map(int, m.groups()[:4])) for m in re.finditer(r"in (\S+)\.\.(\S+)  out (\S+)\.\.(\S+)  (\w+)\n", ended.stdout)
    }
    preprocess = ImagePreprocess((16, 16), 3, head.crop, head.interpolation, (0.5,) * 3, (0.5,) * 3)
    image = load(preprocess, scan(device.data).items[0].path)
    values = {**dict(reference.activations(device.graph, image[None])), "image": image}
    reads = {"a": ["image"], "b": ["a"], "s": ["a", "b"], "c": ["s", "b"], "d": ["s", "b"], "wide": ["c", "d"], "e": ["wide"]}
    expected = {}
    for name, inputs in reads.items():
        read = np.concatenate([values[x].reshape(-1).astype(int) for x in inputs])
        expected[name] = (read.min(), read.max(), values[name].min(), values[name].max())
    assert found == expected


def test_threads_and_instructions_give_the_same_embeddings(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    found = set()
    for threads, isa in ((1, ""), (2, ""), (3, "portable")):
        (tmp_path / "trained.nst.features").unlink(missing_ok=True)
        words = ("-f", tmp_path / "head.nst", "-d", device.data, "-c", 0, "--threads", threads)
        here = ("env", f"NESTLING_ISA={isa}")
        ended = run(device.runner, *words, "-v", before=here)
        assert f"in {threads} threads" in ended.stdout and (not isa or f"by {isa} " in ended.stdout)
        run(device.runner, *words, before=here)
        found.add((tmp_path / "trained.nst.features").read_bytes())
    assert len(found) == 1
    said = run(device.runner, *words, before=("env", "NESTLING_ISA=mmx"), status=1).stderr
    assert "NESTLING_ISA is 'mmx', which this processor has not" in said and "portable" in said


# ---- photographs -------------------------------------------------------------------------------------------------------------


def test_a_new_folder_is_a_new_class_while_there_is_room(device: Device, tmp_path: Path) -> None:
    """Classes take turns then, and a class without photographs keeps its row; with the replay store it is not forgotten."""
    data = tmp_path / "data"
    shutil.copytree(device.data / "one", data / "one")
    photographs(data, ("aa new", "zz new"), 12, seed=5, spread=150)
    rng = np.random.default_rng(8)
    plain = new_head(device.graph, LABELS, tmp_path / "head.nst")
    q = known_of(device, device.data, plain)["train"]
    chosen = rng.choice(len(q.y), 12, replace=False)
    replay = Replay(14, 12, q.y[chosen].astype(np.uint16), np.zeros(12, np.uint8), q.q[chosen])
    weights = rng.normal(size=(6, DEPTH)).astype(np.float32) * _rows(3)
    head = save(replace(plain, weights=weights, replay=replay, runtimes=("c",)), tmp_path / "head.nst")
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", data, "-c", 30, *NEVER)
    trained = newest(tmp_path / "trained.nst")[0]
    assert trained.labels == (*LABELS, "aa new", "zz new")
    told = re.findall(r"nothing is kept of (.+) and there are no photographs", ended.stderr)
    assert told == [LABELS[label] for label in (1, 2) if label not in replay.labels]

    widened = replace(head, labels=trained.labels)
    known = known_of(device, data, widened)
    there = {(int(y), row.tobytes()) for y, row in zip(known["train"].y, known["train"].q, strict=True)}
    extra = [i for i in range(12) if (int(replay.labels[i]), replay.embeddings[i].tobytes()) not in there]
    assert 0 < len(extra) < 12
    all_q = np.concatenate([known["train"].q, replay.embeddings[extra]])
    all_y = np.concatenate([known["train"].y, replay.labels[extra].astype(np.int64)])
    assert trained.progress.data == digest(known["train"].items, len(extra)) and trained.progress.items == len(all_y)
    assert trained.training.balanced
    assert_close(trained, learned_by_torch(widened, all_q, all_y, 30, still=(1, 2), balanced=True)[0])
    for row in (1, 2):
        assert trained.weights[row].tobytes() == weights[row].tobytes() and not trained.moment[row].any()
    assert_array_equal(trained.replay.embeddings, replay.embeddings)

    save(replace(head, replay=replace(replay, labels=np.full(12, 2, np.uint16))), tmp_path / "other.nst")
    ended = run(device.runner, "-f", tmp_path / "other.nst", "-d", data, "-c", 1, "-o", tmp_path / "elsewhere.nst", *NEVER)
    assert f"nothing is kept of {LABELS[1]} and" in ended.stderr and LABELS[2] not in ended.stderr

    photographs(data, ("and another", "b", "c"), 5, seed=6)
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", data, "-c", 5, status=1)
    assert "no room for the class" in ended.stderr and "--max-classes" in ended.stderr
    assert newest(tmp_path / "trained.nst")[0].progress.steps == 30


def test_files_that_cannot_be_read_are_named_and_count_for_nothing(device: Device, tmp_path: Path) -> None:
    data = shutil.copytree(device.data, tmp_path / "data")
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    victim = sorted((data / "two").iterdir())[0]
    victim.write_bytes(victim.read_bytes()[:200])
    (data / "two" / "notes.txt").write_text("no image")
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", data, "-c", 3, *NEVER)
    assert f"left out: {victim}: truncated" in ended.stderr
    assert "notes.txt: not an image" in ended.stderr
    split_csv = tmp_path / "split.csv"
    prints = [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in data.rglob("*.bmp") if path != victim]
    split_csv.write_text("fingerprint,part\n" + "".join(f"{print_},train\n" for print_ in sorted(prints)))
    ended = run(device.runner, "-f", tmp_path / "head.nst", "-d", data, "-c", 3, *NEVER)
    assert newest(tmp_path / "trained.nst")[0].progress.items == len(prints)
    assert "no accuracy on test data" in ended.stderr and "no accuracy on validation data" in ended.stderr
    assert "accuracy" not in ended.stdout


def test_embeddings_are_kept_and_damage_of_the_file_is_mended(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = ("-f", tmp_path / "head.nst", "-d", device.data, "-c", 12, *NEVER)
    first = run(device.runner, *words)
    file = tmp_path / "trained.nst.features"
    whole, weights = file.read_bytes(), newest(tmp_path / "trained.nst")[0].weights
    count = len(scan(device.data).items)
    a_record = 8 + DEPTH + 4
    assert (len(whole) - count * a_record) in range(64, 200)
    flipped = bytearray(whole)
    flipped[-a_record * 10 + 9] ^= 1
    for content in (
        whole,
        whole[:-1],
        whole[:-a_record],
        whole[: len(whole) // 2],
        whole[:50],
        b"",
        b"something else" * 99,
        bytes(flipped),
    ):
        file.write_bytes(content)
        again = run(device.runner, *words)
        assert again.stdout == first.stdout
        assert sorted(_records(file.read_bytes(), a_record, count)) == sorted(_records(whole, a_record, count))
        assert newest(tmp_path / "trained.nst")[0].weights.tobytes() == weights.tobytes()

    # they are really taken from there: a record that is whole and wrong changes what is learned
    lie = bytearray(whole)
    for number in range(count):
        start = len(whole) - count * a_record + number * a_record
        lie[start + 8 : start + 8 + DEPTH] = bytes(DEPTH)
        lie[start + 8 + DEPTH : start + a_record] = _crc(bytes(lie[start : start + 8 + DEPTH]))
    file.write_bytes(bytes(lie))
    assert run(device.runner, *words).stdout != first.stdout
    file.unlink()
    file.mkdir()
    ended = run(device.runner, *words)
    assert ended.stdout == first.stdout and "cannot be kept" in ended.stderr


def _records(content: bytes, size: int, count: int) -> list[bytes]:
    start = len(content) - size * count
    return [content[start + i * size : start + (i + 1) * size] for i in range(count)]


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


# ---- stopping and going on ---------------------------------------------------------------------------------------------------


def test_killed_at_random_moments_it_ends_at_the_same_weights(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = [device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 600, "-s", 7, *NEVER]
    start = time.monotonic()
    run(*words, "-o", tmp_path / "whole.nst")
    took = time.monotonic() - start
    expected = newest(tmp_path / "whole.nst")[0]
    rng, kills, tries = np.random.default_rng(0), 0, 0
    last = run(*words, "-o", tmp_path / "t.nst", "-c", 1)
    while kills < 30:
        tries += 1
        assert tries < 400
        program = subprocess.Popen(
            [*map(str, words), "-o", str(tmp_path / "t.nst"), "--resume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            program.wait(float(rng.uniform(0, took / 8)))
        except subprocess.TimeoutExpired:
            program.kill()
            kills += program.wait() == -signal.SIGKILL
        if program.returncode == 0:  # it was quicker: from the beginning again
            assert_same_training(newest(tmp_path / "t.nst")[0], expected)
            for file in tmp_path.glob("t.nst*"):
                file.unlink()
    last = run(*words, "-o", tmp_path / "t.nst", "--resume")
    assert_same_training(newest(tmp_path / "t.nst")[0], expected)
    assert "gone on from" in last.stderr or "begun anew" in last.stderr
    whole = run(*words, "-o", tmp_path / "again.nst").stdout
    assert whole.endswith(last.stdout)


def test_told_to_end_it_saves_and_can_be_gone_on_with(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = [device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 200_000, "-s", 1_000_000, *NEVER]
    for told in (signal.SIGTERM, signal.SIGINT):
        program = subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)
        assert program.stdout is not None
        seen = [program.stdout.readline() for _ in range(30)]
        program.send_signal(told)
        rest = program.stdout.read()
        assert program.wait() == 0
        lines = [*seen, *rest.splitlines(keepends=True)]
        assert lines[-1].startswith("accuracy on validation data") and lines[-2].startswith("accuracy on test data")
        steps = sum("Loss" in line for line in lines)
        stopped = newest(tmp_path / "trained.nst")[0]
        assert stopped.progress.steps == steps < 200_000
    more = steps + 33
    ended = run(*words[:5], "-c", more, *NEVER, "--resume")
    assert f"gone on from {tmp_path / 'trained.nst'}, {steps} cycles" in ended.stderr
    assert ended.stdout.startswith(f"{steps + 1}: Loss")
    run(*words[:5], "-c", more, *NEVER, "-o", tmp_path / "whole.nst")
    assert_same_training(newest(tmp_path / "trained.nst")[0], newest(tmp_path / "whole.nst")[0])


def test_resuming_another_training_begins_anew_and_says_why(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = [device.runner, "-f", tmp_path / "head.nst", "-d", device.data, *NEVER]
    run(*words, "-c", 25)
    more = photographs(shutil.copytree(device.data, tmp_path / "more"), LABELS, 5, seed=77)
    for changed, said in (
        (["-c", 30, "-b", 9], "batches of another size"),
        (["-c", 30, "--optimizer", "adam"], "another optimiser"),
        (["-c", 30, "--rate", 0.3], "another rate"),
        (["-c", 30, "-d", more], "other photographs"),
    ):
        kept = shutil.copyfile(tmp_path / "trained.nst", tmp_path / f"{said}.nst")
        ended = run(*words, *changed, "--resume", "-o", kept)
        assert f"begun anew: {kept} holds a training with {said}" in ended.stderr
        assert ended.stdout.startswith("1: Loss") and newest(kept)[0].progress.steps == 30
    ended = run(*words, "-c", 30, "--resume", "-o", tmp_path / "absent.nst")
    assert "begun anew" in ended.stderr and "absent.nst is not there" in ended.stderr
    ended = run(*words, "-c", 30, "--resume")
    assert "begun anew" not in ended.stderr and ended.stdout.startswith("26: Loss")


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    words = [device.runner, "-f", tmp_path / "head.nst", "-d", device.data, *NEVER, "-s", 10]
    run(*words, "-c", 60, "-o", tmp_path / "whole.nst")
    for damage in (lambda content: content[:-9], lambda content: content[:300] + b"?" + content[301:], lambda content: b""):
        run(*words, "-c", 40, "-o", tmp_path / "t.nst")
        file = tmp_path / "t.nst"
        file.write_bytes(damage(file.read_bytes()))
        ended = run(*words, "-c", 60, "-o", file, "--resume")
        assert f"{file}.previous, 30 steps" in ended.stderr
        assert ended.stdout.startswith("31: Loss")
        assert_same_training(newest(file)[0], newest(tmp_path / "whole.nst")[0])


def test_an_integrator_may_stop_it(device: Device, tmp_path: Path) -> None:
    hook = '#include "net_runner.h"\nint should_continue(void) { static int left = 13; return left-- > 0; }\n'
    runner = built(tmp_path, device.graph, replaced={"hooks.c": hook})
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    run(runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 100, *NEVER)
    assert newest(tmp_path / "trained.nst")[0].progress.steps == 13


def test_no_undefined_behaviour_and_no_byte_out_of_bounds(device: Device, tmp_path: Path) -> None:
    """The whole program under the address and undefined-behaviour sanitizers, leaks included."""
    runner = built(tmp_path, device.graph, (f"CFLAGS={' '.join(SANITIZED)}",))
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    data = shutil.copytree(device.data, tmp_path / "data")
    photographs(data, ("new",), 4, seed=3)
    (data / "one" / "broken.bmp").write_bytes(b"BM" + bytes(100))
    for words in ("-c 25 -v", "-c 40 --resume", "-c 0", "-c 21 --optimizer adam -b 1", "-c 3 -b 4000 -s 1"):
        run(runner, "-f", tmp_path / "head.nst", "-d", data, *words.split(), *NEVER)


# ---- what is refused ---------------------------------------------------------------------------------------------------------


def test_a_head_of_another_network_is_refused_naming_both(device: Device, tmp_path: Path) -> None:
    head = new_head(device.graph, LABELS, tmp_path / "head.nst")
    other = "ab" * 32
    save(replace(head, graph=other), tmp_path / "other.nst")
    ended = run(device.runner, "-f", tmp_path / "other.nst", "-d", device.data, status=1)
    assert other in ended.stderr and head.graph in ended.stderr and not ended.stdout


@pytest.mark.parametrize(
    "words",
    [
        "", "-f H", "-d D", "-f H -d D -c", "-f H -d D -c x", "-f H -d D -c -1", "-f H -d D -c 1.5", "-f H -d D -b 0",
        "-f H -d D -s 0", "-f H -d D -a nan", "-f H -d D --rate 0", "-f H -d D --optimizer lion", "-f H -d D --fast",
        "-f H -d D more", "-f H -d D -c 5x", "-f H -d D --threads 0", "-f H -d D --threads many",
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_status_2(device: Device, words: str) -> None:
    ended = run(device.runner, *words.split(), status=2)
    assert not ended.stdout
    assert len(ended.stderr.splitlines()) == 1 and ended.stderr.startswith("net_runner: ") and "--help" in ended.stderr


def test_help_and_files_that_are_not_there(device: Device, tmp_path: Path) -> None:
    assert "-a STOP_ACCURACY" in run(device.runner, "--help").stdout
    assert "absent is not there" in run(device.runner, "-f", tmp_path / "absent", "-d", tmp_path, status=1).stderr
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    said = run(device.runner, "-f", tmp_path / "head.nst", "-d", tmp_path / "none", status=1).stderr
    assert "none does not exist" in said
    said = run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 3, "-o", tmp_path / "no" / "t", status=1).stderr
    assert "cannot be saved" in said


def test_a_pipe_and_a_folder_stay_what_they_are(device: Device, tmp_path: Path) -> None:
    new_head(device.graph, LABELS, tmp_path / "head.nst")
    pipe, folder = tmp_path / "pipe.nst", tmp_path / "folder.nst"
    os.mkfifo(pipe)
    folder.mkdir()
    for place in (pipe, folder):
        said = run(device.runner, "-f", tmp_path / "head.nst", "-d", device.data, "-c", 1, "-o", place, status=1).stderr
        assert f"{place} cannot be saved" in said
    assert pipe.is_fifo() and not any(folder.iterdir())
    assert not list(tmp_path.glob("*.part"))


# ---- another processor -------------------------------------------------------------------------------------------------------


def test_arm64_prints_and_saves_the_same_bytes(device: Device, tmp_path: Path) -> None:
    for tool, package in (("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"), ("qemu-aarch64", "qemu-user")):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: sudo apt-get install {package}")
    arm = built(tmp_path / "arm", device.graph, ("CC=aarch64-linux-gnu-gcc", "LDFLAGS=-static"))
    said, saved, features = [], [], []
    for name, runner, before in (("here", device.runner, ()), ("arm64", arm, ("qemu-aarch64",))):
        place = tmp_path / name
        place.mkdir()
        new_head(device.graph, LABELS, place / "head.nst")
        words = ("-f", place / "head.nst", "-d", device.data, "-c", 70, "-v", *NEVER)
        said.append(run(runner, *words, before=before).stdout)
        saved.append((place / "trained.nst").read_bytes())
        features.append((place / "trained.nst.features").read_bytes())
    assert "70: Loss" in said[0]
    said = [re.sub(r"runs by \w+", "runs", text) for text in said]
    assert said[0] == said[1] and saved[0] == saved[1] and features[0] == features[1]
