"""`summary.json`: every figure of a run, as frozen pydantic models.

Shares (accuracy, Emo-A) lie in [0, 1], never in percent. A metric that was not measured is left out
of the file; a whole part that does not apply (`ceiling`, `filter`) is null.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from uniemo_ray.config import Config

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Record(BaseModel):
    """Base of all parts: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Ceiling(Record):
    """Best possible top-1 accuracy of a judge that sees the scene, the object, or both."""

    scene: Share
    object: Share
    both: Share


class Dataset(Record):
    """The data of the run."""

    name: str
    sizes: dict[str, int]
    """Usable images by split."""
    ceiling: Ceiling | None = None
    """Known for EmoSketch alone."""
    rejected: dict[str, int] = {}
    """Unusable samples by reason."""


class UnderstandingMetrics(Record):
    """Image to emotion, on the test split."""

    accuracy: Share
    per_class: dict[str, Share | None]
    """Recall by emotion; its order is the order of `confusion`. None for an emotion without images."""
    confusion: tuple[tuple[int, ...], ...]
    """Counts, (C, C): row true emotion, column predicted."""
    top2: Share | None = None
    """Share of images whose emotion is among the two likeliest."""
    two_class: Share | None = None
    """Accuracy of positive against negative."""
    losses: dict[str, FiniteFloat] = {}
    """Last training losses, by name."""

    @model_validator(mode="after")
    def _square(self) -> "UnderstandingMetrics":
        size = len(self.per_class)
        if len(self.confusion) != size or any(len(row) != size for row in self.confusion):
            shape = f"{len(self.confusion)} rows of {sorted({len(row) for row in self.confusion})}"
            raise ValueError(f"expected a {size} x {size} confusion matrix (one row per class), got {shape}")
        return self


class GenerationMetrics(Record):
    """Emotion to image: the metrics of one set of images (also of a reference set)."""

    images: int = Field(ge=0)
    emo_a: Share | None = None
    """Arg max of the public judge (EmoGen's linear layer on CLIP ViT-L/14) is the intended emotion."""
    emo_a_probability: Share | None = None
    """Mean probability of the intended emotion by the public judge."""
    emo_a_two_class: Share | None = None
    """The public judge's more probable valence, summed over its emotions, is the intended one."""
    emo_a_clip: Share | None = None
    """Arg max of the run's own emotion classifier (section 2, on the run's own CLIP) is the intended one."""
    emo_a_clip_probability: Share | None = None
    """Mean probability of the intended emotion by the run's own classifier."""
    emo_a_clip_two_class: Share | None = None
    """The own classifier's more probable valence, summed over its emotions, is the intended one."""
    emo_a_exact: Share | None = None
    """Arg max of the labelling rule's posterior for the recognised scene and object is the intended one."""
    scene_fidelity: Share | None = None
    """Of the pictures whose condition names a scene, those on which the recogniser sees it."""
    object_fidelity: Share | None = None
    """The same of objects."""
    effective_scenes: FiniteFloat | None = None
    """exp of the entropy of the recognised scenes within an emotion, mean over the emotions."""
    effective_objects: FiniteFloat | None = None
    """The same of objects."""
    sem_c: Share | None = None
    """By the published Places365 and ImageNet classifiers."""
    sem_c_clip: Share | None = None
    """By the run's scene and object heads on CLIP features."""
    sem_d: FiniteFloat | None = None
    """Published protocol: 10 pairs of each emotion, which CLIP ViT-L/14 sees almost black."""
    sem_d_l14: FiniteFloat | None = None
    """Within an emotion, on features of CLIP ViT-L/14."""
    sem_d_clip: FiniteFloat | None = None
    """Within an emotion, on features of the run's own, other CLIP."""
    lpips: FiniteFloat | None = None
    """Published protocol: AlexNet is fed [0, 1], 10 pairs of each emotion."""
    lpips_alex: FiniteFloat | None = None
    """AlexNet is fed [-1, 1], pairs within an emotion."""
    lpips_tiny: FiniteFloat | None = None
    """On the shipped recogniser's features."""
    fid: FiniteFloat | None = None
    """Published protocol: squashed images, 1,000 generated of each emotion against all real ones."""
    fid_small: FiniteFloat | None = None
    """The same on fewer generated images."""
    fid_train: FiniteFloat | None = None
    """Inception-v3 features of cropped images, all generated ones against the training split."""
    fd_clip: FiniteFloat | None = None
    """On features of the run's CLIP."""
    standard_errors: dict[str, FiniteFloat] = {}
    """By metric name."""
    per_emotion: dict[str, dict[str, FiniteFloat]] = {}
    """Metric values by emotion, then by metric name."""

    @model_serializer(mode="wrap")
    def _leave_out_unmeasured(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value is not None}


class Threshold(Record):
    """The kept band of one criterion in one group of images that are ranked together."""

    group: str
    """`all`, or the emotion for `scope: per_emotion`."""
    criterion: str
    ranked: int = Field(ge=0)
    first_rank: int
    end_rank: int
    """First rank behind the band; 0 is the best rank."""
    best_score: FiniteFloat | None
    """Scores at the ends of the band, None when it is empty."""
    worst_score: FiniteFloat | None


class Filter(Record):
    """What the dual-metric filter (Algorithm 1) did: `FilterSummary.to_dict()`."""

    total: int = Field(ge=0)
    kept: int = Field(ge=0)
    ranked: int | None = Field(None, ge=0)
    thresholds: tuple[Threshold, ...] = ()
    reasons: dict[str, int] = {}
    """Images that were dropped, by reason."""
    not_scored: dict[str, int] = {}
    """Images without a score, by the reason that their score rows give."""

    @model_validator(mode="after")
    def _kept_of_total(self) -> "Filter":
        if self.kept > self.total:
            raise ValueError(f"expected kept <= total, got {self.kept} of {self.total}")
        return self


class Round(Record):
    """One training of both stages and what came out of it."""

    round: int = Field(ge=0)
    understanding: UnderstandingMetrics
    generation: GenerationMetrics | None = None
    filter: Filter | None = None


class References(Record):
    """Metrics of images that UniEmo did not make."""

    real: GenerationMetrics | None = None
    """Test images."""
    plain_prompt: GenerationMetrics | None = None
    """Images of the diffusion model that was prompted with the emotion's name alone."""


class StepTime(Record):
    """One named step of the run."""

    name: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Wall time when it ran, also for a step that was skipped now."""
    skipped: bool = False
    """Already finished by an earlier submission."""


class Coefficients(Record):
    """Quality of the alpha table (eq. 5)."""

    mean_absolute_error: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Against the exact table, where it is known."""


METRIC_NAMES: Final = 2
"""Release of the metrics' names: in 1, `emo_a` was the run's own classifier, and `sem_d` another protocol."""


class Summary(Record):
    """A whole run."""

    metric_names: Literal[2] = METRIC_NAMES
    """Release of the metrics' names, in every file that is written."""
    config: Config
    dataset: Dataset
    rounds: tuple[Round, ...] = Field(min_length=1)
    references: References = References()
    coefficients: Coefficients | None = None
    steps: tuple[StepTime, ...] = ()
    environment: dict[str, JsonValue] = {}
    """Machine, library versions and the like."""

    @model_validator(mode="before")
    @classmethod
    def _names_of_this_release(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("metric_names") != METRIC_NAMES:
            raise ValueError(
                "the summary has metrics under names of an earlier release, in which emo_a was the run's own "
                "classifier: submit the run again, which measures it anew"
            )
        return values

    @property
    def last_generation(self) -> tuple[Round, GenerationMetrics] | None:
        """The newest round that generated images."""
        found = [(item, item.generation) for item in self.rounds if item.generation is not None]
        return found[-1] if found else None


def to_json(summary: Record) -> str:
    """The text of `summary.json` or of another record."""
    return summary.model_dump_json(indent=2) + "\n"
