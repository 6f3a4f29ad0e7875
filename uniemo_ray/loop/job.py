"""What all job scripts share: their command line, where a run folder lies, how an error ends them."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from uniemo_ray.config import Config
from uniemo_ray.settings_file import load_config


def read_arguments(description: str | None, *, config: str | None = None) -> Config:
    """The resolved config of the command line.

    Args:
        description: Help text, as it stands.
        config: YAML file when `--config` is not given; None for the defaults.

    Raises:
        ValueError: one line that names the setting.
    """
    arguments = make_parser(description, config=config).parse_args()
    return load_config(arguments.config, arguments.set)


def make_parser(description: str | None, *, config: str | None = None) -> argparse.ArgumentParser:
    """`--config` and `--set`, for a job that has arguments of its own beside them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=config, help="YAML file")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting"
    )
    return parser


def locate(run: str) -> str:
    """The run folder's full address.

    Inside a submitted job a relative one lies under ~/uniemo: the job runs in a copy that Ray removes.
    """
    if "://" in run or Path(run).is_absolute():
        return run
    in_job_copy = any(part.startswith("_ray_pkg_") for part in Path.cwd().parts)
    return str((Path.home() / "uniemo" if in_job_copy else Path.cwd()) / run)


def execute(main: Callable[[], None]) -> None:
    """Run a job's main: log to standard error; bad input and lost storage end it with one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        logging.getLogger("uniemo_ray").debug("failed", exc_info=True)
        sys.exit(f"error: {error}")
