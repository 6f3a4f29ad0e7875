"""What a failed shard says: the error that was raised, not Ray's words around it."""

import traceback

import pytest
from ray.exceptions import RayTaskError

from uniemo_ray.distributed.shards.report import ShardReport


class UserCodeException(Exception):  # noqa: N818 (as Ray calls it)
    """What Ray Data wraps errors of a step's own code in; it says nothing."""


def wrapped(error: Exception) -> RayTaskError:
    """An error as the driver gets it from a task of Ray Data."""
    try:
        try:
            raise error
        except Exception as inner:
            raise UserCodeException("UDF failed to process a data block.") from inner
    except UserCodeException as outer:
        header = "\x1b[36mray::MapBatches(map_in_task)()\x1b[39m (pid=2777, ip=192.0.2.2)\n"
        return RayTaskError("map_in_task", header + traceback.format_exc(), outer)


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (ModuleNotFoundError("No module named 'mine'"), "ModuleNotFoundError", "No module named 'mine'"),
        (OSError(28, "No space left on device"), "OSError", "[Errno 28] No space left on device"),
        (KeyError("image"), "KeyError", "'image'"),
        (ValueError("first\nsecond"), "ValueError", "first"),
    ],
)
def test_an_error_of_a_task_is_reported_as_what_was_raised(error: Exception, kind: str, reason: str) -> None:
    for found in (wrapped(error), error):
        assert ShardReport.of_error(found, "a") == ShardReport("a", kind=kind, reason=reason)


def test_an_error_of_ray_itself_says_what_ray_says() -> None:
    report = ShardReport.of_error(RayTaskError("f", "the worker died", RuntimeError()), "a")
    assert report.kind == "RayTaskError"
    assert report.reason == "the worker died"
