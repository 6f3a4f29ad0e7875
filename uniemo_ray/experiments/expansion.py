"""Tables of several arms as one list of steps: what two arms have in common is one step.

A step's name ends in a hash of everything that its result depends on, so that equal steps of two arms, or of
two submissions, have one name and one folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from uniemo_ray.config import Config
from uniemo_ray.loop.declare import Row, view_of_row
from uniemo_ray.store.fingerprint import fingerprint
from uniemo_ray.store.record import StepRecord
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput

DIGITS = 12


class ArmSeed(NamedTuple):
    """One arm with one seed."""

    arm: str
    seed: int


@dataclass(frozen=True)
class SharedStep:
    """A step of one or more arms."""

    name: str
    """Of the row, `@` and hex digits."""
    row: Row
    config: Config
    """Of the first arm that has it; what the step reads is equal in all of them."""
    inputs: Mapping[str, str]
    """Name of each input in its table, to its name here."""


@dataclass(frozen=True)
class Expansion:
    """The steps of a study."""

    steps: tuple[SharedStep, ...]
    """Each after its inputs."""
    names: Mapping[ArmSeed, Mapping[str, str]]
    """Names in an arm's own table, to those of the steps."""

    @property
    def asked(self) -> int:
        """Steps that the arms would make if none were shared."""
        return sum(len(own) for own in self.names.values())


class Plan(NamedTuple):
    """What one arm with one seed asks for."""

    config: Config
    table: Sequence[Row]
    targets: frozenset[str]
    """Names of the rows whose results are wanted."""


def expand(plans: Mapping[ArmSeed, Plan]) -> Expansion:
    """The steps of all arms that lead to their targets, equal ones once.

    Args:
        plans: in the order in which they should run.

    Raises:
        ValueError: a target that the table does not have.
    """
    steps, names = dict[str, SharedStep](), dict[ArmSeed, dict[str, str]]()
    for key, (config, table, targets) in plans.items():
        needed, own = ancestors(table, targets), dict[str, str]()
        for row in table:
            if row.name not in needed:
                continue
            inputs = {other: own[other] for other in row.after}
            name = f"{row.name}@{content_hash(row, config, inputs)}"
            steps.setdefault(name, SharedStep(name, row, config, inputs))
            own[row.name] = name
        names[key] = own
    return Expansion(tuple(steps.values()), names)


def ancestors(table: Sequence[Row], targets: Iterable[str]) -> set[str]:
    """The targets, and everything that they come after.

    Raises:
        ValueError: a target that the table does not have.
    """
    rows, waiting, found = {row.name: row for row in table}, list(targets), set[str]()
    if unknown := sorted(set(waiting) - set(rows)):
        raise ValueError(f"there is no step {', '.join(unknown)}, only {', '.join(rows)}")
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += rows[name].after
    return found


def content_hash(row: Row, config: Config, inputs: Mapping[str, str]) -> str:
    """Hex digits that two rows share only if they have one name, equal settings and the same inputs."""
    _, settings = view_of_row(row, config)
    what = {"name": row.name, "settings": settings, "inputs": dict(inputs)}
    return fingerprint(what)[:DIGITS]


def declare_steps(pipeline: Pipeline, expansion: Expansion) -> None:
    """Declare the steps on a pipeline.

    Steps that could go on from a smaller run of themselves do not here: another arm may need the smaller one.
    """
    for step in expansion.steps:
        view, settings = view_of_row(step.row, step.config)
        pipeline.step(
            step.name,
            run=partial(_run, step, view),
            settings=settings,
            inputs=list(step.inputs.values()),
            place=step.row.place,
            pool=step.row.pool or "",
        )


def _run(step: SharedStep, view: Config, context: StepContext) -> StepOutput:
    """Run a row's function, which knows its inputs by the names of its table."""
    inputs: dict[str, StepRecord] = {own: context.inputs[name] for own, name in step.inputs.items()}
    return step.row.run(replace(context, inputs=inputs), view)
