"""A run as a list of named steps: what is finished is skipped, so submitting again is resuming."""

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from uniemo_ray.store.base import Store
from uniemo_ray.store.errors import explain_step
from uniemo_ray.store.fingerprint import canonical, fingerprint
from uniemo_ray.store.graph import Graph
from uniemo_ray.store.record import StepRecord, artefact_folder, library_versions, now
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.shards import committed

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(@[0-9a-f]+)?")
Place = Literal["driver", "actors", "workers"]
"""What does a step's work: the driver's own process, a pool of actors (or tasks), or training workers."""
_CURRENT: ContextVar[str] = ContextVar("step", default="")


def current_step() -> str:
    """Name of the step that the caller works for; empty outside of steps."""
    return _CURRENT.get()


@dataclass(frozen=True)
class StepOutput:
    """What a step gives to later steps and to the summary; both become JSON."""

    outputs: Mapping[str, Any] = field(default_factory=dict)
    """Names, counts and keys (relative to its artefact folder) that later steps need."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """Measurements; a number that is not finite is recorded as null, with a warning."""
    status: str = "finished"
    """Or `finished with 3 failures`."""


@dataclass(frozen=True)
class StepContext:
    """What a running step may use."""

    name: str
    fingerprint: str
    lineage: str
    """The fingerprint without the settings that may grow. It names the folder and what the step makes."""
    settings: Any
    """Plain values of the step's settings."""
    run: RunFolder
    folder: str
    """Its artefact folder, as a key in the run's store."""
    inputs: Mapping[str, StepRecord]
    """Commit records of the input steps, by name."""
    is_resumed: bool
    """Whether an earlier attempt has left files in the artefact folder."""
    pool: str = ""
    """Which machines do its work, see `uniemo_ray.pools`; empty for none of them in particular."""

    @property
    def artefacts(self) -> Store:
        """The step's own folder. After a crash, the next attempt finds here what this one has written."""
        return self.run.fenced_store.sub(self.folder)

    def artefacts_of(self, name: str) -> Store:
        """The folder of an input step."""
        return self.run.store.sub(self.inputs[name].artefacts)


@dataclass(frozen=True)
class Step:
    """One declared step."""

    name: str
    settings: Any
    inputs: tuple[str, ...]
    run: Callable[[StepContext], StepOutput]
    code_version: int
    fingerprint: str
    lineage: str
    place: Place
    pool: str = ""


class Room(Protocol):
    """Tells which steps fit beside each other."""

    def __call__(self, step: Step, running: Sequence[Step], /) -> bool:
        """Whether a step may start beside those that run."""
        ...


@dataclass(frozen=True)
class StepResult:
    """How a step came out in this submission."""

    record: StepRecord
    is_skipped: bool


class Pipeline:
    """Declared steps on one run folder.

    Args:
        run: The folder.
        has_room: Tells which steps run side by side; None for one after the other.
    """

    def __init__(self, run: RunFolder, *, has_room: Room | None = None) -> None:
        self._run, self._has_room = run, has_room
        self._steps: dict[str, Step] = {}

    def step(
        self,
        name: str,
        *,
        run: Callable[[StepContext], StepOutput],
        settings: BaseModel | Mapping[str, Any] | None = None,
        inputs: Sequence[str] = (),
        grows_by: Sequence[str] | None = None,
        code_version: int = 1,
        place: Place = "driver",
        pool: str = "",
    ) -> Step:
        """Declare a step.

        Args:
            name: Lower-case words joined by hyphens, such as `understand-1`; steps that share a word tell
                themselves apart by hex digits, as in `understand-1@3fa9`.
            run: Does the work. It is called again after a crash and then finds its own files.
            settings: All values (and only those) that decide the result.
            inputs: Names of earlier steps whose results it uses.
            grows_by: For a step that goes on from a smaller run of itself: its settings that may grow (none
                when only its inputs do). Runs of all sizes share a folder, and the newest is the one that
                counts.
            code_version: Raise it when a change of code changes results.
            place: What does its work.
            pool: Which machines do it.

        Raises:
            ValueError: a malformed or taken name, an input that is not declared yet, unstable settings.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"expected a step name such as 'understand-1', got {name!r}")
        if name in self._steps:
            raise ValueError(f"step {name!r} is declared twice")
        unknown = [other for other in inputs if other not in self._steps]
        if unknown:
            raise ValueError(f"step {name!r} needs {', '.join(unknown)}: declare it before")
        plain = canonical({} if settings is None else settings, f"settings of step {name}")
        what = {"name": name, "settings": plain, "code_version": code_version}
        digest = fingerprint({**what, "inputs": {other: self._steps[other].fingerprint for other in inputs}})
        lineage = digest
        if grows_by is not None:
            what["settings"] = {key: value for key, value in plain.items() if key not in grows_by}
            lineages = {other: self._steps[other].lineage for other in inputs}
            lineage = fingerprint({**what, "inputs": lineages})
        step = Step(name, plain, tuple(inputs), run, code_version, digest, lineage, place, pool)
        self._steps[name] = step
        return step

    def run(self) -> tuple[StepResult, ...]:
        """Run what is not finished; each step's record is committed before a step that needs it starts.

        Returns:
            One result for each step, in the order in which they were declared.

        Raises:
            RunLockedError: another driver works on the folder.
            StoreError: disk full, S3 gone and the like, as one clear line; submit again to go on.
        """

        def skip(name: str) -> StepResult | None:
            return self._skip(self._steps[name], labels[name])

        def execute(name: str, inputs: Mapping[str, StepResult]) -> StepResult:
            records = {other: result.record for other, result in inputs.items()}
            return self._execute(self._steps[name], records, label=labels[name])

        def fits(name: str, running: Collection[str]) -> bool:
            beside = [self._steps[other] for other in running]
            return self._has_room is not None and self._has_room(self._steps[name], beside)

        labels = {
            name: f"[{index}/{len(self._steps)}] {name} ..."
            for index, name in enumerate(self._steps, start=1)
        }
        inputs = {name: step.inputs for name, step in self._steps.items()}
        with self._run.locked():
            results = Graph(inputs, skip=skip, execute=execute, has_room=fits).run()
        return tuple(results.values())

    @property
    def pools(self) -> tuple[str, ...]:
        """Those of the declared steps, each once."""
        return tuple(dict.fromkeys(step.pool for step in self._steps.values() if step.pool))

    def is_finished(self, name: str) -> bool:
        """Whether a declared step would be skipped."""
        return self._run.finished(name, self._steps[name].fingerprint) is not None

    def _skip(self, step: Step, label: str) -> StepResult | None:
        record = self._run.finished(step.name, step.fingerprint)
        if record is None:
            return None
        self._run.point_to(record)
        finished = datetime.fromisoformat(record.finished_at).strftime("%Y-%m-%d %H:%M")
        logger.info("%s skipped (finished %s)", label, finished)
        return StepResult(record, is_skipped=True)

    def _execute(self, step: Step, records: Mapping[str, StepRecord], *, label: str) -> StepResult:
        folder = artefact_folder(step.name, step.lineage)
        is_resumed = not self._run.store.is_empty(folder)
        if step.lineage != step.fingerprint:
            self._run.forget(step.name, folder)
        context = StepContext(
            step.name,
            step.fingerprint,
            step.lineage,
            step.settings,
            self._run,
            folder,
            inputs=records,
            is_resumed=is_resumed,
            pool=step.pool,
        )
        logger.info("%s %s", label, "resuming" if is_resumed else "started")
        token, start = _CURRENT.set(step.name), time.monotonic()
        try:
            output = step.run(context)
            record = self._record(step, context, output=output, seconds=time.monotonic() - start)
            self._run.commit(record)
        except Exception as error:
            logger.error("%s failed after %s", label, _duration(time.monotonic() - start))
            clear = explain_step(error, f"{self._run.store.uri}/{folder}")
            if clear is None or clear is error:
                raise
            raise clear from error
        finally:
            _CURRENT.reset(token)
        note = "" if output.status == "finished" else f", {output.status}"
        logger.info("%s done in %s%s", label, _duration(record.seconds), note)
        return StepResult(record, is_skipped=False)

    def _record(self, step: Step, context: StepContext, *, output: StepOutput, seconds: float) -> StepRecord:
        return StepRecord(
            name=step.name,
            fingerprint=step.fingerprint,
            settings=step.settings,
            code_version=step.code_version,
            inputs={name: record.fingerprint for name, record in context.inputs.items()},
            outputs=canonical(
                _plain_numbers(output.outputs, f"{step.name}.outputs"), f"outputs of {step.name}"
            ),
            metrics=canonical(
                _plain_numbers(output.metrics, f"{step.name}.metrics"), f"metrics of {step.name}"
            ),
            seconds=round(seconds, 3),
            finished_at=now(),
            versions=library_versions(),
            status=output.status,
            has_artefacts=not self._run.store.is_empty(context.folder),
            lineage=step.lineage,
            shards=len(committed(context.artefacts)),
            epoch=self._run.lease.epoch,
        )


def _plain_numbers(value: Any, path: str) -> Any:
    # Hours of work must not be lost to a numpy scalar or a NaN in its last line.
    if isinstance(value, Mapping):
        return {str(key): _plain_numbers(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain_numbers(item, f"{path}[{i}]") for i, item in enumerate(value)]
    if hasattr(value, "tolist"):  # numpy and torch, arrays and scalars
        return _plain_numbers(value.tolist(), path)
    if isinstance(value, float) and not math.isfinite(value):
        logger.warning("%s is %s: recorded as null", path, value)
        return None
    return value


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
