"""nestling report with bundles, as a user types it."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nestling import bundle as bundles
from nestling.formats.c import machines
from nestling.formats.c.virtual import toolchain_missing
from tests.helpers.commands import Nestling, rounded


@pytest.mark.slow  # it quantises, compiles for two machines and runs one in QEMU
def test_one_bundle_with_its_c_on_a_machine(nestling: Nestling, bundle: Path, photos: Path, tmp_path: Path) -> None:
    page, table, picture, kept = (tmp_path / name for name in ("c.html", "t.md", "p.svg", "kept"))
    files = ("-o", page, "--markdown", table, "--picture", picture, "--keep", kept)
    done = nestling(
        "report", bundle, "--data", photos, "--to", "tflite", "--precision", "int8", "--machine", "cortex-m4", *files, "--json"
    )
    result = json.loads(done.stdout)
    assert result["page"] == str(page) and page.read_text().startswith("<!DOCTYPE html>")
    (one,) = result["bundles"]
    assert one["path"] == str(bundle) and one["lineage"] == ["fit"] and one["quantised_here"] is True
    assert one["floats"]["top1"] == rounded(bundles.load(bundle).lineage[-1].metrics["test_top1"])
    (quantised,) = kept.glob("*/fruit-int8.nest")
    assert one["integers"]["top1"] == json.loads(nestling("eval", quantised, photos, "--json").stdout)["top1"]
    planned = json.loads(nestling("plan", quantised, "--machine", "cortex-m4", "--ram", "8M", "--flash", "8M", "--json").stdout)
    assert one["board"]["machine"] == "cortex-m4" and one["board"]["arena_bytes"] == planned["arena_bytes"]
    missing = toolchain_missing(machines.machine("cortex-m4"))
    if missing:
        assert one["board"]["instructions"] is None and any("sudo apt-get install" in note for note in one["notes"])
    else:
        assert (
            one["board"]["flash_bytes"] > one["weights"]["parameters"] and one["board"]["instructions"] > one["weights"]["macs"] / 4
        )
    assert "| C: arena, kB |" in table.read_text() and ElementTree.fromstring(picture.read_text()).tag.endswith("svg")


def test_two_bundles_in_the_terminal(nestling: Nestling, bundle: Path, tmp_path: Path) -> None:
    """Named by their folders where their names are one; without integers where none are wanted."""
    again = tmp_path / "fruit.nest"
    again.write_bytes(bundle.read_bytes())
    page = tmp_path / "c.html"
    done = nestling("report", bundle, again, "--no-int8", "--to", "tflite", "--precision", "fp32", "-o", page)
    for said in (
        "float, top-1 [95%]",
        "MACs",
        "fp32 .tflite, ms",
        "baseline",
        "0.0 (p = 1.00)",
        "100.0% of the MACs",
        f"written to {page}",
    ):
        assert said in done.stdout
    assert "int8, top-1" not in done.stdout and "no int8" in done.stderr
    assert str(again.with_suffix("")) in page.read_text()


def test_a_folder_of_integers_alone_is_held_against_the_float_network_in_their_bundle(
    nestling: Nestling, bundle: Path, tmp_path: Path
) -> None:
    """The bundle's own row is the integers', not float's; below the table stands what to ship, and what to type."""
    out, page = tmp_path / "out", tmp_path / "r.html"
    nestling("export", bundle, "--to", "tflite", "--precision", "int8", "-o", out)
    done = nestling("report", out, "-o", page)
    said = done.stdout.splitlines()
    table = max(i for i, line in enumerate(said) if "fruit-int8.tflite" in line and "│" in line)
    assert "agreement with the float network" in said[0]
    advice = next(line for line in said[table:] if line.startswith(("Ship ", "None of these files")))
    assert advice in page.read_text() and any(line.startswith("Not weighed: C for machines") for line in said)
    assert any(line.startswith("next:  nestling ") for line in said) and "under the head of the integers" in page.read_text()
    assert "int8 · nestling" in page.read_text() and "float · nestling" not in page.read_text()


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("a", "b"), 2, "one folder, or bundles (.nest); found "),
        (("a.nest", "b"), 2, "one folder, or bundles"),
        (("a.nest", "--picture", "p.png"), 2, "NAME.svg"),
        (("a.nest", "--to", "c"), 2, "C is for a --machine"),
        (("a.nest", "--to", "onnx", "--precision", "fp16"), 2, "no format of onnx is printed in fp16"),
        (("a.nest",), 1, "a.nest is not a bundle"),
        (("a.nest", "--machine", "abacus"), 2, "there is no machine 'abacus'"),
    ],
)
def test_mistakes(nestling: Nestling, tmp_path: Path, options: tuple[str, ...], status: int, said: str) -> None:
    for name in ("a", "b", "a.nest"):
        (tmp_path / name).touch()
    words = (tmp_path / word if word in ("a", "b", "a.nest") else word for word in options)
    done = nestling("report", *words, "-o", tmp_path / "no.html", status=status)
    assert said in done.stderr and not (tmp_path / "no.html").exists()
