"""The generation plan."""

import pyarrow as pa
import pytest

from uniemo_ray.config import DiffusionConfig, GenerationConfig
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.feedback.plan import Kind, PlannedImages, TablePlan
from uniemo_ray.feedback.schema import PLAN


def make_plan(
    per_emotion: int = 3,
    *,
    kind: Kind = "emotion",
    seed: int = 0,
    emotions: tuple[str, ...] = EMOTIONS,
    diffusion: DiffusionConfig | None = None,
    generation: GenerationConfig | None = None,
) -> pa.Table:
    return PlannedImages(
        round_=1,
        kind=kind,
        per_emotion=per_emotion,
        seed=seed,
        model="abc",
        diffusion=diffusion or DiffusionConfig(steps=7, guidance=2.5, size_px=32),
        generation=generation or GenerationConfig(micro_batch=4, threads=2),
        emotions=emotions,
    ).table


def test_a_row_holds_every_setting() -> None:
    plan = make_plan()
    assert plan.schema.equals(PLAN)
    assert len(plan) == 24
    row = plan.to_pylist()[1]
    seed = row.pop("seed")
    assert 0 <= seed < 2**63
    assert row == {
        "image_id": "r1-emotion-awe-00000",
        "emotion": "awe",
        "kind": "emotion",
        "prompt": "<emotion>",
        "steps": 7,
        "guidance": 2.5,
        "scheduler": "unipc",
        "width": 32,
        "height": 32,
        "micro_batch": 4,
        "threads": 2,
        "model": "abc",
    }


def test_ids_and_seeds_are_distinct() -> None:
    plan = pa.concat_tables([make_plan(50), make_plan(50, kind="plain")])
    assert len(set(plan["image_id"].to_pylist())) == len(set(plan["seed"].to_pylist())) == 800


def test_a_larger_plan_begins_with_the_smaller_one() -> None:
    assert make_plan(9).slice(0, 24).equals(make_plan(3))


def test_the_run_seed_changes_every_row_seed() -> None:
    first, second = (make_plan(seed=seed)["seed"].to_pylist() for seed in (0, 1))
    assert not set(first) & set(second)


def test_the_plain_prompt_names_the_emotion() -> None:
    plan = make_plan(kind="plain", emotions=("fear",))
    assert set(plan["prompt"].to_pylist()) == {"an image of fear"}
    assert plan["image_id"][2].as_py() == "r1-plain-fear-00002"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"per_emotion": 0}, "at least 1, got 0"),
        ({"emotions": ("awe", "awe")}, "distinct"),
        ({"emotions": ()}, "not empty"),
        ({"kind": "plain", "diffusion": DiffusionConfig(plain_prompt="an image")}, "plain_prompt"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(**change)  # type: ignore[arg-type]


def lazy(per_emotion: int = 3, *, seed: int = 0, **rendering: object) -> PlannedImages:
    return PlannedImages(
        round_=1,
        kind="emotion",
        per_emotion=per_emotion,
        seed=seed,
        model="abc",
        diffusion=DiffusionConfig(steps=7, guidance=2.5, size_px=32),
        generation=GenerationConfig(micro_batch=4, threads=2, **rendering),
    )


def test_ranges_of_a_plan_are_those_of_its_table() -> None:
    plan = lazy()
    assert plan.num_rows == 24
    assert pa.concat_tables([plan.slice(0, 7), plan.slice(7, 100)]).equals(make_plan())
    assert plan.slice(24, 5).num_rows == 0


def test_digests_name_rows_and_stay_when_a_plan_grows() -> None:
    digests = {lazy().digest(start, 5) for start in (0, 5, 10, 20)}
    assert len(digests) == 4
    assert lazy(9).digest(5, 5) == lazy().digest(5, 5)
    assert lazy(9).digest(20, 5) != lazy().digest(20, 5)  # there, it has four rows
    assert lazy(9).digest(20, 4) == lazy().digest(20, 5)
    assert lazy(seed=1).digest(5, 5) != lazy().digest(5, 5)


def test_digests_tell_how_images_are_computed_unless_as_ever() -> None:
    digests = {lazy(dtype=dtype).digest(0, 5) for dtype in (None, "bf16", "fp16")}
    assert len(digests | {lazy(png_level=1).digest(0, 5), lazy(compile=True).digest(0, 5)}) == 5
    assert lazy(dtype=None).digest(0, 5) == lazy().digest(0, 5)


def test_digests_of_a_table_depend_on_every_value() -> None:
    table = make_plan()
    changed = table.set_column(0, "image_id", pa.array(["new", *table["image_id"].to_pylist()[1:]]))
    assert TablePlan(changed).digest(0, 3) != TablePlan(table).digest(0, 3)
    assert TablePlan(changed).digest(1, 3) == TablePlan(table).digest(1, 3)
    assert TablePlan(make_plan(9)).digest(0, 24) == TablePlan(table).digest(0, 24)
    with pytest.raises(ValueError, match="must be distinct, 24 rows repeat one"):
        TablePlan(pa.concat_tables([table, table]))


def test_digests_are_those_of_older_runs() -> None:
    """A run goes on only where its shards carry the same digests."""
    assert lazy().digest(5, 5) == "7c137afb2d67a0976df1df9c8fa9c3c54c9cfc66495355b862c60b40dc6de707"
    assert (
        TablePlan(make_plan()).digest(5, 5)
        == "155a252af97522ae9a2719537be32f05cc798f809b59dabc04356cf150df466c"
    )


def test_the_prompts_that_emotions_get_decide_the_digest() -> None:
    def digest(kind: Kind, prompt: str) -> str:
        diffusion = DiffusionConfig(plain_prompt=prompt)
        plan = PlannedImages(
            round_=1,
            kind=kind,
            per_emotion=3,
            seed=0,
            model="abc",
            diffusion=diffusion,
            generation=GenerationConfig(),
        )
        return plan.digest(0, 5)

    assert digest("plain", "an image of {emotion}") != digest("plain", "a photo of {emotion}")
    own = "<emotion>, a {object}"
    assert make_plan(generation=GenerationConfig(prompt=own))["prompt"].to_pylist() == [own] * 24
    assert own not in make_plan(kind="plain", generation=GenerationConfig(prompt=own))["prompt"].to_pylist()
    with pytest.raises(ValueError, match="has no <emotion>"):
        GenerationConfig(prompt="a {scene}")
    assert digest("emotion", "an image of {emotion}") == digest("emotion", "a photo of {emotion}")


def test_one_image_of_each_emotion_is_a_plan() -> None:
    assert make_plan(1)["emotion"].to_pylist() == list(EMOTIONS)


def test_a_table_that_is_no_plan_is_named() -> None:
    with pytest.raises(ValueError, match="plan table does not fit its schema: column 'seed' is missing"):
        TablePlan(make_plan().drop_columns(["seed"]))
