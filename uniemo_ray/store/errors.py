"""What can go wrong with storage, each as one clear line: what, where, what to do."""

import errno

from uniemo_ray.text import one_line

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_TEXTS = ("No space left on device", "Disk quota exceeded")
_RESUME = "then submit again: finished steps are kept"
REPAIR = "uniemo store repair removes it, and submitting again makes it anew"
"""What to do about a damaged file of a run."""
REPAIR_MISSING = "uniemo store repair, then submitting again, makes it anew"
"""What to do about a file of a run that is listed and not there."""


class StoreError(RuntimeError):
    """Storage failed (full, gone, forbidden, damaged). The message is one line to show as it is."""


class StoreFullError(StoreError):
    """The disk, or the quota, is full."""


class DamagedError(StoreError):
    """A file of the run is gone or not as it was written; storage itself works."""


class RunLockedError(StoreError):
    """Another driver works on the run folder."""


class SupersededError(StoreError):
    """Another driver has taken this one's lease; this one must not commit anything more."""


def explain_os(error: OSError, where: str) -> StoreError:
    """The clear line for an operating system's error at a path."""
    if is_full(error):
        return StoreFullError(
            f"disk full while writing {where}: free some space or choose another run folder, {_RESUME}"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StoreError(f"no permission for {where}: change its owner or mode, or choose another folder")
    if error.errno == errno.EROFS:
        return StoreError(f"{where} lies on a read-only file system: choose another folder")
    if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
        return StoreError(
            f"{where}: a file stands where a folder is expected (or the reverse): choose another folder"
        )
    return StoreError(f"{where}: {one_line(error)}")


def explain_step(error: BaseException, where: str) -> StoreError | None:
    """The clear line when a step failed because storage did, however deep the cause lies; else None.

    Follows Python's and Ray's cause chains, because a worker's full disk arrives wrapped in task errors.
    """
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        ray_cause = getattr(current, "cause", None)
        if isinstance(ray_cause, BaseException):
            current = ray_cause  # a task error's own text is a whole traceback
            continue
        if isinstance(current, StoreError):
            return current
        if isinstance(current, OSError) and is_full(current):
            return explain_os(current, current.filename or where)
        if isinstance(current, OSError) and "AWS Error" in str(current):
            return StoreError(
                f"S3 failed for {where}: {one_line(current)}: check endpoint and network, {_RESUME}"
            )
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None


def is_full(error: OSError) -> bool:
    """Whether an error says that the disk or the quota is full."""
    # pyarrow's OSError carries the text but not always the number.
    return error.errno in _FULL or any(text in str(error) for text in _FULL_TEXTS)
