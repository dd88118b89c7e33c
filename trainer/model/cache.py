"""Keys and values of earlier positions, kept while generating.

Shapes: B batch, P positions seen, G key-value heads, C head width.
"""

import torch
from torch import Tensor


class KVCache:
    """One (keys, values) pair a layer, each (B, P, G, C), growing with every call of the model."""

    def __init__(self, layers: int) -> None:
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    @property
    def positions(self) -> int:
        """Positions held by the last layer that this rank has: those that the whole model has seen."""
        return next((keys.shape[1] for keys in reversed(self._keys) if keys is not None), 0)

    def extend(self, layer: int, keys_BSGC: Tensor, values_BSGC: Tensor) -> tuple[Tensor, Tensor]:
        """Append new positions of one layer; return all of them."""
        keys, values = self._keys[layer], self._values[layer]
        if keys is not None and values is not None:
            keys_BSGC = torch.cat([keys, keys_BSGC], dim=1)
            values_BSGC = torch.cat([values, values_BSGC], dim=1)
        self._keys[layer], self._values[layer] = keys_BSGC, values_BSGC
        return keys_BSGC, values_BSGC
