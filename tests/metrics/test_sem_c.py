"""Sem-C."""

import numpy as np
import pytest

from uniemo_ray.metrics.sem_c import clarity, sem_c


def test_mean_of_the_larger_probability() -> None:
    found = sem_c(clarity([0.2, 0.9, 0.5], [0.4, 0.1, 0.5]), name="sem_c_clip")
    best = np.array([0.4, 0.9, 0.5])
    assert found.name == "sem_c_clip"
    assert found.mean == pytest.approx(best.mean())
    assert found.standard_error == pytest.approx(best.std(ddof=1) / np.sqrt(3))
    assert found.count == 3


@pytest.mark.parametrize("error", [0.0, 0.25])
def test_the_error_of_one_image_is_0_and_of_two_that_of_their_mean(error: float) -> None:
    best = [0.5] if error == 0 else [0.25, 0.75]
    assert sem_c(clarity(best, best), name="sem_c").standard_error == pytest.approx(error)


def test_certain_and_impossible_are_probabilities() -> None:
    found = sem_c(clarity(np.array([0, 1, 1], dtype=np.float32), [0.0, 0.0, 1.0]), name="sem_c")
    assert found.mean == pytest.approx(2 / 3)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sem_c of no image"):
        sem_c(clarity([], []), name="sem_c")
    with pytest.raises(ValueError, match="equally long"):
        clarity([0.1], [0.1, 0.2])
    for bad in (1.5, float("nan")):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            clarity([bad], [0.1])
