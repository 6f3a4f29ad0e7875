import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.training.loading.batches import Share
from uniemo_ray.training.loading.order import (
    FIRST_BYTES,
    WINDOW_ROWS,
    RowOrder,
    plain_order,
    shuffled_order,
    training_bounds,
    validation_bounds,
)

PIECES = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def order(sizes: list[int], *, row_bytes: int = 100_000, seed: int = 0, epoch: int = 0) -> RowOrder:
    counts = np.array(sizes, dtype=np.int64)
    return shuffled_order(counts, counts * row_bytes, seed=seed, epoch=epoch)


def everything(found: RowOrder) -> list[tuple[int, int]]:
    return [(a, b) for a, b in found.places(0, found.rows).tolist()]


@given(PIECES, st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_shows_each_row_once(sizes: list[int], seed: int, epoch: int) -> None:
    shown = everything(order(sizes, seed=seed, epoch=epoch))
    assert sorted(shown) == [(piece, row) for piece, size in enumerate(sizes) for row in range(size)]


def test_seed_and_epoch_alone_decide() -> None:
    sizes = [200] * 50
    first = everything(order(sizes, seed=1, epoch=2))
    assert first == everything(order(sizes, seed=1, epoch=2))
    assert first != everything(order(sizes, seed=1, epoch=3))
    assert first != everything(order(sizes, seed=2, epoch=2))


@given(PIECES, st.integers(0, 2000), st.integers(0, 700))
def test_a_part_of_the_sequence_is_that_part(sizes: list[int], start: int, length: int) -> None:
    found = order(sizes)
    start = min(start, found.rows)
    stop = min(start + length, found.rows)
    assert everything(found)[start:stop] == [(a, b) for a, b in found.places(start, stop).tolist()]


def test_the_first_batch_needs_two_of_24_files() -> None:
    """Files of 40 images of 100 kB, two in a piece, a batch of 16."""
    found = order([80] * 12)
    assert len(set(found.places(0, 16)[:, 0].tolist())) == 1
    assert found.windows[0].tolist() != found.windows[1].tolist()


def test_windows_double_up_to_a_limit_and_small_sets_are_one() -> None:
    found = order([256] * 370, row_bytes=120_000)
    rows = [256 * len(window) for window in found.windows]
    assert rows[:6] == [256, 512, 1024, 2048, 4096, WINDOW_ROWS]
    assert max(rows) <= 1.5 * WINDOW_ROWS
    assert len(order([256] * 10, row_bytes=FIRST_BYTES // 2560).windows) == 1


def test_sorted_files_give_mixed_batches() -> None:
    """Files sorted by class are the worst case: ingest shuffles rows by the hash of their ids."""
    sizes = np.full(368, 256)
    found = shuffled_order(sizes, sizes * 120_000, seed=0, epoch=0)
    labels = np.repeat(np.arange(8), 368 * 256 // 8)

    def entropy(rows: np.ndarray) -> float:
        share = np.bincount(rows, minlength=8) / len(rows)
        return float(-(share[share > 0] * np.log(share[share > 0])).sum())

    places = [found.places(step.start, step.stop) for step in training_bounds(found.rows, 128)]
    ours = [entropy(labels[place[:, 0] * 256 + place[:, 1]]) for place in places]
    full = np.random.default_rng(0).permutation(labels).reshape(-1, 128)
    assert np.mean(ours) > 0.93 * np.mean([entropy(rows) for rows in full])


@given(
    st.integers(1, 500),
    st.integers(1, 32),
    st.sampled_from([1, 2, 3, 4]),
    st.sampled_from([None, 2, 4]),
    st.integers(0, 9),
)
def test_any_workers_share_the_same_batches(
    rows: int, batch: int, world: int, micro: int | None, first: int
) -> None:
    if batch < world * (micro or 1):
        return
    covered = []
    for step in training_bounds(rows, batch, first=first):
        spans = [span for rank in range(world) for span in Share(rank, world, micro).spans(step)]
        covered += [position for span in spans for position in span]
    assert covered == list(range(first * batch, rows // batch * batch))


def test_resuming_with_other_workers_shows_what_is_left_once() -> None:
    """Stopped after 3 steps of 2 workers, going on with 3 of them."""
    found = order([50] * 7)
    before = [p for step in training_bounds(350, 24)[:3] for r in (0, 1) for p in positions(step, r, 2)]
    after = [
        p for step in training_bounds(350, 24, first=3) for r in (0, 1, 2) for p in positions(step, r, 3)
    ]
    shown = [tuple(found.places(p, p + 1)[0]) for p in before + after]
    assert len(shown) == len(set(shown)) == 350 // 24 * 24


def positions(step: range, rank: int, world: int) -> list[int]:
    return [position for span in Share(rank, world).spans(step) for position in span]


@given(st.integers(1, 200), st.integers(1, 32), st.integers(1, 8))
def test_validation_shows_every_row_once_and_every_worker_has_some(rows: int, batch: int, world: int) -> None:
    if batch < world or rows < world:
        return
    bounds = validation_bounds(rows, batch, world_size=world)
    assert [position for batch_ in bounds for position in batch_] == list(range(rows))
    assert all(len(positions(step, rank, world)) > 0 for step in bounds for rank in range(world))


def test_fewer_validation_rows_than_workers_are_refused() -> None:
    with pytest.raises(ValueError, match="2 validation images are less than one for each of 3 workers"):
        validation_bounds(2, 8, world_size=3)


def test_validation_keeps_the_order_of_the_files() -> None:
    assert everything(plain_order(np.array([2, 1]))) == [(0, 0), (0, 1), (1, 0)]
