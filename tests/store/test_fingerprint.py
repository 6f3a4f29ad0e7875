"""The same settings have the same hash, everywhere."""

import subprocess
import sys
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uniemo_ray.config import FilterConfig
from uniemo_ray.store.fingerprint import canonical, fingerprint

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(list(value))}
    return [reordered(item) for item in value] if isinstance(value, list) else value


@given(PLAIN)
def test_order_of_keys_does_not_count(value: Any) -> None:
    assert fingerprint(value) == fingerprint(reordered(value))


def test_a_known_value_never_changes() -> None:
    # A change here hides every finished step of every run: raise the format of run folders with it.
    value = {"b": [1, 2.5, None, True], "a": "ä"}
    assert fingerprint(value) == "f11879da5f07e5304f3e2fa90e91313646b96ea08b34961027ea6065eb2054b6"


def test_the_same_in_other_processes() -> None:
    code = (
        "from uniemo_ray.store.fingerprint import fingerprint; from uniemo_ray.config import FilterConfig;"
        "print(fingerprint({'filter': FilterConfig(eta=15), 'names': {n: 1 for n in sorted(set('xyzabc'))}}))"
    )
    found = set()
    for seed in ("1", "2"):
        env = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        found.add(
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout
        )
    here = fingerprint({"names": dict.fromkeys("zyxcba", 1), "filter": FilterConfig(eta=15)})
    assert found == {here.encode() + b"\n"}


def test_every_value_counts() -> None:
    values: list[Any] = [1, 1.5, True, "1", None, [1], [1, 1], {"a": 1}, {"b": 1}, {"a": [1]}, {}, []]
    assert len({fingerprint(value) for value in values}) == len(values)


def test_whole_numbers_are_one_value() -> None:
    assert (
        fingerprint(FilterConfig())
        == fingerprint(FilterConfig(eta=20.0))
        == fingerprint(FilterConfig(eta=20))
    )


def test_models_paths_and_tuples_become_plain() -> None:
    plain = canonical({"filter": FilterConfig(), "path": PurePosixPath("a/b"), "size": (1, 2)})
    assert plain["filter"]["eta"] == 20.0
    assert plain["filter"]["criteria"] == ["emo", "sem"]
    assert plain["path"] == "a/b"
    assert plain["size"] == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, float("nan")]}, r"settings\.a\[1\]: expected a finite number, got nan"),
        ({"a": {1: 2}}, r"settings\.a: expected text as a key, got 1"),
        ({"a": {1, 2}}, r"settings\.a: set has no stable JSON form"),
        (object(), "settings: object has no stable JSON form"),
    ],
)
def test_what_has_no_stable_form_is_named(value: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        fingerprint(value)
