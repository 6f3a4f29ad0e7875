"""`python -m uniemo_ray.head`."""

import sys

from uniemo_ray.head.command import main

sys.exit(main())
