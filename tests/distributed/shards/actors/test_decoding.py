"""Every frozen pass decodes in threads of its own, so that the model need not wait."""

import io
import threading
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.models.tiny import write_pipeline
from uniemo_ray.distributed.shards.actors import diffusion, published, understanding
from uniemo_ray.distributed.shards.actors.clip import FeatureActor
from uniemo_ray.distributed.shards.actors.diffusion import LatentActor
from uniemo_ray.distributed.shards.actors.understanding import UnderstandActor
from uniemo_ray.inference import scorer
from uniemo_ray.settings_file import load_config
from uniemo_ray.shipped import SHIPPED


def table(count: int = 5) -> pa.Table:
    buffer = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 99, dtype=np.uint8)).save(buffer, format="PNG")
    images = [buffer.getvalue()] * count
    ids = [f"i{number}" for number in range(count)]
    return pa.table({"image_id": ids, "image": images, "emotion": ["awe"] * count})


def latents(folder) -> None:
    settings = [f"diffusion.model={write_pipeline(folder)}", "diffusion.size_px=16", "diffusion.revision=a"]
    LatentActor(load_config(None, settings).diffusion)(table())


def features(folder) -> None:
    FeatureActor("tiny")(table())


def judged(folder) -> None:
    list(published._batches(table(), lambda rgb: rgb, 1000))


def understood(folder) -> None:
    assert UnderstandActor(SHIPPED, 1000)(table()).num_rows == 5


@pytest.mark.parametrize(
    ("work", "module"),
    [(latents, diffusion), (features, scorer), (judged, published), (understood, understanding)],
)
def test_the_thread_of_the_model_decodes_nothing(
    work: Callable[..., None], module, tmp_path, monkeypatch
) -> None:
    threads: list[threading.Thread] = []
    decode = module.decode_rgb

    def watch(*arguments):
        threads.append(threading.current_thread())
        return decode(*arguments)

    monkeypatch.setattr(module, "decode_rgb", watch)
    work(tmp_path)
    assert len(threads) == 5
    assert threading.main_thread() not in threads
