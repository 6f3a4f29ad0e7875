import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from uniemo_ray.config import LossConfig
from uniemo_ray.losses import (
    classification_loss,
    condition_loss,
    hard_negative,
    info_nce,
    joint_loss,
    object_head_loss,
    scene_head_loss,
    understanding_loss,
)


def unit(count, width=4, seed=0):
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def contrast(queries, names, attribute, **options):
    return info_nce(queries, names, torch.tensor(attribute), **{"temperature": 0.07} | options)


def by_hand(queries, names, attribute, *, temperature, repels_same):
    """Eq. 4, one term at a time."""
    terms = []
    for i, a in enumerate(attribute):
        if a < 0:
            continue
        others = [k for k, b in enumerate(attribute) if b >= 0 and (k == i or b != a or repels_same)]
        scores = [float(queries[i] @ names[k]) / temperature for k in others]
        own = float(queries[i] @ names[i]) / temperature
        terms.append(math.log(sum(math.exp(s) for s in scores)) - own)
    return sum(terms) / len(terms)


@given(
    seed=st.integers(0, 1000),
    attribute=st.lists(st.integers(-1, 3), min_size=2, max_size=8),
    repels_same=st.booleans(),
)
def test_info_nce_equals_equation_four(seed, attribute, repels_same):
    queries, table = unit(len(attribute), seed=seed), unit(4, seed=seed + 1)
    names = table[torch.tensor(attribute).clamp(min=0)]
    got = contrast(queries, names, attribute, temperature=0.3, same_attribute_negatives=repels_same)
    if sum(a >= 0 for a in attribute) < 2:
        assert got == 0
    else:
        wanted = by_hand(queries, names, attribute, temperature=0.3, repels_same=repels_same)
        assert got.item() == pytest.approx(wanted, abs=1e-5)


def test_symmetric_is_the_mean_of_both_directions():
    queries, names = unit(4), unit(4, seed=1)
    forward = contrast(queries, names, [0, 1, 2, 3])
    backward = contrast(names, queries, [0, 1, 2, 3])
    both = contrast(queries, names, [0, 1, 2, 3], is_symmetric=True)
    torch.testing.assert_close(both, (forward + backward) / 2)


def test_images_without_attribute_change_nothing():
    queries, names = unit(5).requires_grad_(), unit(5, seed=1)
    attribute = [0, -1, 2, 3, -1]
    loss = contrast(queries, names, attribute)
    rows = [0, 2, 3]
    torch.testing.assert_close(loss, contrast(queries[rows], names[rows], [0, 2, 3]))
    loss.backward()
    assert queries.grad[[1, 4]].abs().max() == 0
    assert queries.grad[rows].abs().min() > 0


def test_images_without_attribute_may_stay_negatives():
    queries, names = unit(5).requires_grad_(), unit(5, seed=1)
    attribute = torch.tensor([0, -1, 2, 3, -1])
    for is_symmetric in (False, True):
        loss = contrast(queries, names, attribute.tolist(), missing="negative", is_symmetric=is_symmetric)
        logits = queries @ names.T / 0.07
        logits[1, 4] = logits[4, 1] = -torch.inf  # they share what they lack
        target = torch.tensor([0, -100, 2, 3, -100])
        there = F.cross_entropy(logits, target)
        back = F.cross_entropy(logits.T, target)
        torch.testing.assert_close(loss, (there + back) / 2 if is_symmetric else there)
    one_way = contrast(queries, names, attribute.tolist(), missing="negative")
    assert one_way > contrast(queries, names, attribute.tolist())
    assert contrast(queries[:2], names[:2], [-1, -1], missing="negative") == 0


def test_images_that_share_an_attribute_do_not_repel():
    queries, names = unit(3), unit(2, seed=1)[[0, 0, 1]]
    assert contrast(queries, names, [5, 5, 7]) < contrast(
        queries, names, [5, 5, 7], same_attribute_negatives=True
    )
    assert contrast(queries[:2], names[:2], [5, 5]) == 0


@pytest.mark.parametrize("attribute", [[-1, -1], [-1, 3]])
def test_too_few_images_give_zero_with_a_live_graph(attribute):
    queries = unit(2).requires_grad_()
    loss = contrast(queries, unit(2, seed=1), attribute)
    assert loss == 0
    loss.backward()
    assert torch.equal(queries.grad, torch.zeros(2, 4))


def test_gradient_reaches_a_learnt_temperature():
    temperature = torch.tensor([0.07], requires_grad=True)
    contrast(unit(4), unit(4, seed=1), [0, 1, 2, 3], temperature=temperature).backward()
    assert temperature.grad.abs() > 0


def test_info_nce_prefers_matching_pairs():
    names = unit(4)
    assert contrast(names, names, [0, 1, 2, 3]) < 0.05
    assert contrast(names.roll(1, 0), names, [0, 1, 2, 3]) > 3


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_info_nce_is_computed_in_fp32_under_autocast(is_symmetric):
    queries, names = unit(16), unit(16, seed=1)
    attribute = list(range(16))
    expected = contrast(queries, names, attribute, is_symmetric=is_symmetric)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = contrast(queries, names, attribute, is_symmetric=is_symmetric)
    assert torch.equal(found, expected)


LABEL = torch.tensor([0, 2])
UNDERSTANDING = torch.tensor([[3.0, 2.0, 1.0], [0.5, 4.0, 1.0]])  # right with runner-up 1; wrong with 1


def test_negative_is_the_mistake_or_the_runner_up():
    assert hard_negative(UNDERSTANDING, LABEL).tolist() == [1, 1]
    assert hard_negative(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([2])).tolist() == [1]
    assert hard_negative(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0])).tolist() == [2]


def triplet(logits, margin=0.1):
    return condition_loss("triplet", logits, LABEL, understanding_logits=UNDERSTANDING, margin=margin)


def test_the_triplet_may_measure_logits():
    logits = torch.tensor([[0.2, 0.1, -0.3], [0.0, 0.4, 0.3]])
    found = condition_loss(
        "triplet", logits, LABEL, understanding_logits=UNDERSTANDING, margin=0.5, distance_of="logits"
    )
    eye, expected = torch.eye(3), 0.0
    for i, (plus, minus) in enumerate([(0, 1), (2, 1)]):
        near, far = (F.cosine_similarity(logits[i], eye[k], dim=0).item() for k in (plus, minus))
        expected += max(0.0, 0.5 + far - near) / 2
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert abs(found.item() - triplet(logits, margin=0.5).item()) > 0.02


def test_triplet_equals_equation_seven():
    logits = torch.tensor([[0.2, 0.1, -0.3], [0.0, 0.4, 0.3]])
    p = logits.softmax(dim=1)
    eye = torch.eye(3)
    expected = 0.0
    for i, (plus, minus) in enumerate([(0, 1), (2, 1)]):
        near = 1 - F.cosine_similarity(p[i], eye[plus], dim=0)
        far = 1 - F.cosine_similarity(p[i], eye[minus], dim=0)
        expected += max(0.0, float(near - far) + 0.1) / 2
    assert triplet(logits).item() == pytest.approx(expected, abs=1e-6)
    assert expected > 0.05


def test_triplet_vanishes_beyond_the_margin():
    assert triplet(torch.tensor([[9.0, 0, 0], [0, 0, 9.0]])) == 0
    assert triplet(torch.tensor([[9.0, 0, 0], [0, 0, 9.0]]), margin=2.0) > 0.9


def test_triplet_teaches_the_condition_and_not_the_understanding():
    logits, understanding = torch.zeros(2, 3, requires_grad=True), UNDERSTANDING.clone().requires_grad_()
    condition_loss("triplet", logits, LABEL, understanding_logits=understanding, margin=0.1).backward()
    assert understanding.grad is None
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
    assert logits.grad[1, 2] < 0 < logits.grad[1, 1]


def test_alternatives_of_the_condition_loss():
    logits = torch.randn(2, 3, requires_grad=True)
    options = {"understanding_logits": UNDERSTANDING, "margin": 0.1}
    expected = F.cross_entropy(logits, LABEL)
    assert torch.equal(condition_loss("cross_entropy", logits, LABEL, **options), expected)
    none = condition_loss("none", logits, LABEL, **options)
    none.backward()
    assert none == 0
    assert torch.equal(logits.grad, torch.zeros(2, 3))


def test_classification_is_computed_in_fp32():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    loss = classification_loss(logits.bfloat16(), torch.tensor([1]))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1 + math.log(1 + math.exp(-1) + math.exp(-2)))


def test_weighted_sums_follow_equations_nine_and_ten():
    config, one = LossConfig(), torch.tensor
    total = understanding_loss(scene=one(1.0), object=one(10.0), classification=one(100.0), config=config)
    assert total.item() == pytest.approx(0.25 + 2.5 + 50)
    total = joint_loss(understanding=one(1.0), condition=one(10.0), diffusion=one(100.0), config=config)
    assert total.item() == pytest.approx(0.3 + 3 + 40)
    released = LossConfig(scene_weight=0.05, object_weight=0.05, class_weight=0.9)
    total = understanding_loss(scene=one(1.0), object=one(10.0), classification=one(100.0), config=released)
    assert total.item() == pytest.approx(0.05 + 0.5 + 90)


def test_head_losses_count_only_images_that_have_the_attribute():
    scenes, scene = unit(3), torch.tensor([0, -1, 2])
    expected = -(scenes.log_softmax(1)[0, 0] + scenes.log_softmax(1)[2, 2]) / 2
    torch.testing.assert_close(scene_head_loss(scenes, scene), expected)
    objects, labels = unit(2, seed=3), torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 1]])
    chance = objects[1].sigmoid()
    expected = -(chance[0].log() + (1 - chance[1]).log() + (1 - chance[2]).log() + chance[3].log()) / 4
    torch.testing.assert_close(object_head_loss(objects, labels), expected)


def test_head_losses_of_no_attribute_are_zero_with_a_live_graph():
    logits = unit(2).requires_grad_()
    loss = scene_head_loss(logits, torch.tensor([-1, -1])) + object_head_loss(logits, torch.zeros(2, 4))
    assert loss == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros(2, 4))


def test_eq_9_and_10_weigh_each_term_by_its_own_weight():
    weights = {"scene_weight": 2, "object_weight": 3, "class_weight": 5}
    joint = {"understanding_weight": 7, "condition_weight": 11, "diffusion_weight": 13}
    config = LossConfig.model_validate({**weights, **joint, "cross_entropy_weight": 17})
    ten, hundred, thousand, myriad = (torch.tensor(10.0**power) for power in (1, 2, 3, 4))
    assert understanding_loss(scene=ten, object=hundred, classification=thousand, config=config) == 5320
    terms = {"understanding": ten, "condition": hundred, "diffusion": thousand}
    assert joint_loss(**terms, config=config) == 70 + 1100 + 13000
    assert joint_loss(**terms, config=config, cross_entropy=myriad) == 70 + 1100 + 13000 + 170000
