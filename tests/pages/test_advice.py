"""What to ship: held against what a person would say of the same figures, and against scipy's binomial test."""

from dataclasses import replace

import pytest
from scipy.stats import binomtest

from nestling.pages.advice import Advice, lines
from nestling.pages.page import Row, advise_rows
from tests.pages.example_pages import BUNDLE, FP32, HALF, INT8, PTE, PTE8

SMALLER, QUICK = "3.4 times smaller than float", "1.9 times as quick"  # 13.44 / 3.96, 6.94 / 3.66
SAME = "its answers do not differ from those of the float network by more than chance (McNemar p = 0.14)"
ALIKE = "it is right on the same photographs as the float network"
WORSE = replace(INT8, lost=20, won=5, top1=438 / 525)
C_HOST = replace(INT8, file="elpv-c-host", format="c", runtime="C", bytes=1000, ms_median=0.1)


def said(*rows: Row) -> Advice:
    return advise_rows(rows)


def test_p_is_the_binomials() -> None:
    assert f"{binomtest(12, 17).pvalue:.2f}" == "0.14" and f"{binomtest(20, 25).pvalue:.3f}" == "0.004"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ((FP32, INT8), f"Ship elpv-int8.tflite: {SMALLER} and {QUICK}, and {SAME}."),
        ((BUNDLE, PTE, PTE8), f"Ship elpv-int8.pte: 3.7 times smaller than float and 1.4 times as quick, and {SAME}."),
        ((BUNDLE, PTE8), f"Ship elpv-int8.pte: 3.8 times smaller than float and 3.2 times as quick, and {SAME}."),
        ((FP32, replace(INT8, ms_median=8.2)), f"Ship elpv-int8.tflite: {SMALLER} but takes 1.2 times as long, and {SAME}."),
        ((FP32, replace(INT8, ms_median=7.1)), f"Ship elpv-int8.tflite: {SMALLER} and about as quick, and {SAME}."),
        ((FP32, replace(INT8, ms_median=None)), f"Ship elpv-int8.tflite: {SMALLER}, and {SAME}."),
        ((INT8,), f"Ship elpv-int8.tflite: {SAME}."),
        ((replace(INT8, lost=None, won=None),), "Ship elpv-int8.tflite."),
        (
            (FP32, replace(INT8, lost=5, won=20)),
            f"Ship elpv-int8.tflite: {SMALLER} and {QUICK}, and it is right more often than the float network, by more than chance "
            "(McNemar p = 0.004).",
        ),
        (
            (FP32, HALF),
            "Ship elpv-fp16.tflite: 2.0 times smaller than float and about as quick, and its answers do not differ from those of "
            "the float network by more than chance (McNemar p = 1.00).",
        ),
        ((FP32,), f"Ship elpv-fp32.tflite: {ALIKE}."),
        (
            (FP32, WORSE),
            f"Ship elpv-fp32.tflite: no smaller file here may be shipped, and {ALIKE}.",
        ),
        (
            (FP32, replace(INT8, ms_median=70.0)),
            f"Ship elpv-fp32.tflite: no file here is smaller for its time, and {ALIKE}.",
        ),
        ((BUNDLE, WORSE), "None of these files may be shipped; below stands why."),
        ((BUNDLE, C_HOST), "There is no file to choose from but C."),
    ],
)  # fmt: skip
def test_the_advice(rows: tuple[Row, ...], sentence: str) -> None:
    assert said(*rows).sentence == sentence


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (
            WORSE,
            "beside the float network they lose more right answers than chance would: elpv-int8.tflite −2.9 points (p = 0.004).",
        ),
        (replace(INT8, forced=True), "elpv-int8.tflite failed its gate and was kept all the same."),
        (
            replace(INT8, noise_ratio=1.31),
            "on this processor LiteRT adds more noise than quantisation did (elpv-int8.tflite 1.31 times as much): its answers are "
            "not those of the integers that the network was judged by.",
        ),
    ],
)
def test_what_may_not_be_shipped_says_why_and_the_next_best_is_advised(bad: Row, why: str) -> None:
    advice = said(FP32, PTE, bad, PTE8)
    assert advice.chosen and advice.chosen.file == "elpv-int8.pte" and advice.passed_over == (why,)
    assert lines(advice)[-1] == f"Passed over: {why}"
    assert "elpv-int8.tflite" not in " ".join((advice.sentence, *advice.beside))


def test_a_file_may_be_noisy_in_one_runtime_and_right_in_another() -> None:
    one = replace(INT8, file="a.onnx", format="onnx", runtime="ONNX Runtime", noise_ratio=2.0, ms_median=1.0)
    advice = said(FP32, one, replace(one, runtime="OpenVINO", noise_ratio=0.4, ms_median=3.0))
    assert advice.sentence.startswith("Ship a.onnx in OpenVINO: ")
    assert "ONNX Runtime adds more noise" in advice.passed_over[0] and "a.onnx 2.00 times" in advice.passed_over[0]


def test_beside_stands_what_it_rests_on_and_what_it_leaves_open() -> None:
    """6.0 of 525 more lost than won, with Bonett and Price's interval: 13 and 6 of 527."""
    spread = 1.96 * ((13 / 527 + 6 / 527 - (7 / 527) ** 2) / 527) ** 0.5
    beside = said(BUNDLE, FP32, PTE, INT8, PTE8, C_HOST).beside
    assert beside[0] == (
        "int8 and float do not differ here: 85.0% and 86.3% of 525 photographs; 12 right answers became wrong and 5 wrong ones "
        f"right. A loss of up to {100 * (7 / 527 + spread):.1f} points is not ruled out by so many."
    )
    assert beside[1] == (
        "Size and time: elpv-int8.tflite in LiteRT on 1 thread, 3.96 MB and 3.66 ms against elpv-fp32.tflite in LiteRT on 1 "
        "thread, 13.44 MB and 6.94 ms."
    )
    assert beside[2] == "Elsewhere: in ExecuTorch elpv-int8.pte, 3.66 MB and 5.50 ms."
    assert beside[3] == "Not weighed: C for machines without an operating system, which is a choice of its own: elpv-c-host."


def test_few_photographs_leave_much_open() -> None:
    """2 and 2 of 10: 1.96 times the root of 0.4 / 10."""
    few = replace(INT8, images=8, top1=6 / 8, lost=1, won=1)
    assert "A loss of up to 39.2 points is not ruled out" in said(replace(FP32, images=8, top1=6 / 8), few).beside[0]


def test_what_is_smaller_or_quicker_than_the_advised_is_named() -> None:
    dynamic = replace(INT8, file="d.tflite", precision="dynamic", bytes=3_700_000, ms_median=17.2)
    tiny = replace(FP32, file="q.tflite", bytes=30_000_000, ms_median=2.0)
    beside = said(FP32, INT8, dynamic, tiny).beside
    assert "Smaller: d.tflite, 3.70 MB and 17.20 ms." in beside and "Quicker: q.tflite, 30.00 MB and 2.00 ms." in beside


def test_the_advised_is_held_against_what_is_alike() -> None:
    two = replace(INT8, threads=2, ms_median=2.0)
    alike = replace(FP32, threads=2, file="two.tflite", ms_median=20.0)
    assert "10 times as quick" in said(FP32, alike, two).sentence
    assert "against elpv-fp32.pte in ExecuTorch" in " ".join(said(FP32, PTE, PTE8).beside)
