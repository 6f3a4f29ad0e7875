import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from uniemo_ray.models.attributes import NO_ATTRIBUTE, AttributeBase


def make_base(count=5, width=4, seed=0):
    vectors = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return AttributeBase([f"name_{i}" for i in range(count)], vectors)


@given(seed=st.integers(0, 10_000), length=st.floats(0.01, 100))
def test_find_is_the_most_cosine_similar_name(seed, length):
    base = make_base()
    query = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    expected = F.cosine_similarity(query[:, None], base.embeddings[None], dim=-1).argmax(dim=1)
    assert torch.equal(base.find(length * query), expected)


def test_names_find_themselves():
    base = make_base()
    assert base.find(base.embeddings).tolist() == list(range(5))


def test_training_under_autocast_finds_what_inference_finds():
    base = make_base(count=400, width=12)
    query = torch.randn(200, 12, generator=torch.Generator().manual_seed(1))
    expected = base.find(query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(base.find(query), expected)


def test_weight_looks_up_alpha():
    base = make_base()
    rows = {"name_0": [0.5] * 8, "name_1": [0.1 * i for i in range(8)], "name_3": [1.0] + [0.0] * 7}
    base.set_coefficients(rows)
    index, emotion = torch.tensor([1, 3, 3, 2, 1, NO_ATTRIBUTE]), torch.tensor([7, 0, 1, 0, 2, 0])
    assert base.weight(index, emotion).tolist() == pytest.approx([0.7, 1.0, 0.0, 0.0, 0.2, 0.0])


def test_setting_coefficients_again_forgets_the_old_ones():
    base = make_base()
    base.set_coefficients({"name_1": [1.0] * 8})
    base.set_coefficients({"name_2": [0.5] * 8})
    assert base.coefficients.sum(dim=1).tolist() == [0, 0, 4, 0, 0]


def test_empty_base_finds_nothing_and_weighs_nothing():
    base = AttributeBase((), torch.empty(0, 4))
    index = base.find(torch.randn(3, 4))
    assert index.tolist() == [NO_ATTRIBUTE] * 3
    assert base.weight(index, torch.tensor([0, 1, 2])).tolist() == [0, 0, 0]


def test_state_survives_saving_and_holds_no_parameter():
    base = make_base()
    base.set_coefficients({"name_2": [0.5] * 8})
    other = AttributeBase(base.names, torch.zeros(5, 4))
    other.load_state_dict(base.state_dict())
    assert torch.equal(other.coefficients, base.coefficients)
    assert torch.equal(other.embeddings, base.embeddings)
    assert not list(base.parameters())


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="distinct"):
        AttributeBase(("a", "a"), torch.ones(2, 4))
    with pytest.raises(ValueError, match="expected 2 attribute embeddings"):
        AttributeBase(("a", "b"), torch.ones(3, 4))
    with pytest.raises(ValueError, match="'sea'"):
        make_base().set_coefficients({"sea": [0.0] * 8})
    with pytest.raises(ValueError, match="expected 8 coefficients for 'name_0', got 7"):
        make_base().set_coefficients({"name_0": [0.0] * 7})
