"""`study.json`: what a study measured and what it says of the claims, as frozen pydantic models.

Values are as the metrics give them: shares in [0, 1], never in percent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from uniemo_ray.experiments.claims import Verdict, judge, sentence
from uniemo_ray.experiments.expansion import ArmSeed
from uniemo_ray.experiments.metrics import ACCURACY, known_metrics
from uniemo_ray.experiments.paired import Values, compare, mean_interval
from uniemo_ray.experiments.study import Size, Study
from uniemo_ray.settings_base import Settings

ByImage = Mapping[str, float]
"""A value for each test image, by its id."""


class Column(Settings):
    """One metric of the study."""

    name: str
    """As the paper calls it."""
    key: str
    """As `summary.json` calls it."""
    label: str
    direction: Literal["up", "down"]
    """Which way is better."""
    is_share: bool
    """Printed in percent."""
    meaning: str

    @property
    def factor(self) -> float:
        """Of a value in print."""
        return 100.0 if self.is_share else 1.0


class Cell(Settings):
    """One arm in one metric."""

    values: tuple[float, ...]
    """One for each seed, in the study's order."""
    mean: float
    low: float | None
    """Ends of the 95 % interval of the mean over seeds (Student's t); None with one seed."""
    high: float | None


class ArmResult(Settings):
    """One arm."""

    name: str
    label: str
    settings: dict[str, Any]
    """What it sets, by dotted name."""
    until: str
    x: float | None
    published: dict[str, float]
    """The paper's figures by column, as the paper prints them."""
    images_seen: tuple[int, ...]
    """Images that its trainings saw, one number for each seed."""
    cells: dict[str, Cell]
    """By column."""


class ClaimResult(Settings):
    """One claim."""

    claim: str
    verdict: Verdict | Literal["no interval"]
    sentence: str
    mean: float
    """Of the left arm minus the right one."""
    low: float | None
    high: float | None
    seeds: int
    images: int
    seeds_needed: int | None


class Work(Settings):
    """What the study cost."""

    steps: int
    """Steps that were made, each once."""
    asked: int
    """Steps that the arms would have made alone."""
    hours: float
    """Sum of the steps' times, of the attempts that finished."""
    finished_at: str
    """When the last step finished, ISO 8601."""


class StudyResult(Settings):
    """A whole study."""

    format: Literal[1] = 1
    study: str
    size: Size
    title: str
    source: str
    question: str
    form: Literal["bars", "curve", "table"]
    x_label: str
    seeds: tuple[int, ...]
    columns: tuple[Column, ...]
    arms: tuple[ArmResult, ...]
    claims: tuple[ClaimResult, ...]
    test_images: int
    ceiling: float | None
    """Best accuracy that anyone can reach; known for EmoSketch alone."""
    common: dict[str, Any]
    """Settings that were the same in all arms, without those at their default."""
    work: Work
    environment: dict[str, str]


@dataclass(frozen=True)
class Measured:
    """What one arm gave with one seed."""

    hits: ByImage
    """1 for each test image whose emotion was recognised, else 0; empty if it was not asked for."""
    metrics: Mapping[str, float | None]
    """Metrics of its images by key, one number each."""
    images_seen: int


def columns_of(study: Study, size: Size) -> tuple[Column, ...]:
    """What the study measures."""
    known = known_metrics()
    return tuple(Column(name=name, **asdict(known[study.key_of(name, size)])) for name in study.columns)


def table_of(measured: Mapping[ArmSeed, Measured], arm: str, seeds: Sequence[int], key: str) -> Values:
    """Values (S, M) of an arm by seed and test image, (S, 1) for one number per seed.

    Raises:
        ValueError: arms or seeds that were not tested on the same images, or a metric without a value.
    """
    rows = [measured[ArmSeed(arm, seed)] for seed in seeds]
    if key == ACCURACY:
        ids = sorted(next(iter(measured.values())).hits)
        if any(row.hits.keys() != set(ids) for row in rows):
            raise ValueError(f"arm {arm!r} was tested on other images than the first arm")
        return np.array([[row.hits[image] for image in ids] for row in rows])
    values = [row.metrics.get(key) for row in rows]
    if None in values:
        raise ValueError(f"arm {arm!r} gave no {key} with seed {seeds[values.index(None)]}")
    return np.array(values, np.float64)[:, None]


def cell_of(table: Values) -> Cell:
    """One arm in one metric, of its values (S, M)."""
    by_seed = table.mean(axis=1)
    mean, low, high = mean_interval(by_seed)
    is_known = len(by_seed) > 1
    return Cell(
        values=tuple(by_seed.tolist()),
        mean=mean,
        low=low if is_known else None,
        high=high if is_known else None,
    )


def judge_claims(
    study: Study, tables: Mapping[tuple[str, str], Values], *, size: Size, with_intervals: bool
) -> tuple[ClaimResult, ...]:
    """Every claim of the study.

    Args:
        study: with its claims.
        tables: values (S, M) by arm and column.
        size: of the run.
        with_intervals: whether there are seeds enough.
    """
    columns, found = {column.name: column for column in columns_of(study, size)}, []
    for claim in study.read_claims:
        left, right = (tables[arm, claim.metric] for arm in (claim.left, claim.right))
        column = columns[claim.metric]
        names = study.arms[claim.left].label, study.arms[claim.right].label
        if not with_intervals:
            mean = float((left - right).mean())
            said = (
                f"{column.label}, “{names[0]}” minus “{names[1]}”: {mean:+z.4f}; no interval with one seed."
            )
            found.append(
                ClaimResult(
                    claim=str(claim),
                    verdict="no interval",
                    sentence=said,
                    mean=mean,
                    low=None,
                    high=None,
                    seeds=len(left),
                    images=left.shape[1],
                    seeds_needed=None,
                )
            )
            continue
        difference = compare(left, right)
        said = sentence(
            claim,
            difference,
            left=names[0],
            right=names[1],
            metric=column.label,
            factor=column.factor,
            unit=" points" if column.is_share else "",
        )
        found.append(
            ClaimResult(
                claim=str(claim),
                verdict=judge(claim, difference),
                sentence=said,
                **asdict(difference),
            )
        )
    return tuple(found)


def arm_results(
    study: Study,
    measured: Mapping[ArmSeed, Measured],
    tables: Mapping[tuple[str, str], Values],
    *,
    size: Size,
    seeds: Sequence[int],
) -> tuple[ArmResult, ...]:
    """Every arm with its cells."""
    return tuple(
        ArmResult(
            name=name,
            label=arm.label,
            settings=study.settings_of(name, size),
            until=study.until(name, size),
            x=arm.x,
            published=dict(arm.published),
            images_seen=tuple(measured[ArmSeed(name, seed)].images_seen for seed in seeds),
            cells={column: cell_of(tables[name, column]) for column in study.columns},
        )
        for name, arm in study.arms.items()
    )
