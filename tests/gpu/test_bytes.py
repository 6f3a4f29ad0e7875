"""The same plan twice on one card gives the same bytes, by actors that know nothing of each other."""

from pathlib import Path

import pyarrow as pa
import pytest

from tests.gpu.device import DEVICE
from tests.inference.conftest import CONFIG
from uniemo_ray.config import GenerationConfig
from uniemo_ray.distributed.shards.generate import generate_images
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.plan import PlannedImages
from uniemo_ray.inference.model_folder import load_model_folder
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.pools import Pool
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
PAINTED = [name for name in EMOTIONS if name != EMOTIONS[-1]]
"""The emotions of which the small model has seen images."""


def generate(plan: pa.Table, model: Path, folder: Path, config: GenerationConfig) -> dict[str, bytes]:
    pool = Pool(gpus=float(DEVICE == "cuda"), memory_gb=0.5, actors=config.actors)
    store = open_store(str(folder))
    result = generate_images(plan, store=store, model=str(model), config=config, pool=pool)
    assert result.failed == {}
    table = read_shards(store, "images/", columns=["image_id", "image"])
    return dict(zip(table["image_id"].to_pylist(), table["image"].to_pylist(), strict=True))


@pytest.mark.usefixtures("ray_session")
def test_the_same_plan_twice_gives_the_same_bytes(model_folder: Path, tmp_path: Path) -> None:
    config = GenerationConfig(micro_batch=4, threads=1, rows_per_shard=5, actors=1)
    plan = PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=2,
        emotions=PAINTED,
        seed=1,
        model=load_model_folder(model_folder).fingerprint,
        diffusion=CONFIG.diffusion,
        generation=config,
    ).table
    first = generate(plan, model_folder, tmp_path / "first", config)
    again = generate(plan, model_folder, tmp_path / "again", config)
    assert again == first
    assert len(set(first.values())) == len(first) == plan.num_rows
    made_on = {read_provenance(image)["versions"] for image in first.values()}
    assert all(f'"processor":"{DEVICE}"' in versions for versions in made_on)
