"""Understanding alone, on any of the data sets: train stage 1 and judge it, or judge a finished model.

    uniemo submit understanding -- --config my.yaml --set data.kind=emotionroi --set data.root=DIR
    uniemo submit understanding -- --set evaluation.model=MODEL --set data.kind=fi --set data.root=DIR

The first trains on the set's own classes (with `data.valence=true` on positive and negative) and leaves a
model folder that understands; the second judges a model folder on the test split of another set. Submitting
again continues.
"""

from rich.console import Console

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.preflight import check_understanding
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.step_tables import understanding_steps
from uniemo_ray.loop.steps.finish import UNDERSTANDING, finish_understanding
from uniemo_ray.report.understanding import understanding_table


def main() -> None:
    """Check, run the steps, show the result."""
    config = read_arguments(__doc__)
    check_understanding(config, with_data=not is_ingested(config))
    with open_pipeline(config, understanding_steps(config)) as (run, pipeline):
        found = finish_understanding(run, config, pipeline.run())
    Console(width=110).print(understanding_table(found))
    print(f"result: {run.store.uri}/{UNDERSTANDING}")


if __name__ == "__main__":
    execute(main)
