"""The actor that asks a vision-language model."""

# M rows, C classes

from collections.abc import Sequence

import pyarrow as pa
import torch

from uniemo_ray.baselines.understanding.language_models import NameLikelihood, load_language_model
from uniemo_ray.config.baselines import LanguageModelConfig
from uniemo_ray.data.images import RGB, decode_rgb
from uniemo_ray.distributed.shards.actors.tables import to_columns, to_table
from uniemo_ray.read_ahead import read_batches


class LanguageModelActor:
    """Images to the log-likelihoods of the classes' names."""

    memory_advice = "lower micro_batch of the baseline, or set its dtype to bf16"

    def __init__(
        self,
        model: str,
        settings: LanguageModelConfig,
        labels: Sequence[str],
        max_pixels: int,
        device: str = "cpu",
    ) -> None:
        """Load the model; images with more than `max_pixels` are refused."""
        parts = load_language_model(model, dtype=settings.dtype, device=device)
        self.judge = NameLikelihood(*parts, prompt=settings.prompt, labels=labels, score=settings.score)
        self.micro_batch, self.max_pixels = settings.micro_batch, max_pixels

    def __call__(self, table: pa.Table) -> pa.Table:
        """Columns image_id, emotion and `logits`, the C log-likelihoods."""
        found: list[torch.Tensor] = []
        images = (value.as_py() for value in table["image"])
        for pictures in read_batches(images, self._read, size=self.micro_batch):
            padded = [*pictures, *[pictures[-1]] * (self.micro_batch - len(pictures))]
            found.append(self.judge(padded)[: len(pictures)])
        columns = to_columns(table, ("image_id", "emotion"))
        return to_table(columns | {"logits": torch.cat(found).numpy()} if found else columns)

    def _read(self, image: bytes) -> RGB:
        return decode_rgb(image, self.max_pixels)
