"""Plans of baselines: every label, seeds that all baselines share, and growth."""

from typing import Any

import pyarrow as pa
import pytest

from uniemo_ray.baselines.generation.plan import BaselinePlan
from uniemo_ray.baselines.generation.prompts import plain_prompts
from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.config.generation_baselines import PlainPromptConfig
from uniemo_ray.feedback.plan_shards import commit_plan
from uniemo_ray.feedback.schema import PLAN
from uniemo_ray.store.filesystem import open_store
from uniemo_ray.store.shards import read_shards

PROMPTS = {"calm": "a calm image", "own label": "another"}


def plan(**changes: Any) -> BaselinePlan:
    values = {
        "baseline": "plain-prompt",
        "kind": "plain",
        "prompts": PROMPTS,
        "per_emotion": 3,
        "seed": 1,
        "model": "m",
        "diffusion": DiffusionConfig(size_px=64),
        "generation": GenerationConfig(),
    }
    return BaselinePlan(**values | changes)


def rows(one: BaselinePlan) -> list[dict[str, Any]]:
    table = one.slice(0, one.num_rows)
    assert table.schema == PLAN
    return table.to_pylist()


def test_rows_run_through_the_labels_image_by_image() -> None:
    found = rows(plan())
    assert [row["emotion"] for row in found] == ["calm", "own label"] * 3
    assert [row["prompt"] for row in found] == ["a calm image", "another"] * 3
    assert found[3]["image_id"] == "plain-prompt-own label-00001"
    assert len({row["seed"] for row in found}) == 6
    assert plan().slice(4, 100).to_pylist() == found[4:]


def test_baselines_share_the_noise_and_nothing_else() -> None:
    one, other = rows(plan()), rows(plan(baseline="emogen", kind="emotion", model="n"))
    assert [row["seed"] for row in one] == [row["seed"] for row in other]
    assert not {row["image_id"] for row in one} & {row["image_id"] for row in other}
    assert [row["seed"] for row in rows(plan(seed=2))] != [row["seed"] for row in one]


def test_a_larger_plan_goes_on_behind_a_smaller_one(tmp_path: Any) -> None:
    store = open_store(str(tmp_path))
    commit_plan(plan(per_emotion=3), store, rows_per_shard=4)
    commit_plan(plan(per_emotion=5), store, rows_per_shard=4)
    assert read_shards(store, "plan/").to_pylist() == rows(plan(per_emotion=5))
    with pytest.raises(ValueError, match="another plan"):
        commit_plan(plan(per_emotion=5, prompts=PROMPTS | {"calm": "loud"}), store, rows_per_shard=4)


@pytest.mark.parametrize(
    "change",
    [
        {"baseline": "emogen"},
        {"seed": 2},
        {"model": "n"},
        {"prompts": {"calm": "a calm image", "own label": "b"}},
        {"prompts": dict(reversed(PROMPTS.items()))},
        {"diffusion": DiffusionConfig(size_px=64, steps=7)},
        {"generation": GenerationConfig(png_level=1)},
        {"generation": GenerationConfig(micro_batch=2)},
    ],
)
def test_the_digest_knows_what_decides_a_row(change: dict[str, Any]) -> None:
    assert plan(**change).digest(0, 4) != plan().digest(0, 4)
    assert plan(per_emotion=9).digest(0, 4) == plan().digest(0, 4)
    assert isinstance(plan().slice(0, 2), pa.Table)


def test_a_prompt_names_its_label_unless_it_has_one_of_its_own() -> None:
    config = PlainPromptConfig(prompt="feel {emotion}", prompts={"very_calm": "a still lake"})
    assert plain_prompts(config, ["deep_awe", "very_calm"]) == {
        "deep_awe": "feel deep awe",
        "very_calm": "a still lake",
    }


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (PlainPromptConfig(prompt="an image"), r"plain_prompt\.prompt must contain \{emotion\}"),
        (PlainPromptConfig(prompt="<emotion> {emotion}"), "holds <emotion>, but a plain prompt has no"),
        (PlainPromptConfig(prompts={"joy": "x"}), "prompts names 'joy', but the data set's labels are calm"),
    ],
)
def test_a_prompt_that_cannot_be_said_is_refused(config: PlainPromptConfig, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plain_prompts(config, ["calm"])
    own = PlainPromptConfig(prompt="an image", prompts={"calm": "a lake"})
    assert plain_prompts(own, ["calm"]) == {"calm": "a lake"}
