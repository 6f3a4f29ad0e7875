"""Check everything in cluster/ without a cloud, without Docker and without a Kubernetes cluster.

python cluster/check.py --schemas DIR
"""

import sys

from tools.cluster_check.command import main

if __name__ == "__main__":
    sys.exit(main())
