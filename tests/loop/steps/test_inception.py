"""Which images both protocols of FID compare, from shards to numbers."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.loop.steps.test_image_metrics import COUNT, IDS, LABELS, Context, config, write
from tests.metrics.small_network import put_small_network
from uniemo_ray.data.images import decode_rgb, to_square
from uniemo_ray.distributed.shards.actors.published import InceptionActor
from uniemo_ray.loop.steps import inception
from uniemo_ray.loop.steps.evaluation import measure_step
from uniemo_ray.loop.steps.image_metrics import Judged
from uniemo_ray.loop.steps.inception import PUBLISHED, TRAIN, inception_step
from uniemo_ray.metrics import inception as network
from uniemo_ray.metrics import published
from uniemo_ray.metrics.frechet import FeatureSums, frechet
from uniemo_ray.metrics.inception import InceptionFeatures, squashed
from uniemo_ray.metrics.pictures import as_saved
from uniemo_ray.store.shards import commit_shard, committed, iterate_entries, iterate_shards

SPLITS = {"train": 12, "val": 5, "test": 7}


def png(seed: int, size: tuple[int, int]) -> bytes:
    rng, file = np.random.default_rng(seed), io.BytesIO()
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize(size)
    coarse.save(file, format="PNG")
    return file.getvalue()


def in_this_process(source, folders, *, target, actor, plan_hash, pool, only=None):
    """Shards through the actor without a pool."""
    made = actor()
    for into, folder in folders.items():
        for entry in committed(source, f"{folder}/").values():
            if only is None or entry.name in only:
                (table,) = iterate_entries(source, [entry])
                name = f"{into}/{entry.name.rpartition('/')[2]}"
                commit_shard(target, name, made(table), plan_hash=plan_hash)


class Steps(Context):
    """The step `inception` has left its features before the measuring step."""

    def as_step(self, name: str) -> "Steps":
        other = Steps(self.root)
        other.name = name
        return other


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(inception, "map_shards", in_this_process)
    (tmp_path / "weights").mkdir()
    put_small_network(tmp_path / "weights", monkeypatch)
    monkeypatch.setattr(inception, "INCEPTION_FILE", network.INCEPTION_FILE)
    context = Steps(tmp_path)
    write(context, [png(n, (64, 64)) for n in range(COUNT)])
    for seed, (split, count) in enumerate(SPLITS.items()):
        files = [png(1000 * (seed + 1) + n, (330, 500)) for n in range(count)]
        columns = {
            "image_id": [f"{split}{n}" for n in range(count)],
            "emotion": [LABELS[n % 2] for n in range(count)],
        }
        table = pa.table(columns | {"image": pa.array(files, pa.binary())})
        commit_shard(context.artefacts_of("ingest"), f"samples/{split}/part-0", table, plan_hash="p")
    return context


def images_of(context, step, folder):
    tables = list(iterate_shards(context.artefacts_of(step), f"{folder}/"))
    return [decode_rgb(data, 10**6) for data in pa.concat_tables(tables)["image"].to_pylist() if data]


def test_all_splits_against_the_training_split(context, monkeypatch):
    monkeypatch.setattr(published, "PER_EMOTION", 5)
    settings = config(weights_dir=str(context.root / "weights"))
    inception_step(context.as_step("inception"), settings)
    rows = {
        f: sum(t.num_rows for t in iterate_shards(context.artefacts_of("inception"), f"{f}/"))
        for f in (TRAIN, PUBLISHED)
    }
    assert rows == {TRAIN: 12, PUBLISHED: 24}

    net = InceptionFeatures(context.root / "weights")
    made, real = images_of(context, "images", "images"), images_of(context, "ingest", "samples")
    train = images_of(context, "ingest", "samples/train")

    def distance(mine, theirs):
        sums = [FeatureSums.of(net(np.stack(pictures))) for pictures in (mine, theirs)]
        return frechet(*sums, name="fid").distance

    found = measure_step(context, settings, Judged.of(settings.data), images="images", scores="scores")
    first = [n for label in set(LABELS) for n in [i for i in range(COUNT - 1) if LABELS[i] == label][:5]]
    expected = distance([squashed(as_saved(made[n])) for n in first], [squashed(rgb) for rgb in real])
    assert found["fid_small"] == pytest.approx(expected, rel=1e-4)  # two emotions of eight
    ours = distance([squashed(rgb) for rgb in made], [squashed(to_square(rgb, 64)) for rgb in train])
    assert found["fid_train"] == pytest.approx(ours, rel=1e-4)
    assert set(found["per_emotion"][LABELS[0]]) >= {"fid_small", "fid_train"}
    assert IDS[-1] not in {
        name for t in iterate_shards(context.artefacts, f"{PUBLISHED}/") for name in t["image_id"].to_pylist()
    }


def test_a_shard_without_a_chosen_image_is_empty(context):
    weights = str(context.root / "weights")
    protocol = inception.PublishedProtocol("generated")
    (table, *_) = iterate_shards(context.artefacts_of("ingest"), "samples/val/")
    assert InceptionActor(weights, protocol, 10**6, chosen=["elsewhere"])(table).num_rows == 0
