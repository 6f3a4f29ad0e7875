"""Score images as section 5 asks, and extract the features that everything is scored on."""

# n images of a call, B micro-batch, E CLIP joint width, D encoder width, C emotions

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from uniemo_ray.config import MAX_PIXELS
from uniemo_ray.data.images import ImageError, decode_rgb
from uniemo_ray.data.preprocess import Preprocess
from uniemo_ray.inference.heads import ScorerHeads
from uniemo_ray.models.clip import ClipParts, image_features, load_clip
from uniemo_ray.models.uniemo import UniEmoNet
from uniemo_ray.read_ahead import BATCHES, batches, read_ahead

Columns = dict[str, NDArray[Any]]


class FeatureExtractor:
    """Images in, frozen CLIP features out, and with a net the encoder's pooled features as well."""

    def __init__(
        self,
        clip: ClipParts | str,
        *,
        net: UniEmoNet | None = None,
        preprocess: Preprocess | None = None,
        with_frozen: bool = True,
        micro_batch: int = 32,
        threads: int = 1,
        device: str = "cpu",
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Load once.

        Args:
            clip: frozen CLIP, or a name for `load_clip`.
            net: adds `cls_feature`, `patch_feature`, `scene_feature`, `object_feature` (n, D) and `logits`
                (n, C).
            preprocess: how the net sees a picture, by default as CLIP does.
            with_frozen: whether frozen CLIP runs at all.
            micro_batch: batch that runs, padded, so that a feature does not depend on its neighbours.
            threads: CPU threads, fixed for the same reason.
            device: torch device.
            max_pixels: larger images are refused.

        Raises:
            ValueError: frozen CLIP is to run on pictures that are not prepared for it.
        """
        torch.set_num_threads(threads)
        self.device = torch.device(device)
        self.clip = load_clip(clip) if isinstance(clip, str) else clip
        self.clip.model.to(self.device).eval()
        self.preprocess = preprocess or self.clip.preprocess()
        if with_frozen and self.preprocess != self.clip.preprocess():
            raise ValueError(
                f"frozen CLIP takes pictures as {self.clip.preprocess()} gives them, not {self.preprocess}: "
                f"extract its features by themselves"
            )
        self.net = net.to(self.device).eval() if net else None
        self.with_frozen = with_frozen
        self.micro_batch, self.max_pixels = micro_batch, max_pixels

    def read(self, image: bytes) -> NDArray[np.uint8]:
        """Decode to the encoder's square. Raises ImageError for a picture that cannot be used."""
        return self.preprocess.square(decode_rgb(image, self.max_pixels))

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """Features of the column `image`; every other column is handed on.

        Raises:
            ImageError: for an unreadable image: canonical samples were checked when they were read.
        """
        squares = read_ahead(batch["image"], self.read, ahead=BATCHES * self.micro_batch)
        found = {key: value.cpu().numpy() for key, value in self.batched(squares, self._encode).items()}
        return {key: column for key, column in batch.items() if key != "image"} | found

    def _encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """All columns of a micro-batch."""
        columns = {"clip_feature": image_features(self.clip, pixels)} if self.with_frozen else {}
        if self.net is None:
            return columns
        seen, logits = self.net.understand(pixels)[:2]
        columns |= {"cls_feature": seen.cls, "patch_feature": seen.patches.mean(dim=1), "logits": logits}
        pooled = {"scene_feature": seen.scene, "object_feature": seen.object}
        return columns | {key: value for key, value in pooled.items() if value is not None}

    @torch.no_grad()
    def batched(
        self, squares: Iterable[NDArray[np.uint8]], encode: Callable[[Tensor], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Run `encode` on micro-batches of one size, the last one padded by repeating its last image.

        Everything that a result is computed from has to happen inside `encode`: a layer gives other bits
        at another batch size. Without images there are no columns.

        Args:
            squares: as `read` gives them, asked for one micro-batch at a time.
            encode: makes columns of pixels.
        """
        parts = []
        for chunk in batches(squares, self.micro_batch):
            padded = [*chunk, *[chunk[-1]] * (self.micro_batch - len(chunk))]
            pixels = self.preprocess.pixels(padded).to(self.device)
            parts.append({key: value[: len(chunk)] for key, value in encode(pixels).items()})
        return {key: torch.cat([part[key] for part in parts]) for key in (parts[0] if parts else ())}


class Scorer:
    """Image rows in, SCORES rows out (section 5)."""

    def __init__(
        self,
        clip: ClipParts | str,
        heads: ScorerHeads | Path | str,
        *,
        micro_batch: int = 32,
        threads: int = 1,
        device: str = "cpu",
    ) -> None:
        """Load the frozen CLIP and the heads once; see `FeatureExtractor` for the arguments."""
        self.heads = heads if isinstance(heads, ScorerHeads) else ScorerHeads.load(Path(heads))
        self.heads.to(device).eval()
        self.extractor = FeatureExtractor(clip, micro_batch=micro_batch, threads=threads, device=device)

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> Columns:
        """Scores of rows with `image_id`, `emotion`, `image` and perhaps `reason`.

        `emo_score` is the probability of the intended emotion, `sem_score` the larger of the best
        scene's and the best object's probability. A row without a readable image gets a reason, no
        names and scores that are not numbers.
        """
        given = batch.get("reason", np.full(len(batch["image"]), None, dtype=object))
        rows = zip(batch["image"], batch["emotion"], given, strict=True)
        reasons: list[str | None] = []

        def squares() -> Iterator[NDArray[np.uint8]]:
            for read in read_ahead(rows, self._read, ahead=BATCHES * self.extractor.micro_batch):
                reasons.append(read if isinstance(read, str) else None)
                if not isinstance(read, str):
                    yield read

        found = self.judge(squares())
        return score_rows(self.heads, batch, found, reasons)

    def judge(self, squares: Iterable[NDArray[np.uint8]]) -> dict[str, Tensor]:
        """Features and the probabilities of every head, one row for each square, for `score_rows`."""
        return self.extractor.batched(squares, self._encode)

    def square(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture (H, W, 3) as the encoder's square."""
        return self.extractor.preprocess.square(pixels)

    def _encode(self, pixels: Tensor) -> dict[str, Tensor]:
        """Features and the probabilities of every head, for a micro-batch."""
        return _judge(self.heads, image_features(self.extractor.clip, pixels))

    def _read(self, row: tuple[bytes | None, str, str | None]) -> NDArray[np.uint8] | str:
        """The decoded square of an image, emotion and perhaps a reason; or why there is no score."""
        image, emotion, reason = row
        if reason is not None:
            return reason
        if image is None:
            return "no_image"
        if str(emotion) not in self.heads.labels:
            return f"unknown_emotion: {emotion}"
        try:
            return self.extractor.read(image)
        except ImageError as error:
            return f"image_{error}"


@torch.no_grad()
def score_features(heads: ScorerHeads, batch: Mapping[str, NDArray[Any]]) -> Columns:
    """What `Scorer` returns, for images whose features are known.

    Args:
        heads: the scorers.
        batch: columns `image_id`, `emotion` (one that the heads know) and `clip_feature` (n, E).
    """
    features = torch.from_numpy(np.ascontiguousarray(batch["clip_feature"], dtype=np.float32))
    return score_rows(heads, batch, _judge(heads, features), [None] * len(features))


def _judge(heads: ScorerHeads, features: Tensor) -> dict[str, Tensor]:
    """`clip_feature` itself and the probabilities of every head that there is."""
    named = {"emotion": heads.emotion, "scene": heads.scene, "object": heads.object}
    found = {key: _softmax(head(features)) for key, head in named.items() if head is not None}
    return found | {"clip_feature": features}


def score_rows(
    heads: ScorerHeads,
    batch: Mapping[str, NDArray[Any]],
    found: Mapping[str, Tensor],
    reasons: Sequence[str | None],
) -> Columns:
    """SCORES columns.

    Args:
        heads: the scorers.
        batch: columns `image_id` and `emotion`.
        found: what `Scorer.judge` gives, with a row for each image without a reason, in order.
        reasons: why a row has no score; None for one that has.
    """
    found = {key: value.cpu() for key, value in found.items()}
    out: Columns = {"image_id": np.asarray(batch["image_id"]), "emotion": np.asarray(batch["emotion"])}
    out |= _no_scores(len(reasons), classes=len(heads.labels)) | {"reason": _objects(reasons)}
    readable = [row for row, reason in enumerate(reasons) if reason is None]
    for k, row in enumerate(readable):
        one = {key: value[k] for key, value in found.items()}
        for key, value in _score_row(heads, one, str(out["emotion"][row])).items():
            out[key][row] = value
    return out


def _score_row(heads: ScorerHeads, found: Mapping[str, Tensor], wanted: str) -> dict[str, Any]:
    """One image's scores; a kind without names has no say in `sem_score`."""
    emotion = found["emotion"].numpy()
    scores: dict[str, Any] = {
        "emo_score": emotion[heads.labels.index(wanted)],
        "predicted": heads.labels[int(emotion.argmax())],
        "probabilities": emotion,
        "clip_feature": found["clip_feature"].numpy(),
    }
    best = []
    for kind in ("scene", "object"):
        if kind in found:
            index = int(found[kind].argmax())
            best.append(float(found[kind][index]))
            scores |= {kind: heads.names[kind][index], f"{kind}_probability": best[-1]}
    return scores | {"sem_score": max(best, default=float("nan"))}


def _softmax(logits: Tensor) -> Tensor:
    """Probabilities (B, A), accumulated in float64."""
    return logits.double().softmax(dim=1).float()


def _no_scores(count: int, *, classes: int) -> Columns:
    """Columns of `count` rows without any score."""
    numbers = ("emo_score", "sem_score", "scene_probability", "object_probability")
    columns: Columns = {name: np.full(count, np.nan, dtype=np.float32) for name in numbers}
    columns |= {
        name: np.full(count, None, dtype=object) for name in ("scene", "object", "predicted", "clip_feature")
    }
    nothing = np.full(classes, np.nan, dtype=np.float32)
    return columns | {"probabilities": _objects([nothing] * count)}


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    column = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # a slice would take equally long arrays for one of two dimensions
        column[i] = value
    return column
