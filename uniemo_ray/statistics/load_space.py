"""Reading the file of an emotion space, of whatever kind."""

from collections.abc import Sequence
from pathlib import Path

from uniemo_ray.emotions import EMOTIONS
from uniemo_ray.statistics.emotion_space import GAUSSIAN, EmotionSpace, read_space_file
from uniemo_ray.statistics.gaussian_space import GaussianSpace
from uniemo_ray.statistics.mixture_space import MIXTURE, MixtureSpace
from uniemo_ray.statistics.neighbour_space import NEIGHBOURS, NeighbourSpace

_KINDS: dict[str, type[GaussianSpace] | type[MixtureSpace] | type[NeighbourSpace]] = {
    GAUSSIAN: GaussianSpace,
    MIXTURE: MixtureSpace,
    NEIGHBOURS: NeighbourSpace,
}


def load_space(path: str | Path, labels: Sequence[str] = EMOTIONS) -> EmotionSpace:
    """Read what an emotion space has saved.

    Raises:
        ValueError: when the file is missing, no emotion space, damaged, of an unknown kind, or of other
            emotions than `labels`.
    """
    file = read_space_file(path, labels)
    if file.kind not in _KINDS:
        raise ValueError(
            f"{path} is an emotion space of kind {file.kind!r}, which this version does not know: "
            f"expected one of {', '.join(_KINDS)}"
        )
    try:
        return _KINDS[file.kind].read(file, labels)
    except (KeyError, ValueError) as error:
        raise ValueError(f"emotion space {path} is damaged ({error!r}): save the model again") from None
