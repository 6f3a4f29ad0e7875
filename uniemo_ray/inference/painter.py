"""From an emotion (or a plain prompt) and a seed to pixels; each image is a function of its request."""

# B micro-batch, K emotions of an image, D encoder width, T text width, H, W sides of the picture

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.config import PLACEHOLDER, check_threads
from uniemo_ray.inference.fixed_threads import fixed_threads
from uniemo_ray.inference.requests import (
    Attributes,
    Failure,
    Painting,
    Request,
    SamplingSettings,
    Step,
    Watch,
)
from uniemo_ray.inference.sampler import (
    Guided,
    check_settings,
    draw_latents,
    make_scheduler,
    sample,
    to_pictures,
)
from uniemo_ray.models.attributes import NO_ATTRIBUTE
from uniemo_ray.models.conditioning import TextStates
from uniemo_ray.models.diffusion import DiffusionParts
from uniemo_ray.models.encoder import Features
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.statistics.emotion_space import EmotionSpace, row_of

STOPPED = "stopped: nobody waits for this image any more"


class _StoppedError(Exception):
    """The watch said so."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A request that can be sampled."""

    index: int
    request: Request
    conditions: Tensor
    """(K', T): K' is 1 but for `mix="guidance"`."""
    weights: tuple[float, ...]
    """K' shares."""
    attributes: tuple[Attributes, ...]


class Painter:
    """A trained net, its emotion space and a diffusion model, ready to make images."""

    def __init__(
        self,
        diffusion: DiffusionParts,
        *,
        net: UniEmoNet | None = None,
        space: EmotionSpace | None = None,
        device: str = "cpu",
    ) -> None:
        """Move the parts to `device` and switch them to evaluation.

        `net` and `space` may be missing when only plain prompts are painted.
        """
        self.device = torch.device(device)
        self.diffusion = diffusion.to(self.device)
        self.net = net.to(self.device).eval() if net else None
        self.space = space
        if net and space and (missing := set(net.fusion.members) - set(space.members)):
            raise ValueError(
                f"the model fuses {', '.join(sorted(missing))}, which its emotion space lacks: "
                f"compute the space anew"
            )
        self.pixels_per_latent = diffusion.pixels_per_latent

    def check(self, settings: SamplingSettings, *, threads: int) -> None:
        """Raise ValueError for settings that this diffusion model cannot run, or not reproducibly."""
        check_settings(settings, multiple=self.pixels_per_latent)
        check_threads(settings.micro_batch, threads)

    def paint(
        self,
        requests: Sequence[Request],
        settings: SamplingSettings,
        *,
        threads: int,
        watch: Watch | None = None,
        done: Callable[[int, Painting | Failure], None] | None = None,
    ) -> list[Painting | Failure]:
        """One result per request, in order.

        The batch that runs always has `settings.micro_batch` rows: the last one is filled up by
        repeating a request, because another batch size gives other bits. A micro-batch that `watch`
        ends gives failures for its requests, the others are painted. `done` gets the number of a request and
        its result as soon as there is one.

        Raises:
            ValueError: for settings that cannot run.
        """
        self.check(settings, threads=threads)
        results: list[Painting | Failure | None] = [None] * len(requests)

        def keep(index: int, result: Painting | Failure) -> None:
            results[index] = result
            if done is not None:
                done(index, result)

        with fixed_threads(threads), torch.no_grad():
            ready: list[_Prepared] = []
            for i, request in enumerate(requests):
                prepared = self._prepare(i, request)
                if isinstance(prepared, Failure):
                    keep(i, prepared)
                else:
                    ready.append(prepared)
            for batch in _micro_batches(ready, settings.micro_batch):
                padded = batch + [batch[-1]] * (settings.micro_batch - len(batch))
                on_step = self._reporter(batch, settings, watch)
                try:
                    painted = self._paint_batch(padded, settings, on_step)[: len(batch)]
                except _StoppedError:
                    painted = [Failure(STOPPED)] * len(batch)
                for item, result in zip(batch, painted, strict=True):
                    keep(item.index, result)
        return [r for r in results if r is not None]

    def _prepare(self, index: int, request: Request) -> _Prepared | Failure:
        """Draw and fuse one request by itself, so that a bad one fails alone."""
        try:
            _check_prompt(request, self.diffusion)
            drawn = [self._fuse(share.emotion, request.seed) for share in request.emotions]
            request = request._replace(prompt=with_attributes(request, [a for _, a in drawn]))
            _check_prompt(request, self.diffusion)  # names of attributes may be long
        except ValueError as error:
            return Failure(f"bad_request: {error}")
        if not drawn:
            return _Prepared(index, request, torch.zeros(1, self.diffusion.text_width), (1.0,), ())
        conditions = torch.stack([vector for vector, _ in drawn])  # (K, T)
        weights = tuple(share.weight for share in request.emotions)
        attributes = tuple(a for _, a in drawn)
        if request.mix == "condition":
            shares = conditions.new_tensor(weights)[:, None]
            conditions, weights = (shares * conditions).sum(dim=0, keepdim=True), (1.0,)
        return _Prepared(index, request, conditions, weights, attributes)

    def _fuse(self, emotion: str, seed: int) -> tuple[Tensor, Attributes]:
        """Draw features of an emotion and fuse them at that emotion (section 4, eq. 6)."""
        if self.net is None or self.space is None:
            raise ValueError(f"emotion {emotion!r} needs a trained net and its emotion space: none was given")
        drawn = self.space.sample(emotion, _space_generator(seed))
        features = _features({key: value.to(self.device) for key, value in drawn.features.items()})
        index = torch.tensor([row_of(emotion, self.space.labels)], device=self.device)
        condition = self.net.condition(features, index)
        scene, object_ = condition.scene_index, condition.object_index
        return condition.vector[0].cpu(), Attributes(
            emotion,
            scene=_name(self.net.choices("scene"), scene),
            scene_weight=float(condition.scene_weight[0]),
            object=_name(self.net.choices("object"), object_),
            object_weight=float(condition.object_weight[0]),
            drawn_from=drawn.drawn_from,
        )

    def _reporter(
        self, batch: list[_Prepared], settings: SamplingSettings, watch: Watch | None
    ) -> Callable[[int, Tensor], None] | None:
        """What tells `watch` about each step of a micro-batch, without the rows that fill it up."""
        if watch is None:
            return None
        indices = tuple(item.index for item in batch)

        def report(number: int, latents: Tensor) -> None:
            def preview() -> NDArray[np.uint8]:
                return to_pictures(self.diffusion.decode_latents(latents[: len(batch)].nan_to_num()))

            if not watch(Step(indices, number, settings.steps, preview)):
                raise _StoppedError

        return report

    def _paint_batch(
        self,
        batch: list[_Prepared],
        settings: SamplingSettings,
        on_step: Callable[[int, Tensor], None] | None,
    ) -> list[Painting | Failure]:
        generators = [torch.Generator().manual_seed(item.request.seed) for item in batch]
        height, width = (side // self.pixels_per_latent for side in (settings.height, settings.width))
        channels = int(_config(self.diffusion.denoiser).in_channels)
        noise = draw_latents(generators, (channels, height, width), device=self.device)
        latents = sample(
            self.diffusion.denoiser,
            make_scheduler(self.diffusion.schedule.config, settings.scheduler, is_xl=self.diffusion.is_xl),
            noise,
            self._guided(batch),
            settings=settings,
            generators=generators,
            on_step=on_step,
        )
        is_finite = latents.isfinite().flatten(1).all(dim=1)
        pixels = to_pictures(self.diffusion.decode_latents(latents.nan_to_num()))
        return [
            Painting(picture, item.attributes)
            if fine
            else Failure("non_finite: the sampler left the numbers")
            for picture, item, fine in zip(pixels, batch, is_finite, strict=True)
        ]

    def _guided(self, batch: list[_Prepared]) -> Guided:
        prompts = [item.request.prompt for item in batch]
        conditions = torch.stack([item.conditions for item in batch], dim=1).to(self.device)  # (K', B, T)
        states = [self.diffusion.text_states(prompts, c) for c in conditions]
        weights = torch.tensor([item.weights for item in batch], device=self.device).T  # (K', B)
        return Guided(_stack(states), weights, self.diffusion.empty_states(len(batch)))


def _stack(states: Sequence[TextStates]) -> TextStates:
    """(K, B, ...) of K times (B, ...)."""
    pooled = [s.pooled for s in states if s.pooled is not None]
    return TextStates(torch.stack([s.hidden for s in states]), torch.stack(pooled) if pooled else None)


def _config(model: Any) -> Any:
    """Diffusers' settings by name; its type says plain dict."""
    return model.config


def _check_prompt(request: Request, diffusion: DiffusionParts) -> None:
    """Raise ValueError for a prompt that cannot carry its emotions or does not fit."""
    if request.emotions and PLACEHOLDER not in request.prompt:
        raise ValueError(f"prompt {request.prompt!r} has no {PLACEHOLDER}: say where the emotion goes")
    if not request.emotions and PLACEHOLDER in request.prompt:
        raise ValueError(f"plain prompt {request.prompt!r} must not contain {PLACEHOLDER}")
    diffusion.check_prompt(request.prompt)


def with_attributes(request: Request, attributes: Sequence[Attributes]) -> str:
    """The request's prompt with the names of drawn attributes in place of `{scene}` and `{object}`.

    Of several emotions the heaviest one decides. Where the features are near no known attribute, the word
    `scene` or `object` stands there.
    """
    if not attributes:
        return request.prompt
    weights = [share.weight for share in request.emotions]
    heaviest = attributes[weights.index(max(weights))]
    names = {"{scene}": heaviest.scene or "scene", "{object}": heaviest.object or "object"}
    prompt = request.prompt
    for word, name in names.items():
        prompt = prompt.replace(word, name.replace("_", " "))
    return prompt


def _name(names: Sequence[str], index: Tensor | None) -> str | None:
    if index is None or int(index[0]) == NO_ATTRIBUTE:
        return None
    return names[int(index[0])]


def _features(drawn: dict[str, Tensor]) -> Features:
    """Vectors (D,) of the emotion space as the encoder's features of one image."""
    batch = {name: vector.float()[None] for name, vector in drawn.items()}
    patches = batch["patch"] if "patch" in batch else torch.zeros_like(batch["cls"])
    return Features(
        cls=batch["cls"], patches=patches[:, None], scene=batch.get("scene"), object=batch.get("object")
    )


def _space_generator(seed: int) -> torch.Generator:
    """Generator of the draw from the emotion space.

    It has one of its own, so that the latents of a seed are the same for every emotion and prompt, which
    keeps the composition in emotion transfer.
    """
    digest = hashlib.sha256(f"emotion space {seed}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def _micro_batches(items: list[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    """Batches of at most `size` items with equally many guidance terms."""
    for terms in sorted({len(item.weights) for item in items}):
        same = [item for item in items if len(item.weights) == terms]
        yield from (same[i : i + size] for i in range(0, len(same), size))
