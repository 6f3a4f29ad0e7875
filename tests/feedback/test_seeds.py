"""Seeds by name."""

from uniemo_ray.feedback.seeds import stable_rng, stable_seed


def test_the_seed_of_a_name_never_changes() -> None:
    """A literal, so that another machine, process or version would be noticed."""
    assert stable_seed(0, "r1-emotion-awe-00007") == 7269841484721838558


def test_seeds_fit_a_torch_generator_and_differ() -> None:
    seeds = {stable_seed(seed, str(i)) for seed in range(3) for i in range(2000)}
    assert len(seeds) == 6000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_generators_of_one_name_agree() -> None:
    assert stable_rng(1, "a").integers(1 << 40) == stable_rng(1, "a").integers(1 << 40)
    assert stable_rng(1, "a").integers(1 << 40) != stable_rng(1, "b").integers(1 << 40)
