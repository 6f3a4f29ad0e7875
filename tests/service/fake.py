"""A small real backend: bright images are amusing, dark ones are sad, and generated images are grey."""

import asyncio
import io
from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.inference.uniemo import Named, UnderstandResult
from uniemo_ray.service.api.app import make_api
from uniemo_ray.service.backend import (
    EncodedImage,
    GenerationParams,
    ImageInput,
    ImageOutput,
    ModelDescription,
    Refusal,
    UnavailableError,
)
from uniemo_ray.service.generations import GenerationState, GenerationStore, ImageState
from uniemo_ray.service.settings import Limits

DESCRIPTION = ModelDescription(
    fingerprint="abc",
    card="# A card",
    emotions=EMOTIONS,
    paintable=EMOTIONS[:-1],
    defaults={"steps": 3, "guidance": 4.0, "width": 8, "height": 8, "prompt": "{}"},
    pixels_multiple=4,
    micro_batch=1,
    uniemo_ray="0",
)
BROKEN_SEED, FULL_SEED, SLOW_SEED, REFUSED_SEED = 13, 14, 15, 16
SECRET = "/home/someone/secret"


class Brightness:
    """Decides by brightness. Some seeds cause errors."""

    def __init__(self, generation_store: GenerationStore) -> None:
        self.generation_store = generation_store
        self.is_up = True
        self.cancelled: list[int] = []
        self.may_finish = asyncio.Event()

    async def is_ready(self) -> bool:
        return self.is_up

    async def describe(self, model: str) -> ModelDescription:
        return DESCRIPTION

    async def understand(self, images: Sequence[ImageInput]) -> list[ImageOutput | Refusal]:
        return [self._understand_one(image, len(images)) for image in images]

    def _understand_one(self, image: ImageInput, batch: int) -> ImageOutput | Refusal:
        try:
            pixels = decode_rgb(image.data, 10_000)
        except ImageError as error:
            return Refusal(error.reason)
        light = float(pixels.mean()) / 255
        emotions = dict.fromkeys(EMOTIONS, 0.0) | {"amusement": light, "sadness": 1 - light}
        attention = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4) if image.with_attention else None
        result = UnderstandResult(
            emotions,
            max(emotions, key=lambda name: emotions[name]),
            "positive" if light > 0.5 else "negative",
            [Named("sky", light), Named("street", 1 - light)],
            [],
            attention,
            attention,
        )
        return ImageOutput(result, pixels.shape[1], pixels.shape[0], "abc", batch)

    async def generate(self, params: GenerationParams) -> list[EncodedImage] | Refusal:
        if params.seed == BROKEN_SEED:
            raise RuntimeError(SECRET)
        if params.seed == FULL_SEED:
            raise UnavailableError("the queue is full", retry_after_s=1.5)
        if params.seed == REFUSED_SEED:
            return Refusal("the prompt is too long", "prompt")
        if params.seed == SLOW_SEED:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.append(params.seed)
                raise
        return [
            EncodedImage(grey(params.seed + i, params.format), {"seed": params.seed + i}, 1)
            for i in range(params.n)
        ]

    async def start(self, generation_id: str, params: GenerationParams) -> "asyncio.Task[None]":
        if params.seed == FULL_SEED:
            raise UnavailableError("the queue is full", retry_after_s=1.5)
        return asyncio.create_task(self._run(generation_id, params))

    async def close(self) -> None:
        self.is_up = False

    async def _run(self, generation_id: str, params: GenerationParams) -> None:
        self.generation_store.write_image(generation_id, "preview-0", b"preview")
        self.generation_store.write_state(
            generation_id, GenerationState("running", (ImageState(step=1, of=2, previews=1),))
        )
        if params.seed == SLOW_SEED:
            while not self.generation_store.is_cancelled(generation_id):
                await asyncio.sleep(0.01)
            self.cancelled.append(params.seed)
            return
        await asyncio.sleep(0.5)
        self.generation_store.write_image(generation_id, "image-0", grey(params.seed, params.format))
        done = ImageState(step=2, of=2, previews=1, sha256="ab", provenance={"seed": params.seed}, batch=4)
        self.generation_store.write_state(generation_id, GenerationState("done", (done,)))


def grey(seed: int, kind: str) -> bytes:
    return encode(Image.new("RGB", (8, 8), (seed % 256,) * 3), kind)


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(seed: int) -> bytes:
    """A PNG of random pixels, 60 x 40."""
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 60, 3), dtype=np.uint8)))


WHITE = encode(Image.new("RGB", (20, 10), "white"))
BLACK = encode(Image.new("RGB", (10, 20), "black"))


def client_of(app: FastAPI, **headers: str) -> TestClient:
    """A client whose requests come from this machine."""
    return TestClient(
        app,
        base_url="http://127.0.0.1",
        client=("127.0.0.1", 5),
        raise_server_exceptions=False,
        headers=headers,
    )


def make_fake(generation_store: GenerationStore, **options: object) -> tuple[FastAPI, Brightness]:
    """An application over the small backend, and that backend."""
    backend = Brightness(generation_store)
    limits = options.pop("limits", Limits(body_bytes=50_000, pixels=10_000, generate_timeout_s=0.4))
    options = {"emotions": EMOTIONS, **options}
    return make_api(backend, generation_store=generation_store, limits=limits, **options), backend


def assert_problem(response, status: int, words: str, field: str | None = None) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"]
    assert words in problem["detail"]
    assert problem.get("field") == field
