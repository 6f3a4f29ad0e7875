"""What Ray Train calls in every worker; light, because Ray's controller imports it too."""

from uniemo_ray.distributed.training.work import Work


def run_worker(values: dict[str, Work]) -> None:
    """Train this rank's share of a stage; the train function of Ray's `TorchTrainer`.

    Args:
        values: The work under the name `work`: Ray Train hands over a dictionary.
    """
    from uniemo_ray.distributed.training.rank import train_rank  # seconds of imports, for ranks alone

    train_rank(values["work"])
