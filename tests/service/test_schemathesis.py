"""Schemathesis checks the service against its description: all checks, every phase, sequences of calls."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from tests.service.fake import DESCRIPTION, Brightness, grey
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import EncodedImage, GenerationParams, ModelDescription
from uniemo_ray.service.generations import GenerationState, ImageState
from uniemo_ray.service.settings import Limits

REPOSITORY = Path(__file__).parents[2]
TOOL = shutil.which("schemathesis", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(TOOL is None, reason="schemathesis is not installed"),
]


class Willing(Brightness):
    """Generates every emotion with every seed at once."""

    async def describe(self, model: str) -> ModelDescription:
        return replace(DESCRIPTION, paintable=EMOTIONS)

    async def generate(self, params: GenerationParams) -> list[EncodedImage]:
        return [
            EncodedImage(grey(params.seed + i, params.format), {"seed": params.seed + i}, 1)
            for i in range(params.n)
        ]

    async def _run(self, generation_id: str, params: GenerationParams) -> None:
        self.generation_store.write_image(generation_id, "preview-0", grey(0, "webp"))
        self.generation_store.write_image(generation_id, "image-0", grey(params.seed, params.format))
        image = ImageState(step=2, of=2, previews=1, sha256="ab", provenance={"seed": params.seed})
        self.generation_store.write_state(generation_id, GenerationState("done", (image,) * params.n))

    async def start(self, generation_id: str, params: GenerationParams):
        return await super().start(
            generation_id, replace(params, seed=params.seed + 100)
        )  # past the fake's bad seeds


@pytest.fixture
def url(generation_store) -> Iterator[str]:
    limits = Limits(requests_per_minute=10**8, concurrent_generations=10**6, active_requests=10**6)
    app = make_api(
        Willing(generation_store),
        generation_store=generation_store,
        limits=limits,
        models=("default", "other"),
        emotions=EMOTIONS,
    )
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    thread.join(30)


def test_the_service_is_as_described(url, tmp_path):
    examples = os.environ.get("UNIEMO_TEST_EXAMPLES", "30")
    command = [TOOL, "run", f"{url}/openapi.json", "--checks", "all", "--seed", "1", "--no-color"]
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "benchmarks.schema_hooks",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [*command, "--max-examples", examples],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
