"""uniemo_ray: UniEmo (arXiv 2507.23372) as a distributed system on Ray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uniemo_ray.inference.uniemo import UniEmo

__version__ = "0.1.0"
__all__ = ["UniEmo", "__version__"]


def __getattr__(name: str) -> Any:
    """Import torch only when the model class is asked for, so that `--help` stays instant."""
    if name == "UniEmo":
        return import_module("uniemo_ray.inference.uniemo").UniEmo
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
