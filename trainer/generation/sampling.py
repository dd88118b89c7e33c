"""From logits to one token.

Shapes: V vocabulary.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn: softmax(logits / temperature), cut to the ``top_k`` likeliest and then to the nucleus of ``top_p``.

    Temperature 0 takes the likeliest token. The nucleus is the smallest set of the likeliest tokens whose probabilities add up to at
    least ``top_p`` (Holtzman et al. 2020, arXiv 1904.09751, section 3.1). Raises ConfigurationError for values that are not legal.
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ConfigurationError(f"--temperature: must be 0 or more and finite, got {self.temperature:g}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigurationError(f"--top-k: must be 1 or more, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ConfigurationError(f"--top-p: must be above 0 and at most 1, got {self.top_p:g}")
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"--seed: must be 0 or more and below 2^63, got {self.seed}")


DEFAULT_SAMPLING = Sampling()


def probabilities(logits_V: "Tensor", sampling: Sampling) -> "Tensor":
    """Probabilities (V) in fp64 that a token is drawn from; those cut off have 0. For temperatures above 0."""
    import torch

    logits_V = logits_V.double()
    # Relative to the largest, so that no temperature overflows.
    scaled_V = (logits_V - logits_V.max()) / sampling.temperature
    order_V = scaled_V.argsort(descending=True, stable=True)
    sorted_V = scaled_V[order_V].softmax(-1)
    if sampling.top_k is not None:
        sorted_V[sampling.top_k :] = 0
        sorted_V /= sorted_V.sum()
    # At top_p 1 nothing is cut, though the sums reach 1 early by rounding.
    if sampling.top_p < 1:
        sorted_V[sorted_V.cumsum(0) - sorted_V >= sampling.top_p] = 0
        sorted_V /= sorted_V.sum()
    return torch.zeros_like(sorted_V).scatter(0, order_V, sorted_V)


def draw(logits_V: "Tensor", sampling: Sampling, generator: "torch.Generator") -> int:
    """One token id. ``generator`` is on the CPU, so that every device draws alike."""
    import torch

    logits_V = logits_V.cpu()
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    return int(torch.multinomial(probabilities(logits_V, sampling), 1, generator=generator))
