"""One pass over held-out text that keeps what the analyses need.

Shapes: N windows, S sequence length, Q a quarter of it, L MoE layers, E experts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from trainer.data import Batches
    from trainer.model.transformer import MoETransformer


@dataclass(frozen=True)
class HeldOut:
    """Loss of every token of the first windows of the validation data, and the tokens that each expert got."""

    losses_NS: np.ndarray
    """Nats, without auxiliary terms."""
    shortened_NQ: np.ndarray
    """The last quarter's tokens again, with the first quarter of their window hidden: each sees a quarter of a window less."""
    counts_LE: tuple[tuple[int, ...], ...]


def read_held_out(model: "MoETransformer", batches: "Batches", micro_batch: int, limit_tokens: int | None) -> HeldOut:
    """Run ``model`` over the windows of ``batches`` from the first on; at most ``limit_tokens``, rounded up to a window."""
    import torch

    losses: list[np.ndarray] = []
    shortened: list[np.ndarray] = []
    quarter = batches.sequence_length // 4
    counts_LE: list[torch.Tensor] = []
    with torch.inference_mode():
        for inputs_BS, labels_BS in batches.in_sequence(micro_batch, limit_tokens, str(model.embedding.device)):
            losses_BS, counts = model.token_losses(inputs_BS, labels_BS)
            losses.append(losses_BS.double().cpu().numpy())
            later_BS, _ = model.token_losses(inputs_BS[:, quarter:], labels_BS[:, quarter:])
            shortened.append(later_BS[:, batches.sequence_length - 2 * quarter :].double().cpu().numpy())
            counts_LE = [total_E + counts_E for total_E, counts_E in zip(counts_LE, counts, strict=True)] if counts_LE else counts
    return HeldOut(np.concatenate(losses), np.concatenate(shortened), tuple(tuple(counts_E.tolist()) for counts_E in counts_LE))
