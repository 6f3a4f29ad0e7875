"""Requests and responses of the HTTP API, with the limits of the service in them."""

import base64
import math
import re
import secrets
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query
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

from uniemo_ray.emotions import Valence
from uniemo_ray.service.backend import DEFAULT_MODEL, Format, GenerationParams
from uniemo_ray.service.settings import Limits

MEDIA_TYPE: dict[Format, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}
SMALLEST_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mOo6DkBAANMAc3Rz2dLAAAAAElFTkSuQmCC"
"""An image of one pixel in base64, for examples."""
SIDE_MULTIPLE = 8
"""Width and height of every generated image are multiples of it, whatever the model."""
LARGEST_SEED = 2**53 - 1
"""Larger integers are not exact in every reader of JSON."""
LARGEST_DRAWN_SEED = 2**32
"""Upper bound of the seeds that the server draws, so that they are short."""


_NO_TEXT = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that UTF-8, or the XML of a provenance record, cannot hold."""


def _has_placeholder(prompt: str) -> str:
    if "{}" not in prompt:
        raise ValueError('the prompt needs {} in place of the emotion, as in "{} room"')
    if _NO_TEXT.search(prompt):
        raise ValueError("the prompt holds a character that is not text")
    return prompt


MOST_WEIGHTS = 64
"""Largest number of weights in a request where the model's emotions are not known here."""
Weight = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


def _form(value: object) -> str:
    """Which of the two forms a value has, so that an error is about that form."""
    return "<weights>" if isinstance(value, dict) else "<name>"


def _limit_weights(most: int) -> Callable[[object], object]:
    """Limit the number of weights before each of them is checked and could become an error of its own."""

    def check(weights: object) -> object:
        if isinstance(weights, dict) and len(weights) > most:
            raise ValueError(f"expected weights of at most {most} emotions, got {len(weights)}")
        return weights

    return check


def one_or_mixed(labels: Sequence[str] | None) -> Any:
    """The type of an emotion or of weights of several; None for emotions that are not known here."""
    emotion: Any = str
    if labels is not None:

        def known(name: str) -> str:
            if name not in labels:
                raise ValueError(unknown_emotion(name, labels))
            return name

        emotion = Annotated[str, AfterValidator(known), Field(json_schema_extra={"enum": list(labels)})]
    most = MOST_WEIGHTS if labels is None else len(labels)
    weights: Any = Annotated[
        dict[emotion, Weight],
        Field(min_length=1, max_length=most),
        BeforeValidator(_limit_weights(most)),
    ]
    return Annotated[
        Annotated[emotion, Tag("<name>")] | Annotated[weights, Tag("<weights>")],
        Discriminator(_form),
    ]


def unknown_emotion(name: str, labels: Sequence[str]) -> str:
    """What is wrong with an emotion that is none of these."""
    return f"unknown emotion {name!r}: expected one of {', '.join(labels)}"


_PROMPT_RULES = (
    AfterValidator(_has_placeholder),
    # the format `prompt` is our own: a schema cannot say whether a text fits into the model's tokens
    Field(json_schema_extra={"pattern": r"\{\}", "format": "prompt"}),
)
Prompt = Annotated[str, *_PROMPT_RULES]


def _whole(value: object) -> object:
    """Read 8.0 as an integer, because JSON has one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole(*, ge: int, le: int, multiple_of: int | None = None) -> Any:
    """The type of an integer with bounds. The bounds come first, which keeps them in the description."""
    return Annotated[int, Strict(), Field(ge=ge, le=le, multiple_of=multiple_of), BeforeValidator(_whole)]


class Schema(BaseModel):
    """Base of requests and responses. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class _Base64(EncoderProtocol):
    """Base64 of RFC 4648. Python's own decoder ignores invalid characters by default."""

    @classmethod
    def decode(cls, data: bytes) -> bytes:
        try:
            return base64.b64decode(data, validate=True)
        except ValueError:
            raise PydanticCustomError("base64_decode", "this is not valid Base64") from None

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return base64.b64encode(value)

    @classmethod
    def get_json_format(cls) -> Literal["base64-image"]:
        return "base64-image"


Base64File = Annotated[bytes, EncodedBytes(encoder=_Base64)]
MODEL_QUERY = Query(alias="model", description="Name of a served model.")
RequestT = TypeVar("RequestT", bound=Schema)


class UnderstandRequest(Schema):
    """Images to understand."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"images": [SMALLEST_PNG]}]})

    images: list[Base64File] = Field(min_length=1)
    """Image files in base64."""
    attention: StrictBool = False
    """Whether to return attention maps. They take a little longer."""
    names: int = Field(5, ge=1)
    """How many scenes, and how many objects, to list."""
    model: StrictStr = DEFAULT_MODEL
    """Name of a served model."""


class GenerateRequest(Schema):
    """Images to generate. Equal requests with a seed give equal bytes."""

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
    def _keep_one_unknown_key(cls, values: Any) -> Any:
        """Keep one unknown key. Each of them would be an error, and only the first error is reported."""
        if not isinstance(values, dict):
            return values
        known = {name: value for name, value in values.items() if name in cls.model_fields}
        wrong = next((name for name in values if name not in known), None)
        return known if wrong is None else known | {wrong: values[wrong]}

    emotion: str | dict[str, float]
    """One emotion, or the weights of several. Weights are normalised."""
    prompt: Prompt | None = None
    """Text with `{}` in place of the emotion, as in `{} room`. Default: the prompt used in training."""
    n: int = Field(1, ge=1)
    """Number of images. Image i has seed + i."""
    seed: int | None = Field(None, ge=0, le=LARGEST_SEED)
    """Seed of the first image. Default: the server draws one and returns it."""
    steps: int | None = Field(None, ge=1)
    """Sampling steps. Default: the value used in training, which `/v1/model` shows."""
    guidance: float | None = Field(None, ge=0, allow_inf_nan=False)
    """Guidance scale: how strongly the emotion steers the image. At 1 or less, guidance is off. Default: the
    value used in training."""
    width: int | None = Field(None, ge=SIDE_MULTIPLE, multiple_of=SIDE_MULTIPLE)
    """Width in pixels, a multiple of 8. Some models need a larger multiple: `pixels_multiple` of `/v1/model`.
    Default: the size used in training."""
    height: int | None = Field(None, ge=SIDE_MULTIPLE, multiple_of=SIDE_MULTIPLE)
    """Height in pixels, with the same rules as the width."""
    mix: Literal["condition", "guidance"] = "condition"
    """How several emotions are combined: `condition` interpolates their conditions, `guidance` uses one
    guidance term for each."""
    format: Format | None = None
    """File format. Default: the type that `Accept` names, else PNG."""
    model: str = DEFAULT_MODEL
    """Name of a served model."""

    def to_params(self, format_: Format) -> GenerationParams:
        """The parameters of a generation. If the request has no seed, one is drawn."""
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
    """Name of the scene or object."""
    score: float
    """Probability among all scenes or all objects, 0 to 1."""


class Attention(Schema):
    """Attention maps of the expert queries."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the centred square that the model sees, in pixels of the upright
    image."""
    scene: str
    """Attention of the scene queries: a transparent PNG in base64 that covers the box."""
    object: str
    """Attention of the object queries: a transparent PNG in base64 that covers the box."""


class UnderstoodImage(Schema):
    """Emotions, scenes and objects of one image."""

    top: str
    """The most probable emotion."""
    valence: Valence | None
    """The valence with the larger sum of probabilities; null for a model whose emotions have no valences."""
    emotions: dict[str, float]
    """Probability of each emotion. The probabilities sum to 1."""
    scenes: list[Attribute]
    """Most probable scenes, best first."""
    objects: list[Attribute]
    """Most probable objects, best first."""
    width: int
    """Width of the upright image in pixels."""
    height: int
    """Height of the upright image in pixels."""
    attention: Attention | None = None
    """Attention maps, if they were requested and the model has expert queries."""


class UnderstandResponse(Schema):
    """Results of an understand request."""

    model: str
    """Fingerprint of the model."""
    results: list[UnderstoodImage]
    """One result per image, in the order of the request."""


class GeneratedFile(Schema):
    """A generated image in base64."""

    seed: int
    """Seed of this image. A request with this seed and n = 1 gives this image alone."""
    media_type: str = Field(examples=["image/png"])
    """Media type of the file."""
    data: str
    """The file in base64. It contains its provenance."""
    sha256: str
    """SHA-256 checksum of the file."""
    provenance: dict[str, Any]
    """Model, prompt, weights, settings and versions that produced the image."""


class GenerateResponse(Schema):
    """Results of a generate request."""

    seed: int
    """Seed of the first image. Image i has seed + i."""
    images: list[GeneratedFile]
    """The images in the order of their seeds."""


def limited_understand(limits: Limits, models: Sequence[str]) -> type[UnderstandRequest]:
    """The type of a request, with the limits and models of a service."""
    file = Annotated[Base64File, Field(max_length=limits.body_bytes)]
    return _limited(
        UnderstandRequest,
        images=Annotated[list[file], Field(min_length=1, max_length=limits.images)],
        names=whole(ge=1, le=limits.names),
        model=one_of(models),
    )


def limited_generate(
    limits: Limits, models: Sequence[str], emotions: Sequence[str] | None
) -> type[GenerateRequest]:
    """The type of a request, with the limits and models of a service, and their emotions where known."""
    side = whole(ge=SIDE_MULTIPLE, le=limits.side_px, multiple_of=SIDE_MULTIPLE) | None
    return _limited(
        _with_examples(emotions),
        emotion=one_or_mixed(emotions),
        prompt=Annotated[str, Field(max_length=limits.prompt_characters), *_PROMPT_RULES] | None,
        n=whole(ge=1, le=limits.n),
        seed=whole(ge=0, le=LARGEST_SEED - limits.n + 1) | None,  # the seed of the last image must fit too
        steps=whole(ge=1, le=limits.steps) | None,
        guidance=Annotated[float, Field(ge=0, le=limits.guidance, allow_inf_nan=False)] | None,
        width=side,
        height=side,
        model=one_of(models),
    )


def side_multiple(of_model: int) -> int:
    """The number of which sides must be multiples: for every request, and for a model."""
    return math.lcm(SIDE_MULTIPLE, of_model)


def one_of(models: Sequence[str]) -> Any:
    """The type of a model's name. A handler checks later whether the model is served."""
    return Annotated[StrictStr, Field(json_schema_extra={"enum": list(models)})]


def _with_examples(emotions: Sequence[str] | None) -> type[GenerateRequest]:
    """The request with examples that these emotions allow."""
    if emotions is None or {"awe", "amusement", "fear"} <= set(emotions):
        return GenerateRequest
    first, second, *_ = emotions
    mixed: Any = {"emotion": {first: 0.6, second: 0.4}, "prompt": "{} room", "n": 2, "format": "webp"}

    class Exampled(GenerateRequest):
        __doc__ = GenerateRequest.__doc__
        model_config = ConfigDict(json_schema_extra={"examples": [{"emotion": first, "seed": 7}, mixed]})

    Exampled.__name__ = GenerateRequest.__name__  # the schema's name
    return Exampled


def _limited(base: type[RequestT], **annotations: Any) -> type[RequestT]:
    """A request type with other types of some fields, and with their old descriptions and defaults."""
    fields: dict[str, Any] = {}
    for name, annotation in annotations.items():
        known = base.model_fields[name]
        options = {} if known.is_required() else {"default": known.default}
        fields[name] = (annotation, Field(description=known.description, **options))
    return create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
