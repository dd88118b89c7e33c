"""Loss on held-out text.

Shapes: B batch, S sequence, N windows, L MoE layers, E experts.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.data import Batch
    from trainer.model import MoETransformer


@dataclass(frozen=True)
class Validation:
    """What one pass over held-out windows found: the language-model loss alone, without auxiliary terms."""

    loss_nats_per_token: float
    standard_error_nats_per_token: float | None
    """Of the mean over windows, taken as independent (neighbours of one document are not quite); None for a single window."""
    tokens: int
    counts_LE: tuple[tuple[int, ...], ...]
    """Tokens of each expert of each MoE layer."""

    @property
    def expert_load_entropy_nats(self) -> float | None:
        """Entropy of the experts' shares, mean over the MoE layers: ln E when the load is even. None without experts."""
        if not self.counts_LE:
            return None
        return sum(map(_entropy_nats, self.counts_LE)) / len(self.counts_LE)


def evaluate(model: "MoETransformer", batches: "Iterable[Batch]") -> Validation:
    """Mean loss over ``batches`` of windows of one length. Raises ValueError when there is no batch."""
    import torch

    losses: list[torch.Tensor] = []
    counts_LE: list[torch.Tensor] = []
    tokens = 0
    with torch.no_grad():
        for inputs_BS, labels_BS in batches:
            losses_BS, counts = model.token_losses(inputs_BS, labels_BS)
            losses.append(losses_BS.double().mean(1))
            counts_LE = [sum_E + counts_E for sum_E, counts_E in zip(counts_LE, counts, strict=True)] if counts_LE else counts
            tokens += labels_BS.numel()
    if not losses:
        raise ValueError("evaluation needs at least one batch")
    losses_N = torch.cat(losses)
    windows = len(losses_N)
    return Validation(
        loss_nats_per_token=losses_N.mean().item(),
        standard_error_nats_per_token=losses_N.std().item() / math.sqrt(windows) if windows > 1 else None,
        tokens=tokens,
        counts_LE=tuple(tuple(counts_E.tolist()) for counts_E in counts_LE),
    )


def _entropy_nats(counts_E: tuple[int, ...]) -> float:
    total = sum(counts_E)
    return -sum(count / total * math.log(count / total) for count in counts_E if count)
