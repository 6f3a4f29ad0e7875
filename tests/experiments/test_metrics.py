"""Which metrics an arm has in which classes."""

import pytest

from uniemo_ray.experiments.metrics import why_missing
from uniemo_ray.settings_file import load_config

OWN = ["data.labels=[calm, tense]", "data.sketch_classes={calm: [awe], tense: [fear]}"]


@pytest.mark.parametrize(
    ("key", "overrides", "words"),
    [
        ("emo_a_exact", OWN, None),
        ("emo_a_clip", OWN, None),
        ("emo_a_clip_two_class", [], None),
        ("emo_a_clip_two_class", ["data.labels=ekman"], None),
        ("emo_a_clip_two_class", OWN, "the labels have no valences"),
        ("emo_a", OWN, "tells EmoSet's eight emotions apart"),
        ("emo_a", ["data.labels=sentiment"], "tells EmoSet's eight emotions apart"),
    ],
)
def test_why_an_arm_lacks_a_metric(key, overrides, words):
    found = why_missing(key, load_config("demo", overrides), until="images")
    assert found is None if words is None else words in found
