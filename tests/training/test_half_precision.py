"""The loss scale of fp16 training; the engine's tests show it at work."""

from uniemo_ray.training import half_precision
from uniemo_ray.training.half_precision import LossScale


def test_it_halves_down_to_one() -> None:
    scale = LossScale()
    seen = [scale.value]
    while scale.halve(0):
        seen.append(scale.value)
    assert seen == [2.0**i for i in range(16, -1, -1)]
    assert scale.value == 1


def test_it_doubles_after_a_long_quiet() -> None:
    scale = LossScale()
    for _ in range(half_precision.STEPS_BEFORE_GROWTH - 1):
        scale.count_step()
    scale.halve(0)  # the quiet starts anew
    for _ in range(half_precision.STEPS_BEFORE_GROWTH - 1):
        scale.count_step()
    assert scale.value == 2**15
    scale.count_step()
    assert scale.value == 2**16
    for _ in range(20 * half_precision.STEPS_BEFORE_GROWTH):
        scale.count_step()
    assert scale.value == half_precision.LARGEST


def test_its_state_comes_back() -> None:
    scale, again = LossScale(), LossScale()
    scale.halve(0)
    scale.count_step()
    again.restore(scale.state())
    assert again.state() == scale.state() == {"value": 2.0**15, "quiet_steps": 1}
