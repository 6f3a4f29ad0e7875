"""The plan as committed shards: what is to be made, written before anything is made."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from uniemo_ray.feedback.plan import ImagePlan
from uniemo_ray.store import faults
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import ShardEntry, commit_shard, seal_manifest

PLAN_FOLDER, IMAGES_FOLDER = "plan", "images"
_WRITERS = 16
"""Shards that are committed at a time: on S3 each costs a few round trips."""


def commit_plan(plan: ImagePlan, store: Store, *, rows_per_shard: int) -> None:
    """Commit a plan as shards `plan/part-NNNNN`, each named by the hash of its rows.

    Shards that are there stay as they are, also a last one that is not full: a larger plan goes on behind it.

    Raises:
        ValueError: shards of another plan are there, or of a larger one.
    """
    listed = seal_manifest(store)
    there, made = _numbered(listed, PLAN_FOLDER), _numbered(listed, IMAGES_FOLDER)
    start, number, todo = 0, 0, []
    while start < plan.num_rows or number <= max(there, default=-1):
        # A shard that was lost had as many rows as the images made for it.
        known = there.get(number) or made.get(number)
        rows = (
            _rows_before(there.get(number + 1), plan, start, rows_per_shard) if known is None else known.rows
        )
        if number not in there:
            todo.append((number, start, rows))
        elif start + rows > plan.num_rows:
            raise ValueError(
                f"{store.uri} holds a plan of more than {plan.num_rows} images: a run can grow, not shrink; "
                "ask for as many as before, or choose another run folder"
            )
        elif there[number].plan_hash != plan.digest(start, rows):
            raise ValueError(f"{store.uri} holds shards of another plan: choose an empty folder")
        start, number = start + rows, number + 1

    def commit(shard: tuple[int, int, int]) -> ShardEntry:
        number, start, rows = shard
        name = f"{PLAN_FOLDER}/part-{number:05d}"
        return commit_shard(store, name, plan.slice(start, rows), plan_hash=plan.digest(start, rows))

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(commit, todo))
    faults.reach("planned")


def _rows_before(after: ShardEntry | None, plan: ImagePlan, start: int, rows_per_shard: int) -> int:
    """Rows of a shard of which nothing is left: fewer than usual where a smaller plan had ended with it."""
    if after is None:
        return rows_per_shard
    for rows in range(rows_per_shard, 0, -1):
        if plan.digest(start + rows, after.rows) == after.plan_hash:
            return rows
    return rows_per_shard


def _numbered(entries: Mapping[str, ShardEntry], folder: str) -> dict[int, ShardEntry]:
    """A folder's entries by the number in their names."""
    return {
        int(name.rpartition("-")[2]): entry
        for name, entry in entries.items()
        if name.startswith(f"{folder}/")
    }
