"""What all jobs share: their command line, and how an error ends them."""

import argparse
import logging
import sys
from collections.abc import Callable

from uniemo_ray.config import Config
from uniemo_ray.distributed.logs import LINE, TIME
from uniemo_ray.settings_file import load_config


def read_arguments(description: str | None, *, config: str | None = None) -> Config:
    """The resolved config of the command line.

    Args:
        description: Help text, as it stands.
        config: YAML file or name when `--config` is not given; None for the defaults.

    Raises:
        ValueError: one line that names the setting.
    """
    arguments = make_parser(description, config=config).parse_args()
    return load_config(arguments.config, overrides_of(arguments))


def overrides_of(arguments: argparse.Namespace) -> list[str]:
    """Settings that the options of `make_parser` change, as `A.B=VALUE`."""
    wait = arguments.wait_for_lease
    waiting = [] if wait is None else [f"resources.wait_for_lease_s={wait:g}"]
    return [*arguments.set, *waiting]


def make_parser(description: str | None, *, config: str | None = None) -> argparse.ArgumentParser:
    """`--config`, `--set` and `--wait-for-lease`, for a job that has arguments of its own beside them."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--config", default=config, help="YAML file, or a shipped one by name: demo, sketch, emoset, paper"
    )
    return add_settings(parser)


def add_settings(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with `--set` and `--wait-for-lease`."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=VALUE", help="override one setting"
    )
    parser.add_argument(
        "--wait-for-lease",
        type=float,
        metavar="SECONDS",
        help="wait so long for another driver of the same run to end, instead of an error",
    )
    return parser


def execute(main: Callable[[], None]) -> None:
    """Run a job's main: log to standard error; bad input and lost storage end it with one line."""
    logging.basicConfig(level=logging.INFO, format=LINE, datefmt=TIME)
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        logging.getLogger("uniemo_ray").debug("failed", exc_info=True)
        sys.exit(f"error: {error}")
