"""The whole method: understand, correlate, train jointly, generate, score, filter, train again.

    ray job submit --working-dir . -- python jobs/feedback_loop.py --config jobs/configs/demo.yaml
    ray job submit --working-dir . -- python jobs/feedback_loop.py --set data.kind=emoset --set data.root=DIR

Submitting again continues: finished steps are skipped, and a changed setting redoes what depends on it.
"""

import argparse
import logging
import sys
from pathlib import Path

import ray
from rich.console import Console

from uniemo_ray.config import Config, load_config
from uniemo_ray.distributed.feedback_loop import declare_steps
from uniemo_ray.distributed.logs import quiet_ray
from uniemo_ray.distributed.preflight import check_inputs
from uniemo_ray.distributed.steps.finish import REPORT, finish
from uniemo_ray.report.table import final_table
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline


def main() -> None:
    """Check, run the steps, show the result."""
    config = read_arguments()
    check_inputs(config)
    run = RunFolder.open(locate(config.run), config)
    pipeline = Pipeline(run)
    declare_steps(pipeline, config)
    ray.init()
    quiet_ray()
    with run.locked():
        summary = finish(run, config, pipeline.run())
    Console(width=110).print(final_table(summary))
    print(f"report: {run.store.uri}/{REPORT}")


def locate(run: str) -> str:
    """The run folder's full address.

    Inside a submitted job a relative one lies under ~/uniemo: the job runs in a copy that Ray removes.
    """
    if "://" in run or Path(run).is_absolute():
        return run
    in_job_copy = any(part.startswith("_ray_pkg_") for part in Path.cwd().parts)
    return str((Path.home() / "uniemo" if in_job_copy else Path.cwd()) / run)


def read_arguments() -> Config:
    """The resolved config of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="jobs/configs/sketch.yaml", help="YAML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting"
    )
    arguments = parser.parse_args()
    return load_config(arguments.config, arguments.set)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        logging.getLogger("uniemo_ray").debug("failed", exc_info=True)
        sys.exit(f"error: {error}")
