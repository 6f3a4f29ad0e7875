"""The whole method: understand, correlate, train jointly, generate, score, filter, train again.

    uniemo submit feedback_loop -- --config demo
    uniemo submit feedback_loop -- --set data.kind=emoset --set data.root=DIR

Submitting again continues: finished steps are skipped, and a changed setting redoes what depends on it.
"""

from rich.console import Console

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.preflight import check_inputs
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.loop.steps.finish import REPORT, finish
from uniemo_ray.report.table import final_table


def main() -> None:
    """Check, run the steps, show the result."""
    config = read_arguments(__doc__, config="sketch")
    check_inputs(config, with_data=not is_ingested(config))
    with open_pipeline(config, feedback_loop_steps(config)) as (run, pipeline):
        summary = finish(run, config, pipeline.run())
    Console(width=110).print(final_table(summary))
    print(f"report: {run.store.uri}/{REPORT}")


if __name__ == "__main__":
    execute(main)
