import numpy as np

from uniemo_ray.seeds import hash_seed, id_hashes, named_rng, named_seed


def test_seeds_are_the_same_on_every_machine() -> None:
    assert hash_seed(0, "step", 3, 1) == 6788259613682953107
    assert 0 <= hash_seed("x") < 2**63


def test_parts_do_not_run_into_each_other() -> None:
    assert len({hash_seed("a", "bc"), hash_seed("ab", "c"), hash_seed("abc")}) == 3


def test_the_seed_of_a_name_never_changes() -> None:
    """A literal, so that another machine, process or version would be noticed."""
    assert named_seed(0, "r1-emotion-awe-00007") == 7269841484721838558


def test_the_seed_of_a_name_is_not_the_hash_of_two_parts() -> None:
    assert named_seed(0, "split") != hash_seed(0, "split")
    assert named_seed(0, "split") == hash_seed("0/split")


def test_seeds_of_names_fit_a_torch_generator_and_differ() -> None:
    seeds = {named_seed(seed, str(i)) for seed in range(3) for i in range(2000)}
    assert len(seeds) == 6000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_name_agree() -> None:
    assert named_rng(1, "a").integers(1 << 40) == named_rng(1, "a").integers(1 << 40)
    assert named_rng(1, "a").integers(1 << 40) != named_rng(1, "b").integers(1 << 40)


def test_hashes_follow_the_ids_and_not_their_order() -> None:
    first, second = id_hashes(["a", "b", "c"]), id_hashes(["c", "a"])
    assert first.dtype == np.uint64
    assert second.tolist() == [first[2], first[0]]
    assert len(set(id_hashes(map(str, range(10_000))).tolist())) == 10_000
    assert id_hashes([]).shape == (0,)
