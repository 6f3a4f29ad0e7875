"""The HTTP interface: plain FastAPI over anything that understands and generates; no Ray in here."""

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from serve.limits import BodyLimit, Limits
from serve.problems import Problem, add_problem_handlers
from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.emotions import emotion_index


class Understanding(Protocol):
    """Result for one image, as `uniemo_ray.inference.uniemo` gives it."""

    @property
    def emotions(self) -> dict[str, float]:
        """Probability per emotion."""

    @property
    def top(self) -> str:
        """The likeliest emotion."""

    @property
    def valence(self) -> str:
        """`positive` or `negative`."""

    @property
    def scenes(self) -> Sequence[tuple[str, float]]:
        """Scene names with scores, best first."""

    @property
    def objects(self) -> Sequence[tuple[str, float]]:
        """Object names with scores, best first."""


class Backend(Protocol):
    """What answers the requests; its methods block and are called in threads."""

    def understand(self, image: Image.Image) -> Understanding:
        """Emotions of one image."""

    def generate(self, request: "GenerateRequest") -> bytes:
        """One PNG with its provenance."""

    def describe(self) -> dict[str, Any]:
        """What `/v1/model` says about the model."""


class Attribute(BaseModel):
    """A scene or an object in an image."""

    name: str
    score: float


class UnderstandAnswer(BaseModel):
    """Emotions of one image."""

    top: str = Field(examples=["awe"])
    valence: str = Field(examples=["positive"])
    emotions: dict[str, float]
    """Probability per emotion; they sum to 1."""
    scenes: list[Attribute]
    objects: list[Attribute]


def _known_emotion(name: str) -> str:
    emotion_index(name)
    return name


_Emotion = Annotated[str, AfterValidator(_known_emotion)]
_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _form(value: object) -> str:
    """Which of the two forms was meant, so that an error speaks of that one."""
    return "weights" if isinstance(value, dict) else "name"


def _with_place(prompt: str) -> str:
    if "{}" not in prompt:
        raise ValueError('the prompt needs {} where the emotion goes, as in "{} room"')
    return prompt


class GenerateRequest(BaseModel):
    """One image to generate; the same request gives the same bytes."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"emotion": "awe", "seed": 7}]})

    emotion: Annotated[
        Annotated[_Emotion, Tag("name")]
        | Annotated[dict[_Emotion, _Weight], Field(min_length=1), Tag("weights")],
        Discriminator(_form),
    ]
    """One emotion, or positive weights of several."""
    prompt: Annotated[str, Field(max_length=Limits.prompt_characters), AfterValidator(_with_place)] | None = (
        None
    )
    seed: int = Field(0, ge=0, lt=2**63)
    steps: int | None = Field(None, ge=1, le=Limits.steps)
    guidance: float | None = Field(None, ge=0, le=50, allow_inf_nan=False)


_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (413, 422, 500)}


def make_api(backend: Backend, *, limits: Limits) -> FastAPI:
    """The FastAPI application over a loaded model."""
    app = FastAPI(title="UniEmo", version="1", description="Understand and generate emotional images.")
    app.add_middleware(BodyLimit, body_bytes=limits.body_bytes)
    add_problem_handlers(app)

    @app.post("/v1/understand", responses=_PROBLEMS, openapi_extra=_UPLOAD)
    async def understand(request: Request) -> UnderstandAnswer:
        """Which emotions an image evokes. Send the file itself, or as `image` of a form."""
        data = await _read_image(request)
        return await run_in_threadpool(_understand, backend, data, limits.pixels)

    @app.post(
        "/v1/generate", responses={200: {"content": {"image/png": {}}}, **_PROBLEMS}, response_class=Response
    )
    def generate(request: GenerateRequest) -> Response:
        """A PNG that evokes an emotion, or a mixture by weights; its text says how it was made."""
        try:
            return Response(backend.generate(request), media_type="image/png")
        except ValueError as error:  # an emotion that this model has never seen
            raise HTTPException(422, str(error)) from None

    @app.get("/v1/model")
    def model() -> dict[str, Any]:
        """The model behind this endpoint, and the limits of requests."""
        return {**backend.describe(), "limits": limits.as_dict()}

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        """Alive, with the model loaded."""
        return {"status": "ok"}

    return app


async def _read_image(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1, max_fields=0) as form:
        upload = form.get("image")
        if not isinstance(upload, UploadFile):
            raise HTTPException(422, "the form needs one file named image")
        return await upload.read()


def _understand(backend: Backend, data: bytes, max_pixels: int) -> UnderstandAnswer:
    if not data:
        raise HTTPException(422, "the body is empty: send an image")
    try:
        pixels = decode_rgb(data, max_pixels)
    except ImageError as error:
        raise HTTPException(422, f"no usable image: {error}") from None
    result = backend.understand(Image.fromarray(pixels))
    return UnderstandAnswer(
        top=result.top,
        valence=result.valence,
        emotions=result.emotions,
        scenes=[Attribute(name=name, score=score) for name, score in result.scenes],
        objects=[Attribute(name=name, score=score) for name, score in result.objects],
    )
