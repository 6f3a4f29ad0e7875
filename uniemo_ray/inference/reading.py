"""What `understand` computes of a batch, as one module that can be frozen into one graph."""

# B batch, C emotions, S scenes, O objects, E joint embedding width

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uniemo_ray.models.attributes import AttributeBase
from uniemo_ray.models.uniemo import UniEmoNet


class Reading(NamedTuple):
    """What the net reads in a batch; names best first."""

    probabilities: Tensor
    """(B, C) float64."""
    scene_scores: Tensor
    """(B, S) softmax over the names at the temperature of training; (B, 0) without queries or names."""
    scene_index: Tensor
    """(B, S) into the scene base."""
    object_scores: Tensor
    """(B, O) likewise."""
    object_index: Tensor
    """(B, O) into the object base."""


class Reader(nn.Module):
    """Normalised pixels (B, 3, H, W) to the fields of a `Reading`."""

    def __init__(self, net: UniEmoNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixels: Tensor) -> Reading:
        """Read a batch."""
        seen, temperatures = self.net.understand(pixels), self.net.temperatures()
        return Reading(
            seen.logits.double().softmax(dim=1),
            *_ranked(self.net.scenes, seen.scene_embedding, temperatures.scene, seen.logits),
            *_ranked(self.net.objects, seen.object_embedding, temperatures.object, seen.logits),
        )


def freeze(reader: Reader, pixels: Tensor) -> nn.Module:
    """Freeze a reader's computation for pixels of one shape and device into a graph without Python.

    Between the operators of a module Python runs, which costs a small model a third of its time, and as
    much again when other threads of the process want the interpreter. TorchScript is the form of a graph
    that needs no compiler where it runs; it shares the weights.

    Args:
        reader: in evaluation mode.
        pixels: an example.
    """
    with warnings.catch_warnings():
        # shapes may become constants; what is to succeed TorchScript needs a compiler, or runs Python
        warnings.simplefilter("ignore")
        with torch.no_grad():
            graph: nn.Module = torch.jit.freeze(torch.jit.trace(reader, pixels, check_trace=False))
            for _ in range(3):  # it rewrites itself in its first calls
                graph(pixels)
    return graph


def _ranked(
    base: AttributeBase, query: Tensor | None, temperature: Tensor | float, logits: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores and indices of all names for each query (B, E), best first."""
    if query is None or not base.names:
        nothing = logits.new_zeros(len(logits), 0)
        return nothing, nothing.long()
    scores = (query.float() @ base.embeddings.T / temperature).softmax(dim=1)
    ranked = scores.sort(dim=1, descending=True, stable=True)
    return ranked.values, ranked.indices
