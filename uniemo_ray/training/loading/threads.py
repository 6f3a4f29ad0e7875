"""How many threads of a worker decode."""


def decoding_threads(cpus: int, *, has_gpu: bool) -> int:
    """Threads that decode beside the one that trains: what its CPUs allow.

    On a single CPU without a GPU there are none: a second thread costs a step 7 %.
    """
    return max(1, cpus - 1) if cpus > 1 or has_gpu else 0
