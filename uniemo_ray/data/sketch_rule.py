"""The exact rule of a run's EmoSketch, in the classes that the run tells apart."""

from uniemo_ray.config import DataConfig
from uniemo_ray.data.emosketch.classes import Classes, ExactRule, classes_of, rule_of
from uniemo_ray.data.emosketch.rule import load_rule
from uniemo_ray.data.readers import named_space
from uniemo_ray.emotions import SENTIMENT


def classes_in(data: DataConfig) -> Classes:
    """What the labels of the run's EmoSketch stand for; empty for another data set."""
    named, own = named_space(data), data.sketch_classes
    return classes_of(named, own) if data.kind == "sketch" else ()


def sketch_rule(data: DataConfig) -> ExactRule | None:
    """What is known exactly of the run's pictures, or None where they are no EmoSketch."""
    space, classes, is_by_valence = named_space(data), classes_in(data), data.valence
    if data.kind != "sketch":
        return None
    if is_by_valence:
        sides = {
            side: [name for name, own in space.valences.items() if own == side] for side in SENTIMENT.labels
        }
        return rule_of(classes).merged(SENTIMENT.labels, sides)
    return rule_of(classes) if classes else load_rule()
