"""What a script or a notebook types: the verbs of the command line, each a function of its command's name.

Paths may be strings; a network is a bundle, what a verb gave, or the path of a bundle or an exported file; options are keywords,
or a config object in one piece. What a verb needs is imported when it is called. Errors are NestlingError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nestling.given import as_file, bundle_of, configured, kept_in, session_of, several, source, warn, words_of
from nestling.progress import usual

if TYPE_CHECKING:
    from typing import Unpack

    from nestling import keywords
    from nestling.artifacts.manifest import Artifact
    from nestling.bundle import Bundle
    from nestling.compress.config import PruneConfig, SearchConfig, SparseConfig
    from nestling.compress.prune import Pruned
    from nestling.compress.search import Searched
    from nestling.data.arrays import Images, OneImage
    from nestling.data.prepare import PrepareConfig, Prepared
    from nestling.device.learn import LearnConfig, Learned
    from nestling.device.manifest import Manifest
    from nestling.device.package import PackConfig
    from nestling.device.push import PushConfig, Pushed
    from nestling.formats.format import ExportConfig
    from nestling.given import Network, Photographs
    from nestling.graph.integers import QuantizeConfig
    from nestling.measure.answers import Evaluated, Predicted
    from nestling.measure.bench import Timing
    from nestling.measure.trace import Activation
    from nestling.pages.compare.compare import CompareConfig
    from nestling.pages.compare.found import Comparison
    from nestling.pages.page import Page, Row
    from nestling.preprocess.image import Size
    from nestling.progress import Progress
    from nestling.quantization.quantize import Quantized
    from nestling.scores.agree import Agreement
    from nestling.training.config import DistillConfig, QatConfig, TrainingConfig
    from nestling.training.finetune import Taught
    from nestling.training.fit import FitConfig, Fitted
    from nestling.training.qat import Qat
    from nestling.training.session import Session
    from nestling.training.update import UpdateConfig


# ---- teach -----------------------------------------------------------------------------------------------------------------------


def fit(
    photographs: Photographs | Images,
    labels: Sequence[str] | None = None,
    config: FitConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Fit],
) -> Fitted:
    """Learn the classes of photographs: a folder with a folder for each class, a .zip, a list; or images with a label each.

    images: uint8 [N, H, W, C], or a sequence of arrays, PIL images and paths. options: see FitConfig.
    """
    from nestling.training.fit import FitConfig
    from nestling.training.fit import fit as work

    return work(source(photographs), labels, configured(FitConfig, config, options), progress or usual())


def update(
    network: Network,
    photographs: Photographs,
    config: UpdateConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Update],
) -> Fitted:
    """Learn the head again, on photographs that came later, too; old ones keep their part. options: see UpdateConfig."""
    from nestling.training.update import UpdateConfig
    from nestling.training.update import update as work

    return work(bundle_of(network), source(photographs), configured(UpdateConfig, config, options), progress or usual())


def import_model(
    file: str | Path,
    labels: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    *,
    signature: str | None = None,
    size: Size | None = None,
    numbers: bool = False,
) -> Bundle:
    """Take somebody else's .tflite network, `nestling import` on the command line.

    mean, std: its normalisation where the file does not say it. signature: which of several networks. size: of images, where the
    file takes any. numbers: it takes no photographs, though its input has the shape of one.
    """
    from nestling.artifacts.import_model import import_model as work
    from nestling.formats.format import ReadConfig
    from nestling.preprocess.image import sides_of

    config = ReadConfig(signature, None if size is None else sides_of(size))
    return work(Path(file), labels, mean, std, config, numbers)


def finetune(
    network: Network,
    photographs: Photographs | None = None,
    config: TrainingConfig | None = None,
    *,
    session: Session | None = None,
    progress: Progress | None = None,
    **options: Unpack[keywords.Training],
) -> Taught:
    """Train the whole network on. photographs: None for those that it learned from, where they were. options: see TrainingConfig.

    session: a checkpoint to go on from, and who hears of the epochs.
    """
    from nestling.training.config import TrainingConfig

    settings, begun = configured(TrainingConfig, config, options), bundle_of(network)
    from nestling.training.finetune import finetune as work

    return work(begun, source(photographs), settings, session_of(session, progress))


def distill(
    network: Network,
    photographs: Photographs | None,
    teacher: str | Path,
    config: DistillConfig | None = None,
    *,
    session: Session | None = None,
    progress: Progress | None = None,
    **options: Unpack[keywords.Distill],
) -> Taught:
    """Train the network by what a teacher answers to the same photographs. teacher: a bundle's path, or a timm name.

    options: see DistillConfig.
    """
    from nestling.training.config import DistillConfig

    settings, begun = configured(DistillConfig, config, options), bundle_of(network)
    from nestling.training.distill import distill as work

    return work(begun, source(photographs), teacher, settings, session_of(session, progress))


# ---- shrink ----------------------------------------------------------------------------------------------------------------------


def quantize(
    network: Network,
    photographs: Photographs | None = None,
    config: QuantizeConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Quantize],
) -> Quantized:
    """Give a fitted network integers. options: see QuantizeConfig.

    photographs: None for those that it learned from, where they were.
    """
    from nestling.graph.integers import QuantizeConfig
    from nestling.quantization.quantize import quantized

    return quantized(bundle_of(network), source(photographs), configured(QuantizeConfig, config, options), progress or usual())


def qat(
    network: Network,
    photographs: Photographs | None = None,
    config: QatConfig | None = None,
    *,
    session: Session | None = None,
    progress: Progress | None = None,
    **options: Unpack[keywords.Qat],
) -> Qat:
    """Train with values rounded, then quantise, `quantize --qat` on the command line. options: see QatConfig."""
    from nestling.training.config import QatConfig

    settings, begun = configured(QatConfig, config, options), bundle_of(network)
    from nestling.training.qat import qat as work

    return work(begun, source(photographs), settings, session_of(session, progress))


def prune(
    network: Network,
    photographs: Photographs | None = None,
    config: PruneConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Prune],
) -> Pruned:
    """Take away the channels that matter least. options: see PruneConfig."""
    from nestling.compress.config import PruneConfig

    settings, begun = configured(PruneConfig, config, options), bundle_of(network)
    from nestling.compress.prune import prune as work

    return work(begun, source(photographs), settings, progress or usual())


def sparsify(
    network: Network,
    photographs: Photographs | None = None,
    config: SparseConfig | None = None,
    *,
    training: TrainingConfig | None = None,
    session: Session | None = None,
    progress: Progress | None = None,
    **options: Unpack[keywords.Sparse],
) -> Taught:
    """Make weights zero while it learns, `prune --method` on the command line. options: see SparseConfig.

    training: None for ten epochs.
    """
    from nestling.compress.config import SparseConfig
    from nestling.training.config import TrainingConfig

    settings, begun = configured(SparseConfig, config, options), bundle_of(network)
    from nestling.compress.prune import sparsify as work

    return work(begun, source(photographs), settings, training or TrainingConfig(), session_of(session, progress))


def search(
    network: Network,
    photographs: Photographs | None = None,
    config: SearchConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Search],
) -> Searched:
    """Find by FastNAS how wide each layer should be. options: see SearchConfig."""
    from nestling.compress.config import SearchConfig

    settings, begun = configured(SearchConfig, config, options), bundle_of(network)
    from nestling.compress.search import search as work

    return work(begun, source(photographs), settings, progress or usual())


# ---- print and prove -------------------------------------------------------------------------------------------------------------


def export(
    network: Network,
    out: str | Path = "out",
    to: str | Sequence[str] | None = None,
    precision: str | Sequence[str] = ("fp32", "int8"),
    photographs: Photographs | None = None,
    config: ExportConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Export],
) -> tuple[Artifact, ...]:
    """Print a network for its targets into the folder `out`, each file judged before it is put in place.

    A network in memory is kept there as network.nest: what was printed is measured against it later.
    to: tflite, onnx, pte, c-host, c-cortex-m4, ... or several; None for pte, or tflite where ExecuTorch is not installed.
    precision: fp32, fp16, dynamic, int8 or several; a format prints those it has. options: see ExportConfig.
    """
    from nestling.artifacts.export import export as work
    from nestling.errors import WrongOption
    from nestling.formats import printed
    from nestling.formats import usual as usual_format
    from nestling.formats.format import ExportConfig

    forms, precisions = words_of(to or usual_format()), words_of(precision)
    wanted = [(form, kind) for form in forms for kind in precisions if (form, kind) in printed()]
    if lost := [form for form in forms if form not in {form for form, _ in wanted}]:
        possible = ", ".join(dict.fromkeys(form for form, _ in printed()))
        raise WrongOption(f"{lost[0]} is not printed in {', '.join(precisions)}; formats are {possible}.")
    settings, path = configured(ExportConfig, config, options), kept_in(Path(out), network)
    return work(path, Path(out), wanted, source(photographs), settings, progress or usual())


def evaluate(network: Network, photographs: Photographs, *, progress: Progress | None = None, trust: bool = False) -> Evaluated:
    """How good a network is, `eval` on the command line (whose name is Python's own). trust: compile a stranger's folder of C."""
    from nestling.measure.answers import evaluate as work

    with as_file(network) as path:
        return work(path, source(photographs), progress or usual(), trust)


def agree(a: Network, b: Network, photographs: Photographs, *, progress: Progress | None = None, trust: bool = False) -> Agreement:
    """How often two networks give the same answer, and how far their logits are apart."""
    from nestling.measure.answers import agree as work

    with as_file(a) as first, as_file(b) as second:
        return work(first, second, source(photographs), progress or usual(), trust)[0]


def predict(
    network: Network, images: OneImage | Images, top: int = 3, *, trust: bool = False, told: Callable[[str], None] | None = None
) -> Predicted:
    """What images show: a path, a folder, an image (PIL, or uint8 [H, W, C]), or several. top: labels of each, best first.

    told: is given what should be known of how they were read; None: a warning.
    """
    from nestling.measure.answers import predict as work

    with as_file(network) as path:
        return work(path, images, top, trust, told or warn)


def trace(network: Network, image: str | Path | None = None) -> tuple[Activation, ...]:
    """What every layer answers to one image; None where the network takes no photographs."""
    from nestling.measure.trace import trace as work

    return work(bundle_of(network), source(image))


def bench(
    networks: Network | Sequence[Network],
    threads: int | Sequence[int] = 1,
    photographs: Photographs | None = None,
    *,
    progress: Progress | None = None,
    rounds: int = 5,
    trust: bool = False,
) -> tuple[Timing, ...]:
    """Time networks, one image at a time, in turns. photographs: the noise of int8 files is measured on; None for their own."""
    from nestling.measure.bench import bench as work

    counts = (threads,) if isinstance(threads, int) else tuple(threads)
    with ExitStack() as stack:
        paths = [stack.enter_context(as_file(one)) for one in several(networks)]
        return work(paths, counts, progress or usual(), source(photographs), rounds, trust=trust)


def report(
    out: str | Path,
    page: str | Path = "report.html",
    photographs: Photographs | None = None,
    *,
    progress: Progress | None = None,
    trust: bool = False,
) -> Page:
    """One page on everything that was exported into the folder `out`."""
    from nestling.pages.gather import report as work

    return work(Path(out), Path(page), source(photographs), progress or usual(), trust=trust)


def compare(
    networks: Sequence[str | Path],
    photographs: Photographs | None = None,
    config: CompareConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Compare],
) -> Comparison:
    """Measure bundles on the same photographs in one run, `report A.nest B.nest` on the command line.

    options: see CompareConfig.
    """
    from nestling.pages.compare.compare import CompareConfig
    from nestling.pages.compare.compare import compare as work

    settings = configured(CompareConfig, config, options)
    return work([Path(one) for one in networks], source(photographs), settings, progress or usual())


def prepare(
    folder: str | Path,
    out: str | Path,
    listed: str | Path | None = None,
    names: str | Path | None = None,
    config: PrepareConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Prepare],
) -> Prepared:
    """Make class folders of a folder of images and a list, `data prepare` on the command line. options: see PrepareConfig."""
    from nestling.data.prepare import PrepareConfig
    from nestling.data.prepare import prepare as work

    settings = configured(PrepareConfig, config, options)
    return work(Path(folder), Path(out), source(listed), source(names), settings, progress or usual())


# ---- devices ---------------------------------------------------------------------------------------------------------------------


def pack(
    network: Network,
    out: str | Path = "pkg",
    config: PackConfig | None = None,
    photographs: Photographs | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Pack],
) -> Manifest:
    """Pack all that a device needs to run a network and go on learning into the folder `out`. options: see PackConfig."""
    from nestling.device.package import PackConfig
    from nestling.device.package import pack as work

    settings = configured(PackConfig, config, options)
    with as_file(network) as path:
        return work(path, Path(out), settings, source(photographs), progress or usual())


def push(
    package: str | Path,
    place: str,
    config: PushConfig | None = None,
    run: str | None = None,
    **options: Unpack[keywords.Push],
) -> Pushed:
    """Bring a package to a device. place: ssh://user@host/folder, adb, adb:SERIAL. options: see PushConfig.

    run: the folder of photographs there that it learns from.
    """
    from nestling.device.push import PushConfig, place_of
    from nestling.device.push import push as work

    return work(Path(package), place_of(place), configured(PushConfig, config, options), run)


def learn(
    package: str | Path,
    photographs: str | Path,
    config: LearnConfig | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[keywords.Learn],
) -> Learned:
    """Let a packed network's head go on learning, here. options: see LearnConfig."""
    from nestling.device.learn import LearnConfig
    from nestling.device.learn import learn as work

    return work(Path(package), Path(photographs), configured(LearnConfig, config, options), progress or usual())


def demo(out: str | Path = "demo-out", *, progress: Progress | None = None) -> tuple[Row, ...]:
    """The whole chain on 2,624 photographs of solar cells."""
    from nestling.demonstration import demo as work

    return work(Path(out), progress or usual())


# ---- bundles ---------------------------------------------------------------------------------------------------------------------


def load(path: str | Path) -> Bundle:
    """The bundle that a file NAME.nest holds."""
    from nestling.bundle import load as work

    return work(Path(path))


def save(network: Network, path: str | Path) -> None:
    """Write a bundle as one file, whole or not at all."""
    from nestling.bundle import save as work

    work(bundle_of(network), Path(path))
