"""nestling import, and what comes after it, as a user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nestling import bundle as bundles
from nestling.formats import load
from nestling.preprocess.image import load as load_image
from tests.helpers.commands import Nestling
from tests.helpers.normalising import Piece, network
from tests.helpers.tflite_files import CODE, changed

Shared = Callable[[str], Path]
INTEGER = ("vww_96_int8.tflite", "resnet8_cifar10_int8.tflite", "mobilenet_v2_1_0_224_quant.tflite")


@pytest.mark.parametrize("name", INTEGER)
def test_an_imported_network_is_its_file_layer_by_layer(
    nestling: Nestling, shared_data: Shared, photos: Path, tmp_path: Path, name: str
) -> None:
    file = shared_data(name)
    said = json.loads(nestling("import", file, "-o", tmp_path / "m.nest", "--json").stdout)
    assert said["kind"] == "integer" and said["classes"] == {"vww": 2, "res": 10, "mob": 1001}[name[:3]]
    done = nestling("trace", tmp_path / "m.nest", photos / "plum" / "00.jpg", "-o", tmp_path / "t", "--against", file, "--json")
    found = json.loads(done.stdout)
    assert found["differing"] == [] and found["compared"] == found["layers"] - 2 and found["compared"] > 10


def test_what_was_assumed_is_said(nestling: Nestling, shared_data: Shared, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("nobody\nsomebody\n")
    file = shared_data("vww_96_int8.tflite")
    done = nestling("import", file, "-o", tmp_path / "m.nest")
    assert "assumed: its input" in done.stderr and "class 0 to class 1" in done.stderr and "integer network" in done.stdout
    quiet = nestling("import", file, "-o", tmp_path / "m.nest", "--labels", labels, "--mean", "0", "--std", "1,1,1")
    assert quiet.stderr == ""
    found = json.loads(nestling("predict", tmp_path / "m.nest", photos / "plum" / "00.jpg", "--json").stdout)
    assert found[0]["label"] in ("nobody", "somebody")
    nestling("import", file, "-o", tmp_path / "m.nest", "--mean", "a lot", status=2)
    labels.write_text("nobody\n")
    assert "2 classes" in nestling("import", file, "-o", tmp_path / "m.nest", "--labels", labels, status=1).stderr
    (tmp_path / "x.tflite").write_bytes(file.read_bytes()[:5000])
    assert "x.tflite" in nestling("import", tmp_path / "x.tflite", "-o", tmp_path / "m.nest", status=1).stderr


def test_a_float_network_becomes_a_backbone(nestling: Nestling, shared_data: Shared, photos: Path, tmp_path: Path) -> None:
    base, mine = tmp_path / "base.nest", tmp_path / "mine.nest"
    assert "float network" in nestling("import", shared_data("vww_96_float.tflite"), "--mean", 0, "--std", 1, "-o", base).stdout
    result = json.loads(nestling("fit", photos, "--backbone", base, "-o", mine, "--json").stdout)
    assert result["top1"] >= 0.75
    fitted = bundles.load(mine)
    assert fitted.labels == ("apple", "lime ü", "plum") and [step.name for step in fitted.lineage] == ["import", "fit"]
    photo = photos / "plum" / "03.jpg"
    answer = json.loads(nestling("predict", mine, photo, "--json").stdout)[0]
    assert answer["label"] == fitted.labels[load(mine)(load_image(fitted.preprocess, photo)[None])[0].argmax()]
    again = tmp_path / "again.nest"  # what was fitted serves as a backbone in its turn, without its classes
    nestling("fit", photos, "--backbone", mine, "--classes", "apple,plum", "-o", again, "--json")
    assert bundles.load(again).labels == ("apple", "plum")
    assert [step.name for step in bundles.load(again).lineage] == ["import", "fit"]


def test_what_a_file_does_not_say_is_asked_for(nestling: Nestling, shared_data: Shared, tmp_path: Path) -> None:
    asked = nestling("import", shared_data("vww_96_float.tflite"), "-o", tmp_path / "m.nest", status=1)
    assert "--mean 0.5 --std 0.5" in asked.stderr and not (tmp_path / "m.nest").exists()


def test_one_of_several_networks_and_a_size_are_said(nestling: Nestling, tmp_path: Path) -> None:
    out = tmp_path / "m.nest"
    data = network([Piece(CODE.MUL, (1 / 127.5,)), Piece(CODE.SUB, (1.0,))])
    (tmp_path / "two.tflite").write_bytes(changed(data, lambda model: model.subgraphs.append(model.subgraphs[0])))
    asked = nestling("import", tmp_path / "two.tflite", "-o", out, status=1).stderr
    assert "'0', '1'" in asked and "--signature 0" in asked and not out.exists()
    nestling("import", tmp_path / "two.tflite", "-o", out, "--signature", "1")
    assert bundles.load(out).lineage[-1].settings["signature"] == "1"
    sides = lambda model: setattr(model.subgraphs[0].tensors[0], "shapeSignature", [-1, -1, -1, 3])  # noqa: E731  # a name for a table's cell
    (tmp_path / "any.tflite").write_bytes(changed(data, sides))
    assert "--size" in nestling("import", tmp_path / "any.tflite", "-o", out, status=1).stderr
    for said, size in (("24x32", [24, 32]), ("40", [40, 40])):
        found = json.loads(nestling("import", tmp_path / "any.tflite", "-o", out, "--size", said, "--json").stdout)
        assert found["size"] == size
    for wrong in ("a", "1", "9x", "9x9x9", "100000"):
        assert "--size is" in nestling("import", tmp_path / "any.tflite", "-o", out, "--size", wrong, status=2).stderr


def test_a_network_that_normalises_its_image_goes_all_the_way(nestling: Nestling, photos: Path, tmp_path: Path) -> None:
    """One channel, which ExecuTorch's first convolution takes for depthwise; padded before it is normalised."""
    grey = [Piece(CODE.PAD), Piece(CODE.MUL, (1 / 127.5,), left=True), Piece(CODE.SUB, (1.0,), 4)]
    (tmp_path / "grey.tflite").write_bytes(network(grey, channels=1))
    done = nestling("import", tmp_path / "grey.tflite", "-o", tmp_path / "grey.nest")
    assert "0..255, of which its graph makes -1..1" in done.stdout and "assumed" not in done.stderr
    said = json.loads(nestling("import", tmp_path / "grey.tflite", "-o", tmp_path / "grey.nest", "--json").stdout)
    assert said["normalisation"].startswith("0..255") and said["kind"] == "float" and said["embedding"] == 8
    nestling("fit", photos, "--backbone", tmp_path / "grey.nest", "-o", tmp_path / "mine.nest")
    nestling("export", tmp_path / "mine.nest", "--to", "pte,tflite,onnx,c", "--precision", "fp32,int8", "-o", tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("mine-*")} >= {
        "mine-fp32.pte", "mine-int8.pte", "mine-fp32.tflite", "mine-int8.tflite", "mine-fp32.onnx", "mine-int8.onnx", "mine-c-host",
    }  # fmt: skip


def test_a_bundle_of_a_timm_network_is_a_backbone_too(nestling: Nestling, bundle: Path, photos: Path, tmp_path: Path) -> None:
    nestling("fit", photos, "--backbone", bundle, "-o", tmp_path / "again.nest")
    again, first = bundles.load(tmp_path / "again.nest"), bundles.load(bundle)
    assert again.head is not None and first.head is not None and again.architecture == first.architecture
    assert again.head.weight.tobytes() == first.head.weight.tobytes()


def test_what_cannot_be_a_backbone_is_said(
    nestling: Nestling, shared_data: Shared, bundle: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.nest"
    for option in (("--size", 64), ("--weights", "none")):
        assert "own weights" in nestling("fit", photos, "--backbone", bundle, *option, "-o", out, status=1).stderr
    nestling("import", shared_data("vww_96_int8.tflite"), "-o", tmp_path / "m.nest")
    assert "integer network" in nestling("fit", photos, "--backbone", tmp_path / "m.nest", "-o", out, status=1).stderr
    assert "nobody.nest" in nestling("fit", photos, "--backbone", "nobody.nest", "-o", out, status=1).stderr
