"""What a job's log shows: steps, progress, results, warnings. What else Ray says stays in Ray's log files."""

import logging
import warnings

LINE = "%(asctime)s %(message)s"
TIME = "%H:%M:%S"

RESTART_NOTE = "has constructor arguments in the object store and max_restarts > 0"
"""Ray logs this as an error, also for actors of its own libraries, which keep those arguments alive."""
PROGRESS_NOTE = "Progress bars disabled"
SCALE_NOTE = "will not allow it to scale up"
"""Ray Data warns of pools that take as many shards at a time as they may. Ours start at full size."""
LOCK_NOTE = r"\[mutex\.cc : \d+\] RAW: "
"""Abseil, inside Ray, traces a lock that is used while its process ends."""
CHATTER = (
    RESTART_NOTE,
    PROGRESS_NOTE,
    LOCK_NOTE,
    "Starting execution of Dataset ",
    "Execution plan of Dataset ",
    r"Dataset \S+ execution finished in ",
)
"""Regular expressions of lines that workers of Ray's libraries write for every data set."""

FORWARDING = {"RAY_DISABLE_WORKER_LOG_PREFIX": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "|".join(CHATTER)}
"""Environment variables of a driver: workers' lines come without process ids, and without the chatter."""


def quiet_ray() -> None:
    """Keep Ray Data's and Ray Train's own reports out of the driver's log; warnings stay."""
    import ray.data  # seconds, and `FORWARDING` has to be set before

    warnings.filterwarnings("ignore", message="`ray_remote_args_fn` is deprecated")  # `Placement` needs it
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.WARNING)
            handler.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not text.startswith(PROGRESS_NOTE) and SCALE_NOTE not in text


def show_rank(rank: int) -> None:
    """Show the log of this training process: all of rank 0's own lines, and warnings of every rank.

    Ray Train has configured the root logger: it goes on to write everything to its log file.
    """
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    for handler in [handler for handler in root.handlers if handler.name == "console"]:
        root.removeHandler(handler)
    console = logging.StreamHandler()
    console.name = "console"
    origin = "" if rank == 0 else f"rank {rank}: "
    console.setFormatter(logging.Formatter(f"%(asctime)s {origin}%(message)s", TIME))
    console.addFilter(lambda record: _is_shown(record, rank))
    root.addHandler(console)


def _is_shown(record: logging.LogRecord, rank: int) -> bool:
    is_ours = record.name.partition(".")[0] == "uniemo_ray"
    return record.levelno >= logging.WARNING or (rank == 0 and is_ours)
