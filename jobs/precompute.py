"""What no training changes, computed once: canonical shards, text embeddings, CLIP features, VAE latents.

    ray job submit --working-dir . -- python jobs/precompute.py --config my.yaml
    uniemo submit jobs/precompute.py -- --config my.yaml --set run=RUN

Submitting again continues. The feedback loop on the same run folder with the same settings finds these steps
finished. With `diffusion.target: crop` the VAE sees a random crop, so there are no latents to compute.
"""

import ray

from uniemo_ray.distributed.feedback_loop import declare_precomputed
from uniemo_ray.distributed.logs import quiet_ray
from uniemo_ray.distributed.preflight import check_inputs
from uniemo_ray.job import execute, locate, read_arguments
from uniemo_ray.store.run import RunFolder
from uniemo_ray.store.steps import Pipeline


def main() -> None:
    """Check, run the steps, say what they made."""
    config = read_arguments(__doc__)
    check_inputs(config)
    run = RunFolder.open(locate(config.run), config)
    pipeline = Pipeline(run)
    declare_precomputed(pipeline, config)
    ray.init()
    quiet_ray()
    with run.locked():
        results = pipeline.run()
    for result in results:
        print(f"{result.record.name}: {dict(result.record.outputs)}")


if __name__ == "__main__":
    execute(main)
