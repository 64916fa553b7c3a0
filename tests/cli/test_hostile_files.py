"""Files that make their runtime abort: each command that takes one says so, names it and leaves with 1."""

from pathlib import Path

import flatbuffers
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.helpers.commands import Nestling


@pytest.fixture(scope="module")
def aborting(nestling: Nestling, integers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 sum that does not say its scale: LiteRT's XNNPACK aborts the process."""
    out = tmp_path_factory.mktemp("aborting")
    nestling("export", integers, "--to", "tflite", "--precision", "int8", "-o", out)
    path = out / "fruit8-int8.tflite"
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    adding = [i for i, code in enumerate(model.operatorCodes) if code.builtinCode == schema.BuiltinOperator.ADD]
    sums = [operator.outputs[0] for operator in graph.operators if operator.opcodeIndex in adding]
    graph.tensors[sums[-1]].quantization = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


@pytest.mark.parametrize(
    "command",
    ["predict {file} {photo}", "eval {file} {photos}", "agree {bundle} {file} {photos}", "bench {file} --layers", "report {out}"],
)
def test_it_is_named(
    nestling: Nestling, aborting: Path, bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, command: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    known = {"file": aborting, "out": aborting.parent, "photos": photos, "photo": photos / "apple" / "00.jpg", "bundle": bundle}
    said = nestling(*(known.get(word.strip("{}"), word) for word in command.split()), status=1).stderr
    assert f"{aborting} cannot be run by LiteRT, its process ended (SIGABRT)" in said
    assert not list(tmp_path.iterdir())
