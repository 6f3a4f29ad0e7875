"""A config that shows a step the settings it declares, and refuses all others.

A step is skipped when nothing it depends on has changed. That is only right if it reads nothing else.
"""

from collections.abc import Iterable
from typing import Any, cast

from pydantic import BaseModel

from uniemo_ray.config import Config

WHEN_NOT_WHAT = (
    "run",
    "resources",
    "tracking",
    "generation.actors",
    "generation.retries",
    "generation.score",
    "filter.on_empty",
    "stage1.checkpoint_every_s",
    "stage1.checkpoint_share",
    "stage1.decode",
    "stage1.keep_checkpoints",
    "stage2.checkpoint_every_s",
    "stage2.checkpoint_share",
    "stage2.decode",
    "stage2.keep_checkpoints",
)
"""Settings that every step may read: they decide where and when something happens, not what comes out."""


SAME_AS_BEFORE: dict[str, object] = {
    f"{stage}.{name}": value
    for stage in ("stage1", "stage2")
    for name, value in (
        ("reduce_dtype", "fp32"),
        ("ema_decay", None),
        ("stop_after_epochs_without_gain", None),
    )
} | {
    "generation.prompt": None,
    "emotion_space.kind": "gaussian",
    "emotion_space.components": [1, 2, 4, 8, 16],
    "emotion_space.jitter": 0.3,
    "emotion_space.sample": 1024,
    "data.valences": {},
    "data.sketch_classes": {},
}
"""Settings that came after runs were made, with the value by which results are as before. With that value
they are in no fingerprint, so that older runs are not made anew."""


class UndeclaredSettingError(RuntimeError):
    """A step has read a setting that does not decide whether it is skipped."""

    def __init__(self, step: str, setting: str) -> None:
        super().__init__(
            f"step {step} reads {setting} without declaring it, so it would be skipped after that setting "
            f"has changed: add {setting!r} to its `reads` in loop/step_tables.py"
        )
        self.step, self.setting = step, setting

    def __reduce__(self) -> tuple[type["UndeclaredSettingError"], tuple[str, str]]:
        """Travel from a worker to the driver."""
        return type(self), (self.step, self.setting)


class SettingsView:
    """One section of a config, or all of it, as far as a step may read it.

    It reads like the section itself. Pickled for a worker it stays as strict there.
    """

    def __init__(self, section: BaseModel, *, step: str, path: str, reads: frozenset[str]) -> None:
        self._section, self._step, self._path, self._reads = section, step, path, reads
        self._seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        """The value of a declared setting, or a view of a section with such settings in it."""
        if name.startswith("_"):
            raise AttributeError(name)
        section: BaseModel = self._section
        if name not in type(section).model_fields:
            raise AttributeError(f"a step's view of {self._path or 'the config'} has no {name!r}")
        setting, value = f"{self._path}{name}", getattr(section, name)
        if setting in WHEN_NOT_WHAT:
            return value
        if isinstance(value, BaseModel) and _overlaps(setting, (*self._reads, *WHEN_NOT_WHAT)):
            inner = SettingsView(value, step=self._step, path=f"{setting}.", reads=self._reads)
            inner._seen = self._seen
            return inner
        if not any(_covers(read, setting) for read in self._reads):
            raise UndeclaredSettingError(self._step, setting)
        self._seen.add(setting)
        return value

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        """All of the section as plain values, if the step has declared all of it.

        Raises:
            UndeclaredSettingError: a setting in it is not declared.
        """
        fields = type(self._section).model_fields
        return {field: _plain(getattr(self, field), f"{self._path}{field}") for field in fields}

    def __reduce__(self) -> tuple[Any, ...]:
        """What leaves the driver counts as read: where it arrives, nobody tells this process."""
        self._seen.update(read for read in self._reads if _overlaps(self._path.rstrip("."), (read,)))
        return _rebuild, (self._section, self._step, self._path, self._reads)


def view_of(config: Config, step: str, reads: Iterable[str]) -> Config:
    """The config as a step may read it.

    Args:
        config: The run's settings.
        step: Name for messages.
        reads: Dotted names of settings and of whole sections.

    Raises:
        ValueError: a name that is no setting.
    """
    for read in reads:
        setting(config, read)
    return cast(Config, SettingsView(config, step=step, path="", reads=frozenset(reads)))


def unread(view: Config) -> list[str]:
    """Declared settings that nothing has read through this view so far, and sections of which nothing has.

    What every step may read is not among them: nobody notes who does.
    """
    inner = cast(SettingsView, view)
    noted = [read for read in inner._reads if not any(_covers(free, read) for free in WHEN_NOT_WHAT)]
    return sorted(r for r in noted if not any(_covers(r, s) or _covers(s, r) for s in inner._seen))


def setting(config: Config, name: str) -> Any:
    """The plain JSON value at a dotted name, of a config or of a step's view of one.

    Sections come without what decides only when something happens.

    Raises:
        ValueError: there is no such setting.
        UndeclaredSettingError: the view does not show it.
    """
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, BaseModel | SettingsView) or part not in _fields(value):
            raise ValueError(f"{name!r} is no setting")
        value = getattr(value, part)
    return _plain(value, name)


def _plain(value: Any, name: str) -> Any:
    if isinstance(value, tuple):
        return [_plain(item, name) for item in value]
    if not isinstance(value, BaseModel | SettingsView):
        return value
    inner = {field: f"{name}.{field}" for field in _fields(value)}
    kept = {field: path for field, path in inner.items() if path not in WHEN_NOT_WHAT}
    plain = {field: _plain(getattr(value, field), path) for field, path in kept.items()}
    return {field: item for field, item in plain.items() if not is_as_before(kept[field], item)}


def is_as_before(name: str, value: object) -> bool:
    """Whether a plain value at a dotted name is that of runs that did not have the setting yet."""
    is_new_section = value == {} and any(_covers(name, new) for new in SAME_AS_BEFORE)
    return is_new_section or (name in SAME_AS_BEFORE and SAME_AS_BEFORE[name] == value)


def _fields(section: Any) -> Iterable[str]:
    return type(section._section if isinstance(section, SettingsView) else section).model_fields


def _rebuild(section: BaseModel, step: str, path: str, reads: frozenset[str]) -> SettingsView:
    return SettingsView(section, step=step, path=path, reads=reads)


def _covers(read: str, setting: str) -> bool:
    return setting == read or setting.startswith(f"{read}.")


def _overlaps(section: str, names: Iterable[str]) -> bool:
    return any(not section or _covers(section, name) or _covers(name, section) for name in names)
