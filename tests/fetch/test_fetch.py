"""A preset's weights from the stand-in hub into the layout that the loaders read."""

import json
from pathlib import Path

import pytest
import torch

from tests.fetch.hub_server import HubServer, running_hub
from tests.fetch.layout import CLIP, offer_models
from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.fetch.fetch import RECORD, choose_files, fetch
from uniemo_ray.fetch.hub import Hub, HubFile, Listing
from uniemo_ray.fetch.sources import L14, SD15, Source
from uniemo_ray.models.clip import load_clip
from uniemo_ray.models.diffusion import load_diffusion
from uniemo_ray.store.filesystem import open_store


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_clip(folder / "clip")
    write_pipeline(folder / "diffusion")
    return folder


@pytest.fixture
def server(models: Path):
    with running_hub() as running:
        offer_models(running, models)
        yield running


def run(server: HubServer, target: Path, sources: tuple[Source, ...] = (CLIP, SD15), **options):
    store = open_store(str(target))
    return fetch(sources, store, hub=Hub(server.endpoint), scratch=target.parent / "scratch", **options)


def test_the_layout_is_what_the_loaders_read(server, models, tmp_path):
    said: list[str] = []
    done = run(server, tmp_path / "to", say=said.append)
    folder = tmp_path / "to"
    assert done.kept == 0
    assert done.files == len(said) == len([*(p for p in folder.rglob("*") if p.is_file())]) - 1
    loaded, original = load_diffusion(str(folder / "diffusion")), load_diffusion(str(models / "diffusion"))
    for name in ("denoiser", "vae", "text_encoder"):
        mine, theirs = getattr(loaded, name).state_dict(), getattr(original, name).state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert load_clip(str(folder / "clip")).image_size_px == 32
    assert not list(folder.rglob("*.bin"))
    index = json.loads((folder / "diffusion" / "model_index.json").read_text())
    assert index["safety_checker"] == [None, None]
    record = json.loads((folder / RECORD).read_text())
    assert record["complete"] is True
    entry = record["files"]["diffusion/text_encoder/model.safetensors"]
    assert entry["commit"] == server.commits[SD15.repository, SD15.revision]
    assert entry["file"]["name"] == "text_encoder/pytorch_model.bin"


def test_a_second_call_fetches_only_what_is_missing(server, tmp_path):
    first = run(server, tmp_path / "to")
    server.served.clear()
    again = run(server, tmp_path / "to")
    assert (again.files, again.kept, server.served) == (0, first.files, [])
    (tmp_path / "to" / "clip" / "open_clip_config.json").unlink()
    damaged = tmp_path / "to" / "diffusion" / "vae" / "diffusion_pytorch_model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert run(server, tmp_path / "to").files == 2
    assert sorted(name for name, _ in server.served) == [
        "open_clip_config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]


def test_an_interrupted_call_is_not_complete_and_goes_on(server, tmp_path):
    server.wrong.add("vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(ValueError, match="has another hash"):
        run(server, tmp_path / "to")
    record = json.loads((tmp_path / "to" / RECORD).read_text())
    assert record["complete"] is False
    server.wrong.clear()
    server.served.clear()
    done = run(server, tmp_path / "to")
    assert done.kept == len(record["files"])
    assert not {name for name, _ in server.served} & {"open_clip_model.safetensors", "unet/config.json"}


def test_a_variant_gets_the_plain_name_and_is_never_replaced(server):
    listing = Hub(server.endpoint).list(SD15.repository, SD15.revision)
    only_unet = Source(
        folder="diffusion",
        repository=SD15.repository,
        revision=SD15.revision,
        files=(),
        weights=("unet/diffusion_pytorch_model",),
    )
    (chosen,) = choose_files(only_unet, listing, variant="fp16")
    assert (chosen.name, chosen.key) == (
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "diffusion/unet/diffusion_pytorch_model.safetensors",
    )
    with pytest.raises(ValueError, match=r"has no vae/diffusion_pytorch_model\.fp16\.safetensors"):
        choose_files(SD15, listing, variant="fp16")


def test_a_pinned_hash_counts_more_than_the_hubs(server, tmp_path):
    with pytest.raises(ValueError, match=r"another open_clip_model\.safetensors than was pinned"):
        run(server, tmp_path / "to", (L14,))


def test_what_a_revision_lacks_is_named():
    listing = Listing("a/b", "c" * 40, {"x": HubFile("x", 1, "d", False)})
    with pytest.raises(ValueError, match=r"a/b at cccccccccccc has no model_index\.json"):
        choose_files(SD15, listing)
    small = [HubFile(name, 1, "d", False) for name in SD15.files]
    only_small = Listing("a/b", "c" * 40, {file.name: file for file in small})
    with pytest.raises(ValueError, match=r"has no tokenizer/vocab\.json"):
        choose_files(SD15, only_small)


@pytest.mark.parametrize(
    ("vocabulary", "lost"),
    [
        (("special_tokens_map.json",), "vocab.json"),
        (("vocab.json", "special_tokens_map.json"), "merges.txt"),
        (("vocab.json", "merges.txt"), None),
        (("tokenizer.json", "vocab.json"), None),
        (("tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json"), None),
    ],
)
def test_a_whole_vocabulary_is_taken_or_named(vocabulary, lost):
    weights = [f"{stem}.safetensors" for stem in SD15.weights]
    names = [*SD15.files, *weights, *(f"tokenizer/{name}" for name in vocabulary)]
    listing = Listing("a/b", "c" * 40, {name: HubFile(name, 1, "d", False) for name in names})
    if lost:
        with pytest.raises(ValueError, match=f"has no tokenizer/{lost}"):
            choose_files(SD15, listing)
        return
    taken = {wanted.name for wanted in choose_files(SD15, listing)}
    assert {*SD15.files, *weights} <= taken
    chosen = {name.removeprefix("tokenizer/") for name in taken if name.startswith("tokenizer/")}
    assert chosen >= {"vocab.json", "merges.txt"} or "tokenizer.json" in chosen
    assert ("special_tokens_map.json" in chosen) == ("special_tokens_map.json" in vocabulary)
    assert ("merges.txt" in chosen) == ("vocab.json" in chosen)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    store = open_store(str(tmp_path))
    store.write_json(RECORD, [1])
    with pytest.raises(ValueError, match="is not of this command"):
        fetch((L14,), store, hub=Hub("http://127.0.0.1:9"), scratch=tmp_path)
