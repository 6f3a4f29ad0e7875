"""What a model has seen in training, in words for people who use it."""

import yaml

DRAWN = "emosketch"
"""Data sets of drawings have it in their type."""


def trained_on(card: str) -> str:
    """The data set of a model card and the kind of its pictures; empty if the card does not name one."""
    front = card.split("---\n", 2)
    try:
        [model, *_] = yaml.safe_load(front[1])["model-index"]
        data = model["results"][0]["dataset"]
        name, kind = str(data["name"]), str(data["type"])
    except (yaml.YAMLError, IndexError, KeyError, TypeError, ValueError):
        return ""
    return f"drawings ({name})" if DRAWN in kind else f"the pictures of {name}"
