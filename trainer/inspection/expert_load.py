"""How tokens spread over the experts of each layer."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from simulator.specs import ModelSpec, MoeFeedForward
from trainer.inspection.held_out import HeldOut


@dataclass(frozen=True)
class LayerLoad:
    """Load of one MoE layer. A token that goes to k experts counts in each of them."""

    layer: int
    """Decoder block, from 0."""
    top_k: int
    counts: tuple[int, ...]
    """Tokens of each expert."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of all choices that fell on each expert: 1 / experts when even."""
        return tuple(count / sum(self.counts) for count in self.counts)

    @property
    def max_over_mean(self) -> float:
        """Load of the busiest expert over the mean: what expert parallelism waits for."""
        return max(self.shares) * len(self.counts)

    @property
    def entropy_nats(self) -> float:
        """Entropy of the shares: ln experts when even, 0 when one expert gets every token."""
        return -sum(share * math.log(share) for share in self.shares if share)

    @property
    def dead(self) -> tuple[int, ...]:
        """Experts that no token went to."""
        return tuple(expert for expert, count in enumerate(self.counts) if count == 0)

    def as_dict(self) -> dict[str, Any]:
        """Plain content for JSON."""
        return {
            "layer": self.layer,
            "experts": len(self.counts),
            "top_k": self.top_k,
            "shares": list(self.shares),
            "max_over_mean": self.max_over_mean,
            "entropy_nats": self.entropy_nats,
            "even_entropy_nats": math.log(len(self.counts)),
            "dead": list(self.dead),
        }


def expert_load(model: ModelSpec, held_out: HeldOut) -> tuple[LayerLoad, ...]:
    """Load of every MoE layer, in order; empty for a dense model."""
    return tuple(LayerLoad(layer, top_k, counts) for (layer, top_k), counts in zip(_moe_layers(model), held_out.counts_LE, strict=True))


def _moe_layers(model: ModelSpec) -> Iterator[tuple[int, int]]:
    layer = 0
    for group in model.blocks:
        for _ in range(group.count):
            if isinstance(group.feed_forward, MoeFeedForward):
                yield layer, group.feed_forward.top_k
            layer += 1
