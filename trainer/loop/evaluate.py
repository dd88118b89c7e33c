"""Loss on held-out text.

Shapes: B batch, S sequence, N windows, L MoE layers, E experts.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.data import Batch
    from trainer.model import MoETransformer
    from trainer.parallel.parallelize import Parallel


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


def evaluate(model: "MoETransformer", batches: "Iterable[Batch]", parallel: "Parallel | None" = None) -> Validation:
    """Mean loss over ``batches`` of windows of one length, which the ranks share out. Raises ValueError when there is no batch."""
    import torch

    losses: list[torch.Tensor] = []
    counts_LE: list[torch.Tensor] = []
    tokens = 0
    with torch.no_grad():
        for (inputs_BS, labels_BS), counted in _shared_out(batches, parallel):
            losses_BS, counts = model.token_losses(inputs_BS, labels_BS)
            tokens += labels_BS.numel() if counted else 0
            losses.append(losses_BS.double().mean(1)[: None if counted else 0])
            counts = [counts_E * counted for counts_E in counts]
            counts_LE = [sum_E + counts_E for sum_E, counts_E in zip(counts_LE, counts, strict=True)] if counts_LE else counts
    if not losses:
        raise ValueError("evaluation needs at least one batch")
    losses_N = torch.cat(losses)
    if parallel is not None:
        losses_N, counts_LE, tokens = parallel.gathered_losses(losses_N), parallel.summed_counts(counts_LE), parallel.summed_over_data(tokens)
    windows = len(losses_N)
    return Validation(
        loss_nats_per_token=losses_N.mean().item(),
        standard_error_nats_per_token=losses_N.std().item() / math.sqrt(windows) if windows > 1 else None,
        tokens=tokens,
        counts_LE=tuple(tuple(counts_E.tolist()) for counts_E in counts_LE),
    )


def _shared_out(batches: "Iterable[Batch]", parallel: "Parallel | None") -> "Iterator[tuple[Batch, bool]]":
    """This rank's batches in turn, and whether each counts: the last round may lack some, and a rank without one runs another's."""
    if parallel is None:
        yield from ((batch, True) for batch in batches)
        return
    world, waiting = parallel.world, iter(batches)
    while turn := list(islice(waiting, world.plan.dp)):
        counted = world.data_rank < len(turn)
        yield turn[world.data_rank if counted else 0], counted


def _entropy_nats(counts_E: tuple[int, ...]) -> float:
    total = sum(counts_E)
    return -sum(count / total * math.log(count / total) for count in counts_E if count)
