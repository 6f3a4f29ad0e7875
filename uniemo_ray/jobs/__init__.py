"""The jobs, one module each: `uniemo submit NAME`, or `python -m uniemo_ray.jobs.NAME`."""

import os

from uniemo_ray.distributed.logs import FORWARDING

# Ray reads these when it is imported, and the modules of this package import it.
for _name, _value in FORWARDING.items():
    os.environ.setdefault(_name, _value)
