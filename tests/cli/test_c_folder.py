"""A folder of C behind the same commands as every other artifact."""

import json
import re
import shutil
from pathlib import Path

import pytest

from nestling.formats.c import host, machines, virtual
from tests.helpers.commands import Nestling

if shutil.which("cc") is None:
    pytest.skip("needs a C compiler: apt-get install gcc libc6-dev", allow_module_level=True)


@pytest.fixture(scope="module")
def out(nestling: Nestling, integers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("c")
    nestling("export", integers, "--to", "c", "--machine", "host,cortex-m4", "--precision", "int8", "-o", out)
    return out


def test_the_manifest_tells_flash_and_arena(out: Path) -> None:
    listed = {entry["file"]: entry for entry in json.loads((out / "manifest.json").read_text())["artifacts"]}
    assert set(listed) == {"fruit8-c-host", "fruit8-c-cortex-m4"}
    for entry in listed.values():
        assert entry["noise_ratio"] < 1e-3 and entry["agreement"] == 1 and entry["failed"] == []
        assert entry["bytes"] > 100_000 and entry["arena"] >= 64 * 64 * 3


def test_it_answers_as_the_bundle_does(nestling: Nestling, integers: Path, out: Path, photos: Path) -> None:
    same = json.loads(nestling("agree", integers, out / "fruit8-c-host", photos, "--json").stdout)
    assert same["agreement"] == 1 and same["max_logit_difference"] < 1e-4 and same["images"] == 12
    assert json.loads(nestling("eval", out / "fruit8-c-cortex-m4", photos, "--json").stdout)["top1"] > 0.8


def test_trace_finds_the_layer_whose_weights_were_changed(
    nestling: Nestling, integers: Path, out: Path, photos: Path, tmp_path: Path
) -> None:
    image = photos / "apple" / "00.jpg"
    assert json.loads(nestling("trace", integers, image, "--against", out / "fruit8-c-host", "--json").stdout)["first"] is None
    broken = tmp_path / "broken"
    shutil.copytree(out / "fruit8-c-host", broken)
    weights = broken / "nestling_weights.c"
    text = weights.read_text()
    arrays = list(re.finditer(r": weights .*\n.*\{", text))
    at = arrays[len(arrays) // 2].end()
    end = text.index(",", at)
    weights.write_text(f"{text[:at]} {-1 if int(text[at:end]) == 1 else 1}{text[end:]}")
    command = ("trace", integers, image, "--against", broken, "--json")
    assert "--trust" in nestling(*command, status=1).stderr
    found = json.loads(nestling(*command, "--trust", status=1).stdout)
    assert found["first"] is not None and found["compared"] > 20


def test_bench_times_it_here_and_counts_instructions_there(nestling: Nestling, out: Path) -> None:
    problem = virtual.toolchain_missing(machines.machine("cortex-m4"))
    if problem:
        pytest.skip(problem)
    rows = {row["file"]: row for row in json.loads(nestling("bench", out, "--layers", "--json").stdout)["artifacts"]}
    assert rows["fruit8-c-host"]["runtime"] == "C" and rows["fruit8-c-host"]["ms_median"] > 0
    counted = rows["fruit8-c-cortex-m4"]
    assert counted["macs"] < counted["instructions"] < 10 * counted["macs"]
    assert counted["calibration"]["counted"] == pytest.approx(counted["calibration"]["instructions"], rel=1e-4)
    assert sum(layer["instructions"] for layer in counted["layers"]) == counted["instructions"]
    assert sum(layer["cycles_estimate"] for layer in counted["layers"]) == counted["cycles_estimate"] > counted["instructions"]
    assert "estimate" in counted["cycles_note"]
    assert counted["flash_bytes"] > counted["arena_bytes"] > 0 and 0 < counted["stack_bytes"] < 2048


def test_a_network_of_another_name(nestling: Nestling, integers: Path, photos: Path, tmp_path: Path) -> None:
    command = ("export", integers, "--to", "c", "--precision", "int8", "-o", tmp_path / "out", "--name")
    refused = nestling(*command, "2cats", status=2).stderr
    assert "found '2cats'" in refused and "--name cats" in refused and not (tmp_path / "out").exists()
    nestling(*command, "cats")
    folder = tmp_path / "out" / "fruit8-c-host"
    assert (folder / "cats_model.h").is_file() and not (folder / "nestling_model.h").exists()
    assert json.loads(nestling("agree", integers, folder, photos, "--json").stdout)["agreement"] == 1
    found = nestling("trace", integers, photos / "apple" / "00.jpg", "--against", folder, "--json")
    assert json.loads(found.stdout)["first"] is None
    assert json.loads(nestling("bench", folder, "--layers", "--json").stdout)["artifacts"][0]["ms_median"] > 0


def test_bench_says_by_which_instructions_a_folder_ran(nestling: Nestling, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = out / "fruit8-c-host"
    monkeypatch.setenv("NESTLING_ISA", "portable")
    rows = json.loads(nestling("bench", folder, "--threads", "1,2", "--json").stdout)["artifacts"]
    assert [(row["threads"], row["isa"]) for row in rows] == [(1, "portable"), (2, "portable")]
    assert max(row["noise_ratio"] for row in rows) < 1e-3  # the head's float sums
    assert "C (portable)" in nestling("bench", folder).stdout
    monkeypatch.setenv("NESTLING_ISA", "mmx")
    refused = nestling("bench", folder, status=1).stderr
    assert "NESTLING_ISA is 'mmx', which this processor has not" in refused and "portable" in refused


def test_the_report_shows_instructions_of_every_layer(nestling: Nestling, out: Path, tmp_path: Path) -> None:
    problem = virtual.toolchain_missing(machines.machine("cortex-m4"))
    if problem:
        pytest.skip(problem)
    rows = json.loads(nestling("report", out, "-o", tmp_path / "page.html", "--json").stdout)["artifacts"]
    assert [row["file"] for row in rows] == ["fruit8.nest", "fruit8-c-host"]  # another machine's has no milliseconds here
    text = (tmp_path / "page.html").read_text()
    assert "MACs an instruction" in text and "fruit8-c-cortex-m4" in text and "not cycles" in text
    assert "cycles, estimated" in text and "are an estimate" in text


def test_without_a_compiler_a_folder_is_kept_by_force_alone(
    nestling: Nestling, integers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else was asked for is there; what was not looked at is said to be."""
    monkeypatch.setattr(host, "compiler", lambda: None)
    words = ("export", integers, "--to", "c,tflite", "--precision", "int8", "-o", tmp_path)
    refused = nestling(*words, status=1).stderr
    assert "there is no C compiler here" in refused and "--force" in refused
    assert not (tmp_path / "fruit8-c-host").exists() and (tmp_path / "fruit8-int8.tflite").exists()
    kept = nestling(*words, "--force")
    assert "not judged" in kept.stdout and "its answers were not looked at" in kept.stderr
    listed = {entry["file"]: entry for entry in json.loads((tmp_path / "manifest.json").read_text())["artifacts"]}
    assert listed["fruit8-c-host"]["images"] == 0 and listed["fruit8-c-host"]["failed"]


def test_a_machine_that_there_is_not_is_named(nestling: Nestling, integers: Path, tmp_path: Path) -> None:
    done = nestling("export", integers, "--to", "c", "--machine", "z80", "-o", tmp_path, status=2)
    assert "z80" in done.stderr and "cortex-m4" in done.stderr


def test_plan_says_whether_it_fits_and_what_would(
    nestling: Nestling, integers: Path, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    """At the resolution that it names the network really fits: it is made, and planned again."""
    fine = json.loads(nestling("plan", integers, "--ram", "1M", "--flash", "8M", "--json").stdout)
    assert fine["fits"] and not fine["hint"]
    assert fine["lower_bound_bytes"] <= fine["arena_bytes"] <= 1.05 * fine["lower_bound_bytes"]
    ram = str(fine["arena_bytes"] // 2 + 2048)
    tight = nestling("plan", integers, "--ram", ram, "--flash", "8M", "--json", status=1)
    hint = json.loads(tight.stdout)["hint"]
    size = hint.partition("--size ")[2].split()[0]
    assert 32 <= int(size) < 64, hint
    nestling("fit", photos, "--backbone", "mobilenetv2_050", "--weights", "none", "--size", size, "-o", tmp_path / "s.nest")
    nestling("quantize", tmp_path / "s.nest", "-o", tmp_path / "s8.nest")
    nestling("plan", tmp_path / "s8.nest", "--ram", ram, "--flash", "8M", "-o", tmp_path / "arena.svg")
    assert "<svg" in (tmp_path / "arena.svg").read_text()


def test_export_refuses_what_does_not_fit_before_it_writes(nestling: Nestling, integers: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = nestling(
        "export", integers, "--to", "c", "--machine", "cortex-m4", "--precision", "int8", "--ram", "20K", "-o", out, status=1
    )
    assert "does not fit" in done.stderr and "in the way" in done.stderr and not list(out.glob("*"))


@pytest.fixture(scope="module")
def hostile(out: Path, integers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export as somebody else may hand it on: its C makes a file beside it as soon as it is loaded, or run in QEMU."""
    place = tmp_path_factory.mktemp("hostile")
    shutil.copytree(out, place / "out")
    shutil.copy(integers, place / "fruit8.nest")
    program = (
        f'extern int system(const char *);\n__attribute__((constructor)) static void f(void) {{ system("touch {place}/ran"); }}\n'
    )
    for machine in ("host", "cortex-m4"):
        with (place / "out" / f"fruit8-c-{machine}" / "nst_mean.c").open("a") as file:
            file.write(program)
    return place


@pytest.mark.parametrize(
    "command",
    [
        "predict out/fruit8-c-host {photo}",
        "eval out/fruit8-c-host {photos}",
        "agree fruit8.nest out/fruit8-c-host {photos}",
        "trace fruit8.nest {photo} --against out/fruit8-c-host",
        "bench out/fruit8-c-host",
        "bench out/fruit8-c-cortex-m4",
        "bench out --layers",
        "report out",
    ],
)
def test_what_somebody_else_wrote_is_not_compiled(
    nestling: Nestling, hostile: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(hostile)
    words = [word.format(photos=photos, photo=photos / "apple" / "00.jpg") for word in command.split()]
    said = nestling(*words, status=1).stderr
    assert "out/fruit8-c-" in said and "does whatever its author wrote" in said and "--trust" in said
    assert not (hostile / "ran").exists()


def test_with_trust_it_is(nestling: Nestling, hostile: Path, photos: Path, tmp_path: Path) -> None:
    """The other tests would have seen it."""
    copy = shutil.copytree(hostile / "out" / "fruit8-c-host", tmp_path / "copy")
    nestling("predict", copy, photos / "apple" / "00.jpg", "--trust")
    (hostile / "ran").unlink()
