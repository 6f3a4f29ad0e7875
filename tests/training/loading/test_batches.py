"""A worker's batches: what is in them, whatever the threads and the workers."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.loading.shards import commit_rows, make_rows
from tests.training.test_batches import COLLATE
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.loading.batches import Share, load_batches
from uniemo_ray.training.loading.cache import PieceCache
from uniemo_ray.training.loading.feed import PieceFeed
from uniemo_ray.training.loading.order import shuffled_order, training_bounds
from uniemo_ray.training.loading.pieces import ShardRows, shard_rows

ROWS, BATCH = 200, 24
ALONE = Share(0, 1)


def pictures(uri: str) -> ShardRows:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(ROWS):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(file, "JPEG")
        rows.append({"image_id": f"i{i:03d}", "image": file.getvalue(), "emotion": "awe", "scene": "beach"})
        rows[-1]["objects"] = ["lion"] if i % 2 else []
    store = open_store(uri)
    commit_rows(store, rows, per_shard=30)
    return shard_rows([(store, "train")], columns=["image_id", "image", "emotion", "scene", "objects"])


def load(
    data: ShardRows, folder: Path, *, threads: int, share: Share = ALONE, first: int = 0
) -> Iterator[Batch]:
    order = shuffled_order(data.sizes, data.lengths, seed=5, epoch=1)
    bounds = training_bounds(order.rows, BATCH, first=first)
    with closing(PieceFeed(data, order, PieceCache(folder))) as feed:
        decode = partial(COLLATE, epoch=1, is_training=True)
        batches = load_batches(bounds, share, read=feed.rows, decode=decode, threads=threads, is_pinned=False)
        with closing(batches):  # type: ignore[type-var]
            yield from batches


def test_pixels_are_the_same_whatever_the_threads(uri: str, tmp_path: Path) -> None:
    data = pictures(uri)
    plain = list(load(data, tmp_path, threads=0))
    assert [len(batch.image_ids) for batch in plain] == [BATCH] * (ROWS // BATCH)
    assert plain[0].tensors["pixels"].dtype == torch.uint8
    for threads in (1, 3):
        again = list(load(data, tmp_path, threads=threads))
        assert [batch.image_ids for batch in again] == [batch.image_ids for batch in plain]
        for one, other in zip(plain, again, strict=True):
            assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


def test_workers_have_parts_of_the_same_batches_from_any_step_on(tmp_path: Path) -> None:
    data = pictures(str(tmp_path / "store"))
    whole = list(load(data, tmp_path / "cache", threads=0))
    for world, micro in ((2, None), (3, 4), (4, 2)):
        shares = [
            list(load(data, tmp_path / "cache", threads=1, share=Share(rank, world, micro), first=3))
            for rank in range(world)
        ]
        for step, parts in enumerate(zip(*shares, strict=True)):
            expected = whole[3 + step]
            assert [name for part in parts for name in part.image_ids] == expected.image_ids
            assert [part.images for part in parts] == [BATCH] * world
            pixels = torch.cat([part.tensors["pixels"] for part in parts])
            assert torch.equal(pixels, expected.tensors["pixels"])


def test_leaving_early_ends_threads_and_gives_pieces_back(tmp_path: Path) -> None:
    data = pictures(str(tmp_path / "store"))
    before = threading.active_count()
    batches = load(data, tmp_path / "cache", threads=2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    cache = PieceCache(tmp_path / "cache", budget_bytes=1)
    cache._make_room(None)
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_pieces_come_ahead_within_two_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 shards of 25 rows of 40 kB, one in a piece each."""
    data = make_rows(open_store(str(tmp_path / "store")), 1000, per_shard=25, size=40_000)
    order = shuffled_order(data.sizes, data.lengths, seed=0, epoch=0)
    assert len(order.windows) > 2
    feed = PieceFeed(data, order, PieceCache(tmp_path / "cache"))
    seen: set[str] = set()
    with closing(feed):
        for step in training_bounds(order.rows, 20):
            seen |= set(feed.rows(step)["image_id"])
            first, last = order.window_at(step.start), order.window_at(step.stop - 1)
            near = {int(p) for window in order.windows[first : last + 2] for p in window}
            assert feed._ahead.keys() == near
    assert seen == {f"i{i:04d}" for i in range(1000)}


def test_without_room_ahead_the_rows_still_come(tmp_path: Path) -> None:
    data = make_rows(open_store(str(tmp_path / "store")), 1000, per_shard=25, size=40_000)
    order = shuffled_order(data.sizes, data.lengths, seed=0, epoch=0)
    cache = PieceCache(tmp_path / "cache", budget_bytes=1_000_000)
    with closing(PieceFeed(data, order, cache)) as feed:
        seen = [name for step in training_bounds(1000, 20) for name in feed.rows(step)["image_id"]]
    assert sorted(seen) == [f"i{i:04d}" for i in range(1000)]


def test_a_share_that_is_short_is_an_error() -> None:
    """As ray#66085 would have it; all workers must have the sizes that they count on."""
    batches = load_batches(
        [range(0, 8)],
        Share(0, 2),
        read=lambda span: list(span)[:-1],
        decode=lambda rows: Batch({"x": torch.tensor(rows)}, [str(row) for row in rows]),
        threads=0,
        is_pinned=False,
    )
    with pytest.raises(RuntimeError, match="3 images came in place of 4"):
        next(batches)


def test_decoding_goes_on_while_a_step_takes_its_time(tmp_path: Path) -> None:
    data = pictures(str(tmp_path / "store"))
    decoded: list[float] = []
    order = shuffled_order(data.sizes, data.lengths, seed=5, epoch=1)

    def decode(raw: dict[str, np.ndarray]) -> Batch:
        decoded.append(time.monotonic())
        return Batch({"n": torch.zeros(len(raw["image_id"]))}, list(raw["image_id"]))

    with closing(PieceFeed(data, order, PieceCache(tmp_path / "cache"))) as feed:
        batches = load_batches(
            training_bounds(ROWS, BATCH),
            Share(0, 1),
            read=feed.rows,
            decode=decode,
            threads=1,
            is_pinned=False,
        )
        next(batches)
        time.sleep(0.5)
        assert len(decoded) >= 4  # a batch has two parts
        batches.close()  # type: ignore[attr-defined]
