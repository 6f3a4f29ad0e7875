r"""Baselines of understanding, in the same harness as UniEmo: the same splits, test images and metrics.

    uniemo submit baselines -- --set run=RUN
    uniemo submit baselines -- --config my.yaml --set data.kind=fi --set data.root=DIR \
        --set baselines.run=[zero_shot,linear_probe] --set run=RUN

Submitting again continues, and another baseline adds its own steps alone. The result is baselines.json and
baselines.html in the run folder. In the folder of a run of UniEmo on the same data, data set and features are
found finished.
"""

from rich.console import Console

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.baseline_checks import check_baselines
from uniemo_ray.loop.baseline_steps import understanding_baseline_steps
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.steps.finish_baselines import PAGE, finish_baselines
from uniemo_ray.report.baselines import baselines_table


def main() -> None:
    """Check, run the steps, show the result."""
    config = read_arguments(__doc__, config="baselines")
    check_baselines(config, with_data=not is_ingested(config))
    with open_pipeline(config, understanding_baseline_steps(config)) as (run, pipeline):
        found = finish_baselines(run, config, pipeline.run())
    Console(width=110).print(baselines_table(found))
    print(f"report: {run.store.uri}/{PAGE}")


if __name__ == "__main__":
    execute(main)
