"""The trained model as a user meets it: understand images, generate images."""

# B batch, C emotions, gh, gw patch grid

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.config import PLACEHOLDER
from uniemo_ray.data.images import RGB
from uniemo_ray.data.preprocess import make_preprocess
from uniemo_ray.emotions import LabelSpace, Valence
from uniemo_ray.inference.model_folder import NO_DIFFUSION, ModelParts, load_model_folder, save_model_folder
from uniemo_ray.inference.pictures import Picture, read_picture
from uniemo_ray.inference.provenance import GeneratedImage, encode_png, library_versions
from uniemo_ray.inference.reading import Reader, Reading, freeze
from uniemo_ray.inference.requests import Failure, Mix, Painting, Request, SamplingSettings, Share, Watch
from uniemo_ray.models.clip import normalisation
from uniemo_ray.statistics.emotion_space import row_of

if TYPE_CHECKING:
    from uniemo_ray.inference.painter import Painter

BATCH_SIZE = 32


class Named(NamedTuple):
    """An attribute and how well it fits."""

    name: str
    score: float
    """Softmax over the names of its kind, at the temperature of training; 0 to 1."""


@dataclass(frozen=True, eq=False)
class UnderstandResult:
    """What the model sees in one image."""

    emotions: dict[str, float]
    """Probability of every emotion, in the order of the model's label space."""
    top: str
    """The likeliest emotion."""
    valence: Valence | None
    """`positive` or `negative`: the side that holds more probability. None for a model whose labels have no
    valences."""
    scenes: list[Named]
    """Best first; empty for a model without queries or scene names."""
    objects: list[Named]
    """Best first; empty for a model without queries or object names."""
    scene_attention: NDArray[np.float32] | None = None
    """(gh, gw) where the scene queries look, sums to 1; None unless asked for, or without queries."""
    object_attention: NDArray[np.float32] | None = None
    """(gh, gw) where the object queries look, sums to 1."""


class PlannedRequests(NamedTuple):
    """Images to make, checked and with every default filled in."""

    requests: list[Request]
    """One per image."""
    settings: SamplingSettings
    """What they share."""


class UniEmo:
    """A trained UniEmo with its diffusion model and emotion space."""

    def __init__(self, parts: ModelParts, *, device: str = "cpu") -> None:
        """Use `from_pretrained` for a model folder."""
        self.parts = parts
        self.device = torch.device(device)
        self.net = parts.net.to(self.device).eval()
        self._reader = Reader(self.net).eval()
        self._frozen: dict[int, torch.nn.Module] = {}
        self._painter = _make_painter(parts, device)
        mean, std = normalisation(parts.clip_config)
        self.preprocess = make_preprocess(
            parts.config.encoder.preprocess, size_px=self.side_px, mean=mean, std=std
        )

    @property
    def painter(self) -> "Painter":
        """What makes the images.

        Raises:
            ValueError: for a model that only understands.
        """
        if self._painter is None:
            raise ValueError(f"this model {NO_DIFFUSION}")
        return self._painter

    @property
    def mean(self) -> tuple[float, ...]:
        """Of the input's normalisation, per colour channel."""
        return self.preprocess.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Of the input's normalisation, per colour channel."""
        return self.preprocess.std

    @property
    def side_px(self) -> int:
        """Side of the square that `understand` looks at."""
        return int(self.net.encoder.visual.image_size[0])

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: str = "cpu", with_diffusion: bool = True
    ) -> "UniEmo":
        """Load a model folder, after checking its version and checksums.

        Args:
            path: local path or `s3://`.
            device: torch device.
            with_diffusion: whether to load what only generation needs, which is most of a model.

        Raises:
            ValueError: one line that names the file and what is wrong with it.
        """
        return cls(load_model_folder(path, with_diffusion=with_diffusion), device=device)

    def save_pretrained(self, path: str | Path, *, card: str | None = None) -> str:
        """Write a model folder; returns its fingerprint.

        Args:
            path: local path or `s3://`; an older model there is replaced.
            card: text of README.md; by default the one that came with the model.

        Raises:
            ValueError: when `path` holds something that is no model folder.
        """
        return save_model_folder(self.parts if card is None else replace(self.parts, card=card), path)

    def understand(
        self,
        images: Picture | Sequence[Picture],
        *,
        with_attention: bool = False,
        names: int = 5,
        micro_batch: int | None = None,
    ) -> list[UnderstandResult]:
        """Emotions, scene and object attributes of images, one result each.

        Args:
            images: one or several of: PIL image, path, encoded bytes, array as in `read_picture`.
            with_attention: also say where the expert queries look.
            names: how many scenes and objects to list.
            micro_batch: fixed size of a pass, filled up at the end; with it the numbers of an image do
                not depend, not even in the last bit, on how many others came along.

        Raises:
            ValueError: for something that is no usable picture, saying which.
        """
        pictures = (
            list(images) if isinstance(images, Sequence) and not isinstance(images, str | bytes) else [images]
        )
        squares = [self.preprocess.square(read_picture(picture, i)) for i, picture in enumerate(pictures)]
        return self.understand_squares(
            squares, with_attention=with_attention, names=names, micro_batch=micro_batch
        )

    def understand_squares(
        self,
        squares: Sequence[RGB],
        *,
        with_attention: bool = False,
        names: int = 5,
        micro_batch: int | None = None,
    ) -> list[UnderstandResult]:
        """As `understand`, of pictures that `preprocess.square` has cut already."""
        size = micro_batch or BATCH_SIZE
        results: list[UnderstandResult] = []
        for i in range(0, len(squares), size):
            batch = list(squares[i : i + size])
            filled = batch + [batch[-1]] * (size - len(batch)) if micro_batch else batch
            pixels = self.preprocess.pixels(filled).to(self.device)
            results += self._understand(pixels, with_attention=with_attention, names=names)[: len(batch)]
        return results

    def freeze_understanding(self, micro_batch: int) -> None:
        """Make `understand` with this `micro_batch` faster: it then runs as one graph, without Python.

        For whoever looks at many pictures one by one, as a service does: freezing takes as long as some
        twenty passes. The weights must not change afterwards.
        """
        pixels = torch.zeros(micro_batch, 3, self.side_px, self.side_px, device=self.device)
        self._frozen[micro_batch] = freeze(self._reader, pixels)

    @torch.no_grad()
    def _understand(self, pixels: Tensor, *, with_attention: bool, names: int) -> list[UnderstandResult]:
        reading = Reading(*self._frozen.get(len(pixels), self._reader)(pixels))
        scenes = _named(self.net.scenes.names, reading.scene_scores, reading.scene_index, count=names)
        objects = _named(self.net.objects.names, reading.object_scores, reading.object_index, count=names)
        maps = self.net.encoder.attention(pixels) if with_attention and self.net.has_queries else None
        results, space = [], self.parts.labels
        for i, row in enumerate(reading.probabilities.cpu().numpy()):
            result = UnderstandResult(
                emotions=dict(zip(space.labels, row.tolist(), strict=True)),
                top=space.labels[int(row.argmax())],
                valence=_valence(row, space),
                scenes=scenes[i],
                objects=objects[i],
            )
            if maps is not None:
                scene_map, object_map = maps.scene[i].cpu().numpy(), maps.object[i].cpu().numpy()
                result = replace(result, scene_attention=scene_map, object_attention=object_map)
            results.append(result)
        return results

    def generate(
        self,
        emotion: str | Mapping[str, float],
        prompt: str | None = None,
        *,
        n: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | tuple[int, int] | None = None,
        scheduler: str | None = None,
        mix: Mix = "condition",
        micro_batch: int = 1,
        threads: int | None = None,
    ) -> list[GeneratedImage]:
        """Make images that evoke an emotion.

        Image i is a function of `seed + i` and the settings, however many are made at once.

        Args:
            emotion: a name, or weights of several (emotion fusion), which are normalised.
            prompt: `{}` stands for the emotion, as in `"{} room"` (emotion transfer); by default the
                prompt of training.
            n: number of images.
            seed: of the first image.
            steps: denoising steps; this and the next three as in training by default.
            guidance: classifier-free guidance scale.
            size: side, or (width, height), in pixels.
            scheduler: `unipc` or `ddim`.
            mix: how several emotions meet: one interpolated `condition`, or a `guidance` term each.
            micro_batch: images per step of the sampler; part of what determines an image's bytes.
            threads: CPU threads; part of what determines an image's bytes.

        Returns:
            PIL images; seed, prompt, attributes and settings are in `image.provenance` and, when
            saved as PNG, in the file's text.

        Raises:
            ValueError: for an unknown emotion, weights that are negative or all zero, a prompt
                without `{}`, a side that does not divide, an emotion the model has no images of, or a
                model without a diffusion model.
        """
        plan = self.plan(
            emotion,
            prompt,
            n=n,
            seed=seed,
            steps=steps,
            guidance=guidance,
            size=size,
            scheduler=scheduler,
            mix=mix,
            micro_batch=micro_batch,
        )
        images = []
        for result in self.paint(plan.requests, plan.settings, threads=threads):
            if isinstance(result, Failure):
                raise ValueError(result.reason)
            images.append(result)
        return images

    def plan(
        self,
        emotion: str | Mapping[str, float],
        prompt: str | None = None,
        *,
        n: int = 1,
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | tuple[int, int] | None = None,
        scheduler: str | None = None,
        mix: Mix = "condition",
        micro_batch: int = 1,
    ) -> PlannedRequests:
        """What `generate` would paint, with the same arguments and errors, without painting it."""
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if mix not in ("condition", "guidance"):
            raise ValueError(f"mix must be 'condition' or 'guidance', got {mix!r}")
        diffusion = self.parts.config.diffusion
        width, height = (
            (size, size) if isinstance(size, int) else size or (diffusion.size_px, diffusion.size_px)
        )
        settings = SamplingSettings(
            scheduler=scheduler or diffusion.scheduler,
            steps=diffusion.steps if steps is None else steps,
            guidance=diffusion.guidance if guidance is None else guidance,
            width=width,
            height=height,
            micro_batch=micro_batch,
        )
        text = _fill(prompt, default=diffusion.prompt)
        shares = _shares(emotion, self.parts.labels)
        return PlannedRequests([Request(seed + i, text, shares, mix) for i in range(n)], settings)

    def paint(
        self,
        requests: Sequence[Request],
        settings: SamplingSettings,
        *,
        threads: int | None = None,
        watch: Watch | None = None,
    ) -> list[GeneratedImage | Failure]:
        """Paint requests, possibly of several plans with equal settings; one result each, in order.

        Args:
            requests: of one or several plans.
            settings: what they share.
            threads: CPU threads; as in training by default.
            watch: sees every step and may end a micro-batch.

        Raises:
            ValueError: for settings that cannot run.
        """
        used_threads = threads or self.parts.config.generation.threads
        results = self.painter.paint(requests, settings, threads=used_threads, watch=watch)
        return [
            result if isinstance(result, Failure) else self._finish(request, result, settings, used_threads)
            for request, result in zip(requests, results, strict=True)
        ]

    def _finish(
        self, request: Request, result: Painting, settings: SamplingSettings, threads: int
    ) -> GeneratedImage:
        provenance = settings._asdict() | {
            "seed": request.seed,
            "prompt": request.prompt,
            "emotions": dict(request.emotions),
            "mix": request.mix,
            "attributes": [chosen.stated() for chosen in result.attributes],
            "threads": threads,
            "model": self.parts.fingerprint,
            "versions": library_versions(self.device.type),
        }
        return GeneratedImage.from_png(encode_png(result.pixels, provenance))


def _make_painter(parts: ModelParts, device: str) -> "Painter | None":
    if parts.diffusion is None:
        return None
    from uniemo_ray.inference.painter import Painter  # imports diffusers: understanding does without

    return Painter(parts.diffusion, net=parts.net, space=parts.space, device=device)


def _named(names: Sequence[str], scores: Tensor, index: Tensor, *, count: int) -> list[list[Named]]:
    """The best names of each image."""
    return [
        [Named(names[i], score) for i, score in zip(indices, values, strict=True)]
        for indices, values in zip(index[:, :count].tolist(), scores[:, :count].tolist(), strict=True)
    ]


def _valence(row: NDArray[np.float64], space: LabelSpace) -> Valence | None:
    if not space.has_valence:
        return None
    sides = [
        sum(p for name, p in zip(space.labels, row, strict=True) if space.valence(name) == side)
        for side in ("positive", "negative")
    ]
    return "positive" if sides[0] >= sides[1] else "negative"


def _fill(prompt: str | None, *, default: str) -> str:
    if prompt is None:
        return default
    filled = prompt.replace("{}", PLACEHOLDER)
    if PLACEHOLDER not in filled:
        raise ValueError(
            f"prompt {prompt!r} has no {{}}: put it where the emotion goes, as in '{{}} {prompt}'"
        )
    return filled


def _shares(emotion: str | Mapping[str, float], space: LabelSpace) -> tuple[Share, ...]:
    """Normalised weights in the order of the label space, so that the order of writing does not matter."""
    weights = {emotion: 1.0} if isinstance(emotion, str) else dict(emotion)
    for name, weight in weights.items():
        row_of(name, space.labels)
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weight of {name!r} must be a finite number of at least 0, got {weight}")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError(
            f"emotion weights must not all be 0, got {weights}: give at least one emotion some weight"
        )
    return tuple(Share(name, weights[name] / total) for name in space.labels if weights.get(name))
