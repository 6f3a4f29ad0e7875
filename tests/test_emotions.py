import pytest

from tests.label_spaces import BARE, OWN, SPACES
from uniemo_ray.emotions import (
    EKMAN,
    EMOTIONS,
    LABEL_SPACES,
    MIKELS,
    SENTIMENT,
    find_space,
    normalise_label,
    stated_space,
)


def test_mikels_space_is_the_list_of_emotions():
    assert MIKELS.labels == EMOTIONS
    assert [MIKELS.valence(name) for name in EMOTIONS] == ["positive"] * 4 + ["negative"] * 4
    assert LABEL_SPACES == {"mikels": MIKELS, "ekman": EKMAN, "sentiment": SENTIMENT}


def test_surprise_is_neither_positive_nor_negative():
    assert [EKMAN.valence(name) for name in EKMAN.labels] == ["negative"] * 3 + ["positive", "negative", None]


def test_sentiment_is_its_own_valence():
    assert [SENTIMENT.valence(name) for name in SENTIMENT.labels] == ["positive", "negative"]


def test_unknown_label_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown ekman label 'awe': expected one of anger, disgust"):
        EKMAN.valence("awe")


def test_positions_and_spaces_are_found_by_their_labels():
    assert [EKMAN.position(name) for name in EKMAN.labels] == list(range(6))
    assert [find_space(list(space.labels)) for space in LABEL_SPACES.values()] == [MIKELS, EKMAN, SENTIMENT]
    with pytest.raises(ValueError, match="unknown sentiment label 'joy': expected one of positive, negative"):
        SENTIMENT.position("joy")
    with pytest.raises(ValueError, match="no label space has the labels negative, positive"):
        find_space(("negative", "positive"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Calm", "calm"),
        ("Very  Calm", "very_calm"),
        ("tre\N{COMBINING GRAVE ACCENT}s", "très"),
        ("TRÈS TRISTE", "très_triste"),
        ("self-doubt", "self-doubt"),
        ("शांत", "शांत"),
        ("7", "7"),
    ],
)
def test_labels_have_one_spelling(text, label):
    assert normalise_label(text) == label
    assert normalise_label(label) == label


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("calm/tense", "holds '/'"),
        ("..", r"holds '\.'"),
        ("calm,tense", "holds ','"),
        ("a=b", "holds '='"),
        ("calm\n", None),
        ("ca\x00lm", r"holds '\\x00'"),
        ("-calm", "starts with '-'"),
        ("é" * 40, "has 80 bytes: take at most 64"),
    ],
)
def test_labels_that_file_names_cannot_hold_are_refused(text, words):
    if words is None:
        assert normalise_label(text) == "calm"
        return
    with pytest.raises(ValueError, match=words) as caught:
        normalise_label(text)
    assert "\n" not in str(caught.value)


def test_own_spaces_come_back_from_what_they_state():
    for space in SPACES.values():
        assert stated_space(**space.stated()) == space
    assert OWN.name == BARE.name == "own"
    assert (OWN.has_valence, BARE.has_valence) == (True, False)
    assert [OWN.valence(name) for name in OWN.labels] == ["positive", "negative", None]
    assert not stated_space(["calm", "tense"], {"calm": "positive"}).has_valence


def test_own_labels_like_a_known_space_are_that_space():
    assert stated_space(EMOTIONS, MIKELS.valences) is MIKELS
    assert stated_space(["positive", "negative"], SENTIMENT.valences) is SENTIMENT
    assert stated_space(["positive", "negative"], {}).name == "own"


@pytest.mark.parametrize(
    ("labels", "valences", "words"),
    [
        ([], {}, "two labels or more, got none"),
        (["calm"], {}, "two labels or more, got calm"),
        (["calm", "tense", "calm"], {}, "'calm' is there 2 times"),
        (["calm", "tense"], {"dull": "positive"}, "'dull' has a valence but is no label"),
    ],
)
def test_spaces_that_are_none_are_refused(labels, valences, words):
    with pytest.raises(ValueError, match=words):
        stated_space(labels, valences)
