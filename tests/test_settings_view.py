"""A step sees what it declares and nothing else, also on a worker."""

import pickle

import pytest

from uniemo_ray.settings_file import load_config
from uniemo_ray.settings_view import UndeclaredSettingError, setting, unread, view_of

CONFIG = load_config(None, ["diffusion.size_px=32", "stage1.rates.heads=0.5"])


def test_declared_settings_read_like_the_config():
    view = view_of(CONFIG, "s", ["diffusion.size_px", "stage1", "seed"])
    assert view.diffusion.size_px == 32
    assert view.stage1.rates.heads == 0.5
    assert view.seed == CONFIG.seed


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda c: c.diffusion.steps, "diffusion.steps"),
        (lambda c: c.losses, "losses"),
        (lambda c: c.seed, "seed"),
        (lambda c: c.stage1.rates.tower, "stage1.rates.tower"),
    ],
)
def test_anything_else_is_refused_by_step_and_name(read, name):
    view = view_of(CONFIG, "reference-real", ["diffusion.size_px", "stage1.rates.heads"])
    with pytest.raises(UndeclaredSettingError, match=f"reference-real reads {name} .*step_tables"):
        read(view)


def test_what_decides_when_is_free_for_all():
    view = view_of(CONFIG, "s", ["seed"])
    assert view.resources.workers == CONFIG.resources.workers
    assert view.stage2.checkpoint_every_s == 30
    assert view.generation.retries == 2
    with pytest.raises(UndeclaredSettingError):
        _ = view.generation.per_emotion


def test_a_view_stays_strict_on_a_worker():
    view = view_of(CONFIG, "s", ["diffusion.size_px", "seed"])
    there = pickle.loads(pickle.dumps(view.diffusion))
    assert there.size_px == 32
    with pytest.raises(UndeclaredSettingError):
        _ = there.steps
    whole = pickle.loads(pickle.dumps(view))
    assert whole.diffusion.size_px == 32
    with pytest.raises(UndeclaredSettingError):
        _ = whole.losses


def test_the_error_travels():
    error = pickle.loads(pickle.dumps(UndeclaredSettingError("s", "a.b")))
    assert (error.step, error.setting) == ("s", "a.b")


def test_declared_and_never_read_is_found():
    view = view_of(CONFIG, "s", ["diffusion.size_px", "diffusion.steps", "losses", "filter", "seed"])
    assert unread(view) == ["diffusion.size_px", "diffusion.steps", "filter", "losses", "seed"]
    _ = view.diffusion.size_px, view.losses.margin
    assert unread(view) == ["diffusion.steps", "filter", "seed"]
    pickle.dumps(view.diffusion)  # sent to a worker, where it may be read
    assert unread(view) == ["filter", "seed"]
    pickle.dumps(view)
    assert unread(view) == []


def test_what_is_free_for_all_may_be_declared_as_deciding():
    view = view_of(CONFIG, "s", ["resources.use_gpu"])
    assert view.resources.use_gpu is False
    assert unread(view) == []


def test_methods_of_a_section_are_no_way_around():
    view = view_of(CONFIG, "s", ["diffusion.size_px"])
    with pytest.raises(UndeclaredSettingError, match=r"diffusion\.model"):
        view.diffusion.model_dump()
    with pytest.raises(AttributeError, match="model_copy"):
        view.diffusion.model_copy()
    assert view_of(CONFIG, "s", ["filter"]).filter.model_dump() == CONFIG.filter.model_dump(mode="json")


def test_a_name_that_is_no_setting_is_found_at_once():
    with pytest.raises(ValueError, match=r"'diffusion\.size' is no setting"):
        view_of(CONFIG, "s", ["diffusion.size"])


def test_setting_leaves_out_what_decides_only_when():
    assert "checkpoint_every_s" not in setting(CONFIG, "stage1")
    assert setting(CONFIG, "filter.eta") == 20


@pytest.mark.parametrize(
    ("name", "value"), [("ema_decay", 0.9), ("reduce_dtype", "bf16"), ("stop_after_epochs_without_gain", 3)]
)
def test_settings_that_came_later_are_in_a_fingerprint_only_where_they_change_something(name, value):
    assert name not in setting(CONFIG, "stage1")
    assert name not in setting(view_of(CONFIG, "s", ["stage1"]), "stage1")
    changed = load_config(None, [f"stage1.{name}={value}"])
    assert setting(changed, "stage1")[name] == value
    assert name not in setting(changed, "stage2")


@pytest.mark.parametrize("name", ["keep_epoch=best", "stop_after_epochs_without_gain=2"])
def test_judging_epochs_without_validation_is_refused(name):
    with pytest.raises(ValueError, match="validate_on is 'none': choose a split to judge by"):
        load_config(None, [f"stage2.{name}", "stage2.validate_on=none"])
