"""The jobs, one module each: `uniemo submit NAME`, or `python -m uniemo_ray.jobs.NAME`."""
