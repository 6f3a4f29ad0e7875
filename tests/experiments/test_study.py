"""Study files: what ships is sound, and a mistake gets one line before anything starts."""

import sys
from pathlib import Path

import pytest
import yaml

from uniemo_ray.experiments.expansion import ArmSeed
from uniemo_ray.experiments.study import arm_config, choose_seeds, read_study, study_names
from uniemo_ray.jobs import experiments
from uniemo_ray.loop.run_study import common_settings, configure_arms, expand_study, measured_in

EMBEDDED = [name for name in study_names() if "embedded" in read_study(name)[1].sizes]
PAPER = [name for name in study_names() if "paper" in read_study(name)[1].sizes]
SMALL = {
    "title": "A",
    "source": "ours",
    "question": "Is it?",
    "form": "bars",
    "columns": ["accuracy"],
    "arms": {"one": {"label": "1"}, "two": {"label": "2", "set": {"encoder.queries": "none"}}},
    "claims": ["one > two in accuracy"],
    "sizes": {"embedded": {"until": "stage_1", "config": {"preset": "tiny", "feedback": {"rounds": 0}}}},
}


def write(tmp_path: Path, **changed: object) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changed))
    return str(path)


def test_what_ships():
    tables = ["table5", "table6", "table7", "table8"]
    ours = ["judge", "query_start", "scaling"]
    assert study_names() == ["backbones", "fig6", "fig7", "fig8", *ours, *tables, "variety"]
    assert set(study_names()) - set(EMBEDDED) == {"backbones"}
    assert set(study_names()) - set(PAPER) == {"judge", "scaling", "variety"}


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_study_passes_all_checks_and_shares_steps(name):
    _, study = read_study(name)
    configs = configure_arms(study, size="embedded", overrides=[])
    seeds = choose_seeds(study, None, with_intervals=True)
    found = expand_study(study, configs, size="embedded", seeds=seeds)
    assert len({step.name for step in found.steps}) == len(found.steps) < found.asked
    ingests = [step for step in found.steps if step.row.name == "ingest"]
    assert len(ingests) == 1
    first, *others = (config.data for config in configs.values())
    assert all(other == first for other in others)
    assert all(measured_in(study, arm, configs[arm], size="embedded") for arm in configs)


@pytest.mark.parametrize("name", PAPER)
def test_a_study_of_the_papers_size_has_sound_settings(name):
    _, study = read_study(name)
    for arm in study.arms:
        config = arm_config(study, arm, size="paper", overrides=["data.root=/data/EmoSet"])
        assert config.data.root == "/data/EmoSet"


def test_table_five_trains_one_stage_one_for_each_seed():
    _, study = read_study("table5")
    configs = configure_arms(study, size="embedded", overrides=[])
    assert len(configs) == 11
    found = expand_study(study, configs, size="embedded", seeds=(0, 1))
    names = [step.row.name for step in found.steps]
    assert names.count("understanding-1") == 2
    assert names.count("joint-1") == 22
    assert names.count("scorers") == 2
    assert names.count("features") == names.count("latents") == 1


def test_studies_of_one_run_folder_share_their_trainings():
    names = []
    for name in ("fig6", "fig8", "fig7"):
        _, study = read_study(name)
        configs = configure_arms(study, size="embedded", overrides=[])
        found = expand_study(study, configs, size="embedded", seeds=(0,))
        names.append({step.name for step in found.steps if step.row.name in ("ingest", "understanding-1")})
    assert len(names[0] & names[1] & names[2]) == 2  # the data, and stage 1 with the defaults


def test_a_seed_or_arm_added_later_changes_no_step():
    _, study = read_study("fig6")
    configs = configure_arms(study, size="embedded", overrides=[])
    two = expand_study(study, configs, size="embedded", seeds=(0, 1))
    three = expand_study(study, configs, size="embedded", seeds=(0, 1, 2))
    assert {step.name for step in two.steps} < {step.name for step in three.steps}
    assert three.names[ArmSeed("none", 1)] == two.names[ArmSeed("none", 1)]
    fewer = {arm: configs[arm] for arm in ("none", "multi_stage")}
    known = {step.name for step in expand_study(study, fewer, size="embedded", seeds=(0, 1)).steps}
    added = {step.row.name for step in two.steps if step.name not in known}
    assert added == {"understanding-1", "answers-stage-1"}


def equal_work(name: str) -> dict[str, tuple[int, int]]:
    """Steps and images of the second round's stages, by arm."""
    _, study = read_study(name)
    found = {}
    for arm in study.arms:
        config = arm_config(study, arm, size="embedded", overrides=[]).for_round(2)
        real, share = config.feedback.real_images or 0, config.feedback.synthetic_fraction
        rows = real + round(share / (1 - share) * real)
        steps = rows // config.stage1.batch_size * config.stage1.epochs
        assert config.stage2.epochs == config.stage1.epochs
        assert config.stage2.batch_size == config.stage1.batch_size
        found[arm] = steps, rows * config.stage1.epochs
    return found


def test_arms_of_table_six_and_seven_make_equal_steps_on_equally_many_images():
    assert set(equal_work("table6").values()) == {(60, 1920)}
    assert set(equal_work("table7").values()) == {(60, 1920)}


def test_pairs_of_the_scaling_study_are_equal_too():
    found = equal_work("scaling")
    for count in (100, 400, 1600, 4000):
        assert found[f"n{count}"] == found[f"n{count}_feedback"]


def test_arms_of_table_eight_are_as_equal_as_whole_epochs_allow():
    found = equal_work("table8").values()
    assert min(steps for steps, _ in found) / max(steps for steps, _ in found) >= 0.95
    assert min(images for _, images in found) / max(images for _, images in found) >= 0.99


def arms(**settings: object) -> dict[str, object]:
    return {"one": {"label": "1"}, "two": {"label": "2", "set": settings}}


def configured(path: str) -> None:
    _, study = read_study(path)
    configure_arms(study, size="embedded", overrides=[])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"arms": arms(**{"data.sketch_train": 64})},
            "arm 'two' sets data.sketch_train, but data must be the",
        ),
        ({"arms": arms(**{"data.sketch_test": 64})}, "same data and test images"),
        ({"arms": arms(**{"resources.workers": 1})}, "resources must be the same in all arms"),
        ({"arms": arms(**{"encoder.querys": "none"})}, "encoder.querys: unknown setting"),
        ({"arms": arms(**{"encoder.query_length": 0})}, "encoder.query_length"),
        ({"claims": ["one > three in accuracy"]}, "there is no arm 'three', only one, two"),
        ({"claims": ["one > two in fid"]}, "'fid' is not measured, only accuracy"),
        ({"claims": ["one beats two"]}, "expected a claim such as"),
        ({"columns": ["beauty"], "claims": []}, "there is no metric 'beauty'"),
        ({"columns": ["emo_a_exact"], "claims": []}, r"arm 'one' has no emo_a_exact .*ends after stage 1"),
        ({"form": "pie"}, "form: Input should be"),
        ({"armes": {}}, "armes: Extra inputs"),
        ({"arms": {"one": {"label": "1"}}, "claims": []}, "arms"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words) as caught:
        configured(write(tmp_path, **changed))
    assert "\n" not in str(caught.value)


def test_a_published_metric_needs_its_weights(tmp_path):
    sizes = {"embedded": {"until": "images", "config": {"preset": "tiny"}}}
    _, study = read_study(write(tmp_path, columns=["accuracy", "emo_a"], sizes=sizes))
    with pytest.raises(ValueError, match=r"arm 'one' has no emo_a .*EmoGen's judge"):
        configure_arms(study, size="embedded", overrides=[])
    early = arms() | {"two": {"label": "2", "until": "stage_1"}}
    with pytest.raises(ValueError, match=r"arm 'two' has no emo_a_exact .*ends after stage 1"):
        configured(write(tmp_path, columns=["accuracy", "emo_a_exact"], sizes=sizes, arms=early))


def test_one_seed_needs_to_be_told_that_there_is_no_interval():
    _, study = read_study("fig6")
    with pytest.raises(ValueError, match="one seed says nothing about the spread"):
        choose_seeds(study, 1, with_intervals=True)
    assert choose_seeds(study, 1, with_intervals=False) == (0,)
    assert choose_seeds(study, None, with_intervals=True) == (0, 1, 2, 3, 4)


def test_an_unknown_study_names_those_that_there_are(monkeypatch, capsys):
    with pytest.raises(
        ValueError, match="there is no study 'fig66': expected a YAML file or backbones, fig6"
    ):
        read_study("fig66")
    monkeypatch.setattr(sys, "argv", ["experiments"])
    with pytest.raises(SystemExit):
        experiments.main()
    assert "--study" in capsys.readouterr().err


def test_what_was_the_same_is_told(tmp_path):
    _, study = read_study("fig6")
    common = common_settings(configure_arms(study, size="embedded", overrides=["scorers.epochs=7"]).values())
    assert common["scorers.epochs"] == 7
    assert common["data.sketch_train"] == 1400
    assert not [name for name in common if name.startswith(("encoder.queries", "seed", "run"))]
