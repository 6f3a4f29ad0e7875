"""What the tables of a plan say."""

import io

import pytest
from rich.console import Console

from uniemo_ray.report.plan_table import plan_tables
from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.plan import Rates, make_plan


def shown(memory_gb: float, rates: Rates | None = None) -> str:
    plan = make_plan(
        load_config("jobs/configs/demo.yaml", []),
        gpu_memory_bytes=round(memory_gb * 1e9),
        rates=rates,
        with_activations=False,
    )
    console = Console(width=100, file=io.StringIO())
    console.print(plan_tables(plan))
    return console.file.getvalue()


def test_what_fits():
    text = shown(48, Rates(images_per_second=10, generated_per_second=1, price=2))
    lines = {line.split("│")[1].strip(): line for line in text.splitlines() if line.count("│") > 2}
    assert "?" in lines["activations (estimate)"]
    assert lines["denoiser"].split("│")[3].strip() == "0"  # frozen
    assert "Both stages fit" in text
    assert "generation" in text
    assert "cost " in text


@pytest.mark.parametrize(
    ("rates", "words"),
    [(None, "give --images-per-second"), (Rates(images_per_second=1), "generation not counted")],
)
def test_what_is_not_known_is_said(rates, words):
    assert words in shown(48, rates)


def test_what_does_not_fit():
    text = shown(1)
    assert text.count("warning: stage") == 2
    assert "Both stages fit" not in text


def test_stage_1_alone_is_said():
    config = load_config(None, ["data.kind=emotionroi", "data.root=/data"])
    plan = make_plan(
        config, gpu_memory_bytes=10**11, train_images=1600, with_activations=False, with_stage_2=False
    )
    console = Console(width=160, file=io.StringIO())
    console.print(plan_tables(plan))
    text = console.file.getvalue()
    assert "Stage 1 fits at the ZeRO stage of the config" in text
    assert "Stage 1 alone, as jobs/understanding.py runs it: no stage 2" in text
    assert not any(words in text for words in ("stage 2  ", "Stage 2:", "generated images", "denoiser"))
