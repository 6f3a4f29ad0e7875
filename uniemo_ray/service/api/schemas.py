"""Requests and answers of the HTTP interface; limits are part of the models, so the documentation is true."""

import base64
import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    EncodedBytes,
    EncoderProtocol,
    Field,
    Strict,
    StrictBool,
    StrictStr,
    Tag,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from uniemo_ray.emotions import EMOTIONS, emotion_index
from uniemo_ray.service.backend import DEFAULT_MODEL, Format, GenerationParams
from uniemo_ray.service.settings import Limits

MEDIA_TYPE: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SMALLEST_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mOo6DkBAANMAc3Rz2dLAAAAAElFTkSuQmCC"
"""One pixel, in base64, for examples."""
LARGEST_SEED = 2**53 - 1
"""Larger ones are not exact in JSON everywhere."""
LARGEST_DRAWN_SEED = 2**32
"""Seeds that we choose: short enough to read out."""


_NO_TEXT = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML, which holds the provenance in some formats, and UTF-8 have no place for."""


def _known_emotion(name: str) -> str:
    emotion_index(name)
    return name


def _with_place(prompt: str) -> str:
    if "{}" not in prompt:
        raise ValueError('the prompt needs {} where the emotion goes, as in "{} room"')
    if _NO_TEXT.search(prompt):
        raise ValueError("the prompt holds a character that is no text")
    return prompt


Emotion = Annotated[str, AfterValidator(_known_emotion), Field(json_schema_extra={"enum": list(EMOTIONS)})]
Weight = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


def _form(value: object) -> str:
    """Which of the two forms was meant, so that an error speaks of that one."""
    return "<weights>" if isinstance(value, dict) else "<name>"


def _few(weights: object) -> object:
    """Counted before they are looked at: every wrong one would be an error of its own."""
    if isinstance(weights, dict) and len(weights) > len(EMOTIONS):
        raise ValueError(f"expected weights of at most {len(EMOTIONS)} emotions, got {len(weights)}")
    return weights


Weights = Annotated[
    dict[Emotion, Weight], Field(min_length=1, max_length=len(EMOTIONS)), BeforeValidator(_few)
]
Emotions = Annotated[
    Annotated[Emotion, Tag("<name>")] | Annotated[Weights, Tag("<weights>")],
    Discriminator(_form),
]
Prompt = Annotated[
    str,
    AfterValidator(_with_place),
    # the format is ours: whether a text fits into the model's tokens is nothing that a schema can say
    Field(json_schema_extra={"pattern": r"\{\}", "format": "prompt"}),
]


def _whole(value: object) -> object:
    """JSON knows one kind of number: 8.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(*, ge: int, le: int, multiple_of: int | None = None) -> Any:
    """The type of an integer with bounds; the order of these keeps the bounds in the description."""
    return Annotated[int, Strict(), Field(ge=ge, le=le, multiple_of=multiple_of), BeforeValidator(_whole)]


class Schema(BaseModel):
    """Base of all: a wrong key is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class _Base64(EncoderProtocol):
    """Base64 as RFC 4648 has it; Python's own reader skips what does not belong there."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except ValueError:
            raise PydanticCustomError("base64_decode", "this is no Base64") from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64-image"]:
        return "base64-image"


Base64File = Annotated[bytes, EncodedBytes(encoder=_Base64)]
RequestT = TypeVar("RequestT", bound=Schema)


class UnderstandRequest(Schema):
    """Images to understand, as JSON."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"images": [SMALLEST_PNG]}]})

    images: list[Base64File] = Field(min_length=1)
    """Files in base64."""
    attention: StrictBool = False
    """Also say where the model looks, which takes a little longer."""
    names: int = Field(5, ge=1)
    """How many scenes and objects to list."""
    model: StrictStr = DEFAULT_MODEL
    """Which of the served models."""


class GenerateRequest(Schema):
    """Images to generate; the same request with a seed gives the same bytes."""

    model_config = ConfigDict(
        strict=True,
        json_schema_extra={
            "examples": [
                {"emotion": "awe", "seed": 7},
                {"emotion": {"amusement": 0.6, "fear": 0.4}, "prompt": "{} room", "n": 2, "format": "webp"},
            ]
        },
    )

    @model_validator(mode="before")
    @classmethod
    def _one_wrong_key(cls, values: Any) -> Any:
        """Keep one of the wrong keys: each would be an error, and only the first is told."""
        if not isinstance(values, dict):
            return values
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        wrong = next((name for name in values if name not in known), None)
        return known if wrong is None else known | {wrong: values[wrong]}

    emotion: Emotions
    """One emotion, or weights of several, which are normalised."""
    prompt: Prompt | None = None
    """`{}` stands for the emotion, as in `{} room`; by default the prompt of training."""
    n: int = Field(1, ge=1)
    """Number of images; image i has seed + i."""
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    """Of the first image; without one the server draws it and says which."""
    steps: int | None = Field(None, ge=1)
    """Sampling steps; this and the next three by default as in training, see `/v1/model`."""
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """How strongly the emotion steers; 1 or less is not at all."""
    width: int | None = Field(None, ge=8, multiple_of=8)
    """Pixels; a multiple of 8, for some models of more: `pixels_multiple` of `/v1/model`."""
    height: int | None = Field(None, ge=8, multiple_of=8)
    """Pixels."""
    mix: Literal["condition", "guidance"] = "condition"
    """How several emotions meet: interpolated, or one guidance term each."""
    format: Format | None = None
    """Of the files; by default what `Accept` names, else PNG."""
    model: str = DEFAULT_MODEL
    """Which of the served models."""

    def to_params(self, format_: Format) -> GenerationParams:
        """What the models are asked, with a seed in any case."""
        return GenerationParams(
            model=self.model,
            emotions={self.emotion: 1.0} if isinstance(self.emotion, str) else self.emotion,
            prompt=self.prompt,
            n=self.n,
            seed=secrets.randbelow(LARGEST_DRAWN_SEED) if self.seed is None else self.seed,
            steps=self.steps,
            guidance=self.guidance,
            width=self.width,
            height=self.height,
            mix=self.mix,
            format=format_,
        )


class Attribute(Schema):
    """A scene or an object in an image."""

    name: str
    score: float
    """0 to 1, among all names of its kind."""


class Attention(Schema):
    """Where the model looks."""

    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the centred square that the model sees, in pixels of the upright image."""
    scene: str
    """Base64 of a transparent PNG to lay over the box: where the scene queries look."""
    object: str
    """The same for the object queries."""


class Understood(Schema):
    """What the model sees in one image."""

    top: str = Field(examples=["awe"])
    """The likeliest emotion."""
    valence: Literal["positive", "negative"]
    """The side that holds more probability."""
    emotions: dict[str, float]
    """Probability per emotion; they sum to 1."""
    scenes: list[Attribute]
    """Best first."""
    objects: list[Attribute]
    """Best first."""
    width: int
    """Pixels of the upright image."""
    height: int
    attention: Attention | None = None
    """If asked for, and the model has expert queries."""


class UnderstandAnswer(Schema):
    """One result per image, in their params."""

    model: str
    """Fingerprint of the model that looked."""
    results: list[Understood]


class GeneratedFile(Schema):
    """A generated image."""

    seed: int
    """This image alone comes again with it and n = 1."""
    media_type: str = Field(examples=["image/png"])
    data: str
    """Base64 of the file, which carries its provenance."""
    sha256: str
    """Of the file."""
    provenance: dict[str, Any]
    """How it was made: model, prompt, weights, settings, versions."""


class GenerateAnswer(Schema):
    """Images in the order of their seeds."""

    seed: int
    """Of the first image."""
    images: list[GeneratedFile]


def limited_understand(limits: Limits, models: Sequence[str]) -> type[UnderstandRequest]:
    """The request with the service's limits and models in it."""
    file = Annotated[Base64File, Field(max_length=limits.body_bytes)]
    return _limited(
        UnderstandRequest,
        images=Annotated[list[file], Field(min_length=1, max_length=limits.images)],
        names=whole(ge=1, le=limits.names),
        model=one_of(models),
    )


def limited_generate(limits: Limits, models: Sequence[str]) -> type[GenerateRequest]:
    """The request with the service's limits and models in it."""
    side = whole(ge=8, le=limits.side_px, multiple_of=8) | None
    return _limited(
        GenerateRequest,
        prompt=Annotated[Prompt, Field(max_length=limits.prompt_characters)] | None,
        n=whole(ge=1, le=limits.n),
        seed=whole(ge=0, le=LARGEST_SEED - limits.n + 1) | None,  # the last image has one too
        steps=whole(ge=1, le=limits.steps) | None,
        guidance=Annotated[float, Field(ge=0, le=limits.guidance, allow_inf_nan=False)] | None,
        width=side,
        height=side,
        model=one_of(models),
    )


def one_of(models: Sequence[str]) -> Any:
    """The type of a model's name; whether it is served is checked where requests are answered."""
    return Annotated[StrictStr, Field(json_schema_extra={"enum": list(models)})]


def _limited(base: type[RequestT], **annotations: Any) -> type[RequestT]:
    """A request with other types of some fields, and their descriptions and defaults as before."""
    fields: dict[str, Any] = {}
    for name, annotation in annotations.items():
        known = base.model_fields[name]
        options = {} if known.is_required() else {"default": known.default}
        fields[name] = (annotation, Field(description=known.description, **options))
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
