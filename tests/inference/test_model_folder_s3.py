"""The model's way to S3 and back, also past a crash."""

import pytest
import torch

from uniemo_ray.inference.checksums import CHECKSUMS
from uniemo_ray.inference.model_folder import ModelParts, load_model_folder, save_model_folder
from uniemo_ray.store.filesystem import open_store

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_a_model_goes_to_s3_and_comes_back(parts: ModelParts, s3_uri: str) -> None:
    uri = f"{s3_uri}/model"
    fingerprint = save_model_folder(parts, uri)
    loaded = load_model_folder(uri)
    assert loaded.fingerprint == fingerprint
    mine, theirs = parts.net.state_dict(), loaded.net.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)

    # as a crash in the middle of the upload leaves it: refused by readers, replaced by the next attempt
    store = open_store(uri)
    store.write_bytes("stray.txt", b"of an older model")
    for key in [key for key in store.list() if key.endswith(".safetensors")]:
        store.delete(key)
    with pytest.raises(ValueError, match="missing"):
        load_model_folder(uri)
    assert save_model_folder(parts, uri) == fingerprint
    assert load_model_folder(uri).fingerprint == fingerprint
    assert not store.exists("stray.txt")
    assert store.exists(CHECKSUMS)
