"""What no training changes, computed once: canonical shards, text embeddings, CLIP features, VAE latents.

    ray job submit --working-dir . -- python -m uniemo_ray.jobs.precompute --config my.yaml
    uniemo submit precompute -- --config my.yaml --set run=RUN

Submitting again continues. The feedback loop on the same run folder with the same settings finds these steps
finished. With `diffusion.target: crop` the VAE sees a random crop, so there are no latents to compute.
"""

from uniemo_ray.jobs.command_line import execute, read_arguments
from uniemo_ray.loop.ingested import is_ingested
from uniemo_ray.loop.preflight import check_inputs
from uniemo_ray.loop.run_steps import open_pipeline
from uniemo_ray.loop.step_tables import precompute_steps


def main() -> None:
    """Check, run the steps, say what they made."""
    config = read_arguments(__doc__)
    check_inputs(config, with_data=not is_ingested(config))
    with open_pipeline(config, precompute_steps(config)) as (_, pipeline):
        results = pipeline.run()
    for result in results:
        print(f"{result.record.name}: {dict(result.record.outputs)}")


if __name__ == "__main__":
    execute(main)
