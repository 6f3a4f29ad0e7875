import pytest

from uniemo_ray.training.cadence import Cadence


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_checkpoint_comes_after_the_shortest_time() -> None:
    clock = Clock()
    cadence = Cadence(shortest_s=30, share=0.03, clock=clock)
    assert not cadence.is_due()
    assert cadence.is_due(is_epoch_end=True)
    clock.now += 30
    assert cadence.is_due()


@pytest.mark.parametrize("held_s", [0.01, 0.5, 6.0, 45.0])
@pytest.mark.parametrize("share", [0.03, 0.25])
def test_saving_takes_at_most_its_share(held_s: float, share: float) -> None:
    clock, held, steps = Clock(), 0.0, 0
    cadence = Cadence(shortest_s=10, share=share, clock=clock)
    clock.now += 10
    started = clock.now
    while held < 20 * held_s:
        clock.now += held_s
        held += held_s
        cadence.saved(held_s=held_s)
        while not cadence.is_due():
            clock.now += 0.125
            steps += 1
    assert held / (clock.now - started) <= share + 1e-9
    assert cadence.interval_s == pytest.approx(max(10, held_s / share - held_s))


def test_a_slow_save_makes_the_end_of_an_epoch_wait_too() -> None:
    clock = Clock()
    cadence = Cadence(shortest_s=1, share=0.1, clock=clock)
    cadence.saved(held_s=1)
    clock.now += 8.5
    assert not cadence.is_due(is_epoch_end=True)
    clock.now += 0.5
    assert cadence.is_due(is_epoch_end=True)


def test_without_a_limit_the_time_is_fixed() -> None:
    clock = Clock()
    cadence = Cadence(shortest_s=30, share=1, clock=clock)
    cadence.saved(held_s=500)
    assert cadence.is_due(is_epoch_end=True)
    clock.now += 29
    assert not cadence.is_due()
    clock.now += 1
    assert cadence.is_due()
