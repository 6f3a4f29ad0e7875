"""Settings of scorers, filter, feedback and evaluation."""

from typing import Literal

from pydantic import Field, model_validator

from uniemo_ray.addresses import Address
from uniemo_ray.settings_base import Settings


class ScorerConfig(Settings):
    """Emotion classifier, scene head and object head on frozen CLIP features (section III-B)."""

    epochs: int = Field(30, ge=1)
    """Passes over the training features. Unit: epochs. Source: ours."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate of AdamW. Unit: none. Source: ours."""
    hidden: int = Field(256, ge=1)
    """Width of the emotion classifier's hidden layer. Unit: channels. Source: ours."""


class FilterConfig(Settings):
    """Filter on two scores (Algorithm 1)."""

    eta: float = Field(20, ge=0, le=100)
    """Lower end of the rank band: the best eta percent are dropped. Unit: percent. Source: paper, table
    VII."""
    delta: float = Field(80, ge=0, le=100)
    """Upper end of the rank band: images that rank behind delta percent are dropped. Unit: percent. Source:
    paper, table VII."""
    scope: Literal["global", "per_emotion"] = "global"
    """Rank all images together, or each emotion by itself. Source: paper."""
    criteria: tuple[Literal["emo", "sem"], ...] = ("emo", "sem")
    """Scores that must lie in the band. Source: paper, table VI."""
    on_empty: Literal["continue", "fail"] = "continue"
    """What follows when no image lies in the band: the next round trains on the real images alone, with a
    warning in log and report, or the run ends with an error. Source: ours."""

    @model_validator(mode="after")
    def _band(self) -> "FilterConfig":
        if self.eta >= self.delta:
            raise ValueError(f"filter.eta must be below filter.delta, got {self.eta} and {self.delta}")
        if not self.criteria or len(set(self.criteria)) != len(self.criteria):
            raise ValueError(f"filter.criteria must be distinct and not empty, got {list(self.criteria)}")
        return self


class FeedbackConfig(Settings):
    """How generated images return to training."""

    rounds: int = Field(1, ge=0)
    """Feedback rounds after the first training. Unit: rounds. Source: paper."""
    synthetic_fraction: float = Field(0.2, ge=0, lt=1)
    """Share of kept generated images in the mixed training set. Unit: fraction. Source: paper, table VIII."""
    real_images: int | None = Field(None, ge=16)
    """Real training images that count, drawn with the run's seed: networks, scorers, coefficients and
    emotion space are made from these alone. Metrics compare with the whole training split. None means all.
    Unit: images. Source: ours."""
    later_real_images: int | None = Field(None, ge=16)
    """The same in the second and later rounds, as a control with more real images in place of generated ones.
    None means the value of `real_images`. Unit: images. Source: ours."""

    @model_validator(mode="after")
    def _later_is_of_something(self) -> "FeedbackConfig":
        if self.later_real_images is not None and self.real_images is None:
            raise ValueError("feedback.later_real_images needs feedback.real_images: give both")
        return self


class EvaluationConfig(Settings):
    """Metrics of a round (section IV)."""

    pairs: int = Field(1000, ge=1)
    """Seeded pairs per emotion for our forms of LPIPS and Sem-D. All pairs are taken when there are fewer.
    The published protocol, `lpips` and `sem_d`, always has its 10. Unit: pairs. Source: ours."""
    plain_per_emotion: int = Field(40, ge=1)
    """Images per emotion of the plain-prompt reference. Unit: images. Source: ours."""
    model: Address | None = None
    """Model folder that the job `understanding` evaluates on the test split. None trains one. Source:
    ours."""
    weights_dir: Address | None = None
    """Folder with published weights: Inception-v3 (adds `fid` and `fid_train`), AlexNet (`lpips` and
    `lpips_alex`), both ResNet-50, Places365 and ImageNet (`sem_c`), and EmoGen's judge (`emo_a`, where
    `encoder.clip` is OpenAI's ViT-L/14). Every machine must be able to read it. Source: the publications of
    these metrics."""
