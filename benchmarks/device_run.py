"""A device's whole run in C: how good the untrained head is, training, how good the trained one is; and the time of it.

    python benchmarks/device_run.py --data cifar10_small.tar.gz [--bundle my8.nest] [--images 100] [--cycles 60]

Takes so many photographs of each class, converts them to BMP, packs EfficientNet-Lite0 with a head of zeros and runs the package's
three scripts. Without --bundle the network is fitted on the data and quantised first. At the end: how far the
embeddings of ExecuTorch's features.pte are from the reference's, which are the C's, byte for byte, on every processor.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from photographs import folder

from nestling import bundle as bundles
from nestling.bundle import Bundle
from nestling.data.folders import scan
from nestling.data.images import images_of
from nestling.data.prepare import PrepareConfig, prepare
from nestling.device.head_file import newest
from nestling.device.manifest import SCRIPTS
from nestling.device.package import PackConfig, pack
from nestling.formats.executorch import run as executorch_run
from nestling.processor import processor
from nestling.quantization.quantize import quantize, reference_embeddings
from nestling.training.fit import FitConfig, fit

PROBES = 100  # photographs


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="a folder of class folders, or a .tar.gz of one")
    arguments.add_argument("--bundle", type=Path, help="a quantised bundle with the same classes; by default one is made")
    arguments.add_argument("--images", type=int, default=100, help="of each class")
    arguments.add_argument("--cycles", type=int, default=60)
    chosen = arguments.parse_args()
    with folder(chosen.data) as data, tempfile.TemporaryDirectory() as name:
        place = Path(name)
        path = chosen.bundle or place / "my8.nest"
        if chosen.bundle is None:
            bundles.save(quantize(fit(data, config=FitConfig()).bundle, data), path)
        photographs = prepare(_some(data, chosen.images, place / "some"), place / "bmp", config=PrepareConfig("bmp")).folder
        package = place / "pkg"
        pack(path, package, PackConfig(untrained=True), data)
        print(f"{processor()}\n")
        before = _seconds()
        for script in SCRIPTS:
            more = ["-c", str(chosen.cycles), "-b", "32", "-a", "2"] if script == "train.sh" else []
            print(" ".join(["$", f"./{script}", "photos", *more]))
            command = [str(package / script), str(photographs), *more]
            print(subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout, end="")
        print(f"\n{_seconds() - before:.1f} seconds of processor time")
        print(_apart(package, bundles.load(path), photographs))


def _some(data: Path, images: int, out: Path) -> Path:
    """The first photographs of each class, by the order of their contents' digests."""
    dataset = scan(data)
    for label, name in enumerate(dataset.labels):
        (out / name).mkdir(parents=True)
        own = sorted((item for item in dataset.items if item.label == label), key=lambda item: item.fingerprint)
        for item in own[:images]:
            shutil.copyfile(item.path, out / name / f"{item.fingerprint}{item.path.suffix}")
    return out


def _apart(package: Path, bundle: Bundle, photographs: Path) -> str:
    assert bundle.graph is not None
    head, _, _ = newest(package / "head.nst")
    items = sorted(scan(photographs).items, key=lambda item: item.fingerprint)[:PROBES]
    images = np.stack(images_of(items, bundle.preprocess))
    real = executorch_run.load(package / "features.pte", threads=1).features(images)
    steps = np.rint((real - reference_embeddings(bundle.graph, list(images))) / np.float32(head.embedding_scale)).astype(int)
    same = f"{(steps == 0).mean():.1%} of the embeddings' bytes are the C's, none is more than {abs(steps).max()} off"
    return f"features.pte on {len(items)} of them: {same}"


def _seconds() -> float:
    """Processor time of the programs that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
