"""What each rank gets, without Ray; and decoding in the cluster, with it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pyarrow import fs

from tests.training.loading.test_batches import ROWS, pictures
from tests.training.test_batches import COLLATE
from uniemo_ray.config import Config
from uniemo_ray.distributed.training.rank_data import Place, RankData
from uniemo_ray.distributed.training.work import Work
from uniemo_ray.training.batches import Batch
from uniemo_ray.training.loading.pieces import ShardRows
from uniemo_ray.training.loading.threads import decoding_threads
from uniemo_ray.training.stage_settings import StageSettings

BATCH = 24


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("UNIEMO_SCRATCH", str(tmp_path / "scratch"))
    data = pictures(str(tmp_path / "store"))
    return partial(make_work, data)


def make_work(data: ShardRows, **stage1: Any) -> Work:
    config = Config.model_validate(
        {"stage1": {"batch_size": BATCH, **stage1}, "resources": {"cache_gb": 0.5}}
    )
    return Work(
        name="u",
        settings=StageSettings(stage="understanding", config=config),
        seed=3,
        steps_per_epoch=ROWS // BATCH,
        threads=2,
        data=data,
        val=data,
        filesystem=fs.LocalFileSystem(),
        records="",
        machines="",
    )


def ids(batches: list[Batch]) -> list[str]:
    return [name for batch in batches for name in batch.image_ids]


def test_ranks_share_an_epoch_and_go_on_in_any_number(work: Any) -> None:
    two = [list(RankData(work(), COLLATE, Place(rank, 2, rank, 2)).training(1, first=0)) for rank in (0, 1)]
    assert len(ids(two[0] + two[1])) == len(set(ids(two[0] + two[1]))) == ROWS // BATCH * BATCH
    stopped_at = 3
    rest = [
        list(RankData(work(), COLLATE, Place(rank, 3)).training(1, first=stopped_at)) for rank in range(3)
    ]
    before = ids([batch for rank in two for batch in rank[:stopped_at]])
    after = ids([batch for rank in rest for batch in rank])
    assert sorted(before + after) == sorted(ids(two[0] + two[1]))


def test_validation_shows_each_image_once_to_any_number_of_ranks(work: Any) -> None:
    """200 images in batches of 24: eight are left for three ranks."""
    ranks = [list(RankData(work(), COLLATE, Place(rank, 3)).validation()) for rank in range(3)]
    assert len({len(rank) for rank in ranks}) == 1  # every rank makes the same number of collective calls
    assert [len(rank[-1].image_ids) for rank in ranks] == [3, 3, 2]
    assert [rank[-1].images for rank in ranks] == [8, 8, 8]
    assert sorted(ids([batch for rank in ranks for batch in rank])) == [f"i{i:03d}" for i in range(ROWS)]


def test_a_single_cpu_decodes_in_no_thread_of_its_own() -> None:
    assert [decoding_threads(cpus, has_gpu=False) for cpus in (1, 2, 8)] == [0, 1, 7]
    assert [decoding_threads(cpus, has_gpu=True) for cpus in (1, 2, 8)] == [1, 1, 7]


def test_images_lie_below_the_scratch_folder(work: Any, tmp_path: Path) -> None:
    list(RankData(work(), COLLATE, Place(0, 1)).training(0, first=ROWS // BATCH - 1))
    assert list((tmp_path / "scratch").glob("uniemo-pieces-*/*.arrow"))


@pytest.mark.ray
def test_the_cluster_decodes_the_same_bytes_in_the_same_order(ray_session: None, work: Any) -> None:
    here = list(RankData(work(), COLLATE, Place(0, 2)).training(0, first=2))
    there = list(RankData(work(decode="cluster"), COLLATE, Place(0, 2)).training(0, first=2))
    assert ids(here) == ids(there)
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())
