"""The log of the commands that keep running, `uniemo head` and `uniemo serve`."""

import logging


def show_log() -> None:
    """Write messages from INFO upwards to standard error, one plain line each."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
