"""A study as it is written in a YAML file, at the size that was asked for."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from uniemo_ray.addresses import local_path
from uniemo_ray.config import Config
from uniemo_ray.experiments.claims import Claim, read_claim
from uniemo_ray.experiments.metrics import Until, known_metrics, why_missing
from uniemo_ray.settings_base import Settings
from uniemo_ray.settings_file import PRESETS, build_config
from uniemo_ray.text import one_line

STUDIES = PRESETS / "studies"
SIZES = ("embedded", "paper")
Size = Literal["embedded", "paper"]
FIXED = ("run", "data", "resources", "seed", "evaluation")
"""Sections that are the same in all arms: data, test set, machines, seeds and what is measured."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class Arm(Settings):
    """One way to run the method."""

    label: str
    """Its name for readers."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings by dotted name, over those of the study's size."""
    until: Until | None = None
    """How far it goes; None means as far as the study's size says."""
    published: dict[Name, float] = Field(default_factory=dict)
    """The paper's figures by column, as the paper prints them."""
    x: float | None = None
    """Its place on the horizontal axis of a curve."""


class StudySize(Settings):
    """One size of a study."""

    config: dict[str, Any]
    """Settings of all arms, as in a config file: `preset` and `config` name what they lie on."""
    until: Until
    """How far an arm goes."""
    measured_as: dict[Name, str] = Field(default_factory=dict)
    """Columns whose metric has another key at this size, such as `emo_a: emo_a_exact`."""
    arms: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Settings of single arms that differ at this size."""


class Study(Settings):
    """Arms that differ in named settings, the seeds that pair them, and what is claimed of them."""

    title: str
    """What is studied, for readers."""
    source: str
    """Table or figure of the paper, or `ours`."""
    question: str
    """One sentence that the study answers."""
    form: Literal["bars", "curve", "table"]
    """How the paper shows it."""
    x_label: str = ""
    """Horizontal axis of a curve."""
    seeds: int = Field(5, ge=1)
    """Seeds from 0 on."""
    columns: tuple[Name, ...]
    """What is measured, by the paper's names."""
    arms: dict[Name, Arm] = Field(min_length=2)
    """By name, in the paper's order."""
    claims: tuple[str, ...] = ()
    """Such as `multi_stage > none in accuracy`."""
    sizes: dict[Size, StudySize] = Field(min_length=1)
    """By name."""

    @field_validator("claims")
    @classmethod
    def _are_claims(cls, claims: tuple[str, ...]) -> tuple[str, ...]:
        for text in claims:
            read_claim(text)
        return claims

    @model_validator(mode="after")
    def _claims_name_what_is_there(self) -> "Study":
        for claim in self.read_claims:
            for arm in (claim.left, claim.right):
                if arm not in self.arms:
                    raise ValueError(f"claim '{claim}': there is no arm {arm!r}, only {', '.join(self.arms)}")
            if claim.metric not in self.columns:
                raise ValueError(
                    f"claim '{claim}': {claim.metric!r} is not measured, only {', '.join(self.columns)}"
                )
        for name, size in self.sizes.items():
            for arm in size.arms:
                if arm not in self.arms:
                    raise ValueError(f"sizes.{name}.arms: there is no arm {arm!r}")
            for column in self.columns:
                if self.key_of(column, name) not in known_metrics():
                    raise ValueError(
                        f"sizes.{name}: there is no metric {self.key_of(column, name)!r}, only "
                        f"{', '.join(known_metrics())}"
                    )
        return self

    @property
    def read_claims(self) -> tuple[Claim, ...]:
        """The claims, taken apart."""
        return tuple(read_claim(text) for text in self.claims)

    def key_of(self, column: str, size: Size) -> str:
        """The metric behind a column."""
        return self.sizes[size].measured_as.get(column, column)

    def until(self, arm: str, size: Size) -> Until:
        """How far an arm goes."""
        return self.arms[arm].until or self.sizes[size].until

    def settings_of(self, arm: str, size: Size) -> dict[str, Any]:
        """What an arm sets, by dotted name."""
        return {**self.arms[arm].set, **self.sizes[size].arms.get(arm, {})}


def study_names() -> list[str]:
    """The studies that the package brings, sorted."""
    return sorted(path.stem for path in STUDIES.glob("*.yaml"))


def read_study(text: str) -> tuple[str, Study]:
    """A shipped study by name, or one from a YAML file; with its name.

    Raises:
        ValueError: one line that names the file, and what is wrong in it.
    """
    path = local_path(text)
    if not path.is_file():
        if len(path.parts) > 1 or path.suffix or text not in study_names():
            raise ValueError(
                f"there is no study {text!r}: expected a YAML file or {', '.join(study_names())}"
            )
        path = STUDIES / f"{text}.yaml"
    return path.stem, _parse(path)


def _parse(path: Path) -> Study:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Study.model_validate(values)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"study {path} is no valid YAML: {one_line(error)}") from None
    except ValidationError as error:
        faults = []
        for item in error.errors():
            where = ".".join(str(part) for part in item["loc"])
            what = item["msg"].removeprefix("Value error, ")
            faults.append(f"{where}: {what}" if where else what)
        raise ValueError(f"study {path.name}: {'; '.join(faults)}") from None


def arm_config(study: Study, arm: str, *, size: Size, overrides: list[str]) -> Config:
    """The settings of one arm, with seed 0.

    Args:
        study: that has the arm.
        arm: its name.
        size: one of the study's.
        overrides: of the command line, `A.B=VALUE`; they lie below what the arm sets.

    Raises:
        ValueError: one line: a setting that does not exist, or that must be the same in all arms.
    """
    own = study.settings_of(arm, size)
    for name in own:
        section = name.partition(".")[0]
        if section in FIXED:
            raise ValueError(
                f"arm {arm!r} sets {name}, but {section} must be the same in all arms: only then are they "
                f"compared on the same data and test images"
            )
    return build_config(
        dict(study.sizes[size].config), overrides=overrides, over=own, source=f"arm {arm!r} of the study"
    )


def check_study(study: Study, configs: dict[str, Config], *, size: Size) -> None:
    """Refuse an arm that lacks what is measured of it.

    Raises:
        ValueError: one line that names the arm, the metric and why it is not there.
    """
    for column in study.columns:
        key = study.key_of(column, size)
        for arm, config in configs.items():
            why = why_missing(key, config, until=study.until(arm, size))
            if why is not None:
                raise ValueError(f"arm {arm!r} has no {column} ({key}): {why}")


def choose_seeds(study: Study, given: int | None, *, with_intervals: bool) -> tuple[int, ...]:
    """The seeds of a run, from 0 on.

    Raises:
        ValueError: one seed, and intervals asked for.
    """
    count = study.seeds if given is None else given
    if count < 1:
        raise ValueError(f"--seeds expects 1 or more, got {count}")
    if count == 1 and with_intervals:
        raise ValueError(
            "one seed says nothing about the spread between seeds, so there is no interval: give --seeds 2 "
            "or more, or --no-intervals"
        )
    return tuple(range(count))
