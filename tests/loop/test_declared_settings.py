"""Every job runs once with steps that see only what they declare, and nothing is declared in vain."""

import pytest

from uniemo_ray.config import Config
from uniemo_ray.loop.declare import declare
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.loop.steps.finish import finish
from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import unread
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline

TINY = (
    "data.sketch_train=48",
    "data.sketch_val=16",
    "data.sketch_test=16",
    "data.rows_per_shard=32",
    *(f"stage{n}.{value}" for n in (1, 2) for value in ("epochs=1", "batch_size=16")),
    "scorers.epochs=2",
    "generation={per_emotion: 3, rows_per_shard: 12}",
    "evaluation={plain_per_emotion: 2, pairs: 4}",
    "filter={eta: 0, delta: 90}",
    "diffusion.steps=2",
)


def tiny(tmp_path, *overrides: str) -> Config:
    return load_config("demo", [f"run={tmp_path}/run", *TINY, *overrides])


def run_table(config: Config, table) -> tuple[RunFolder, list, dict[str, list[str]]]:
    """Run a job's steps; what they gave, and what each has declared in vain."""
    run = RunFolder.open(config.run, config)
    pipeline = Pipeline(run)
    views = declare(pipeline, config, table)
    with run.locked():
        results = pipeline.run()
        if any(row.name.startswith("evaluate-") for row in table):
            finish(run, config, results)
    return run, list(results), {name: idle for name, view in views.items() if (idle := unread(view))}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_loop(ray_session, tmp_path):
    config = tiny(tmp_path)
    run, results, idle = run_table(config, feedback_loop_steps(config))
    assert idle == {}
    assert run.store.exists("summary.json")
    assert run.store.exists("model/config.json")
    again = run_table(config, feedback_loop_steps(config))[1]
    assert all(result.is_skipped for result in again)
    assert len(again) == len(results)
