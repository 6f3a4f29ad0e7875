"""A job of a cluster, through Ray's Jobs API: send it, follow its log."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import aiohttp
from ray.job_submission import JobSubmissionClient

from uniemo_ray.distributed.logs import LOCK_NOTE, RESTART_NOTE

NOT_NEWS = re.compile(
    r"\S+ \S+\tINFO job_manager\.py:\d+ -- Runtime env is setting up\."
    r"|Running entrypoint for job "
    rf"|\[\S+ \S+ E [\d ]+\] core_worker\.cc:\d+: .*{RESTART_NOTE}"
    rf"|{LOCK_NOTE}"
)
"""Lines that Ray adds to a job's log before and beside the job's own; the log itself keeps them."""


class Jobs:
    """The Jobs API at the dashboard `address`; Ray's client takes the token from the environment.

    Raises:
        ConnectionError: nothing answers there.
    """

    def __init__(self, address: str) -> None:
        for handler in logging.getLogger("ray").handlers:
            handler.setLevel(logging.ERROR)  # what is packed, how large it is, which files are left out
        self._client = JobSubmissionClient(address)

    def submit(self, entrypoint: str, *, submission: str, runtime_env: dict[str, Any]) -> None:
        """Send the working folder of `runtime_env` and start the shell command `entrypoint` in it.

        Raises:
            ValueError: the folder is too large, or the cluster refuses the job.
        """
        try:
            self._client.submit_job(entrypoint=entrypoint, submission_id=submission, runtime_env=runtime_env)
        except RuntimeError as error:
            raise ValueError(f"the cluster did not take the job {submission}: {error}") from error

    def follow(self, submission: str, show: Callable[[str], None]) -> None:
        """Hand each line of the job's log to `show` as it appears, until the job has ended.

        Raises:
            ConnectionError: the connection was lost.
        """
        try:
            asyncio.run(self._follow(submission, show))
        except (RuntimeError, OSError, aiohttp.ClientError) as error:
            raise ConnectionError(
                f"the log of {submission} broke off ({error}); the job goes on unless its head is gone: "
                f"ray job logs --follow {submission}"
            ) from error

    async def _follow(self, submission: str, show: Callable[[str], None]) -> None:
        rest = ""
        async for text in self._client.tail_job_logs(submission):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                if is_news(line):
                    show(line)
        if rest:
            show(rest)


def is_news(line: str) -> bool:
    """Whether a line of a job's log concerns the person who submitted it."""
    return not NOT_NEWS.match(line)
