"""The whole loop in labels of a user's own, and its model through the Python API."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.label_spaces import OWN, OWN_CLASSES
from tests.loop.test_declared_settings import run_table, tiny
from uniemo_ray import UniEmo
from uniemo_ray.data.sketch_rule import sketch_rule
from uniemo_ray.loop.preflight import check_inputs
from uniemo_ray.loop.step_tables import feedback_loop_steps
from uniemo_ray.report.summary import Summary


@pytest.mark.ray
@pytest.mark.integration
@pytest.mark.timeout(1800)
def test_the_whole_loop_in_own_labels(ray_session: None, tmp_path: Path) -> None:
    own = {"labels": list(OWN.labels), "valences": OWN.valences, "sketch_classes": OWN_CLASSES}
    config = tiny(tmp_path, *(f"data.{name}={json.dumps(value)}" for name, value in own.items()))
    check_inputs(config)
    run, _, idle = run_table(config, feedback_loop_steps(config))
    assert idle == {}
    summary = Summary.model_validate_json(run.store.read_bytes("summary.json"))
    rule = sketch_rule(config.data)
    assert rule is not None
    assert summary.dataset.ceiling is not None
    assert summary.dataset.ceiling.both == pytest.approx(rule.ceiling().both)
    last = summary.rounds[-1]
    assert list(last.understanding.per_class) == list(OWN.labels)
    assert last.generation is not None
    assert last.generation.images == 3 * len(OWN.labels)
    assert last.generation.emo_a_exact is not None
    assert last.generation.emo_a_clip_two_class is not None
    assert summary.coefficients is not None
    assert summary.coefficients.mean_absolute_error is not None
    kept = summary.rounds[0].filter
    assert kept is not None
    assert kept.total == 3 * len(OWN.labels)
    assert set(last.generation.per_emotion) == set(OWN.labels)
    page = run.store.read_bytes("report.html").decode()
    assert "très triste" in page

    model = UniEmo.from_pretrained(f"{run.store.uri}/model")
    assert model.parts.labels == OWN
    assert "calm, tense, très_triste" in model.parts.card
    (made,) = model.generate({"calm": 1, "tense": 1}, seed=1)
    (seen,) = model.understand([Image.fromarray(np.asarray(made))])
    assert tuple(seen.emotions) == OWN.labels
    assert seen.valence in ("positive", "negative")
