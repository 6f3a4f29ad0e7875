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


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="sem_c of no image"):
        sem_c(clarity([], []), name="sem_c")
    with pytest.raises(ValueError, match="equally long"):
        clarity([0.1], [0.1, 0.2])
    for bad in (1.5, float("nan")):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            clarity([bad], [0.1])
