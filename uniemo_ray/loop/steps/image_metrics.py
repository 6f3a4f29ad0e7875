"""All metrics of a set of images, generated or real.

Tasks read the shards and send sums; the driver holds ids, and what the sampled pairs need.
"""

# M images

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import pyarrow as pa

from uniemo_ray.config import Config, DataConfig
from uniemo_ray.data.emosketch.classes import ExactRule
from uniemo_ray.data.readers import label_space
from uniemo_ray.data.sketch_rule import sketch_rule
from uniemo_ray.distributed.shards.actors.published import JudgeActor
from uniemo_ray.distributed.shards.map_shards import map_shards
from uniemo_ray.distributed.tasks import in_order, total
from uniemo_ray.emotions import MIKELS, LabelSpace
from uniemo_ray.loop.step_pool import pool_of
from uniemo_ray.loop.steps.feature_sums import RESULTS_AT_ONCE, clip_sums
from uniemo_ray.loop.steps.inception import (
    has_inception,
    published_features,
    published_sides,
    train_features,
    train_sides,
)
from uniemo_ray.loop.steps.scored_images import SCORES_FOLDER, ScoredImages, read_scored
from uniemo_ray.metrics.accuracy import AccuracyCounts
from uniemo_ray.metrics.emotion_judge import JUDGE_FILE, EmotionJudge, has_emotion_judge
from uniemo_ray.metrics.generation import (
    ImageSet,
    Sides,
    Yardstick,
    measure_images,
    needed_rows,
    paired_rows,
)
from uniemo_ray.metrics.pairs import Ints
from uniemo_ray.metrics.perceptual import has_alexnet
from uniemo_ray.metrics.pictures import PictureFile
from uniemo_ray.metrics.recogniser import load_recogniser
from uniemo_ray.metrics.resnet import has_judges
from uniemo_ray.metrics.score_sums import ScoreSums
from uniemo_ray.metrics.sem_d import RowFeatures, is_published_clip
from uniemo_ray.metrics.shard_sums import (
    BYTES_PER_TASK,
    ROWS_PER_TASK,
    CountPictures,
    Entries,
    PickRows,
    PictureCounts,
    SumClarity,
    SumScores,
    pieces,
)
from uniemo_ray.models.clip import load_clip
from uniemo_ray.pools import Pool
from uniemo_ray.shipped import WEIGHTS
from uniemo_ray.statistics.moments import Moments
from uniemo_ray.store.base import Store
from uniemo_ray.store.shards import ShardEntry, entries_of
from uniemo_ray.store.steps import StepContext

logger = logging.getLogger(__name__)
JUDGES = "judges"
"""Folder of what both ResNet-50 say."""
R = TypeVar("R")


@dataclass(frozen=True)
class Judged:
    """In which emotions images are judged."""

    space: LabelSpace
    rule: ExactRule | None
    """What is known exactly of EmoSketch in these emotions; None for another data set."""

    @staticmethod
    def of(data: DataConfig) -> "Judged":
        """Those of a run."""
        return Judged(label_space(data), sketch_rule(data))

    def stated(self) -> dict[str, object]:
        """What decides metrics, as a fact of a step; nothing for the eight emotions, as in older runs."""
        return {} if self.space == MIKELS else {"space": self.space.stated()}


def measured(config: Config) -> dict[str, object]:
    """The names under which a measuring step gives its metrics; other names make it run again.

    So a file that is added to `evaluation.weights_dir` later adds its own metrics, and what was measured
    under names of an earlier release is measured again. FID is not among them, as it has a step of its own,
    and neither is what follows from the settings that the step reads.
    """
    folder, judged = config.evaluation.weights_dir, Judged.of(config.data)
    there = {
        ("emo_a_clip", "sem_d_clip", "sem_d_l14"): True,
        ("lpips", "lpips_alex"): has_alexnet(folder),
        ("sem_c",): has_judges(folder),
        ("emo_a",): has_emotion_judge(folder) and judged.space == MIKELS,
        ("effective_scenes", "scene_fidelity"): config.data.kind == "sketch",
    }
    names = [name for names, is_there in there.items() if is_there for name in names]
    return {"metrics": names, **judged.stated()}


def measure_set(
    context: StepContext,
    config: Config,
    source: Store,
    folder: str,
    *,
    judged: Judged,
    scores: Store,
    is_generated: bool,
) -> dict[str, object]:
    """Metrics of the images that have scores.

    Args:
        context: of the measuring step.
        config: of the run.
        source: store of the images.
        folder: of their shards.
        judged: the emotions.
        scores: store whose `scores/` hold SCORES rows, one for each image in the order of `folder`; those
            with a reason do not count.
        is_generated: whether they are measured by the published protocol as well. It is one for generated
            images, and its FID compares with all real ones.

    Raises:
        ValueError: no image has scores.
    """
    images = read_scored(scores)
    if not len(images.ids):
        raise ValueError(f"no image in {source.uri}/{folder} has scores: there is nothing to measure")
    if has_inception(config):
        train_features(context, config, source, folder)
        if is_generated:
            published_features(context, config, source, folder, images=images)
    yardstick, reader = _yardstick(config, judged), _Reader(config, images, pool_of(context, config))
    judge = _public_judge(config) if yardstick.published_clip and judged.space == MIKELS else None
    sums = total(
        SumScores(scores, judge, judged.space),
        pieces(entries_of(scores, SCORES_FOLDER), rows=ROWS_PER_TASK),
        add=ScoreSums.add,
        pool=pool_of(context, config),
        what="measurement",
        at_once=RESULTS_AT_ONCE,
    )
    with PictureFile(size_px=config.diffusion.size_px, max_pixels=config.data.max_pixels) as pictures:
        rows = needed_rows(images.ids, images.emotions, yardstick, is_generated=is_generated)
        for row, data in reader.pick(source, folder, "image", rows):
            pictures.add(row, data.as_py())
        paired = paired_rows(images.ids, images.emotions, yardstick)
        found = ImageSet(
            image_ids=images.ids,
            emotions=images.emotions,
            pictures=pictures,
            features=_features(reader, scores, paired),
            is_generated=is_generated,
            sums=sums,
            sides=_sides(context, config, images, sums, judged.space, is_generated=is_generated),
            judged=_judge(context, config, source, folder, reader=reader, is_generated=is_generated),
            recognised=_recognised(reader, source, folder, yardstick, judged, is_generated=is_generated),
        )
        return measure_images(found, yardstick).to_dict()


class _Reader:
    """Reads shards of one set of images in tasks."""

    def __init__(self, config: Config, images: ScoredImages, pool: Pool) -> None:
        self.config, self.images, self.pool = config, images, pool

    def each(self, work: Callable[[Entries], R], entries: Iterable[ShardEntry]) -> Iterator[R]:
        """What the work finds in each piece of some shards without pictures, in order."""
        return self._run(work, pieces(entries, rows=ROWS_PER_TASK))

    def each_picture(self, work: Callable[[Entries], R], entries: Iterable[ShardEntry]) -> Iterator[R]:
        """The same of shards with pictures."""
        return self._run(work, pieces(entries, size=BYTES_PER_TASK))

    def pick(self, store: Store, folder: str, column: str, rows: Ints) -> Iterator[tuple[int, pa.Scalar]]:
        """A column of some of the images; only shards that hold one of them are read.

        Raises:
            ValueError: an image is not there.
        """
        if not len(rows):
            return
        ids = self.images.ids_of(rows)
        row_of = dict(zip(ids.to_pylist(), rows.tolist(), strict=True))
        entries = self.images.shards_of(rows, entries_of(store, folder))
        for table in self.each_picture(PickRows(store, ids, column), entries):
            for name, value in zip(table["image_id"].to_pylist(), table[column], strict=True):
                if value.is_valid:
                    yield row_of.pop(name), value
        if row_of:
            raise ValueError(f"{store.uri}/{folder} lacks {len(row_of)} images, among them {min(row_of)}")

    def _run(self, work: Callable[[Entries], R], parts: list[Entries]) -> Iterator[R]:
        return in_order(work, parts, pool=self.pool, what="measurement", at_once=RESULTS_AT_ONCE)


def _features(reader: _Reader, scores: Store, rows: Ints) -> RowFeatures:
    """CLIP features of these images."""
    held = np.zeros((0, 0), dtype=np.float32)
    for row, value in reader.pick(scores, SCORES_FOLDER, "clip_feature", rows):
        feature = value.values.to_numpy()
        if not held.size:
            held = np.empty((len(rows), len(feature)), dtype=np.float32)
        held[np.searchsorted(rows, row)] = feature
    return lambda wanted: held[np.searchsorted(rows, wanted)]


def _sides(
    context: StepContext,
    config: Config,
    images: ScoredImages,
    sums: ScoreSums,
    space: LabelSpace,
    *,
    is_generated: bool,
) -> Iterator[Sides]:
    """What the Fréchet distances compare; the sums of a protocol are made when they are asked for."""
    yield Sides("fd_clip", sums.features, clip_sums(context, config))
    if has_inception(config):
        yield train_sides(context, config, images)
        if is_generated:
            yield published_sides(context, config, space.labels)


def _recognised(
    reader: _Reader,
    source: Store,
    folder: str,
    yardstick: Yardstick,
    judged: Judged,
    *,
    is_generated: bool,
) -> PictureCounts | None:
    """What the recogniser finds on every picture, or None without one."""
    if yardstick.recogniser is None or judged.rule is None:
        return None
    config, images = reader.config, reader.images
    work = CountPictures(
        source,
        yardstick.recogniser,
        size_px=config.diffusion.size_px,
        max_pixels=config.data.max_pixels,
        rule=judged.rule,
        space=judged.space,
        is_generated=is_generated,
        left_out=images.left_out,
    )
    counts = PictureCounts(AccuracyCounts(judged.space))
    for part in reader.each_picture(work, entries_of(source, folder)):
        counts = counts.merge(part)
    return counts


def _judge(
    context: StepContext, config: Config, source: Store, folder: str, *, reader: _Reader, is_generated: bool
) -> Moments | None:
    """What both ResNet-50 say of a folder's images, or None when the user has no weights for them."""
    if not has_judges(config.evaluation.weights_dir):
        return None
    actor = partial(
        JudgeActor,
        weights_dir=str(config.evaluation.weights_dir),
        source="generated" if is_generated else "real",
        max_pixels=config.data.max_pixels,
    )
    map_shards(
        source,
        {JUDGES: folder},
        target=context.artefacts,
        actor=actor,
        plan_hash=context.fingerprint,
        pool=pool_of(context, config),
    )
    moments, entries = Moments.empty(1), entries_of(context.artefacts, JUDGES)
    for part in reader.each(SumClarity(context.artefacts, reader.images.left_out), entries):
        moments = moments.merge(part)
    return moments


def _yardstick(config: Config, judged: Judged) -> Yardstick:
    recogniser = load_recogniser(WEIGHTS / "recogniser.safetensors") if config.data.kind == "sketch" else None
    clip, pretrained = config.encoder.clip, config.encoder.clip_pretrained
    is_published = is_published_clip(clip, pretrained=pretrained)
    if has_emotion_judge(config.evaluation.weights_dir) and not is_published:
        logger.warning("%s judges features of OpenAI's ViT-L/14, not of %s: no emo_a", JUDGE_FILE, clip)
    if has_emotion_judge(config.evaluation.weights_dir) and judged.space != MIKELS:
        logger.warning("%s tells EmoSet's eight emotions apart, not these: no emo_a", JUDGE_FILE)
    return Yardstick(
        recogniser=recogniser,
        pairs=config.evaluation.pairs,
        seed=config.seed,
        labels=judged.space.labels,
        published_clip=partial(load_clip, clip, pretrained=pretrained) if is_published else None,
        weights_dir=config.evaluation.weights_dir,
    )


def _public_judge(config: Config) -> EmotionJudge | None:
    folder = config.evaluation.weights_dir
    return EmotionJudge(folder) if has_emotion_judge(folder) else None
