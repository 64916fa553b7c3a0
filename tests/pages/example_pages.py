"""Reports of made-up figures: one as a person would get it, others that have everything that could go wrong."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from nestling.bundle import Step
from nestling.measure.layers import LayerRow, LayerTable
from nestling.pages.page import Example, Page, Row
from nestling.quantization.explain import LayerCost
from nestling.scores.evaluate import Evaluation, PerClass, wilson

FP32 = Row(
    "elpv-fp32.tflite", "tflite", "fp32", "LiteRT", 1, 13_440_000, 453 / 525, (0.8308, 0.8896), 525, 1.0,
    None, 4.1e-6, 6.94, 8.40, 55_450_000, lost=0, won=0,
)  # fmt: skip
INT8 = Row(
    "elpv-int8.tflite", "tflite", "int8", "LiteRT", 1, 3_960_000, 446 / 525, (0.8164, 0.8776), 525, 0.979,
    0.21, 0.31, 3.66, 4.64, 32_150_000, lost=12, won=5,
)  # fmt: skip
BUNDLE = Row(
    "elpv.nest", "nest", "fp32", "PyTorch", 1, 13_740_000, 453 / 525, (0.8308, 0.8896), 525, 1.0,
    None, 0.0, 17.42, 24.07, 296_920_000, lost=0, won=0,
)  # fmt: skip
PTE = replace(
    FP32, file="elpv-fp32.pte", format="pte", runtime="ExecuTorch", bytes=13_460_000, ms_median=7.92, ms_p95=9.14,
    peak_memory_bytes=267_640_000,
)  # fmt: skip
PTE8 = replace(
    INT8, file="elpv-int8.pte", format="pte", runtime="ExecuTorch", bytes=3_660_000, ms_median=5.5, ms_p95=6.08, noise_ratio=0.47,
    peak_memory_bytes=243_300_000,
)  # fmt: skip
HALF = replace(
    FP32, file="elpv-fp16.tflite", precision="fp16", bytes=6_760_000, ms_median=7.1, ms_p95=8.52, agreement=0.998,
    top1=452 / 525, interval=(0.8288, 0.8879), max_logit_difference=0.012, lost=1,
)  # fmt: skip


def usual() -> Page:
    """Six networks, two of them layer by layer, two classes, photographs."""
    confusion = np.array([[208, 31], [48, 238]])
    return Page(
        title="elpv: solar cells, good or defective",
        rows=(BUNDLE, PTE, PTE8, FP32, HALF, INT8),
        layers=(_layer_table("elpv-fp32.tflite", 49, 1.0), _layer_table("elpv-int8.tflite", 49, 0.53)),
        costs=_costs(49),
        evaluation=evaluation(("defective", "good"), confusion),
        evaluated="elpv-int8.tflite",
        examples=tuple(
            Example(cell(i), label, answer, probability, f"{label}/cell{i:04}.png")
            for i, (label, answer, probability) in enumerate(
                [
                    ("good", "good", 0.998), ("defective", "defective", 0.991), ("good", "good", 0.967),
                    ("defective", "defective", 0.954), ("good", "good", 0.941), ("defective", "defective", 0.929),
                    ("good", "defective", 0.983), ("defective", "good", 0.961), ("good", "defective", 0.902),
                ]
            )
        ),
        lineage=(
            Step(
                "fit",
                {"folder": "/home/someone/photographs/elpv", "backbone": "tf_efficientnet_lite0", "weights": "package", "seed": 0,
                 "views": "none", "balanced": False, "weight_decay": 0.0316},
                "3f1c90aa27d4e6b8", {"val_top1": 0.8571, "test_top1": 0.8629},
            ),
            Step(
                "quantize", {"calibration": 200, "equalize": "auto", "equalized": True, "bias_corrected": False, "seed": 0},
                "3f1c90aa27d4e6b8", {"val_top1": 0.8533, "yardstick_top1": 0.86},
            ),
        ),
        labels=("defective", "good"),
        machine="Intel Xeon (Sapphire Rapids: AVX-512 VNNI, AMX), 2 cores",
        versions={"nestling": "0.1.0", "torch": "2.14.1", "executorch": "1.5.1", "ai-edge-litert": "2.3.0"},
        data="525 test photographs of photographs/elpv, which the network has not learned from",
        notes=("ExecuTorch does not tell the time of single layers: elpv-int8.pte has no table of them.",),
        paths={name: Path("out") / name for name in ("elpv-fp32.tflite", "elpv-int8.tflite")},
        bundle=Path("elpv.nest"),
    )  # fmt: skip


def nasty() -> Page:
    """Names that break out, long words, many classes, layers and networks, gates that failed, noise above 1."""
    names = tuple(f"{odd} {i}" for i, odd in zip(range(40), 5 * ODD, strict=True))
    random = np.random.default_rng(5)
    confusion = np.diag(random.integers(0, 90, 40)) + random.poisson(0.3, (40, 40))
    rows = tuple(
        replace(
            INT8 if i % 2 else FP32, file=f"{ODD[i % 8]}-{i}.tflite", threads=1 + i % 4, runtime="OpenVINO " * (i % 3) + "x",
            bytes=int(4e5 * 1.4**i), ms_median=3.0 + 45.0 * i, noise_ratio=0.4 * i, forced=i % 5 == 4,
            precision=("int8", "fp32", "w4a8")[i % 3], lost=i * 3, won=i,
        )
        for i in range(14)
    )  # fmt: skip
    layers = tuple(LayerRow(f"{ODD[i % 8]}.{i}", "depthwise_conv2d", (1, 112, 112, 96 + i), i * 10**6, None) for i in range(60))
    return Page(
        title=f"{ODD[0]} {LONG}",
        rows=rows,
        layers=(LayerTable(LONG, LONG, layers),),
        costs=tuple(LayerCost(layer.name, layer.kind, 40.0 - i, -0.03 * i, 0.5 - 0.02 * i) for i, layer in enumerate(layers)),
        evaluation=evaluation(names, confusion),
        evaluated=LONG,
        examples=tuple(Example(cell(i), names[i], names[-i], 0.5, f"{names[i]}/{LONG}.jpg") for i in range(8)),
        lineage=(
            Step(ODD[0], {LONG: LONG, "a": [1, {"b": None}]}, LONG, {LONG: 1.0}),
            Step("import", {"file": LONG, "assumed": [LONG, ODD[0]]}),
            Step("fit", {}, "", {}),
        ),
        labels=names,
        machine=LONG,
        versions={LONG: LONG},
        data=LONG,
        notes=(LONG, ODD[0]),
        paths={row.file: Path("out") / row.file for row in rows},
        bundle=Path(ODD[0]),
    )


LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
ODD = (
    '</title></style><script>alert("1")</script>', "a & b < c > d", "'single' \"double\" ${x} $y_1$ {{ 7 * 7 }}", "🦆🐤🐣" * 8,
    "صورة قديمة لطائر صغير", "\u202eright to left\u202c", LONG, "照片" * 20 + "\x00\x08\x1b\x7f\n\udcff",
)  # fmt: skip


def crowded(seed: int, count: int, spread: float) -> Page:
    """Networks that lie close together, or on one another, where labels have little room."""
    random = np.random.default_rng(seed)
    runtimes = ("LiteRT", "ONNX Runtime", "OpenVINO", "ExecuTorch")
    rows = []
    for i in range(count):
        top1 = float(np.clip(0.85 + random.normal(0, spread), 0.05, 0.99))
        rows.append(
            replace(
                FP32, file=f"n{i}.x", precision=("fp32", "int8", "fp16", "dynamic")[random.integers(4)],
                format=("tflite", "onnx", "pte")[random.integers(3)], runtime=runtimes[random.integers(4)],
                bytes=int(1e7 * np.exp(random.normal(0, spread * 10))), ms_median=float(8 * np.exp(random.normal(0, spread * 10))),
                top1=top1, interval=(max(top1 - 0.03, 0), min(top1 + 0.03, 1)),
            )
        )  # fmt: skip
    return Page("crowded", tuple(rows))


def single() -> Page:
    """One network and nothing else."""
    return Page("one", (replace(FP32, ms_median=None, ms_p95=None, peak_memory_bytes=None, max_logit_difference=None),))


def twenty() -> Page:
    """A confusion matrix that is as wide as a table gets, of classes with long names."""
    names = tuple(f"{LONG} {i}" for i in range(20))
    return replace(single(), evaluation=evaluation(names, np.full((20, 20), 1234)), labels=names)


def evaluation(labels: tuple[str, ...], confusion: np.ndarray) -> Evaluation:
    """What belongs to a confusion matrix."""
    per_class = tuple(
        PerClass(
            label,
            own / called if called >= 5 else None,
            own / there if there >= 5 else None,
            int(there),
            wilson(int(own), int(there)),
        )
        for label, own, called, there in zip(labels, confusion.diagonal(), confusion.sum(0), confusion.sum(1), strict=True)
    )
    right, images = int(confusion.trace()), int(confusion.sum())
    return Evaluation(right / images, wilson(right, images), images, labels, confusion.astype(np.int64), per_class, ())


def _layer_table(file: str, count: int, slowness: float) -> LayerTable:
    """Shaped like a MobileNet: an expansion, a depthwise convolution and a projection a block."""
    random = np.random.default_rng(1)
    kinds = ("conv2d", "depthwise_conv2d", "conv2d")
    names = ("conv_pw", "conv_dw", "conv_pwl")
    layers = []
    for i in range(count):
        side, channels = 112 >> (i // 11), 16 << (i // 11)
        macs = int(side * side * channels * (9 if i % 3 == 1 else 4 * channels) * random.uniform(0.6, 1.2))
        ms = round(slowness * (macs / 28e9 * 1e3 * (4.0 if i % 3 == 1 else 1.0) + 0.01), 4)
        layers.append(LayerRow(f"blocks.{i // 9}.{i // 3 % 3}.{names[i % 3]}", kinds[i % 3], (1, side, side, channels), macs, ms))
    return LayerTable(file, "LiteRT", (*layers, LayerRow("mean", "mean", (1, 1280), 0, 0.012)))


def _costs(count: int) -> tuple[LayerCost, ...]:
    random = np.random.default_rng(2)
    table = _layer_table("", count, 1.0).layers
    noise, gains = 38 + random.normal(0, 1, len(table)), random.exponential(0.03, len(table)) - 0.01
    return tuple(
        LayerCost(layer.name, layer.kind, float(noise[i]) - 0.4 * i, i % 3 / 32 - 1 / 32, float(gains[i]))
        for i, layer in enumerate(table)
    )


def cell(seed: int) -> bytes:
    """A JPEG of 128 x 128 that looks a little like the electroluminescence of a solar cell."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:128, 0:128] / 127
    light = 150 + 50 * np.sin(2 * rows + random.uniform(0, 3)) * np.cos(2 * columns) + random.normal(0, 9, (128, 128))
    image = Image.fromarray(np.clip(light, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))
    draw = ImageDraw.Draw(image)
    for row in (32, 64, 96):
        draw.line((0, row, 128, row), fill=90, width=2)
    if seed % 2:
        points = np.cumsum(random.normal(0, 14, (7, 2)), axis=0) + 64
        draw.line([tuple(point) for point in points], fill=20, width=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
