"""The service with its models on the device: it understands and generates."""

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from ray import serve

from tests.gpu.device import DEVICE
from tests.service.fake import picture
from uniemo_ray.inference.provenance import read_provenance
from uniemo_ray.service.app import BuildArgs, build_app
from uniemo_ray.service.pool import GenerationPool, Pool

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]
SHARE = 0.25 if DEVICE == "cuda" else 0.0
"""Of a GPU, for each of the three replicas: endpoint, understanding and generation."""


@pytest.fixture
def client(device: str, ray_session: None, model_folder: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 120})
    arguments = BuildArgs(
        model=str(model_folder),
        store=str(tmp_path),
        device=device,
        understand_micro_batch=4,
        generate_micro_batch=2,
        understanding=Pool(num_cpus=0.2, num_gpus=SHARE, batch_size=4, max_replicas=1),
        generation=GenerationPool(num_cpus=0.2, num_gpus=SHARE, batch_size=4, max_replicas=1),
    )
    serve.run(build_app(arguments))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
        yield client
    serve.shutdown()


def test_the_service_understands_and_generates(client: httpx.Client) -> None:
    seen = client.post("/v1/understand", content=picture(0))
    assert seen.status_code == 200, seen.text
    emotions = seen.json()["results"][0]["emotions"]
    assert len(emotions) == 8
    assert sum(emotions.values()) == pytest.approx(1, abs=1e-3)
    body, headers = {"emotion": "awe", "seed": 5}, {"accept": "image/png"}
    made = [client.post("/v1/generate", json=body, headers=headers) for _ in range(2)]
    assert made[0].status_code == 200, made[0].text
    assert made[0].content == made[1].content
    assert f'"processor":"{DEVICE}"' in read_provenance(made[0].content)["versions"]
