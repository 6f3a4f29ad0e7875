"""A model in storage comes to a machine once, whole, and goes when no process uses it any more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from uniemo_ray.inference import model_source
from uniemo_ray.inference.checksums import CHECKSUMS
from uniemo_ray.inference.model_cache import cached_folder
from uniemo_ray.inference.model_copy import copy_model_folder
from uniemo_ray.inference.model_folder import (
    ModelParts,
    load_model_folder,
    load_painter,
    save_model_folder,
)
from uniemo_ray.scratch import SCRATCH
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.local import LocalStore

ROOT = Path(__file__).parents[2]
ACTORS = 4
CHILD = """
import sys, time
from pathlib import Path
from tests.inference.test_model_cache import CountingStore
from uniemo_ray.inference import model_source
model_source.open_store = lambda uri: CountingStore(Path(uri), Path(sys.argv[2]))
from uniemo_ray.inference.generator import ImageGenerator
generator = ImageGenerator(f"{sys.argv[1]}")
print(generator.fingerprint, flush=True)
sys.stdin.readline()
"""


class CountingStore(LocalStore):
    """Storage on another machine, as far as anybody can tell; it writes down what is read of it."""

    def __init__(self, root: Path, journal: Path) -> None:
        super().__init__(root)
        self.journal = journal

    def local_path_or_none(self, key: str = "") -> Path | None:
        return None

    def get_file(self, key: str, path: Path) -> None:
        super().get_file(key, path)
        with self.journal.open("a") as file:
            file.write(json.dumps([key, path.stat().st_size]) + "\n")


def read_files(journal: Path) -> list[tuple[str, int]]:
    if not journal.exists():
        return []
    return [tuple(json.loads(line)) for line in journal.read_text().splitlines()]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where all stores write down what is read; models are copied below a folder of the test."""
    path = tmp_path / "journal"
    monkeypatch.setattr(model_source, "open_store", lambda uri: CountingStore(Path(uri), path))
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    return path


def copies(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "scratch").glob("uniemo-models-*/*") if path.is_dir()]


@pytest.mark.timeout(300)
def test_four_actors_of_a_machine_read_the_model_once(model_folder: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    command = [sys.executable, "-c", CHILD, str(model_folder), str(journal)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), SCRATCH: str(tmp_path / "scratch")}
    actors = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(ACTORS)
    ]
    try:
        assert len({actor.stdout.readline() for actor in actors if actor.stdout}) == 1
    finally:
        for actor in actors:
            actor.communicate("\n")
    whole = {path.relative_to(model_folder).as_posix() for path in model_folder.rglob("*") if path.is_file()}
    found = read_files(journal)
    assert sorted(name for name, _ in found) == sorted(whole)
    assert sum(size for _, size in found) == sum((model_folder / name).stat().st_size for name in whole)


def test_a_copy_is_that_model_and_is_checked_once(
    model_folder: Path, journal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    verify = model_source.verify
    monkeypatch.setattr(model_source, "verify", lambda *a, **o: checked.append(a) or verify(*a, **o))
    first, fingerprint = load_painter(str(model_folder))
    second, again = load_painter(str(model_folder))
    assert len(checked) == len(copies(tmp_path)) == 1
    assert fingerprint == again == json.loads(json.dumps(load_model_folder(model_folder).fingerprint))
    mine, theirs = first.diffusion.denoiser.state_dict(), second.diffusion.denoiser.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_a_damaged_model_is_refused_every_time(model_folder: Path, journal: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    source = open_store(str(model_folder))
    source.download_dir("", broken)
    (broken / "model.safetensors").write_bytes(b"not this")
    for _ in range(2):
        with pytest.raises(ValueError, match="is damaged or was changed"):
            load_model_folder(str(broken))
    assert copies(tmp_path) == []


def test_understanding_leaves_the_diffusion_model_where_it_is_and_can_still_save_it(
    model_folder: Path, journal: Path, tmp_path: Path
) -> None:
    parts = load_model_folder(str(model_folder), with_diffusion=False)
    assert parts.diffusion is None
    assert not [name for name, _ in read_files(journal) if name.startswith("diffusion/")]
    assert save_model_folder(parts, tmp_path / "saved") == parts.fingerprint
    assert load_model_folder(tmp_path / "saved").diffusion is not None


def test_what_no_process_uses_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SCRATCH, str(tmp_path / "scratch"))
    first = cached_folder("one", lambda path: path.mkdir())
    second = cached_folder("two", lambda path: path.mkdir())
    assert first.path.is_dir()  # in use
    del first
    third = cached_folder("three", lambda path: path.mkdir())
    assert {path.name for path in copies(tmp_path)} == {"two", "three"}
    assert cached_folder("two", lambda path: pytest.fail("it is there")).path == second.path
    assert third.path.is_dir()


def test_a_copy_in_storage_is_the_same_model_with_another_card(parts: ModelParts, tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    fingerprint = save_model_folder(parts, tmp_path / "steps" / "model")
    store.write_bytes("model/stray.txt", b"of an older model")
    with pytest.raises(ValueError, match="holds something that is no model folder"):
        copy_model_folder(store, "steps/model", "model", card="new")
    store.write_bytes(f"model/{CHECKSUMS}", b"{}")
    copy_model_folder(store, "steps/model", "model", card="new")
    copied = load_model_folder(tmp_path / "model")
    assert (copied.fingerprint, copied.card) == (fingerprint, "new")
    assert not store.exists("model/stray.txt")
