"""A step that goes on from a smaller run of itself."""

from pathlib import Path

import pytest

from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline, StepContext, StepOutput


def make(context: StepContext) -> StepOutput:
    """One file for each image; those that are there are kept."""
    there = len(context.artefacts.list("images"))
    size = context.settings["n"] if context.settings else context.inputs["generate"].outputs["n"]
    if there > size:
        raise ValueError("a run can grow, not shrink")
    for k in range(there, size):
        context.artefacts.write_bytes(f"images/{k}", b"x")
    return StepOutput(outputs={"n": size, "new": size - there})


def submit(uri: str, n: int, *, seed: int = 0) -> list[tuple[bool, dict[str, int]]]:
    """For each step whether it was skipped, and its outputs."""
    pipeline = Pipeline(RunFolder.open(uri, {"n": n}))
    pipeline.step("generate", run=make, settings={"n": n, "seed": seed}, grows_by=["n"])
    pipeline.step("score", run=make, inputs=["generate"], grows_by=[])
    pipeline.step("filter", run=lambda _: StepOutput(), inputs=["score"])
    return [(result.is_skipped, result.record.outputs) for result in pipeline.run()]


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def test_a_larger_run_adds_to_the_smaller_one(uri: str) -> None:
    assert submit(uri, 3) == [(False, {"n": 3, "new": 3})] * 2 + [(False, {})]
    assert submit(uri, 3) == [(True, {"n": 3, "new": 3})] * 2 + [(True, {})]
    assert submit(uri, 5) == [(False, {"n": 5, "new": 2})] * 2 + [(False, {})]
    assert submit(uri, 5)[0] == (True, {"n": 5, "new": 2})


def test_another_setting_is_another_folder(uri: str) -> None:
    submit(uri, 3)
    assert submit(uri, 3, seed=1)[0] == (False, {"n": 3, "new": 3})
    assert submit(uri, 3)[0][0], "the old one is finished still"


def test_a_smaller_run_is_not_taken_for_finished_after_growth(uri: str) -> None:
    submit(uri, 3)
    submit(uri, 5)
    with pytest.raises(ValueError, match="a run can grow, not shrink"):
        submit(uri, 3)


def test_growth_that_was_interrupted_opens_the_step_again(uri: str) -> None:
    submit(uri, 3)

    def die(context: StepContext) -> StepOutput:
        context.artefacts.write_bytes("images/3", b"x")
        raise KeyboardInterrupt

    pipeline = Pipeline(RunFolder.open(uri, {}))
    pipeline.step("generate", run=die, settings={"n": 5, "seed": 0}, grows_by=["n"])
    with pytest.raises(KeyboardInterrupt):
        pipeline.run()
    with pytest.raises(ValueError, match="not shrink"):  # four images are there by now
        submit(uri, 3)
    assert submit(uri, 5)[0] == (False, {"n": 5, "new": 1})
