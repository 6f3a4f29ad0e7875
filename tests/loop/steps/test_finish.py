"""What the report reads of a run: the shards of the pictures that it shows, and columns of the others."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from uniemo_ray.config import Config
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.schema import IMAGES, KEPT, SCORES
from uniemo_ray.loop.steps.finish import _samples, gather_ranks
from uniemo_ray.store import shards
from uniemo_ray.store.entry import ShardEntry
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import commit_shard

SHARDS, ROWS = 7, 32


def write_round(root: Path) -> None:
    """A round whose first image of all was not generated."""
    for number in range(SHARDS):
        places = range(number * ROWS, (number + 1) * ROWS)
        rows = [
            {"image_id": f"r1-{EMOTIONS[i % 8]}-{i // 8:05d}", "emotion": EMOTIONS[i % 8]} for i in places
        ]
        for step, folder, schema, values in (
            ("generate-1", "images", IMAGES, {"image": b"picture", "scene": "sky"}),
            ("score-1", "scores", SCORES, {"emo_score": 0.5, "sem_score": 0.5, "predicted": "awe"}),
            ("filter-1", "kept", KEPT, {"emo_rank": 3, "sem_rank": 4, "kept": True}),
        ):
            whole = [
                dict.fromkeys(schema.names) | values | {k: r[k] for k in r if k in schema.names} for r in rows
            ]
            if number == 0:
                whole[0] |= {name: None for name in values} | {"reason": "lost"}
            name = f"{folder}/part-{number:05d}"
            commit_shard(
                open_store(str(root / step)), name, pa.Table.from_pylist(whole, schema=schema), plan_hash="p"
            )


def run_of(root: Path) -> tuple[Any, Any]:
    names = ("generate-1", "score-1", "filter-1")
    return (
        SimpleNamespace(store=open_store(str(root))),
        {name: SimpleNamespace(artefacts=name) for name in names},
    )


def test_only_shards_with_a_shown_picture_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_round(tmp_path)
    read: list[str] = []
    real = shards.read_shard_bytes

    def watched(store: Any, entry: ShardEntry) -> bytes:
        read.append(entry.name)
        return real(store, entry)

    monkeypatch.setattr(shards, "read_shard_bytes", watched)
    run, records = run_of(tmp_path)
    shown = _samples(run, records, "generate-1", "score-1", source="generated", round_=1, verdicts="filter-1")
    assert read == ["images/part-00000", "images/part-00001"]
    first = EMOTIONS[0]
    assert [s.image_id for s in shown if s.emotion == first] == [f"r1-{first}-{i:05d}" for i in (1, 2, 3, 4)]
    assert len(shown) == 32
    assert {(s.emo_score, s.predicted, s.kept, s.scene) for s in shown} == {(0.5, "awe", True, "sky")}


def test_the_scatter_reads_columns_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_round(tmp_path)
    monkeypatch.setattr(shards, "read_shard_bytes", lambda *_: pytest.fail("a shard was read whole"))
    run, records = run_of(tmp_path)
    found = gather_ranks(run, Config(feedback={"rounds": 1}), records)
    assert (found[1].kept, found[1].dropped, found[1].unranked) == (SHARDS * ROWS - 1, 0, 1)
