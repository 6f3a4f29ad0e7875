"""How a job's table becomes the steps of a pipeline.

A step is skipped when neither its `reads`, nor its `facts`, nor the steps it comes `after` have changed. Its
function gets a view of the config that refuses all other settings: it cannot depend on more than it declares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from uniemo_ray.config import Config
from uniemo_ray.pools import PoolName, find_painters
from uniemo_ray.settings_view import is_as_before, setting, view_of
from uniemo_ray.store.steps import Pipeline, Place, StepContext, StepOutput

DEVICE = "resources.use_gpu"
"""Setting of which a fingerprint keeps whether images are made on GPUs, and nothing else of pools."""


class StepFunction(Protocol):
    """Does a step's work."""

    def __call__(self, context: StepContext, config: Config, /) -> StepOutput:
        """Work in the context's folder, with the settings that the step declares."""
        ...


@dataclass(frozen=True)
class Row:
    """One step of a job."""

    name: str
    run: StepFunction
    reads: Sequence[str] = ()
    """Settings and whole sections that decide its result; all that its function gets to see."""
    after: Sequence[str] = ()
    """Steps whose results it uses."""
    grows_by: Sequence[str] | None = None
    """For a step that adds to a smaller run of itself: which of `reads` may grow, none if only inputs do."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What decides its result and is no setting, such as a model's fingerprint."""
    place: Place = "driver"
    """What does its work. Steps of the driver run one at a time."""
    pool: PoolName | None = None
    """Which machines do its work; None for a step that the driver does alone."""
    round_: int | None = None
    """Whose number of epochs counts, see `Config.for_round`."""


def declare(pipeline: Pipeline, config: Config, table: Sequence[Row]) -> dict[str, Config]:
    """Declare a table's steps on a pipeline.

    Args:
        pipeline: gets the steps, in the table's order.
        config: of the run.
        table: of the job.

    Returns:
        Each step's view of the config; `unread` tells what it has declared and never read.

    Raises:
        ValueError: a name in `reads` that is no setting, or steps that do not fit together.
    """
    views = {}
    for row in table:
        view, settings = view_of_row(row, config)
        run = partial(_run, row.run, view)
        pipeline.step(
            row.name,
            run=run,
            settings=settings,
            inputs=row.after,
            grows_by=row.grows_by,
            place=row.place,
            pool=row.pool or "",
        )
        views[row.name] = view
    return views


def view_of_row(row: Row, config: Config) -> tuple[Config, dict[str, object]]:
    """A step's view of the config, and the plain values that decide its result.

    Raises:
        ValueError: a name in `reads` that is no setting.
    """
    own = config if row.round_ is None else config.for_round(row.round_)
    read = {name: setting(own, name) for name in row.reads}
    settings = {name: value for name, value in read.items() if not is_as_before(name, value)}
    settings |= row.facts
    if DEVICE in settings:  # the kind of processor decides bytes, whichever setting has chosen it
        settings[DEVICE] = find_painters(own).gpus > 0
    return view_of(own, row.name, row.reads), settings


def _run(function: StepFunction, view: Config, context: StepContext) -> StepOutput:
    return function(context, view)
