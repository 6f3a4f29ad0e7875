"""The benchmark of GPUs, tried at a small size on the CPU."""

import pytest
import torch

from benchmarks.bench_gpu import describe, main
from benchmarks.device import chosen_device, machine
from benchmarks.gpu_meter import Memory, Meter
from benchmarks.gpu_parts import RUNS, TINY, Bench, Row, run_part

BENCH = Bench(TINY, "cpu", "fp32", checkpointed=False)
ROW = Row("stage1", "tiny", 8.0, 4.0, 2.0, 0.5, "NVML", None, None)


@pytest.mark.slow
@pytest.mark.parametrize("part", RUNS)
def test_each_part_measures_both_sides(part: str) -> None:
    row = run_part(part, BENCH)
    assert row.part == part
    assert min(row.ours, row.bare) > 0
    assert row.ratio == pytest.approx(row.ours / row.bare)  # of a single turn
    assert 0 < row.busy <= 1
    assert (row.planned_bytes is not None) == part.startswith("stage")
    assert row.used_bytes is None


def test_stage_2_can_be_checkpointed() -> None:
    assert BENCH._replace(checkpointed=True).config().stage2.gradient_checkpointing
    assert not BENCH.config().stage2.gradient_checkpointing


@pytest.mark.parametrize(
    ("used", "said"),
    [(105, "used 105.00 GB (+5%, within 10%)"), (80, "used 80.00 GB (-20%, NOT within 10%)")],
)
def test_memory_is_judged_against_the_plan(used: int, said: str) -> None:
    row = ROW._replace(planned_bytes=100 * 10**9, used_bytes=used * 10**9)
    assert describe(row).endswith(f"memory: planned 100.00 GB, {said}")


def test_a_row_says_what_was_measured_and_how() -> None:
    assert describe(ROW) == "stage1 (tiny): 8 images/s, bare 4, ratio 2.00, busy 50% (by NVML)"
    assert "is measured on a GPU only" in describe(ROW._replace(planned_bytes=1))


def test_memory_counts_tensors_and_context() -> None:
    assert Memory(allocated=3, context=2).total == 5
    assert Meter("cpu").memory(lambda: None) is None


def test_a_comparison_takes_turns() -> None:
    calls: list[str] = []
    pair = Meter("cpu").compare(lambda: calls.append("o"), lambda: calls.append("b"), repeats=2, turns=2)
    assert "".join(calls) == "ob" + "oobb" * 2
    assert pair.ratio > 0


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("UNIEMO_DEVICE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main([])
    assert capsys.readouterr().out == "skipped: no GPU\n"


def test_another_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIEMO_DEVICE", "tpu")
    with pytest.raises(ValueError, match="UNIEMO_DEVICE is 'tpu': set it to cuda or cpu"):
        chosen_device()


def test_figures_name_their_machine() -> None:
    assert machine("cpu")["device"] == "CPU, which says nothing of a GPU"
    assert machine("cpu")["torch"] == torch.__version__
