"""The table of the baselines: one column each, and what their trainings cost."""

import io

from rich.console import Console

from tests.report.conftest import generation
from uniemo_ray.config import Config
from uniemo_ray.report.generation_baselines import GenerationBaselinesSummary, generation_baselines_table
from uniemo_ray.report.summary import to_json


def summary() -> GenerationBaselinesSummary:
    return GenerationBaselinesSummary.model_validate(
        {
            "config": Config().model_dump(mode="json"),
            "dataset": {"name": "EmoSketch [x]", "sizes": {"train": 9}},
            "baselines": [
                {"name": "plain_prompt", "generation": generation(80, 0.3, 0)},
                {
                    "name": "emogen",
                    "generation": generation(160, 0.5, 1, has_distance=False),
                    "training_seconds": 75.0,
                    "training_images": 1400,
                },
            ],
            "rounds": [{"round": 2, "generation": generation(800, 0.7, 2)}],
            "real": generation(1000, 0.8, 3),
        }
    )


def printed() -> list[str]:
    console = Console(file=io.StringIO(), width=160)
    console.print(generation_baselines_table(summary()))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().replace("\N{NO-BREAK SPACE}", " ").splitlines()


def test_columns_are_baselines_then_the_loops_rounds_then_real_images() -> None:
    lines = printed()
    assert "EmoSketch [x]" in lines[0]
    heads = [cell.strip() for cell in next(line for line in lines if "Metric" in line).split("┃")[1:-1]]
    assert heads == ["Metric", "Plain prompt", "EmoGen's mapping", "UniEmo, round 2", "Real test images"]
    cells = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in lines if "│" in line}
    assert [cell.strip() for cell in cells["FD (CLIP) ↓"]] == ["4.731", "–", "4.731", "4.731"]
    assert "Sem-D ↑" not in cells  # nobody measured it
    assert lines[-2] == (
        "Images: Plain prompt 80, EmoGen's mapping 160, UniEmo, round 2 800, Real test images 1,000"
    )
    assert lines[-1] == "Training: EmoGen's mapping 1 min 15 s, 1,400 images"


def test_the_file_can_be_read_again() -> None:
    assert GenerationBaselinesSummary.model_validate_json(to_json(summary())) == summary()
