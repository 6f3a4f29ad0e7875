"""Published methods that make images of an emotion, on the run's data set, sampler and metrics.

    uniemo submit generation_baselines -- --config sketch --set generation_baselines.run=[plain_prompt]
    uniemo submit generation_baselines -- --config my.yaml --set run=RUN

In the run folder of a feedback loop with the same settings it takes over what that has computed. Submitting
again continues, and another baseline in the list is added to those that are finished.
"""

from rich.console import Console

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.generation_baseline_checks import check_generation_baselines
from uniemo_ray.loop.generation_baseline_steps import generation_baseline_steps
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.steps.finish_generation_baselines import BASELINES, finish_generation_baselines
from uniemo_ray.report.generation_baselines import generation_baselines_table


def main() -> None:
    """Check, run the steps, show the result."""
    config = read_arguments(__doc__, config="sketch")
    check_generation_baselines(config, with_data=not is_ingested(config))
    with open_pipeline(config, generation_baseline_steps(config)) as (run, pipeline):
        summary = finish_generation_baselines(run, config, pipeline.run())
    Console(width=140).print(generation_baselines_table(summary))
    print(f"result: {run.store.uri}/{BASELINES}")


if __name__ == "__main__":
    execute(main)
