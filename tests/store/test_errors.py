"""The cause of a failed step is found however deep it lies."""

import errno

from uniemo_ray.store.errors import StoreError, explain_step


class TaskError(Exception):
    """As a distributed task reports its cause: an attribute, and a text that is a whole traceback."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("Traceback\n  many\n  lines\n" + str(cause))
        self.cause = cause


def test_full_disk_below_other_errors() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    outer = RuntimeError("training failed")
    outer.__cause__ = TaskError(full)
    found = explain_step(outer, "/run/artefacts/a")
    assert found is not None
    assert str(found).startswith("disk full while writing /data/x: free some space")
    assert "\n" not in str(found)


def test_text_alone_tells_of_a_full_disk() -> None:
    found = explain_step(OSError("[Errno 28] Error writing bytes to file. No space left on device"), "/run/a")
    assert found is not None
    assert "disk full while writing /run/a" in str(found)


def test_pyarrow_loses_s3() -> None:
    error = OSError(
        "When reading information for key 'a': AWS Error NETWORK_CONNECTION during HeadObject\nmore"
    )
    assert "S3 failed for s3://b/a: When reading" in str(explain_step(error, "s3://b/a"))


def test_a_clear_line_is_kept() -> None:
    clear = StoreError("one line")
    assert explain_step(TaskError(clear), "x") is clear
    assert explain_step(clear, "x") is clear


def test_other_errors_are_none_of_its_business() -> None:
    assert explain_step(ZeroDivisionError(), "x") is None
    assert explain_step(OSError(errno.ENOENT, "no such file"), "x") is None
    hidden = ValueError("bad value")
    hidden.__context__ = OSError(errno.ENOSPC, "full")
    hidden.__suppress_context__ = True
    assert explain_step(hidden, "x") is None
