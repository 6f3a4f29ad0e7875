import numpy as np

from uniemo_ray.seeds import id_hashes, stable_seed


def test_seeds_are_the_same_on_every_machine() -> None:
    assert stable_seed(0, "step", 3, 1) == 6788259613682953107
    assert 0 <= stable_seed("x") < 2**63


def test_parts_do_not_run_into_each_other() -> None:
    assert len({stable_seed("a", "bc"), stable_seed("ab", "c"), stable_seed("abc")}) == 3


def test_hashes_follow_the_ids_and_not_their_order() -> None:
    first, second = id_hashes(["a", "b", "c"]), id_hashes(["c", "a"])
    assert first.dtype == np.uint64
    assert second.tolist() == [first[2], first[0]]
    assert len(set(id_hashes(map(str, range(10_000))).tolist())) == 10_000
    assert id_hashes([]).shape == (0,)
