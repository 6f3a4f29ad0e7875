"""What is checked before a job of baselines starts: one clear line instead of a failure an hour later."""

from uniemo_ray.baselines.generation.checks import check_baseline
from uniemo_ray.config import Config
from uniemo_ray.loop.preflight import check_clip, check_data, check_picture_size, check_published
from uniemo_ray.models.pipeline_folder import configured_pipeline


def check_generation_baselines(config: Config, *, with_data: bool = True) -> None:
    """Check data set, CLIP, diffusion models, published weights and what each baseline asks for.

    Args:
        config: of the run.
        with_data: whether the data folder will be read; it need not be there when all of it was ingested.

    Raises:
        ValueError: one line that names the setting and what is wrong.
    """
    if with_data:
        check_data(config.data)
    check_clip(config.encoder)
    configured_pipeline(config.diffusion)
    check_picture_size(config)
    for name in config.generation_baselines.run:
        check_baseline(name, config)
    if config.evaluation.weights_dir:
        check_published(config.evaluation.weights_dir)
