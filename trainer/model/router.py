"""Routers in fp32 with their two auxiliary losses.

Shapes: T tokens, D width, E experts, K experts a token.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from simulator.components import Component
from simulator.specs import MoeFeedForward
from trainer.kernels.router_logits import ROUTER_LOGITS
from trainer.measure.scope import scope

TINY = 1e-20
"""Added to sums of scores that may all be zero (DeepSeek-V3's reference code)."""


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
    """The k experts of the highest scores, which are a softmax over all experts or a sigmoid of each.

    ``uniform``: experts take turns instead. ``selection_bias`` (E,) takes part in the choice alone, and no gradient reaches it.
    """

    selection_bias: Tensor

    def __init__(self, spec: MoeFeedForward, width: int, *, load_balancing: bool, router_z: bool, uniform: bool, logits: str = "fp32") -> None:
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.empty(spec.experts, width))
        self.load_balancing = load_balancing
        self.router_z = router_z
        self.uniform = uniform
        self.logits = ROUTER_LOGITS[logits]
        self.scope_counts: Callable[[Tensor], Tensor] = _as_they_are
        """Counts over the scope of the balancing loss, from those of this rank."""
        if spec.selection_bias:
            self.register_buffer("selection_bias", torch.zeros(spec.experts))

    def forward(self, x_TD: Tensor) -> Routing:
        with scope(Component.ROUTER):
            logits_TE = self.logits(x_TD, self.weight)
            score_TE = logits_TE.softmax(-1) if self.spec.router == "softmax" else logits_TE.sigmoid()
            if not self.router_z:
                del logits_TE
            weight_TK, expert_TK = self._chosen(score_TE)
            if self.spec.normalise_weights:
                weight_TK = normalised(weight_TK, guarded=self.spec.router == "sigmoid" or self.uniform or self.spec.selection_bias)
            if self.spec.weight_scale != 1:
                weight_TK = weight_TK * self.spec.weight_scale
            counts_E = counted(expert_TK, self.spec.experts)
        with scope(Component.AUXILIARY_LOSSES):
            balance = load_balancing_loss(self._probability(score_TE), self.scope_counts(counts_E)) if self.load_balancing else None
            z = router_z_loss(logits_TE) if self.router_z else None
        return Routing(weight_TK, expert_TK, RouterRecord(counts_E, balance, z))

    def _chosen(self, score_TE: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and numbers of the experts of each token, both (T, K)."""
        if self.uniform:
            expert_TK = taking_turns(score_TE.shape[0], self.spec.top_k, self.spec.experts, score_TE.device)
        elif self.spec.selection_bias:
            expert_TK = (score_TE.detach() + self.selection_bias).topk(self.spec.top_k).indices
        else:
            return score_TE.topk(self.spec.top_k)
        return score_TE.gather(-1, expert_TK), expert_TK

    def _probability(self, score_TE: Tensor) -> Tensor:
        """Scores that add up to one for each token (DeepSeek-V3, arXiv 2412.19437, eq. 19): the balancing loss has no minimum in others."""
        return score_TE if self.spec.router == "softmax" else normalised(score_TE, guarded=True)


def counted(expert_TK: Tensor, experts: int) -> Tensor:
    """Choices of each expert, (E,) int64. On CUDA by comparison, since ``bincount`` makes the host wait."""
    if expert_TK.is_cuda or torch.compiler.is_compiling():
        return (expert_TK.flatten()[:, None] == torch.arange(experts, device=expert_TK.device)).sum(0)
    return expert_TK.flatten().bincount(minlength=experts)


def _as_they_are(counts_E: Tensor) -> Tensor:
    return counts_E


def normalised(score_NM: Tensor, *, guarded: bool) -> Tensor:
    """Each row over its sum; ``guarded`` where a sum may be zero."""
    total_N1 = score_NM.sum(-1, keepdim=True)
    return score_NM / (total_N1.add_(TINY) if guarded else total_N1)


def taking_turns(tokens: int, top_k: int, experts: int, device: torch.device) -> Tensor:
    """Experts dealt in turn, (T, K): no token gets one twice, and loads differ by one row at most."""
    return torch.arange(tokens * top_k, device=device).remainder_(experts).view(tokens, top_k)


def load_balancing_loss(probability_TE: Tensor, counts_E: Tensor) -> Tensor:
    """E times the dot product of the shares of choices and the mean probabilities (arXiv 2101.03961 eq. 4): 1 when balanced."""
    share_E = (counts_E / counts_E.sum()).to(probability_TE.dtype)
    return torch.dot(share_E, probability_TE.mean(0)) * counts_E.numel()


def router_z_loss(logits_TE: Tensor) -> Tensor:
    """Mean square of the log of the softmax's denominator (arXiv 2202.08906 eq. 5)."""
    return logits_TE.logsumexp(-1).square().mean()


def update_selection_biases(model: nn.Module, counts_LE: list[Tensor], rate: float) -> None:
    """Move the bias of each expert by ``rate``: up where it got fewer tokens than the mean of its layer, down where it got more.

    ``counts_LE``: tokens of each expert in all micro-batches of the step, of all ranks, by MoE layer. (arXiv 2408.15664, algorithm 1)
    """
    routers = [module for module in model.modules() if isinstance(module, Router)]
    with torch.no_grad(), scope(Component.ROUTER):
        for router, counts_E in zip(routers, counts_LE, strict=True):
            if router.spec.selection_bias:
                _move(router.selection_bias, counts_E.float(), rate)


def _move(bias_E: Tensor, counts_E: Tensor, rate: float) -> None:
    bias_E.add_((counts_E.mean() - counts_E).sign_(), alpha=rate)
