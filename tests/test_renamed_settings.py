"""An old name of a setting is refused with the new name; everything else passes unchanged."""

import pytest

from uniemo_ray.renamed_settings import refuse_renamed

NEW_NAMES = {"old_name": "new_name", "older_name": "newer_name"}


@pytest.mark.parametrize("values", [{}, {"new_name": 1}, {"unknown": 1}, None, "text", 3])
def test_other_values_pass_unchanged(values):
    assert refuse_renamed(values, NEW_NAMES) is values


@pytest.mark.parametrize(("old", "new"), NEW_NAMES.items())
def test_an_old_name_is_refused_with_the_new_one(old, new):
    with pytest.raises(ValueError, match=f"^{old} was renamed: write {new} instead$"):
        refuse_renamed({"other": 1, old: 2}, NEW_NAMES)
