"""The offline checks of `cluster/`: `cluster/check.py` and `make cluster-check`."""
