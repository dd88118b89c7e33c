"""Windows of the token stream, their order, and batches.

Shapes: N windows, B sequences of a batch, S sequence length.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from configuration.errors import ConfigurationError

if TYPE_CHECKING:
    import torch


Batch = tuple["torch.Tensor", "torch.Tensor"]
"""inputs_BS, labels_BS: token ids as two contiguous int64 tensors; the label of a position is the token that follows it."""


@dataclass(frozen=True)
class Batches:
    """Cuts a token stream into windows and serves them in an order that follows from the seed and the step number alone.

    Documents are packed: the stream is cut every ``sequence_length`` tokens wherever a document ends. A window has one token more, which
    the next window begins with, so that every token but the first is predicted once an epoch. Raises ConfigurationError when the stream
    does not fill one window.
    """

    tokens: np.ndarray
    sequence_length: int
    seed: int = 0
    name: str = field(default="training", kw_only=True)

    def __post_init__(self) -> None:
        if self.windows == 0:
            raise ConfigurationError(
                f"plan.sequence: the {self.name} data has {len(self.tokens):,} tokens, fewer than one window of {self.sequence_length:,} and its last label"
            )

    @property
    def windows(self) -> int:
        """Number of whole windows in the stream."""
        return (len(self.tokens) - 1) // self.sequence_length

    def order(self, step: int, sequences: int) -> np.ndarray:
        """Indices of the windows of a training step (from 0) that takes ``sequences``: a fresh permutation every epoch."""
        positions = np.arange(step * sequences, (step + 1) * sequences)
        epochs, offsets = np.divmod(positions, self.windows)
        return np.array([_permutation(self.seed, int(epoch), self.windows)[offset] for epoch, offset in zip(epochs, offsets, strict=True)])

    def at(self, windows_B: np.ndarray, device: str = "cpu") -> Batch:
        """The windows with these indices."""
        import torch

        starts_B = np.asarray(windows_B, dtype=np.int64)[:, None] * self.sequence_length
        window_BS1 = torch.from_numpy(self.tokens[starts_B + np.arange(self.sequence_length + 1)].astype(np.int64))
        # Copies even where a view would do (one window): two storages, whatever the micro-batch.
        inputs_BS, labels_BS = (part.clone(memory_format=torch.contiguous_format) for part in (window_BS1[:, :-1], window_BS1[:, 1:]))
        return inputs_BS.to(device), labels_BS.to(device)

    def micro_batches(self, step: int, sequences: int, micro_batch: int, device: str = "cpu", *, part: int = 0, parts: int = 1) -> Iterator[Batch]:
        """The batches of a training step of ``sequences``, ``micro_batch`` at a time; made when they are asked for.

        They are dealt to ``parts`` ranks in turn; ``part`` takes its own.
        """
        order = self.order(step, sequences)
        for start in range(part * micro_batch, sequences, parts * micro_batch):
            yield self.at(order[start : start + micro_batch], device)

    def in_sequence(self, micro_batch: int, limit_tokens: int | None = None, device: str = "cpu") -> Iterator[Batch]:
        """Windows from the beginning of the stream, once; at most ``limit_tokens``, rounded up to a window."""
        count = self.windows if limit_tokens is None else min(self.windows, -(-limit_tokens // self.sequence_length))
        for start in range(0, count, micro_batch):
            yield self.at(np.arange(start, min(start + micro_batch, count)), device)


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, windows: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(windows)
