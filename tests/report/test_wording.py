import pytest

from uniemo_ray.report.summary import GenerationMetrics, UnderstandingMetrics
from uniemo_ray.report.wording import (
    GENERATION_METRICS,
    UNDERSTANDING_METRICS,
    duration,
    loss_term,
    metric_text,
    number,
    percent,
    reason,
)


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_every_metric_of_the_summary_has_a_name_and_a_meaning() -> None:
    described = {metric.key for metric in GENERATION_METRICS}
    assert described == set(GenerationMetrics.model_fields) - {"images", "standard_errors", "per_emotion"}
    assert {metric.key for metric in UNDERSTANDING_METRICS} <= set(UnderstandingMetrics.model_fields)


def test_only_distances_to_the_real_images_fall() -> None:
    assert {metric.key for metric in GENERATION_METRICS if metric.direction == "down"} == {
        "fid",
        "fid_small",
        "fid_train",
        "fd_clip",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (12.345, "12.35"), (123.45, "123.5"), (12345.6, "12,346"), (7, "7"), (None, "–")],
)
def test_number(value: float | None, text: str) -> None:
    assert number(value) == text


def test_percent() -> None:
    assert plain(percent(0.8094)) == "80.9 %"
    assert percent(None) == "–"


def test_error_has_the_decimals_of_its_value() -> None:
    by_key = {metric.key: metric for metric in GENERATION_METRICS}
    assert plain(metric_text(by_key["sem_d"], 31.415, 0.2137)) == "31.41 ± 0.21"
    assert plain(metric_text(by_key["emo_a_clip"], 0.634, 0.0162)) == "63.4 % ± 1.6"
    assert metric_text(by_key["emo_a_clip"], None, 0.1) == "–"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.24, "4.2 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3840, "1 h 04 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert plain(duration(seconds)) == text


def test_terms_and_reasons_are_plain_words() -> None:
    assert [loss_term(name) for name in ("loss", "scene_loss")] == ["total", "scene"]
    assert reason("emo_too_high_rank") == "emotion score among the best"
    assert reason("something_new") == "something new"
