"""The steps of one arm of a study: those of the feedback loop, and answers on the test split by image."""

from functools import partial

from uniemo_ray.config import Config
from uniemo_ray.experiments.metrics import ACCURACY, JUDGE_ERROR, Until
from uniemo_ray.loop.declare import Row
from uniemo_ray.loop.step_tables import NETWORK, feedback_loop_steps
from uniemo_ray.loop.steps import answers
from uniemo_ray.training.stage_settings import StageName

STAGES: tuple[tuple[StageName, Until], ...] = (("understanding", "stage_1"), ("joint", "stage_2"))


def arm_steps(config: Config) -> list[Row]:
    """The loop's table with the steps `answers-stage-N` of the last round."""
    last = config.feedback.rounds + 1
    own = [
        Row(
            answers_step(until),
            partial(answers.answers, stage=stage, step=f"{stage}-{last}"),
            pool="features",
            place="actors",
            reads=[*NETWORK, "data.max_pixels", "seed"],
            after=["ingest", "names", f"{stage}-{last}"],
        )
        for stage, until in STAGES
    ]
    return [*feedback_loop_steps(config), *own]


def answers_step(until: Until) -> str:
    """The step whose answers are an arm's accuracy."""
    return "answers-stage-1" if until == "stage_1" else "answers-stage-2"


def evaluate_step(config: Config) -> str:
    """The step that measures the images of an arm's last round."""
    return f"evaluate-{config.feedback.rounds + 1}"


def source_of(key: str, config: Config, *, until: Until) -> str:
    """The step of an arm's table that a metric is read from."""
    return answers_step(until) if key == ACCURACY else evaluate_step(config)


def parts_of(key: str) -> tuple[str, ...]:
    """The metrics of an evaluating step whose difference a metric is, or the one that it is."""
    return ("emo_a_clip", "emo_a_exact") if key == JUDGE_ERROR.key else (key,)
