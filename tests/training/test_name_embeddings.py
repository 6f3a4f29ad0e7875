"""Stored text embeddings are CLIP's own."""

import pytest
import torch

from tests.models.tiny import write_clip
from uniemo_ray.models.clip import embed_names
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard
from uniemo_ray.training.name_embeddings import NameEmbeddings, embed_table

NAMES = ["beach", "amusement_park", "lion"]


def test_rows_come_back_in_the_asked_order(tmp_path):
    clip, store = write_clip(tmp_path / "clip"), open_store(str(tmp_path / "store"))
    for number, names in enumerate((NAMES[:2], NAMES[2:])):
        commit_shard(store, f"names/part-{number}", embed_table(clip, names), plan_hash="p")
    stored = NameEmbeddings.load(store.uri)
    # another number of names at once gives other last bits
    torch.testing.assert_close(stored(["lion", "beach"]), embed_names(clip, NAMES)[[2, 0]], atol=1e-6, rtol=0)
    assert stored([]).shape == (0, 12)
    with pytest.raises(ValueError, match="no stored text embedding of 'moon'"):
        stored(["lion", "moon"])


def test_no_names_at_all(tmp_path):
    table = embed_table(write_clip(tmp_path), [])
    assert NameEmbeddings(table)([]).shape == (0, 0)


def test_names_with_their_underscores_are_stored_too(tmp_path):
    clip = write_clip(tmp_path)
    stored = NameEmbeddings(embed_table(clip, NAMES))
    expected = embed_names(clip, NAMES, is_verbatim=True)
    torch.testing.assert_close(stored.verbatim(NAMES), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(stored.verbatim(NAMES)[1], stored(NAMES)[1], atol=1e-3)
    assert torch.equal(stored.verbatim(NAMES[:1]), stored(NAMES[:1]))
    with pytest.raises(ValueError, match="no stored text embedding of 'moon'"):
        stored.verbatim(["moon"])
