"""A model folder copied inside storage."""

from uniemo_ray.inference.checksums import CHECKSUMS, check_replaceable
from uniemo_ray.inference.model_folder import CARD
from uniemo_ray.inference.provenance import sha256_hex
from uniemo_ray.store.base import Store


def copy_model_folder(store: Store, source: str, target: str, *, card: str) -> None:
    """Copy a model folder inside storage, without loading it or bringing it to this machine.

    Args:
        store: holds both folders.
        source: key of the model folder.
        target: key of the copy; an older model there is replaced.
        card: text of the copy's README.md.

    Raises:
        ValueError: when `target` holds something that is no model folder.
    """
    old, new = store.sub(source), store.sub(target)
    check_replaceable(new)
    sums = old.read_json(CHECKSUMS) | {CARD: sha256_hex(card.encode())}
    new.write_json(CHECKSUMS, dict(sorted(sums.items())))  # first: a part of a model never loads as one
    new.write_bytes(CARD, card.encode())
    for name in old.iterate():
        if name not in (CHECKSUMS, CARD):
            store.copy(f"{source}/{name}", f"{target}/{name}")
    for name in set(new.list()) - {*sums, CHECKSUMS}:
        new.delete(name)
