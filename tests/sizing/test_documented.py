"""What docs/reproducing.md says that runs take is what `uniemo plan` counts."""

from pathlib import Path

import pytest

from uniemo_ray.settings_file import load_config
from uniemo_ray.sizing.workload import cost, generated_images, stage_work, training_images

PAGE = Path(__file__).parents[2] / "docs" / "reproducing.md"


@pytest.mark.parametrize(
    ("row", "overrides"),
    [
        ("with feedback", []),
        ("the same on FI's", ["data.kind=fi", "filter.criteria=[emo]"]),
        ("with `--set generation.per_emotion=33000`", ["generation.per_emotion=33000", "filter.eta=50"]),
        ("with `--set evaluation.plain_per_emotion=1000`", ["evaluation.plain_per_emotion=1000"]),
        (
            "table VI, equal steps",
            ["feedback.synthetic_fraction=0", "stage1.later_epochs=19", "stage2.later_epochs=19"],
        ),
        ("table VIII, 5 %", ["feedback.synthetic_fraction=0.05"]),
        ("table VIII, 10 %", ["feedback.synthetic_fraction=0.1"]),
        ("table VIII, 30 %", ["feedback.synthetic_fraction=0.3", "generation.per_emotion=14100"]),
        ("`--set feedback.rounds=0`", ["feedback.rounds=0"]),
    ],
)
def test_a_row_of_the_page_is_what_is_counted(row: str, overrides: list[str]) -> None:
    config = load_config("jobs/configs/paper.yaml", overrides)
    work = stage_work(config, images=training_images(config, None))
    generated = generated_images(config)
    hours = cost(
        work,
        generated=generated,
        gpus=1,
        generating=1,
        images_per_second=1,
        generated_per_second=1,
        price=None,
    )
    seen = sum(stage.images * stage.epochs for stage in work)
    expected = (
        f"| {seen:,} | {generated:,} | {hours.training_hours:,.0f} / r + {hours.generation_hours:,.1f} / g |"
    )
    (line,) = (line for line in PAGE.read_text().splitlines() if line.strip().startswith(f"| {row}"))
    assert line.endswith(expected)
