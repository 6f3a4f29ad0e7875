"""Thousands of broken and hostile files: every response is a result or a refusal, and memory stays flat."""

import gc
from collections import Counter

import psutil
import pytest

from benchmarks.mutated_images import MUTATIONS, mutants
from tests.service.fake import Brightness, client_of
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import ImageInput, ImageOutput, Refusal
from uniemo_ray.service.generations import GenerationStore
from uniemo_ray.service.settings import Limits
from uniemo_ray.service.workers.model_registry import ModelRegistry
from uniemo_ray.service.workers.understander import Understander

LIMITS = Limits(requests_per_minute=100_000_000, pixels=2_000_000)


class ModelBackend(Brightness):
    """The small backend with a real, tiny model behind `understand`."""

    def __init__(self, generation_store: GenerationStore, understander: Understander) -> None:
        super().__init__(generation_store)
        self.understander = understander

    async def understand(self, images: list[ImageInput]) -> list[ImageOutput | Refusal]:
        return self.understander.understand(images)


@pytest.fixture(scope="module")
def understander(model_folder) -> Understander:
    registry = ModelRegistry(models={"default": str(model_folder)}, max_pixels=LIMITS.pixels)
    return registry.understander(registry.load("default"))


def send(generation_store, understander, count: int, seed: int) -> dict[str, Counter[int]]:
    app = make_api(
        ModelBackend(generation_store, understander), generation_store=generation_store, limits=LIMITS
    )
    statuses: dict[str, Counter[int]] = {how: Counter() for how in MUTATIONS}
    with client_of(app) as client:
        for mutant in mutants(count, seed=seed):
            headers = {"content-type": mutant.media_type}
            response = client.post("/v1/understand", content=mutant.data, headers=headers)
            statuses[mutant.how][response.status_code] += 1
            if response.status_code != 200:
                assert response.headers["content-type"] == "application/problem+json", mutant
    return statuses


def check(statuses: dict[str, Counter[int]]) -> None:
    assert {status for counts in statuses.values() for status in counts} <= {200, 415, 422}, statuses
    for how in ("bomb", "noise", "no picture"):  # noise may begin as a picture of another kind
        assert set(statuses[how]) <= {415, 422}, (how, statuses[how])
        assert statuses[how][422] > 10 * statuses[how][415], (how, statuses[how])
    for how in ("an archive behind", "a script behind"):  # it is cut off; few files are damaged in other ways
        assert statuses[how][200] > statuses[how][422], (how, statuses[how])
    for how in ("bit flips", "truncation", "overwritten"):
        assert statuses[how][422] > 0, how
    assert statuses["bit flips"][200] > 0


def test_hundreds_of_mutants(generation_store, understander):
    check(send(generation_store, understander, 28 * len(MUTATIONS), seed=1))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_mutants_leave_memory_flat(generation_store, understander):
    process = psutil.Process()
    send(generation_store, understander, 1000, seed=2)  # what is loaded and cached once
    gc.collect()
    before = process.memory_info().rss
    check(send(generation_store, understander, 10_000, seed=3))
    gc.collect()
    assert process.memory_info().rss - before < 100_000_000
