"""Softmax router in fp32 with its two auxiliary losses.

Shapes: T tokens, D width, E experts, K experts a token.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import MoeFeedForward
from trainer.measure.scope import scope


class RouterRecord(NamedTuple):
    """What outlives the layer: tokens of each expert and the two auxiliary losses, where they are asked for."""

    counts_E: Tensor
    load_balancing: Tensor | None
    router_z: Tensor | None


class Routing(NamedTuple):
    """Where each token goes, and with what weight."""

    weight_TK: Tensor
    expert_TK: Tensor
    record: RouterRecord


class Router(nn.Module):
    """Top-k of a softmax over all experts."""

    def __init__(self, spec: MoeFeedForward, width: int, *, load_balancing: bool, router_z: bool) -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.experts, width))
        self.load_balancing = load_balancing
        self.router_z = router_z

    def forward(self, x_TD: Tensor) -> Routing:
        with scope(Component.ROUTER):
            logits_TE = F.linear(x_TD.float(), self.weight.float())
            probability_TE = logits_TE.softmax(-1)
            if not self.router_z:
                del logits_TE
            weight_TK, expert_TK = probability_TE.topk(self.spec.top_k)
            if self.spec.normalise_weights:
                weight_TK = weight_TK / weight_TK.sum(-1, keepdim=True)
            counts_E = expert_TK.flatten().bincount(minlength=self.spec.experts)
        with scope(Component.AUXILIARY_LOSSES):
            balance = load_balancing_loss(probability_TE, counts_E) if self.load_balancing else None
            z = router_z_loss(logits_TE) if self.router_z else None
        return Routing(weight_TK, expert_TK, RouterRecord(counts_E, balance, z))


def load_balancing_loss(probability_TE: Tensor, counts_E: Tensor) -> Tensor:
    """E times the dot product of the shares of choices and the mean probabilities (arXiv 2101.03961 eq. 4): 1 when balanced."""
    share_E = counts_E / counts_E.sum()
    return torch.dot(share_E, probability_TE.mean(0)) * counts_E.numel()


def router_z_loss(logits_TE: Tensor) -> Tensor:
    """Mean square of the log of the softmax's denominator (arXiv 2202.08906 eq. 5)."""
    return logits_TE.logsumexp(-1).square().mean()
