import pytest
import torch

from uniemo_ray.models.heads import Temperature, make_classifier


def test_classifier_has_the_papers_shape():
    head = make_classifier(16, 8)
    assert [tuple(p.shape) for p in head.parameters()] == [(768, 16), (768,), (8, 768), (8,)]
    assert head[2].p == 0.5
    assert head(torch.zeros(3, 16)).shape == (3, 8)


def test_temperature_learns_and_stays_above_its_floor():
    temperature = Temperature(0.07)
    assert temperature().item() == pytest.approx(0.07)
    temperature().sum().backward()
    assert temperature.log_value.grad.item() == pytest.approx(0.07)
    temperature.log_value.data.fill_(-20)
    assert temperature().item() == pytest.approx(0.01)
