import pytest

from uniemo_ray.emotions import EKMAN, EMOTIONS, LABEL_SPACES, MIKELS, SENTIMENT, find_space, valence


def test_mikels_space_is_the_list_of_emotions():
    assert MIKELS.labels == EMOTIONS
    assert [MIKELS.valence(name) for name in EMOTIONS] == [valence(name) for name in EMOTIONS]
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
