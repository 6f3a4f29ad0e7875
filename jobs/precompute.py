"""What no training changes, computed once: canonical shards, text embeddings, CLIP features, VAE latents.

The job itself is `uniemo_ray.jobs.precompute`.
"""

from uniemo_ray.jobs.command_line import execute
from uniemo_ray.jobs.precompute import main

if __name__ == "__main__":
    execute(main)
