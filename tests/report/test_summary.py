import json
from typing import Any

import pytest
from pydantic import ValidationError

from uniemo_ray.report.summary import Filter, Summary, to_json


def test_written_and_read_again_it_is_the_same(summary: Summary) -> None:
    assert Summary.model_validate_json(to_json(summary)) == summary


def test_json_has_the_documented_shape(summary: Summary) -> None:
    parsed = json.loads(to_json(summary))
    first, second = parsed["rounds"]
    assert parsed["config"]["data"]["sketch_train"] == 2000
    assert parsed["dataset"]["ceiling"]["both"] == pytest.approx(0.809, abs=5e-4)
    assert first["generation"]["emo_a_clip"] == 0.634
    assert first["filter"]["kept"] == 284
    assert second["filter"] is None
    assert len(first["understanding"]["confusion"]) == 8
    assert set(parsed["references"]) == {"real", "plain_prompt"}


def test_a_metric_that_was_not_measured_is_absent(summary: Summary) -> None:
    real = json.loads(to_json(summary))["references"]["real"]
    assert "fd_clip" not in real
    assert "fid" not in real
    assert "emo_a_clip" in real


def test_unknown_key_and_impossible_share_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="extra"):
        Summary.model_validate(values | {"acuracy": 1})
    values["rounds"][0]["generation"]["emo_a_clip"] = 63.4
    with pytest.raises(ValidationError, match=r"rounds\.0\.generation\.emo_a_clip"):
        Summary.model_validate(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_figures_are_refused(values: dict[str, Any], value: float) -> None:
    values["rounds"][0]["generation"]["fd_clip"] = value
    with pytest.raises(ValidationError, match="fd_clip"):
        Summary.model_validate(values)


def test_confusion_must_fit_the_classes(values: dict[str, Any]) -> None:
    values["rounds"][0]["understanding"]["confusion"].pop()
    with pytest.raises(ValidationError, match="8 x 8"):
        Summary.model_validate(values)


def test_filter_cannot_keep_more_than_there_is() -> None:
    with pytest.raises(ValidationError, match="4 of 3"):
        Filter(total=3, kept=4)


def test_last_generation_is_the_newest_round_with_images(values: dict[str, Any]) -> None:
    values["rounds"][1]["generation"] = None
    found = Summary.model_validate(values).last_generation
    assert found is not None
    assert found[0].round == 0
    assert found[1].emo_a_clip == 0.634


def test_a_summary_of_an_earlier_release_is_refused_in_one_line(values: dict[str, Any]) -> None:
    """Its `emo_a` was the run's own classifier, which would pass for the public judge."""
    assert json.loads(to_json(Summary.model_validate(values)))["metric_names"] == 2
    generation = values["rounds"][0]["generation"]
    generation["emo_a"] = generation.pop("emo_a_clip")
    for old in (values | {"metric_names": 1}, {k: v for k, v in values.items() if k != "metric_names"}):
        with pytest.raises(ValidationError, match="names of an earlier release") as error:
            Summary.model_validate(old)
        (line,) = [e["msg"] for e in error.value.errors()]
        assert "\n" not in line
        assert "submit the run again" in line
