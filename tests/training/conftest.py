"""Tiny base models for the stages of training, and engines that leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.models.tiny import write_clip, write_pipeline
from uniemo_ray.training.engine import Engine


@pytest.fixture(autouse=True)
def released_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Release each test's engines: DeepSpeed's ZeRO 3 keeps 2 GB of address space for every one in a process.

    A dozen of them are more than the machine's memory, and then Linux refuses to start other processes.
    """
    made: list[Engine] = []
    start = Engine.__init__

    def noted(engine: Engine, *args: Any, **options: Any) -> None:
        start(engine, *args, **options)
        made.append(engine)

    monkeypatch.setattr(Engine, "__init__", noted)
    yield
    for engine in made:
        engine._engine.destroy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stage")
    write_clip(folder / "clip")
    write_pipeline(folder / "diffusion")
    return {"clip": folder / "clip", "diffusion": folder / "diffusion"}
