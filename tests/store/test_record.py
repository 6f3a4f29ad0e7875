"""Commit records survive JSON."""

import json

import pytest

from uniemo_ray.store.record import StepRecord, artefact_folder, library_versions

RECORD = StepRecord(
    name="filter-1",
    fingerprint="0123456789abcdef" * 4,
    settings={"eta": 20.0},
    code_version=1,
    inputs={"score-1": "f" * 64},
    outputs={"kept": 480},
    metrics={"share": 0.6},
    seconds=1.5,
    finished_at="2026-11-23T14:05:00+00:00",
    versions={"python": "3.11.7"},
    status="finished",
    has_artefacts=True,
)


def test_round_trip_ignores_later_additions() -> None:
    values = json.loads(json.dumps(RECORD.to_dict()))
    assert StepRecord.from_dict(values | {"added": "later"}) == RECORD


def test_a_missing_field_is_named() -> None:
    values = RECORD.to_dict()
    del values["seconds"], values["inputs"]
    with pytest.raises(ValueError, match="lacks inputs, seconds"):
        StepRecord.from_dict(values)


def test_artefacts_carry_the_fingerprint() -> None:
    assert (
        RECORD.artefacts
        == artefact_folder("filter-1", RECORD.fingerprint)
        == "artefacts/filter-1-0123456789ab"
    )


def test_versions_name_what_decides_results() -> None:
    found = library_versions()
    assert {"python", "uniemo_ray", "pyarrow"} <= set(found)
    assert all(found.values())
