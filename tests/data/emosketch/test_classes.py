"""EmoSketch in other classes: what is drawn, what is written, and what is known exactly."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.label_spaces import BARE, OWN, OWN_CLASSES, SPACES
from uniemo_ray.config import SPLITS, DataConfig
from uniemo_ray.data.emoset import EmoSetFolder
from uniemo_ray.data.emosketch.classes import Classes, classes_of, draw_class, rule_of
from uniemo_ray.data.emosketch.folder import SETTINGS_FILE
from uniemo_ray.data.emosketch.labels import draw_label, image_rng
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.emosketch.write import write_sketch
from uniemo_ray.data.sketch_rule import classes_in, sketch_rule
from uniemo_ray.emotions import EKMAN, EMOTIONS, MIKELS, SENTIMENT, LabelSpace

# S scenes, O objects, C classes
BASE = load_rule()
CLASSES: dict[str, Classes] = {
    name: classes_of(space, OWN_CLASSES if space in (OWN, BARE) else {}) for name, space in SPACES.items()
}


@pytest.mark.parametrize("name", SPACES)
def test_the_rule_is_bayes_over_the_emotions_of_each_class(name: str) -> None:
    """By the words of the definition: a class, then one of its emotions, then scene and object."""
    space, rule = SPACES[name], rule_of(CLASSES[name])
    groups = CLASSES[name] or tuple((emotion, (emotion,)) for emotion in EMOTIONS)
    joint = np.zeros((16, 24, len(groups)))
    for column, (_, emotions) in enumerate(groups):
        for emotion in emotions:
            e = EMOTIONS.index(emotion)
            pairs = np.outer(BASE.scene_given_emotion[:, e], BASE.object_given_emotion[:, e])
            joint[:, :, column] += pairs / len(emotions) / len(groups)
    assert rule.labels == space.labels
    np.testing.assert_allclose(rule.table, joint)
    for scene, object_ in ((0, 0), (15, 23), (4, 7)):
        wanted = joint[scene, object_] / joint[scene, object_].sum()
        np.testing.assert_allclose(rule.posterior(scene, object_), wanted)
    ceiling = rule.ceiling()
    assert ceiling.both == pytest.approx(sum(joint[s, o].max() for s in range(16) for o in range(24)))
    assert ceiling.both > max(ceiling.scene, ceiling.object) > 1 / len(groups)
    alpha = rule.alpha()
    np.testing.assert_allclose(
        alpha["scene", "cemetery"],
        joint[BASE.scenes.index("cemetery")].sum(axis=0) / joint[BASE.scenes.index("cemetery")].sum(),
    )
    assert set(alpha) == set(BASE.alpha())


def test_the_eight_emotions_have_the_rule_that_they_had() -> None:
    rule = rule_of(())
    np.testing.assert_allclose(rule.table, BASE.joint())
    for key, row in BASE.alpha().items():
        np.testing.assert_allclose(rule.alpha()[key], row)


@pytest.mark.parametrize("name", ["six", "two", "own"])
def test_what_is_drawn_follows_the_rule(name: str) -> None:
    """The share that the Bayes judge names right comes near the ceiling."""
    rule, count = rule_of(CLASSES[name]), 6000
    drawn = [draw_class(image_rng(3, "test", i), CLASSES[name]) for i in range(count)]
    shares = Counter(label.emotion for label in drawn)
    for label in rule.labels:
        assert shares[label] / count == pytest.approx(1 / len(rule.labels), abs=0.02)
    hits = [
        rule.labels[int(rule.posterior(rule.scenes.index(x.scene), rule.objects.index(x.object)).argmax())]
        == x.emotion
        for x in drawn
    ]
    assert np.mean(hits) == pytest.approx(rule.ceiling().both, abs=0.02)


def test_the_eight_emotions_are_drawn_as_ever() -> None:
    for index in range(20):
        rngs = image_rng(0, "train", index), image_rng(0, "train", index)
        assert draw_class(rngs[0], ()) == draw_label(rngs[1])
        assert rngs[0].random() == rngs[1].random()


@pytest.mark.parametrize("name", ["six", "two", "own"])
def test_a_sketch_in_other_classes_is_read_back(name: str, tmp_path: Path) -> None:
    space, classes = SPACES[name], CLASSES[name]
    options = {"train": 24, "val": 4, "test": 4, "seed": 0, "size_px": 32}
    write_sketch(tmp_path / "set", **options, classes=classes)
    folder = EmoSetFolder(tmp_path / "set", space)
    entries = [entry for split in SPLITS for entry in folder.entries(split)]
    assert len(entries) == 32
    assert {entry.emotion for entry in entries} == set(space.labels)
    readme = (tmp_path / "set" / "README.txt").read_text()
    assert f"{rule_of(classes).ceiling().both:.1%} from both" in readme
    assert all(", ".join(emotions) in readme for _, emotions in classes)
    write_sketch(tmp_path / "set", **options, classes=classes)  # finished: left as it is
    with pytest.raises(ValueError, match=r"another EmoSketch \(classes"):
        write_sketch(tmp_path / "set", **options)
    with pytest.raises(ValueError, match=r"another EmoSketch \(classes"):
        write_sketch(tmp_path / "set", **options, classes=classes[::-1])


def test_a_sketch_of_the_eight_emotions_says_nothing_of_classes(tmp_path: Path) -> None:
    write_sketch(tmp_path / "set", train=64, val=1, test=1, seed=0, size_px=32)
    marker = json.loads((tmp_path / "set" / SETTINGS_FILE).read_text())
    assert list(marker) == ["format", "train", "val", "test", "seed", "size_px", "drawing"]
    assert EmoSetFolder(tmp_path / "set").space == MIKELS


def settings(**changes: object) -> DataConfig:
    own = {"labels": list(OWN.labels), "sketch_classes": OWN_CLASSES, "valences": OWN.valences}
    return DataConfig.model_validate(own | changes if changes.pop("is_own", True) else changes)


@pytest.mark.parametrize(
    ("labels", "space"), [("mikels", MIKELS), ("ekman", EKMAN), ("sentiment", SENTIMENT)]
)
def test_the_rule_of_a_run_has_its_classes(labels: str, space: LabelSpace) -> None:
    data = settings(is_own=False, labels=labels)
    rule = sketch_rule(data)
    assert rule is not None
    assert len(rule.posterior(0, 0)) == len(space.labels)
    assert (rule is BASE) == (labels == "mikels")


def test_the_rule_of_own_labels_and_of_their_valences() -> None:
    rule = sketch_rule(settings())
    assert rule is not None
    assert rule.posterior(1, 2) == pytest.approx(rule_of(CLASSES["own"]).posterior(1, 2))
    two = sketch_rule(settings(valence=True))
    assert two is not None
    calm, tense, _ = rule.posterior(1, 2)
    assert two.posterior(1, 2) == pytest.approx([calm / (calm + tense), tense / (calm + tense)])


def test_the_valences_of_the_eight_emotions_are_sentiment() -> None:
    by_valence = sketch_rule(settings(is_own=False, valence=True))
    two = sketch_rule(settings(is_own=False, labels="sentiment"))
    assert by_valence is not None
    assert two is not None
    assert by_valence.ceiling().both == pytest.approx(two.ceiling().both)


def test_other_data_sets_have_no_rule() -> None:
    data = settings(is_own=False, kind="folders", root="/data", labels=["calm", "tense"])
    assert sketch_rule(data) is None
    assert classes_in(data) == ()
